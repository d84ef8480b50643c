"""The receiver's answers, over Flask's test client and a real SQLite file."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from tests.signing import SendGridSigner
from webhook_app.outbox.tables import events

MakeApp = Callable[..., Flask]


@pytest.fixture
def post(make_app: MakeApp, sendgrid_signer: SendGridSigner) -> Callable[..., TestResponse]:
    client = make_app().test_client()

    def send(batch: Any) -> TestResponse:
        body = batch if isinstance(batch, bytes) else json.dumps(batch).encode()
        return client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))

    return send


def stored(app: Flask) -> list[Any]:
    with app.extensions["database"].read() as connection:
        return list(connection.execute(select(events).order_by(events.c.id)).all())


def unsubscribe(email: str = "jane@example.com", **more: Any) -> dict[str, Any]:
    return {"email": email, "event": "unsubscribe", "timestamp": 1760000000, "sg_message_id": "m1"} | more


def test_a_change_is_on_disk_before_the_answer(make_app: MakeApp, sendgrid_signer: SendGridSigner) -> None:
    app = make_app()
    body = json.dumps([unsubscribe()]).encode()
    answer = app.test_client().post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    assert (answer.status_code, answer.json) == (
        200,
        {"accepted": 1, "duplicates": 0, "ignored": 0, "quarantined": 0},
    )
    (row,) = stored(app)
    assert (row.state, row.identity_value, json.loads(row.raw)) == ("pending", "jane@example.com", unsubscribe())


def test_a_second_post_of_the_same_batch_adds_nothing(post: Callable[..., TestResponse]) -> None:
    post([unsubscribe()])
    # A new event id and another case of the address: it is the same event all the same.
    again = post([unsubscribe("Jane@Example.com", sg_event_id="another")])
    assert again.json == {"accepted": 0, "duplicates": 1, "ignored": 0, "quarantined": 0}


def test_one_bad_event_does_not_cost_its_neighbours(post: Callable[..., TestResponse]) -> None:
    batch = [unsubscribe(f"u{number}@example.com") for number in range(99)]
    batch.insert(50, {"event": "unsubscribe", "timestamp": 1760000000})
    assert post(batch).json == {"accepted": 99, "duplicates": 0, "ignored": 0, "quarantined": 1}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[{]", "the body is not JSON"),
        (b"\xff\xfe", "the body is not"),
        (b"", "the body is not JSON"),
        (b"[" * 100_000, "the body is JSON nested too deeply"),
        (b'["unsubscribe"]', "event: is not a JSON object"),
        (b'[{"event": "unsubscribe", "timestamp": 1}]', "email: is missing"),
        (b'[{"event": "unsubscribe", "timestamp": 1, "email": 7}]', "email: is not a text"),
        (b'[{"event": "unsubscribe", "timestamp": 1, "email": "jane"}]', "email: is not an email address"),
        (b'[{"event": "unsubscribe", "timestamp": 1, "email": "a\\u0000@b.de"}]', "email: is not an email address"),
        (b'[{"event": "unsubscribe", "timestamp": 1, "email": "a\\ud800@b.de"}]', "email: is not an email address"),
        (b'[{"event": "unsubscribe", "email": "jane@example.com"}]', "timestamp: is missing"),
        (b'[{"event": "unsubscribe", "timestamp": "soon", "email": "a@b.de"}]', "timestamp: is not a time"),
        (b'[{"event": "unsubscribe", "timestamp": NaN, "email": "a@b.de"}]', "timestamp: is not a time"),
        (b'[{"event": "unsubscribe", "timestamp": 1e300, "email": "a@b.de"}]', "timestamp: is not a time"),
        (b'[{"event": ["unsubscribe"]}]', "event: is missing or not a text"),
    ],
)
def test_what_is_authentic_but_not_understood_is_quarantined_with_a_reason(
    body: bytes, reason: str, make_app: MakeApp, sendgrid_signer: SendGridSigner
) -> None:
    """A 4xx would make SendGrid resend the batch for a day; the quarantine keeps it for a person to look at."""
    app = make_app()
    answer = app.test_client().post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    assert (answer.status_code, answer.json) == (
        200,
        {"accepted": 0, "duplicates": 0, "ignored": 0, "quarantined": 1},
    )
    (row,) = stored(app)
    assert row.state == "quarantined"
    assert row.error.startswith(reason)


def test_events_that_say_nothing_about_consent_are_counted_as_ignored(post: Callable[..., TestResponse]) -> None:
    batch = [
        {"event": name, "email": "jane@example.com", "timestamp": 1760000000}
        for name in ("processed", "delivered", "open", "click", "deferred", "group_resubscribe", "bounce", "dropped")
    ]
    batch.append({"event": "account_status_change", "type": "compliance_suspend", "timestamp": 1760000000})
    assert post(batch).json == {"accepted": 0, "duplicates": 0, "ignored": 9, "quarantined": 0}


def test_the_test_buttons_batch_is_shown_and_not_forwarded(make_app: MakeApp, sendgrid_signer: SendGridSigner) -> None:
    app = make_app()
    test_ids = {"sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0"}
    body = json.dumps([unsubscribe("example@test.com"), unsubscribe("alex@example.com", **test_ids)]).encode()
    answer = app.test_client().post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    assert answer.json == {"accepted": 0, "duplicates": 0, "ignored": 2, "quarantined": 0}
    assert [row.state for row in stored(app)] == ["test", "test"]


def test_an_unknown_provider_is_not_found(make_app: MakeApp) -> None:
    assert make_app().test_client().post("/webhooks/nobody", data=b"[]").status_code == 404


def test_a_provider_without_a_secret_is_closed(make_app: MakeApp, sendgrid_signer: SendGridSigner) -> None:
    app = make_app(SENDGRID_VERIFICATION_KEYS="")
    answer = app.test_client().post("/webhooks/sendgrid", data=b"[]", headers=sendgrid_signer.headers(b"[]"))
    assert answer.status_code == 404


def test_an_unauthenticated_caller_changes_nothing_and_learns_nothing(
    make_app: MakeApp, sendgrid_signer: SendGridSigner
) -> None:
    app = make_app()
    body = json.dumps([unsubscribe()]).encode()
    answer = app.test_client().post("/webhooks/sendgrid", data=body, headers=SendGridSigner().headers(body))
    assert (answer.status_code, answer.json) == (401, {"error": "not authenticated"})
    assert stored(app) == []


def test_a_body_of_just_the_limit_is_taken_and_one_byte_more_is_not(
    make_app: MakeApp, sendgrid_signer: SendGridSigner
) -> None:
    app = make_app(MAX_BODY_BYTES="2048")
    for length, status in ((2048, 200), (2049, 413), (100_000, 413)):
        body = b"[]".ljust(length)
        answer = app.test_client().post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
        assert answer.status_code == status, length


def test_a_database_that_cannot_be_used_makes_the_esp_send_it_again(
    make_app: MakeApp, sendgrid_signer: SendGridSigner, tmp_path: Any
) -> None:
    app = make_app(DATABASE_URL=f"sqlite:///{tmp_path}/other.db")
    client = app.test_client()
    body = json.dumps([unsubscribe()]).encode()
    path = tmp_path / "other.db"
    hidden = path.rename(tmp_path / "hidden.db")
    app.extensions["database"].close()
    path.mkdir()
    answer = client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")

    path.rmdir()
    hidden.rename(path)
    answer = client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    assert answer.json == {"accepted": 1, "duplicates": 0, "ignored": 0, "quarantined": 0}
