"""Probes, URL verification, subscription confirmation: what an ESP sends before any event; over Flask's test client."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.auth.amazon import CERTIFICATE_URL, DOWN, NOW, SUBSCRIBE_URL, TOPIC, Amazon, message, signed
from webhook_app.auth import WebhookRequest
from webhook_app.auth.sns import Sns
from webhook_app.providers import Provider, registry
from webhook_app.settings import Settings

MakeApp = Callable[..., Flask]

OPEN = {
    "MAILCHIMP_URL_SECRETS": "a-secret-in-the-url",
    "MANDRILL_WEBHOOK_KEYS": "k",
    "RESPONSYS_BASIC_AUTH": "u:p",
    "SFMC_SIGNATURE_KEYS": "k",
    "MAILGUN_SIGNING_KEYS": "k",
    "PUBLIC_URL": "https://hooks.example.net",
}
VERIFICATION = {"callbackId": "cb-1", "verificationKey": "key-1"}


def provider(name: str) -> Provider:
    return registry.build_providers(Settings.from_environment(OPEN), OPEN)[name]


def verified(name: str, body: Any) -> str | None:
    verification = provider(name).url_verification
    assert verification is not None
    return verification(WebhookRequest(body=body if isinstance(body, bytes) else json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/webhooks/mailchimp/s", 200),
        ("HEAD", "/webhooks/mandrill", 200),
        ("GET", "/webhooks/responsys?action=verify", 200),
        ("GET", "/webhooks/mailgun", 405),
        ("GET", "/webhooks/sendgrid", 405),
        # Closed: as if it did not exist.
        ("GET", "/webhooks/campaign_monitor/s", 404),
    ],
)
def test_a_probe_is_answered_where_the_esp_sends_one(make_app: MakeApp, method: str, path: str, status: int) -> None:
    assert make_app(**OPEN).test_client().open(path, method=method).status_code == status


def test_salesforces_verification_is_answered_and_shows_what_to_send_back(make_app: MakeApp) -> None:
    assert verified("sfmc", VERIFICATION) == "the ESP verifies this URL: 'callbackId cb-1 verificationKey key-1'"
    client = make_app(**OPEN).test_client()
    assert client.post("/webhooks/sfmc", json=VERIFICATION).status_code == 200
    # What is no verification needs its signature.
    assert client.post("/webhooks/sfmc", json=[]).status_code == 401


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, {"callbackId": "x"}, [VERIFICATION], {"verificationKey": 1}]
)
def test_what_is_no_verification_is_none(body: Any) -> None:
    assert verified("sfmc", body) is None


def test_a_large_body_is_no_verification_and_is_not_parsed_for_a_stranger() -> None:
    whole = json.dumps(VERIFICATION).encode()
    assert verified("sfmc", whole.ljust(64 * 1024)) is not None
    assert verified("sfmc", whole.ljust(64 * 1024 + 1)) is None


def test_a_forged_verification_cannot_flood_or_break_the_log() -> None:
    note = verified("sfmc", {"callbackId": "a\nb\x1b[31m", "verificationKey": "é" * 10_000})
    assert note is not None
    assert len(note) < 1000
    assert note.isascii()
    assert note.isprintable()


def test_mandrills_empty_test_batch_is_answered_though_its_key_is_nobodys(make_app: MakeApp) -> None:
    client = make_app(**OPEN).test_client()
    for body, status in (("[]", 200), ('[{"event":"unsub"}]', 401)):
        answer = client.post(
            "/webhooks/mandrill", data={"mandrill_events": body}, headers={"X-Mandrill-Signature": "test-webhook"}
        )
        assert answer.status_code == status


class TestAmazon:
    @pytest.fixture
    def amazon(self) -> Amazon:
        return Amazon()

    @pytest.fixture
    def client(self, make_app: MakeApp, amazon: Amazon) -> Any:
        environ = {"SES_TOPIC_ARNS": TOPIC}
        app = make_app(**environ)
        built = registry.build_providers(Settings.from_environment(environ), environ, fetch=amazon)["ses"]
        assert isinstance(built.scheme, Sns)
        # The messages are of another day.
        object.__setattr__(built.scheme, "clock", lambda: NOW)
        app.extensions["providers"]["ses"] = built
        return app.test_client()

    def test_the_subscription_of_a_configured_topic_is_confirmed(self, client: Any, amazon: Amazon) -> None:
        body = signed(message("SubscriptionConfirmation"))
        assert client.post("/webhooks/ses", data=body, content_type="text/plain").status_code == 200
        assert amazon.called == [CERTIFICATE_URL, SUBSCRIBE_URL]

    def test_of_any_other_topic_it_is_not(self, client: Any, amazon: Amazon) -> None:
        body = signed(message("SubscriptionConfirmation", TopicArn=f"{TOPIC}-else"))
        assert client.post("/webhooks/ses", data=body).status_code == 401
        assert amazon.called == []

    def test_another_host_is_never_called(self, client: Any, amazon: Amazon) -> None:
        body = signed(message("SubscriptionConfirmation", SubscribeURL="https://evil.example/"))
        assert client.post("/webhooks/ses", data=body).status_code == 401
        assert amazon.called == [CERTIFICATE_URL]

    def test_while_amazon_is_down_the_request_is_sent_again(self, client: Any, amazon: Amazon) -> None:
        amazon.failure = DOWN
        answer = client.post("/webhooks/ses", data=signed(message("SubscriptionConfirmation")))
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers


def test_the_catalogues_files_are_all_in_the_registry() -> None:
    assert {path.stem for path in Path(registry.CATALOG).glob("*.toml")} < registry.build_providers(
        Settings(), {}
    ).keys()
