"""HMAC over parts of the request: what most ESPs that sign at all do, each in its own spelling."""

import base64
import binascii
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from string import Formatter
from typing import Any

import orjson

from webhook_app.auth import AuthenticationError, CannotVerify, WebhookRequest, matches_any
from webhook_app.auth.reading import TimeForm, check_age, header, parse_form, seconds


class Place(StrEnum):
    """Where a request carries one of the values a signature needs."""

    HEADER = "header"
    #: A field of a url-encoded form.
    FORM = "form"
    #: Names of nested objects in a JSON body, joined by dots.
    JSON = "json"


class Encoding(StrEnum):
    #: In lower case: a signature has one spelling.
    HEX = "hex"
    BASE64 = "base64"


class Digest(StrEnum):
    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


#: More signatures than a rotation of secrets needs.
MAX_SIGNATURES = 16

#: What a template of signed content may name.
PARTS = frozenset({"id", "timestamp", "token", "method", "url", "body", "form"})


#: A part that is signed → our reason where it is absent.
MISSING = {"id": "id_missing", "timestamp": "timestamp_missing", "token": "token_missing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSource:
    """One place in a request, written `header:X-Signature`, `form:signature` or `json:signature.token`.

    `header:X-Signature#v1` is what stands behind `v1=` in a header like `t=1767607200,v1=…,v1=…`.
    """

    place: Place
    name: str
    #: Name of the part of a header; empty for the whole of it.
    part: str = ""

    @classmethod
    def parse(cls, text: str) -> "ValueSource":
        """Raises `ValueError` for an unknown place, or none."""
        place, _, name = text.partition(":")
        part = ""
        if place == Place.HEADER and "#" in name:
            name, _, part = name.partition("#")
            if not part:
                raise ValueError("names no part")
        if not name:
            raise ValueError("names no field")
        return cls(place=Place(place), name=name, part=part)


class RequestReader:
    """A request's values; the body is parsed at most once, and only where a scheme looks into it."""

    def __init__(self, request: WebhookRequest) -> None:
        self.request = request

    @cached_property
    def form(self) -> list[tuple[bytes, bytes]]:
        try:
            fields = self.request.parsed(parse_form)
        except ValueError:
            raise AuthenticationError("form_malformed") from None
        return [(_bytes(name), _bytes(value)) for name, value in fields]

    @cached_property
    def json(self) -> Any:
        try:
            return self.request.parsed(orjson.loads)
        except ValueError:
            return self.request.parsed(_load_leniently)

    def find(self, sources: Sequence[ValueSource]) -> bytes:
        """The bytes of the first value that is there, empty where none is."""
        return next(iter(self.find_all(sources)), b"")

    def find_all(self, sources: Sequence[ValueSource]) -> list[bytes]:
        """The values at the first source that has any. Only a header's part may have several."""
        found = (self._values(source) for source in sources)
        return next((values for values in found if values), [])

    def _values(self, source: ValueSource) -> list[bytes]:
        if source.part:
            return _parts(header(self.request, source.name), source.part.encode())
        value = self._value(source)
        return [value] if value else []

    def _value(self, source: ValueSource) -> bytes:
        if source.place is Place.HEADER:
            return header(self.request, source.name)
        if source.place is Place.FORM:
            return dict(self.form).get(_bytes(source.name), b"")
        value = self.json
        for step in source.name.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return _bytes(value) if isinstance(value, str) else b""

    def part(self, name: str) -> bytes:
        """What a template names. Raises `CannotVerify` where it is the URL and `PUBLIC_URL` is not set."""
        if name == "body":
            return self.request.body
        if name == "method":
            return self.request.method.encode()
        if name == "form":
            return b"".join(key + value for key, value in sorted(self.form))
        if self.request.url is None:
            # The registry refuses to start without PUBLIC_URL; were it missing all the same, a guess lets nobody in.
            raise CannotVerify("public_url_unset")
        return _bytes(self.request.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hmac:
    """Authentic when any live secret made the signature over the content that `template` describes.

    The template is text with `{id}`, `{timestamp}`, `{token}`, `{method}`, `{url}`, `{body}` and `{form}` (a
    form's fields sorted by name, each name followed by its value). `tolerance` (seconds) bounds the age of the
    timestamp, where there is one. The token is returned: a scheme that has one does not sign the body.
    A value may stand in one of several places; the first that has it counts.
    """

    secrets: tuple[bytes, ...] = field(repr=False)
    signature: tuple[ValueSource, ...]
    template: str = "{body}"
    digest: Digest = Digest.SHA256
    encoding: Encoding = Encoding.HEX
    #: Stands before the signature, like `sha256=`.
    prefix: str = ""
    id: tuple[ValueSource, ...] = ()
    timestamp: tuple[ValueSource, ...] = ()
    time_form: TimeForm = TimeForm.UNIX
    token: tuple[ValueSource, ...] = ()
    #: Places that must hold the same, as far as they hold anything.
    same: tuple[ValueSource, ...] = ()
    tolerance: float
    clock: Callable[[], float] = time.time

    def verify(self, request: WebhookRequest) -> bytes | None:
        reader = RequestReader(request)
        given = reader.find_all(self.signature)[:MAX_SIGNATURES]
        if not given:
            raise AuthenticationError("signature_missing")
        values = self._values(reader)
        signed = self.content(reader, values)
        # The encoded texts are compared: a malformed signature is simply not equal to a right one.
        expected = [self.sign(signed, secret) for secret in self.secrets]
        if not any(matches_any(each, expected) for each in given):
            raise AuthenticationError("signature_invalid")
        if len(set(filter(None, (reader.find((source,)) for source in self.same)))) > 1:
            raise AuthenticationError("ids_differ")
        if "timestamp" in values:
            check_age(seconds(values["timestamp"], self.time_form), now=self.clock(), tolerance=self.tolerance)
        return values.get("token")

    def content(self, reader: RequestReader, values: Mapping[str, bytes]) -> bytes:
        """What is signed."""
        parts = []
        for literal, name, _, _ in Formatter().parse(self.template):
            parts.append(literal.encode())
            if name is not None:
                parts.append(values[name] if name in values else reader.part(name))
        return b"".join(parts)

    def sign(self, signed: bytes, secret: bytes) -> bytes:
        """The signature as it stands in the request."""
        digest = hmac.digest(secret, signed, self.digest.value)
        encoded = binascii.hexlify(digest) if self.encoding is Encoding.HEX else base64.b64encode(digest)
        return self.prefix.encode() + encoded

    def _values(self, reader: RequestReader) -> dict[str, bytes]:
        sources = {"id": self.id, "timestamp": self.timestamp, "token": self.token}
        values = {name: reader.find(source) for name, source in sources.items() if source}
        for name, value in values.items():
            if not value:
                raise AuthenticationError(MISSING[name])
        return values


def _load_leniently(body: bytes) -> Any:
    """JSON with a wrong byte, a lone surrogate or a raw control character somewhere; None for what is none at all.

    What is signed stands elsewhere in the body, and whoever reads its events reads them as leniently.
    """
    try:
        return json.loads(body.decode("utf-8", "surrogateescape"), strict=False)
    except (ValueError, RecursionError):
        return None


def _parts(value: bytes, name: bytes) -> list[bytes]:
    """What stands behind `name=` in `t=…,v1=…,v1=…`."""
    pairs = (part.strip().partition(b"=") for part in re.split(b"[,;]", value))
    return [given.strip() for found, _, given in pairs if found.strip() == name and given.strip()]


def _bytes(text: str) -> bytes:
    """Text's bytes, whatever it holds; the bytes of a form that are no UTF-8 come out as they went in."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
