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
from tests.signing import SendGridSigner

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


def as_mailchimp(body: bytes, age: int = 0) -> dict[str, str]:
    moment = int(time.time()) - age
    signed = f"{moment}.".encode() + body
    return {
        "X-Mailchimp-Signature": f"t={moment},v1={hexadecimal(signed, 'the-other-secret')},v1={hexadecimal(signed)}"
    }


def test_mailchimp_signs_its_forms_for_five_minutes(make_app: MakeApp) -> None:
    client = make_app(MAILCHIMP_SIGNING_SECRETS=f"older,{KEY}").test_client()
    body = (PAYLOADS / "mailchimp" / "opt_out.txt").read_bytes()
    for request, headers, status in (
        (body, as_mailchimp(body), 200),
        (body, as_mailchimp(body, age=240), 200),
        (body, as_mailchimp(body, age=400), 401),
        (body + b"&x=1", as_mailchimp(body), 401),
        (body, {}, 401),
    ):
        assert client.post("/webhooks/mailchimp", data=request, headers=headers).status_code == status


def test_mailchimps_secret_in_the_url_goes_on_beside_its_signature(make_app: MakeApp) -> None:
    client = make_app(MAILCHIMP_SIGNING_SECRETS=KEY, MAILCHIMP_URL_SECRETS="a-secret-in-the-url").test_client()
    body = (PAYLOADS / "mailchimp" / "opt_out.txt").read_bytes()
    assert client.post("/webhooks/mailchimp/a-secret-in-the-url", data=body).status_code == 200
    assert client.post("/webhooks/mailchimp", data=body, headers=as_mailchimp(body)).status_code == 200
    assert client.post("/webhooks/mailchimp/wrong", data=body).status_code == 401


def mailgun_signature(token: str, key: str) -> dict[str, str]:
    moment = str(int(time.time()))
    return {"timestamp": moment, "token": token, "signature": hexadecimal(f"{moment}{token}".encode(), key)}


def test_a_mailgun_subaccounts_event_may_be_signed_by_the_parents_key(make_app: MakeApp) -> None:
    client = make_app(MAILGUN_SIGNING_KEYS=KEY).test_client()
    event = json.loads((PAYLOADS / "mailgun" / "opt_out.json").read_bytes())
    own, parents = mailgun_signature("a" * 50, "the-subaccounts-key"), mailgun_signature("b" * 50, KEY)
    assert client.post("/webhooks/mailgun", json=event | {"signature": own}).status_code == 401
    signed = event | {"signature": own, "parent-signature": parents}
    assert client.post("/webhooks/mailgun", json=signed).json["accepted"] == 1  # type: ignore[index]
    # The parent's token is good for one body, like any other.
    signed["event-data"]["recipient"] = "max@example.com"
    assert client.post("/webhooks/mailgun", json=signed).status_code == 401


@pytest.mark.parametrize("name", [rb"Jane \ud83d", b"J\xf6rg", b"J\torg"])
def test_one_odd_text_does_not_make_an_authentic_mailgun_event_a_forgery(make_app: MakeApp, name: bytes) -> None:
    """Timestamp and token are signed, and are as they were, though a name is cut within an emoji or in Latin-1."""
    client = make_app(MAILGUN_SIGNING_KEYS=KEY).test_client()
    event = json.loads((PAYLOADS / "mailgun" / "opt_out.json").read_bytes())
    event["event-data"]["user-variables"] = {"name": "NAME"}
    body = json.dumps(event | {"signature": mailgun_signature("d" * 50, KEY)}).encode().replace(b"NAME", name)
    answer = client.post("/webhooks/mailgun", data=body, content_type="application/json")
    assert answer.status_code == 200
    # Whom damaged bytes name is not known for sure.
    assert answer.json["accepted"] + answer.json["quarantined"] == 1  # type: ignore[index]
    forged = body.replace(b"d" * 50, b"e" * 50)
    assert client.post("/webhooks/mailgun", data=forged, content_type="application/json").status_code == 401


def test_mailguns_old_webhooks_are_forms(make_app: MakeApp) -> None:
    client = make_app(MAILGUN_SIGNING_KEYS=KEY).test_client()
    form = {"event": "unsubscribed", "recipient": "jane@example.com", "domain": "mg.example.com", "tag": "*"}
    signed = form | mailgun_signature("c" * 50, KEY)
    assert client.post("/webhooks/mailgun", data=form).status_code == 401
    answer = client.post("/webhooks/mailgun", data=signed)
    assert answer.json == {"accepted": 1, "duplicates": 0, "ignored": 0, "quarantined": 0}


def test_mailguns_old_complaints_are_multipart_with_a_file(make_app: MakeApp) -> None:
    """https://github.com/mailgun/mailgun-js-boland/issues/64: opens come url-encoded, complaints and bounces so."""
    fields = {"event": "complained", "recipient": "jane@example.com", "timestamp": str(int(time.time())), "token": "t1"}
    client = make_app(MAILGUN_SIGNING_KEYS=KEY).test_client()
    forged = client.post("/webhooks/mailgun", data=as_multipart(fields | {"signature": hexadecimal(b"x")}))
    fields["signature"] = hexadecimal(f"{fields['timestamp']}t1".encode())
    taken = client.post("/webhooks/mailgun", data=as_multipart(fields))
    assert (forged.status_code, taken.status_code, taken.get_json()["accepted"]) == (401, 200, 1)
    # A part without a name, a cut in the middle of one, more parts than a form has: nobody is opted out by halves.
    nameless = b"--5f1c0b9e\r\nContent-Disposition: x\r\n\r\n1\r\n" + as_multipart({})
    unnamed = client.post("/webhooks/mailgun", data=nameless)
    cut = client.post("/webhooks/mailgun", data=as_multipart(fields)[:-150])
    many = client.post("/webhooks/mailgun", data=as_multipart(fields | {f"x{number}": "" for number in range(3000)}))
    assert (unnamed.status_code, cut.status_code, many.status_code) == (401, 401, 401)


def as_multipart(fields: dict[str, str]) -> bytes:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in fields.items()]
    parts.append(
        'Content-Disposition: form-data; name="attachment-1"; filename="m.mime"\r\n\r\nReceived: by 203.0.113.7'
    )
    return b"".join(f"--5f1c0b9e\r\n{part}\r\n".encode() for part in parts) + b"--5f1c0b9e--\r\n"


@pytest.mark.parametrize("prefix", ["", "OAuth2 ", "Basic ", "Bearer "])
def test_iterable_writes_its_token_in_many_ways(make_app: MakeApp, prefix: str) -> None:
    client = make_app(ITERABLE_TOKENS=f"an-older-signing-secret,{KEY}").test_client()
    body = body_of("iterable")
    for token, status in ((KEY, 200), ("wrong", 401), ("", 401)):
        answer = client.post("/webhooks/iterable", data=body, headers={"Authorization": prefix + token})
        assert answer.status_code == status


@pytest.mark.parametrize(
    "now",
    [
        lambda: time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        lambda: time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        lambda: str(int(time.time())),
        # Seen: five hours ahead.
        lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 5 * 3600)),
    ],
)
def test_klaviyo_writes_its_timestamp_in_several_forms(make_app: MakeApp, now: Callable[[], str]) -> None:
    client, body, moment = make_app(KLAVIYO_WEBHOOK_SECRETS=KEY).test_client(), body_of("klaviyo"), now()
    headers = {"Klaviyo-Timestamp": moment, "Klaviyo-Signature": hexadecimal(body + moment.encode())}
    for webhook_id, status in (("01HWEBHOOK", 200), ("another", 401), (None, 200)):
        of = headers if webhook_id is None else headers | {"Klaviyo-Webhook-Id": webhook_id}
        assert client.post("/webhooks/klaviyo", data=body, headers=of).status_code == status


@pytest.mark.parametrize("reason", [["Unsubscribed Address"], {"text": "Unsubscribed Address"}, None, 7])
def test_a_dropped_event_with_a_reason_that_is_no_text_costs_its_batch_nothing(
    make_app: MakeApp, sendgrid_signer: SendGridSigner, reason: object
) -> None:
    client = make_app(SENDGRID_EVENTS="unsubscribe,dropped").test_client()
    about = {"email": "jane@example.com", "timestamp": 1767607200}
    body = json.dumps([about | {"event": "dropped", "reason": reason}, about | {"event": "unsubscribe"}]).encode()
    answer = client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    assert answer.json == {"accepted": 1, "duplicates": 0, "ignored": 1, "quarantined": 0}
