"""Kinds of settings: how a variable is read, and what is said where it cannot be.

Each field raises `ValidationError` with a sentence that goes on after the variable's name. No text holds the value: it
may be a secret.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, validate

from webhook_app.egress import is_host

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

NOT_UTF_8 = "holds bytes that are no UTF-8: write it anew, in UTF-8"


def is_utf_8(text: str) -> bool:
    """Whether what the environment holds is text; of bytes that are none Python makes lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class VerificationKey(fields.Field["EllipticCurvePublicKey"]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> "EllipticCurvePublicKey":
        # Only now: cryptography takes long to load, and whoever has another ESP needs none.
        from webhook_app.auth.sendgrid import parse_verification_key

        try:
            return parse_verification_key(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class CommaSeparated(fields.Field[tuple[Any, ...]]):
    """`a, b,c` as a tuple of what the inner field makes of each part; empty parts are dropped."""

    def __init__(self, inner: fields.Field[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = inner

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[Any, ...]:
        parts = [part.strip() for part in value.split(",") if part.strip()]
        loaded, problems = [], []
        for place, part in enumerate(parts, start=1):
            try:
                loaded.append(self.inner.deserialize(part))
            except ValidationError as error:
                # The place, not the part: the part may be a secret.
                problems += [f"entry {place} of {len(parts)} {lower_first(line)}" for line in _lines(error)]
        if problems:
            raise ValidationError(problems)
        if not loaded:
            # Whoever has set it meant something: no event that counts would opt nobody out.
            raise ValidationError("holds nothing but commas; name at least one, or take the variable away")
        return tuple(loaded)


class UserAndPassword(fields.String):
    """`user:password`, as bytes; the user cannot hold a colon, the password can. `of_people`: no ESP has to send it."""

    def __init__(self, *, least: int = 1, of_people: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least = least
        self.of_people = of_people

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not self.of_people:
            _check_secret(value)
        user, colon, password = value.partition(":")
        if not (user and colon and password):
            raise ValidationError("must be written user:password")
        if len(password) < self.least:
            raise ValidationError(f"has a password of less than {self.least} characters; make a longer one")
        return value.encode()


#: Unicode's general categories of what is not seen.
INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}

#: Characters. A webhook's URL is public, and nothing limits how often somebody guesses.
SHORTEST_SECRET = 16
TOO_SHORT = (
    f"is shorter than {SHORTEST_SECRET} characters and can be guessed; make one with `openssl rand -hex 24`, "
    "and give it to the ESP"
)


def check_secret(text: str) -> None:
    """Raises `ValueError` for what no ESP can send, so that every webhook would be 401; its text does not hold it."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        # Those of a shell, which `docker run --env-file` and many forms hand on.
        raise ValueError("stands in quotation marks, which would be part of it: write it without")
    if not is_utf_8(text):
        raise ValueError(NOT_UTF_8)
    if any(unicodedata.category(character) in INVISIBLE and character not in " \t" for character in text):
        raise ValueError("holds an invisible character, as copying from a page or a mail brings along: type it anew")


def _check_secret(text: str) -> None:
    try:
        check_secret(text)
    except ValueError as error:
        raise ValidationError(str(error)) from None


class Secret(fields.String):
    """A shared secret that people think up, as bytes."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        _check_secret(value)
        if len(value) < SHORTEST_SECRET:
            raise ValidationError(TOO_SHORT)
        return value.encode()


class Choice(fields.String):
    """One of a few words, in whatever letter case; where two differ by nothing else, as it is written."""

    def __init__(self, *words: str) -> None:
        super().__init__(validate=validate.OneOf(words, error="must be one of: {choices}"))
        self.words = words

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        alike = [word for word in self.words if word.lower() == value.lower()]
        return alike[0] if len(alike) == 1 else value


class Pairs(fields.Field[tuple[tuple[str, str], ...]]):
    """`email=E_MAIL,opt_in=status`: what we call a field = the key it stands under. Names not given keep theirs."""

    def __init__(self, defaults: tuple[tuple[str, str], ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.defaults = dict(defaults)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[tuple[str, str], ...]:
        pairs = self.defaults.copy()
        for part in filter(None, (part.strip() for part in value.split(","))):
            name, equals, key = (side.strip() for side in part.partition("="))
            if name not in self.defaults or not equals or not key:
                raise ValidationError(f"must be pairs like email=email; the names are: {', '.join(self.defaults)}")
            pairs[name] = key
        return tuple(pairs.items())


class BaseUrl(fields.Field[str]):
    """`https://host[:port]`; plain http only to this machine, where nobody can listen in."""

    def __init__(self, example: str = "https://dy-api.com", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.example = example

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            url = urlsplit(value)
            port = url.port
        except ValueError:
            raise ValidationError(f"is not a URL; write it like {self.example}") from None
        if url.scheme not in ("http", "https") or port == 0 or not url.hostname or not is_host(url.hostname):
            raise ValidationError(f"is not a URL; write it like {self.example}")
        if url.scheme == "http" and not is_loopback(url.hostname):
            raise ValidationError(f"must begin with https://, like {self.example} (plain http is for localhost only)")
        if url.path.strip("/") or url.query or url.fragment or url.username:
            raise ValidationError(f"must hold only scheme and host, like {self.example}: no path, query or user")
        return value.rstrip("/")


class Checked(fields.String):
    """A text that a function takes as it is, or refuses with a `ValueError` that says why."""

    def __init__(self, check: Callable[[str], str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check = check

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return self.check(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


#: Of a span that a person writes: `90s`, `30m`, `6h`, `1d`.
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(fields.Field[float]):
    """`90s`, `30m`, `6h`, `1d`, or seconds; at least a minute."""

    _LEAST, _MOST = 60.0, 31 * 86400.0

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> float:
        found = re.fullmatch(r"(\d{1,9})\s*([smhd]?)", value.strip(), re.ASCII | re.IGNORECASE)
        seconds = float(found[1]) * SECONDS[found[2].lower() or "s"] if found else 0.0
        if not self._LEAST <= seconds <= self._MOST:
            raise ValidationError("must be a time from 60s to 31d, like 30m, 6h or 1d")
        return seconds


def whole_number(*, least: int, most: int) -> fields.Integer:
    error = f"must be a whole number from {least} to {most}"
    return fields.Integer(
        validate=validate.Range(least, most, error=error),
        error_messages={"invalid": f"{error}, without quotation marks"},
    )


def matching(pattern: str, error: str) -> fields.String:
    return fields.String(validate=validate.Regexp(rf"(?:{pattern})\Z", error=error))


def short_text() -> fields.String:
    return fields.String(validate=validate.Length(max=100, error="must be at most {max} characters"))


def event_name() -> fields.String:
    not_too_long = validate.Length(max=100, error="must be at most {max} characters")
    channel_alone = validate.Regexp(
        r"([^{}]|\{channel\})*\Z", error="may hold {{channel}}, which becomes Email or Push, and no other braces"
    )
    return fields.String(validate=[not_too_long, channel_alone])


def path_part() -> fields.String:
    """A text that becomes a part of a URL's path."""
    return matching(r"[A-Za-z0-9_-]{1,64}", "must be letters, digits, - and _ only")


def secret_text(*, least: int) -> fields.String:
    return fields.String(validate=validate.Length(min=least, error="must be at least {min} characters long"))


def api_key_field() -> fields.String:
    """A text that becomes a header. Quotation marks are those of a shell, which `docker run --env-file` hands on."""
    return matching(r"[!#-&(-~]+", "holds characters that no key has, like a space or quotation marks; copy it anew")


def flag() -> fields.Boolean:
    return fields.Boolean(error_messages={"invalid": "must be true or false"})


def is_loopback(host: str) -> bool:
    """Whether a host name or address of a URL is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _lines(error: ValidationError) -> list[str]:
    return [str(line) for line in error.messages]


def lower_first(line: str) -> str:
    """`Not a valid string.` → `not a valid string`: the line goes on after a name."""
    return line[:1].lower() + line[1:].rstrip(".")
