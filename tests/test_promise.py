"""The promise in its quickest form: each of the nine receivers that are wrong breaks one of these, or a test beside it.

`tests/mutation` puts the flaws in, one at a time. What takes real processes and kills stands in `tests/end_to_end`.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from structlog.testing import capture_logs

from tests.outbox.world import Clock, add, addresses, change, ending, rows, send_all, states
from tests.processes import wait_until
from tests.signing import SendGridSigner
from webhook_app.auth import WebhookRequest
from webhook_app.consent import Action
from webhook_app.delivery import Answer, Call, Outcome
from webhook_app.delivery.events_api import EventsApi
from webhook_app.delivery.sections import Section
from webhook_app.delivery.worker import Worker
from webhook_app.dev.sandbox import Sandbox, running
from webhook_app.ops.logs import without_exception_text
from webhook_app.outbox import Database, Intake, Queue, TokenReused, open_database

MakeApp = Callable[..., Flask]

ADDRESS = "canary.7f3a@example.com"
TAKEN = Answer(outcome=Outcome.DELIVERED, status=204)


@contextmanager
def working(database: Database, send: Callable[[Call], Answer]) -> Iterator[Worker]:
    """A worker in a thread of its own."""
    worker = Worker(Queue(database), [Section(form=EventsApi())], connect=lambda _: send, concurrency=2)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(timeout=30)
        assert not thread.is_alive()


def batch(*emails: str) -> bytes:
    return json.dumps([{"email": email, "event": "unsubscribe", "timestamp": 1760000000} for email in emails]).encode()


# ---------------------------------------------------------------- stored once


def test_one_event_from_sixteen_threads_of_two_processes_is_one_row(database_url: str, database: Database) -> None:
    """Two connections of their own stand for two processes; with one each, PostgreSQL lets them race in earnest."""
    rivals = [open_database(database_url) for _ in range(2)]
    intakes = [Intake(rival) for rival in rivals]
    rounds = 25
    start = threading.Barrier(16)

    def insist(number: int) -> int:
        accepted = 0
        for round_ in range(rounds):
            start.wait()
            changes = [(change(f"person-{round_}@example.com"), b"{}")]
            accepted += intakes[number % 2].add("sendgrid", changes=changes).accepted
        return accepted

    with ThreadPoolExecutor(16) as pool:
        accepted = sum(pool.map(insist, range(16)))
    for rival in rivals:
        rival.close()
    # More: two of them looked, found nothing, and stored it both.
    assert (accepted, len(rows(database))) == (rounds, rounds)


# ---------------------------------------------------------------- settled after it was sent


def test_while_dynamic_yield_has_not_answered_the_change_still_waits(database: Database) -> None:
    """A worker that dies now must find it again; a change that is settled already would never be sent."""
    asked, answered = threading.Event(), threading.Event()

    def hesitate(_: Call) -> Answer:
        asked.set()
        assert answered.wait(30)
        return TAKEN

    add(Intake(database), change())
    with working(database, hesitate):
        assert asked.wait(30)
        before = states(database)
        answered.set()
        wait_until(lambda: states(database) == ["delivered"], "it is settled")
    assert before == ["pending"]


# ---------------------------------------------------------------- sent once


@pytest.fixture
def dynamic_yield() -> Iterator[Sandbox]:
    with running(api_key="key") as stand_in:
        yield stand_in


def test_what_is_known_already_leads_to_nothing_and_no_webhook_calls_dynamic_yield_itself(
    make_app: MakeApp, sendgrid_signer: SendGridSigner, dynamic_yield: Sandbox
) -> None:
    app = make_app(EVENTS_API_URL=dynamic_yield.url, EVENTS_API_KEY="key")
    database, client, body = app.extensions["database"], app.test_client(), batch("jane@example.com")
    for _ in range(3):
        assert client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body)).status_code == 200
    # Anything here was sent by the receiver, before it knew whether the event is new.
    assert dynamic_yield.counts["arrived"] == 0
    assert addresses(send_all(Queue(database))) == ["jane@example.com"]
    # Due again, although delivered: the repetition had an effect.
    assert client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body)).status_code == 200
    assert send_all(Queue(database)) == []


# ---------------------------------------------------------------- the newest last


@pytest.mark.parametrize("newest", list(Action))
def test_an_older_change_that_arrives_later_is_not_sent_after_the_newer_one(database: Database, newest: Action) -> None:
    older = Action.OPT_IN if newest is Action.OPT_OUT else Action.OPT_OUT
    clock = Clock()
    intake, queue = Intake(database, clock=clock), Queue(database, clock=clock)
    add(intake, change(action=newest, ago=60))
    sent = send_all(queue)
    add(intake, change(action=older, ago=3600))
    sent += send_all(queue)
    assert [one.change.action for one in sent if one.change] == [newest]
    assert states(database) == ["delivered", "superseded"]


@pytest.mark.parametrize("jump", [-3600, 3600, 10 * 365 * 86400], ids=["an hour back", "an hour on", "ten years on"])
def test_a_clock_that_jumps_under_a_claimed_change_loses_nothing_and_sends_nothing_twice(
    database: Database, jump: int
) -> None:
    clock = Clock()
    intake, queue = Intake(database, clock=clock), Queue(database, clock=clock)
    add(intake, change("before@example.com"))
    claimed = queue.claim(10)
    clock.go(jump)
    queue.settle([ending(one) for one in claimed])
    add(intake, change("after@example.com"))
    assert addresses(send_all(queue)) == ["after@example.com"]
    # The clock is right again.
    clock.go(-jump)
    add(intake, change("later@example.com"))
    assert "later@example.com" in addresses(send_all(queue))
    assert states(database) == ["delivered"] * 3


# ---------------------------------------------------------------- nobody who is not authenticated changes anything


def test_nothing_of_a_body_is_read_before_its_sender_is_known(
    make_app: MakeApp, sendgrid_signer: SendGridSigner
) -> None:
    app = make_app()
    read = []

    def events(request: WebhookRequest) -> list[Any]:
        read.append(request.body)
        return []

    providers = app.extensions["providers"]
    providers["sendgrid"] = replace(providers["sendgrid"], events=events)
    answer = app.test_client().post("/webhooks/sendgrid", data=b"[]", headers=SendGridSigner().headers(b"[]"))
    assert (answer.status_code, read) == (401, [])
    # The control: a sender who is known is read.
    app.test_client().post("/webhooks/sendgrid", data=b"[]", headers=sendgrid_signer.headers(b"[]"))
    assert read == [b"[]"]


@pytest.mark.parametrize(("age", "status"), [(-90_100, 401), (-80_000, 200), (0, 200), (80_000, 200), (90_100, 401)])
def test_a_signature_counts_for_25_hours(
    make_app: MakeApp, sendgrid_signer: SendGridSigner, age: int, status: int
) -> None:
    body = batch("jane@example.com")
    headers = sendgrid_signer.headers(body, timestamp=time.time() - age)
    assert make_app().test_client().post("/webhooks/sendgrid", data=body, headers=headers).status_code == status


def test_a_signature_that_covers_no_body_is_good_for_one_body(database: Database) -> None:
    intake = Intake(database)
    for _ in range(2):  # The same body again is the ESP's retry.
        intake.add("mailgun", changes=[(change("a@example.com"), b"{}")], one_time_token=b"token", body=b"a")
    with pytest.raises(TokenReused):
        intake.add("mailgun", changes=[(change("b@example.com"), b"{}")], one_time_token=b"token", body=b"b")
    # A forger's row: somebody who saw one webhook could have unsubscribed anybody.
    assert [row.identity_value for row in rows(database)] == ["a@example.com"]


# ---------------------------------------------------------------- nobody is named


def test_no_log_line_of_a_webhook_or_an_attempt_holds_an_address_or_a_secret(
    make_app: MakeApp, sendgrid_signer: SendGridSigner
) -> None:
    app = make_app(EMARSYS_URL_SECRETS="secret.in-the-url.9c2e", EMARSYS_IDENTITY="email")
    client, body = app.test_client(), batch(ADDRESS, f"not an address {ADDRESS}")
    with capture_logs() as lines:
        client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
        client.post("/webhooks/sendgrid", data=body, headers=SendGridSigner().headers(body))
        client.post("/webhooks/emarsys/secret.in-the-url.9c2e", json={"email": ADDRESS, "optin": "2"})
        client.post("/webhooks/emarsys/secret.in-the-url.9c2e-wrong", json={"email": ADDRESS, "optin": "2"})
        with working(app.extensions["database"], lambda _: TAKEN):
            wait_until(lambda: "pending" not in states(app.extensions["database"]), "it is sent")
    assert {line["event"] for line in lines} >= {"request", "attempt"}
    shown = repr(lines).lower()
    assert ADDRESS not in shown
    assert "secret.in-the-url.9c2e" not in shown


def test_an_error_nobody_expected_names_its_place_and_not_what_it_was_about(
    make_app: MakeApp, sendgrid_signer: SendGridSigner
) -> None:
    app = make_app()
    providers = app.extensions["providers"]

    def fail(_: WebhookRequest) -> list[Any]:
        raise KeyError(ADDRESS)

    providers["sendgrid"] = replace(providers["sendgrid"], events=fail)
    body = batch(ADDRESS)
    with capture_logs(processors=[without_exception_text]) as lines:
        answer = app.test_client().post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    assert answer.status_code == 500
    assert ADDRESS not in repr(lines) + answer.text
    assert any(line["event"] == "unexpected_error" and "test_promise.py" in line["place"] for line in lines)


def test_a_refusal_tells_a_forger_nothing_about_how_far_it_got(make_app: MakeApp) -> None:
    client = make_app().test_client()
    forger = SendGridSigner()
    stale = forger.headers(b"[]", timestamp=0)
    answers = {
        client.post("/webhooks/sendgrid", data=b"[]", headers=headers).data
        for headers in ({}, forger.headers(b"[]"), stale, {**stale, "X-Twilio-Email-Event-Webhook-Timestamp": "now"})
    }
    assert answers == {b'{"error":"not authenticated"}\n'}
