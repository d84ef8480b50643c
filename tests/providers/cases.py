"""Every provider, every way into it, and how its ESP signs: what the contract suite runs over.

A new provider comes in by its folder in `tests/payloads`; one that is declared in TOML needs nothing else.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from werkzeug.datastructures import Headers

from tests.auth.amazon import CERTIFICATE_URL, TOPIC, Amazon, signed
from webhook_app.auth import Scheme, WebhookRequest
from webhook_app.dev.signers import Signer
from webhook_app.providers import Provider, registry
from webhook_app.providers.declared import EventReader
from webhook_app.settings import Settings

PAYLOADS = Path(__file__).parents[1] / "payloads"
PUBLIC_URL = "https://hooks.example.net"

#: Kinds of secrets → an old one, a new one, and one that we never knew.
SECRETS = {
    "text": ("old-secret-01234", "new-secret-01234", "forged-secret-01"),
    "basic": ("esp:old", "esp:new", "esp:forged"),
    "standard_webhooks": ("whsec_b2xkb2xk", "whsec_bmV3bmV3", "whsec_Zm9yZ2Vk"),
    "sns": (TOPIC, f"{TOPIC}-new", f"{TOPIC}-forged"),
}

#: The ways into the two providers that are written in Python.
BUILT_IN = {
    "sendgrid": {"SENDGRID_VERIFICATION_KEYS": "sendgrid"},
    "emarsys": {
        "EMARSYS_TOKENS": "text",
        "EMARSYS_BASIC_AUTH": "basic",
        "EMARSYS_JWT_SECRETS": "text",
        "EMARSYS_URL_SECRETS": "text",
    },
}


@cache
def key_pair(name: str) -> tuple[str, ec.EllipticCurvePrivateKey]:
    """SendGrid's public key as it is shown, and the private one."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(public).decode(), key


@dataclass(frozen=True, slots=True)
class Case:
    """One way into one provider."""

    provider: str
    #: The variable that opens it.
    variable: str
    kind: str

    @property
    def old(self) -> str:
        return self._secret(0)

    @property
    def new(self) -> str:
        return self._secret(1)

    @property
    def forged(self) -> str:
        return self._secret(2)

    def _secret(self, number: int) -> str:
        if self.kind == "sendgrid":
            return key_pair(("old", "new", "forged")[number])[0]
        return SECRETS[self.kind][number]

    def environ(self, *secrets: str) -> dict[str, str]:
        return {self.variable: ",".join(secrets), "PUBLIC_URL": PUBLIC_URL}

    def opened(self, *secrets: str) -> Provider:
        return _build(tuple(self.environ(*secrets).items()))[self.provider]

    def scheme(self, *secrets: str) -> Scheme:
        scheme = self.opened(*secrets).scheme
        assert scheme is not None
        return scheme

    def request(self, body: bytes) -> WebhookRequest:
        headers = Headers({"Content-Type": content_type(self.opened(self.old))})
        return WebhookRequest(url=f"{PUBLIC_URL}/webhooks/{self.provider}", headers=headers, body=body)

    def sign(self, request: WebhookRequest, secret: str) -> WebhookRequest:
        """As the ESP would, with this secret."""
        if self.kind == "sns":
            return replace(request, body=_sign_sns(request.body, secret))
        private = {key_pair(name)[0]: key_pair(name)[1] for name in ("old", "new", "forged")}
        return Signer(sendgrid_key=private.get(secret)).sign(self.scheme(secret), request)

    def credentials(self, signed: WebhookRequest) -> Iterator[tuple[str, Callable[[str | None], WebhookRequest]]]:
        """Each value that proves who is calling, and how to put another, or none, in its place."""
        for name in set(signed.headers.keys()) - {"Content-Type"}:
            yield signed.headers[name], lambda value, name=name: _with_header(signed, name, value)  # type: ignore[misc]
        if signed.url_secret is not None:
            yield signed.url_secret, lambda value: replace(signed, url_secret=value)
        if self.provider == "mailgun":
            for name, given in json.loads(signed.body)["signature"].items():
                yield given, lambda value, name=name: _with_json(signed, ("signature", name), value)  # type: ignore[misc]
        if self.kind == "sns":
            yield json.loads(signed.body)["Signature"], lambda value: _with_json(signed, ("Signature",), value)


def cases() -> list[Case]:
    found = [Case(name, variable, kind) for name, ways in BUILT_IN.items() for variable, kind in ways.items()]
    for name, provider in _build(()).items():
        if isinstance(provider.events, EventReader):
            kinds = {way.variable: way.name for way in provider.events.declaration.auth}
            found += [Case(name, variable, kind if kind in SECRETS else "text") for variable, kind in kinds.items()]
    return found


def one_case_each() -> list[Case]:
    """The first way into each provider."""
    return list({case.provider: case for case in reversed(cases())}.values())


def content_type(provider: Provider) -> str:
    return provider.sample.content_type if provider.sample else "application/json"


@dataclass(frozen=True, slots=True)
class Payload:
    """A file of a provider's folder, and what `expected.json` says of it."""

    path: Path
    says: str
    changes: tuple[tuple[str, str, str | None], ...]
    ignored: int
    quarantined: tuple[str, ...]
    #: How many of the changes are of the ESP's test button.
    tests: int = 0

    @property
    def body(self) -> bytes:
        return self.path.read_bytes()


@cache
def payloads(provider: str) -> dict[str, Payload]:
    """A provider's payloads by the stem of their files."""
    folder = PAYLOADS / provider
    expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    assert {path.name for path in folder.iterdir()} == expected.keys() | {"expected.json"}
    return {
        name.partition(".")[0]: Payload(
            path=folder / name,
            says=row["says"],
            changes=tuple(tuple(change) for change in row["changes"]),
            ignored=row["ignored"],
            quarantined=tuple(row["quarantined"]),
            tests=row.get("tests", 0),
        )
        for name, row in expected.items()
    }


@cache
def _build(environ: tuple[tuple[str, str], ...]) -> Mapping[str, Provider]:
    given = dict(environ)
    return registry.build_providers(Settings.from_environment(given), given, fetch=Amazon(around=time.time()))


def _sign_sns(body: bytes, topic: str) -> bytes:
    fields = json.loads(body)
    fields.pop("Signature", None)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return signed(fields | {"TopicArn": topic, "Timestamp": now, "SigningCertURL": CERTIFICATE_URL})


def _with_header(request: WebhookRequest, name: str, value: str | None) -> WebhookRequest:
    headers = Headers(request.headers)
    headers.remove(name)
    if value is not None:
        headers.setlist(name, [value])
    return replace(request, headers=headers)


def _with_json(request: WebhookRequest, path: tuple[str, ...], value: str | None) -> WebhookRequest:
    body = json.loads(request.body)
    inner = body
    for step in path[:-1]:
        inner = inner[step]
    inner.pop(path[-1])
    if value is not None:
        inner[path[-1]] = value
    return replace(request, body=json.dumps(body).encode())
