"""The independent oracle: requests signed elsewhere, and the scheme that must take each of them."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from werkzeug.datastructures import Headers

from webhook_app.auth import Scheme, WebhookRequest
from webhook_app.auth.keyed_hash import Digest, Encoding, Hmac, ValueSource
from webhook_app.auth.reading import TimeForm
from webhook_app.auth.sendgrid import SIGNATURE_HEADER, TIMESTAMP_HEADER, SendGridSignature, parse_verification_key
from webhook_app.auth.standard_webhooks import StandardWebhooks, parse_key

VECTORS: dict[str, dict[str, str]] = json.loads((Path(__file__).parents[1] / "signature-vectors.json").read_text())

#: 2026-01-05 10:00:00 UTC, when all but SendGrid's were signed.
SIGNED_AT = 1767607200.0

Clock = Callable[[], float]


def hmac_scheme(secret: str, signature: str, **options: Any) -> Hmac:
    for name in ("id", "timestamp", "token"):
        if name in options:
            options[name] = (ValueSource.parse(options[name]),)
    given: dict[str, Any] = {"tolerance": 300.0, "clock": lambda: SIGNED_AT} | options
    return Hmac(secrets=(secret.encode(),), signature=(ValueSource.parse(signature),), **given)


def sendgrid() -> tuple[Scheme, WebhookRequest]:
    vector = VECTORS["sendgrid"]
    scheme = SendGridSignature(
        keys=(parse_verification_key(vector["public_key"]),), tolerance=300.0, clock=lambda: float(vector["timestamp"])
    )
    headers = {TIMESTAMP_HEADER: vector["timestamp"], SIGNATURE_HEADER: vector["signature"]}
    return scheme, WebhookRequest(headers=Headers(headers), body=base64.b64decode(vector["body_b64"]))


def standard_webhooks() -> tuple[Scheme, WebhookRequest]:
    vector = VECTORS["standard_webhooks"]
    key = parse_key(vector["secret"])
    assert isinstance(key, bytes)
    headers = {f"webhook-{name}": vector[name] for name in ("id", "timestamp", "signature")}
    scheme = StandardWebhooks(secrets=(key,), clock=lambda: SIGNED_AT)
    return scheme, WebhookRequest(headers=Headers(headers), body=vector["body"].encode())


def mailgun() -> tuple[Scheme, WebhookRequest]:
    vector = VECTORS["mailgun"]
    scheme = hmac_scheme(
        vector["key"],
        "json:signature.signature",
        template="{timestamp}{token}",
        timestamp="json:signature.timestamp",
        token="json:signature.token",
    )
    signature = {name: vector[name] for name in ("timestamp", "token", "signature")}
    return scheme, WebhookRequest(body=json.dumps({"signature": signature, "event-data": {}}).encode())


def mandrill() -> tuple[Scheme, WebhookRequest]:
    vector = VECTORS["mandrill"]
    scheme = hmac_scheme(
        vector["key"],
        "header:X-Mandrill-Signature",
        template="{url}{form}",
        digest=Digest.SHA1,
        encoding=Encoding.BASE64,
    )
    body = f"mandrill_events={quote_plus(vector['mandrill_events'])}".encode()
    headers = Headers({"X-Mandrill-Signature": vector["signature"]})
    return scheme, WebhookRequest(url=vector["url"], headers=headers, body=body)


def klaviyo() -> tuple[Scheme, WebhookRequest]:
    vector = VECTORS["klaviyo"]
    scheme = hmac_scheme(
        vector["secret"],
        "header:Klaviyo-Signature",
        template="{body}{timestamp}",
        timestamp="header:Klaviyo-Timestamp",
        time_form=TimeForm.HTTP_DATE,
    )
    headers = {"Klaviyo-Timestamp": vector["timestamp"], "Klaviyo-Signature": vector["signature"]}
    return scheme, WebhookRequest(headers=Headers(headers), body=vector["body"].encode())


def customerio() -> tuple[Scheme, WebhookRequest]:
    vector = VECTORS["customerio"]
    scheme = hmac_scheme(
        vector["key"],
        "header:X-CIO-Signature",
        template="v0:{timestamp}:{body}",
        timestamp="header:X-CIO-Timestamp",
    )
    headers = {"X-CIO-Timestamp": vector["timestamp"], "X-CIO-Signature": vector["signature"]}
    return scheme, WebhookRequest(headers=Headers(headers), body=vector["body"].encode())


def hubspot_v3() -> tuple[Scheme, WebhookRequest]:
    vector = VECTORS["hubspot_v3"]
    scheme = hmac_scheme(
        vector["secret"],
        "header:X-HubSpot-Signature-v3",
        template="{method}{url}{body}{timestamp}",
        encoding=Encoding.BASE64,
        timestamp="header:X-HubSpot-Request-Timestamp",
        time_form=TimeForm.UNIX_MS,
    )
    headers = {"X-HubSpot-Request-Timestamp": vector["timestamp"], "X-HubSpot-Signature-v3": vector["signature"]}
    return scheme, WebhookRequest(url=vector["uri"], headers=Headers(headers), body=vector["body"].encode())


def sfmc_ens() -> tuple[Scheme, WebhookRequest]:
    vector = VECTORS["sfmc_ens"]
    scheme = hmac_scheme(vector["key_utf8"], "header:x-sfmc-ens-signature", encoding=Encoding.BASE64)
    headers = Headers({"x-sfmc-ens-signature": vector["signature"]})
    return scheme, WebhookRequest(headers=headers, body=vector["body"].encode())


SIGNED: dict[str, Callable[[], tuple[Scheme, WebhookRequest]]] = {
    "sendgrid": sendgrid,
    "standard_webhooks": standard_webhooks,
    "mailgun": mailgun,
    "mandrill": mandrill,
    "klaviyo": klaviyo,
    "customerio": customerio,
    "hubspot_v3": hubspot_v3,
    "sfmc_ens": sfmc_ens,
}


def with_header(request: WebhookRequest, name: str, value: str | None) -> WebhookRequest:
    """The request with a header replaced, or removed."""
    headers = Headers(request.headers)
    if value is None:
        headers.remove(name)
    else:
        headers[name] = value
    return replace(request, headers=headers)
