"""Signers, the ESPs' side of each scheme: what a sender who knows the first live secret puts into a request."""

import base64
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from werkzeug.datastructures import Headers

from webhook_app.auth import AnyOf, Scheme, WebhookRequest
from webhook_app.auth.basic import Basic
from webhook_app.auth.jwt import Jwt
from webhook_app.auth.keyed_hash import Hmac, Place, RequestReader, ValueSource
from webhook_app.auth.reading import TimeForm
from webhook_app.auth.sendgrid import SIGNATURE_HEADER, TIMESTAMP_HEADER, SendGridSignature
from webhook_app.auth.standard_webhooks import StandardWebhooks
from webhook_app.auth.standard_webhooks import sign as sign_webhook
from webhook_app.auth.token import Token
from webhook_app.auth.url_secret import UrlSecret


class CannotSign(Exception):
    """Only the ESP itself holds the key. The text is a sentence for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Signs a request as the ESP does at `clock()`."""

    clock: Callable[[], float] = time.time
    #: The private half of SendGrid's key pair; only `make run` and the tests have one.
    sendgrid_key: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)

    def sign(self, scheme: Scheme, request: WebhookRequest) -> WebhookRequest:
        """The request with what makes it authentic. Raises `CannotSign`."""
        match scheme:
            case AnyOf(schemes):
                return self.sign(schemes[-1], request)
            case Hmac():
                return self._hmac(scheme, request)
            case StandardWebhooks():
                return self._standard_webhooks(scheme, request)
            case SendGridSignature():
                return self._sendgrid(request)
            case Basic():
                return _with(request, Authorization="Basic " + base64.b64encode(scheme.credentials[0]).decode())
            case Token():
                return _with(request, **{scheme.header: scheme.prefix + _wsgi(scheme.tokens[0])})
            case Jwt():
                return _with(request, **{scheme.header: scheme.prefix + self._token(scheme.secrets[0])})
            case UrlSecret():
                return replace(request, url_secret=scheme.secrets[0].decode())
        raise CannotSign(f"nobody but the ESP can sign for {type(scheme).__name__}")

    def _hmac(self, scheme: Hmac, request: WebhookRequest) -> WebhookRequest:
        values = {}
        for name, source, value in (
            ("id", scheme.id, os.urandom(16).hex()),
            ("token", scheme.token, os.urandom(25).hex()),
            ("timestamp", scheme.timestamp, self._timestamp(scheme.time_form)),
        ):
            if source:
                request = _put(request, source[0], value)
                values[name] = value.encode()
        signed = scheme.content(RequestReader(request), values)
        return _put(request, scheme.signature[0], scheme.sign(signed, scheme.secrets[0]).decode())

    def _standard_webhooks(self, scheme: StandardWebhooks, request: WebhookRequest) -> WebhookRequest:
        if not scheme.secrets:
            raise CannotSign("a public key (whpk_…) only checks; add a shared secret (whsec_…) to sign with")
        message_id, timestamp = f"msg_{os.urandom(9).hex()}", self._timestamp(TimeForm.UNIX)
        signed = f"{message_id}.{timestamp}.".encode() + request.body
        signature = sign_webhook(signed, scheme.secrets[0]).decode()
        parts = {"id": message_id, "timestamp": timestamp, "signature": signature}
        return _with(request, **{f"{scheme.header_prefix}-{name}": value for name, value in parts.items()})

    def _sendgrid(self, request: WebhookRequest) -> WebhookRequest:
        if self.sendgrid_key is None:
            raise CannotSign("SendGrid keeps its private key to itself")
        timestamp = self._timestamp(TimeForm.UNIX)
        signature = self.sendgrid_key.sign(timestamp.encode() + request.body, ec.ECDSA(SHA256()))
        return _with(request, **{TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: base64.b64encode(signature).decode()})

    def _token(self, secret: bytes) -> str:
        now = int(self.clock())
        return jwt.encode({"iat": now, "exp": now + 300}, secret, algorithm="HS256")

    def _timestamp(self, form: TimeForm) -> str:
        now = self.clock()
        if form is TimeForm.HTTP_DATE:
            return formatdate(now, usegmt=True)
        return str(int(now * 1000 if form is TimeForm.UNIX_MS else now))


def _put(request: WebhookRequest, source: ValueSource, value: str) -> WebhookRequest:
    if source.part:
        others = request.headers.get(source.name)
        return _with(request, **{source.name: ",".join(filter(None, (others, f"{source.part}={value}")))})
    if source.place is Place.HEADER:
        return _with(request, **{source.name: value})
    if source.place is Place.FORM:
        raise CannotSign("signatures in a form are not made here")
    body: Any = json.loads(request.body)
    inner = body
    *path, last = source.name.split(".")
    for step in path:
        inner = inner.setdefault(step, {})
    inner[last] = value
    return replace(request, body=json.dumps(body).encode())


def _with(request: WebhookRequest, **headers: str) -> WebhookRequest:
    merged = Headers(request.headers)
    for name, value in headers.items():
        merged[name] = value
    return replace(request, headers=merged)


def _wsgi(secret: bytes) -> str:
    """Bytes of a header as a server hands them over."""
    return secret.decode("latin-1")
