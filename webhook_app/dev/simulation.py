"""Realistic, correctly signed webhooks, to try a receiver out."""

import base64
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from string import Template
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from werkzeug.datastructures import Headers

from webhook_app.auth import Scheme, WebhookRequest
from webhook_app.dev.signers import CannotSign, Signer
from webhook_app.providers import Sample, registry
from webhook_app.settings import Settings

#: The private half of the key pair that `make run` makes for development. SendGrid keeps its own to itself.
SENDGRID_DEV_KEY = "SENDGRID_SIGNING_KEY_DEV"


class CannotSimulate(Exception):
    """There is no secret to sign with. The text says which variable would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """What the ESP would send to the provider's URL."""

    method: str = "POST"
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    #: What stands behind `/webhooks/<provider>`: `/secret` or `?action=opt_out`.
    path_suffix: str = field(default="", repr=False)


def simulate(
    provider: str, environ: Mapping[str, str], *, emails: list[str], now: float, url: str
) -> list[SignedRequest]:
    """The requests by which `provider` would report that `emails` have unsubscribed, signed with `environ`'s secrets.

    `url` is the address that is called, without secret. Raises `CannotSimulate`.
    """
    providers = registry.build_providers(Settings.from_environment(environ), environ)
    if provider not in providers:
        raise CannotSimulate(f"there is no provider {provider}; there are: {', '.join(sorted(providers))}")
    known = providers[provider]
    if known.scheme is None:
        raise CannotSimulate(f"{provider} is closed: set {known.opened_by}")
    if provider == "sendgrid":
        if SENDGRID_DEV_KEY not in environ:
            raise CannotSimulate(
                f"there is no key to sign with: `make run` makes one ({SENDGRID_DEV_KEY} in instance/dev.env), but "
                "SendGrid keeps its own to itself; use the button Test Your Integration in SendGrid instead"
            )
        content_type, bodies = "application/json;charset=utf-8", [_sendgrid_batch(emails, now)]
    elif known.sample is None:
        raise CannotSimulate(f"there is no sample of a webhook of {provider}: its declaration needs the key `sample`")
    else:
        content_type, bodies = known.sample.content_type, [_filled(known.sample, email, now) for email in emails]
    signer = Signer(clock=lambda: now, sendgrid_key=_sendgrid_key(environ))
    try:
        return [_signed(signer, known.scheme, content_type, body, url) for body in bodies]
    except CannotSign as error:
        raise CannotSimulate(f"{provider}: {error}") from None


def _signed(signer: Signer, scheme: Scheme, content_type: str, body: bytes, url: str) -> SignedRequest:
    request = WebhookRequest(url=url, headers=Headers({"Content-Type": content_type}), body=body)
    signed = signer.sign(scheme, request)
    suffix = f"/{quote(signed.url_secret, safe='')}" if signed.url_secret else ""
    return SignedRequest(headers=dict(signed.headers), body=signed.body, path_suffix=suffix)


def _filled(sample: Sample, email: str, now: float) -> bytes:
    moment = datetime.fromtimestamp(now, UTC)
    values = {
        # Within JSON text, and without the quotes around it.
        "email": json.dumps(email)[1:-1],
        "id": uuid.uuid4().hex,
        "unix": int(now),
        "unix_ms": int(now * 1000),
        "iso": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "datetime": moment.strftime("%Y-%m-%d %H:%M:%S"),
    }
    return sample.write(Template(sample.template).safe_substitute(values))


def _sendgrid_key(environ: Mapping[str, str]) -> ec.EllipticCurvePrivateKey | None:
    if SENDGRID_DEV_KEY not in environ:
        return None
    try:
        key = load_der_private_key(base64.b64decode(environ[SENDGRID_DEV_KEY]), password=None)
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CannotSimulate(f"{SENDGRID_DEV_KEY} is not a P-256 key")
    return key


def _sendgrid_batch(emails: list[str], now: float) -> bytes:
    events = []
    for number, email in enumerate(emails):
        message = base64.urlsafe_b64encode(os.urandom(15)).decode()
        common = {"email": email, "sg_message_id": f"{message}.recvd-6b9f-1-0.0", "smtp-id": f"<{message}@geopod>"}
        name = ("unsubscribe", "group_unsubscribe", "spamreport")[number % 3]
        for event in ("delivered", name):
            event_id = base64.urlsafe_b64encode(os.urandom(15)).decode()
            events.append(common | {"event": event, "timestamp": int(now), "sg_event_id": event_id})
        if name == "group_unsubscribe":
            events[-1]["asm_group_id"] = 4711
    # SendGrid ends each event and the batch with CRLF, and signs it so.
    return ("[" + ",\r\n".join(json.dumps(event) for event in events) + "]\r\n").encode()
