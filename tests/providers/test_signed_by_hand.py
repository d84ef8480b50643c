"""Webhooks signed with Python's own hmac, as the ESPs' pages describe it: not by the code that is under test."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable

import pytest
from flask import Flask

from tests.providers.cases import PAYLOADS

MakeApp = Callable[..., Flask]
KEY = "a-signing-secret"


def body_of(provider: str) -> bytes:
    # As MailerSend writes it: every slash escaped, which parsing and writing anew would lose.
    text = json.dumps(json.loads((PAYLOADS / provider / "opt_out.json").read_bytes()))
    return text.replace("/", "\\/").encode()


def hexadecimal(signed: bytes, key: str = KEY) -> str:
    return hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()


def over_body(header: str) -> Callable[[bytes], dict[str, str]]:
    return lambda body: {header: hexadecimal(body)}


def as_kit(body: bytes, age: int = 0) -> dict[str, str]:
    """In the middle of a rotation: one signature for each secret that is valid."""
    moment = int(time.time()) - age
    signed = f"{moment}.".encode() + body
    return {"X-Kit-Signature": f"t={moment},v1={hexadecimal(signed, 'the-other-secret')},v1={hexadecimal(signed)}"}


def as_loops(body: bytes) -> dict[str, str]:
    moment = int(time.time())
    signed = f"msg_1.{moment}.".encode() + body
    signature = base64.b64encode(hmac.new(KEY.encode(), signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": "msg_1", "webhook-timestamp": str(moment), "webhook-signature": f"v1,{signature}"}


WAYS = {
    "attentive": ("ATTENTIVE_SIGNING_KEYS", KEY, over_body("x-attentive-hmac-sha256")),
    "generic": ("GENERIC_HMAC_SECRETS", KEY, over_body("X-Signature")),
    "kit": ("KIT_SIGNING_SECRETS", KEY, as_kit),
    "loops": ("LOOPS_SIGNING_SECRETS", "whsec_" + base64.b64encode(KEY.encode()).decode(), as_loops),
    "mailersend": ("MAILERSEND_SIGNING_SECRETS", KEY, over_body("Signature")),
    "mailtrap": ("MAILTRAP_SIGNING_SECRETS", KEY, over_body("Mailtrap-Signature")),
}


@pytest.mark.parametrize("provider", WAYS)
def test_what_is_signed_as_the_esp_documents_it_is_taken_and_nothing_else(make_app: MakeApp, provider: str) -> None:
    variable, secret, sign = WAYS[provider]
    client, body = make_app(**{variable: secret}).test_client(), body_of(provider)
    path = f"/webhooks/{provider}"
    assert client.post(path, data=body, headers=sign(body)).json == {
        "accepted": 1,
        "duplicates": 0,
        "ignored": 0,
        "quarantined": 0,
    }
    assert client.post(path, data=body + b" ", headers=sign(body)).status_code == 401
    assert client.post(path, data=body).status_code == 401


def test_kits_signature_is_good_for_five_minutes(make_app: MakeApp) -> None:
    client, body = make_app(KIT_SIGNING_SECRETS=KEY).test_client(), body_of("kit")
    assert client.post("/webhooks/kit", data=body, headers=as_kit(body, age=240)).status_code == 200
    assert client.post("/webhooks/kit", data=body, headers=as_kit(body, age=400)).status_code == 401


def test_mailersends_call_before_a_webhook_is_saved_is_answered_and_nothing_of_it_is_believed(
    make_app: MakeApp,
) -> None:
    client = make_app(MAILERSEND_SIGNING_SECRETS=KEY).test_client()
    ping = b'{"type":"webhook.test","message":"This is a ping test message","created_at":"2026-03-27T07:24:20.577080Z"}'
    public = "test_Am3L1GuOIc4blLUuHqAPxxwkZaJyEk8G"
    answer = client.post("/webhooks/mailersend", data=ping, headers={"Signature": hexadecimal(ping, public)})
    assert (answer.status_code, answer.data) == (200, b"")
    body = body_of("mailersend")
    headers = {"Signature": hexadecimal(body, public)}
    assert client.post("/webhooks/mailersend", data=body, headers=headers).status_code == 401
