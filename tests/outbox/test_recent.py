"""The last webhooks of each ESP: bounded in number, size and age, and with a body only where it was authentic."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from tests.outbox.world import Clock
from tests.signing import SendGridSigner
from webhook_app.outbox import Database, OutboxUnavailable, open_database, schema
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.recent import KEEP_BODIES, KEPT, MAX_BODY, RecentWebhooks, recent
from webhook_app.outbox.times import from_micros

MakeApp = Callable[..., Flask]


def test_of_each_esp_the_last_fifty_are_kept(database: Database) -> None:
    webhooks = RecentWebhooks(database)
    for round_ in range(3):
        for number in range(40):
            webhooks.add("busy", method="POST", status=200, note=str(round_ * 40 + number))
        webhooks.flush()
    webhooks.add("quiet", method="GET", status=405, reason="method")
    webhooks.flush()
    assert [one.note for one in recent(database, "busy")] == [str(number) for number in range(119, 119 - KEPT, -1)]
    assert [one.reason for one in recent(database, "quiet")] == ["method"]
    assert len(recent(database, limit=1000)) == KEPT + 1


def test_what_comes_between_two_writes_is_bounded_in_number_and_size(database: Database) -> None:
    webhooks = RecentWebhooks(database)
    for _ in range(1000):
        webhooks.add("busy", method="POST", status=200, body=b"x" * (MAX_BODY + 5))
    webhooks.flush()
    found = recent(database, "busy", limit=2000)
    assert len(found) == KEPT
    assert {(len(one.body or b""), one.body_size) for one in found} == {(MAX_BODY, MAX_BODY + 5)}


def test_bodies_are_forgotten_after_a_week_and_what_became_of_them_is_not(database: Database) -> None:
    clock = Clock()
    webhooks = RecentWebhooks(database, clock=clock)
    webhooks.add("sendgrid", method="POST", status=200, counts={"accepted": 1}, body=b"jane@example.com")
    webhooks.flush()
    for ahead, body in ((KEEP_BODIES.total_seconds() - 60, b"jane@example.com"), (120, None)):
        clock.go(ahead)
        Maintenance(database, clock).prune(from_micros(0))
        (one,) = recent(database)
        assert (one.counts, one.body) == ({"accepted": 1}, body)


def test_while_the_database_is_away_nothing_grows_and_the_last_ones_are_written_later(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/away.db")
    webhooks = RecentWebhooks(database)
    for number in range(200):
        webhooks.add("sendgrid", method="POST", status=503, note=str(number))
        # Its tables are not there yet.
        with pytest.raises(OutboxUnavailable):
            webhooks.flush()
    schema.upgrade(database)
    webhooks.flush()
    assert [one.note for one in recent(database)] == [str(number) for number in range(199, 199 - KEPT, -1)]
    database.close()


def test_accepted_ignored_refused_and_probing_calls_can_be_looked_at(
    make_app: MakeApp, sendgrid_signer: SendGridSigner
) -> None:
    app = make_app(SFMC_SIGNATURE_KEYS="k", MAX_BODY_BYTES="2048")
    client = app.test_client()
    event = {"email": "jane@example.com", "event": "unsubscribe", "timestamp": 1760000000}
    for events in ([event], [event | {"event": "open"}]):
        body = json.dumps(events).encode()
        client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    client.post("/webhooks/sendgrid", data=b"[]", headers=SendGridSigner().headers(b"[]"))
    client.post("/webhooks/sendgrid", data=b"x" * 5000)
    client.get("/webhooks/sendgrid")
    client.post("/webhooks/sfmc", json={"callbackId": "c", "verificationKey": "v"})
    client.post("/webhooks/emarsys", json=event)
    app.extensions["counters"].flush()
    found = recent(app.extensions["database"])
    assert [(one.provider, one.status, one.reason, one.body is not None) for one in reversed(found)] == [
        ("sendgrid", 200, "", True),
        ("sendgrid", 200, "", True),
        ("sendgrid", 401, "signature_invalid", False),
        ("sendgrid", 413, "too_large", False),
        ("sendgrid", 405, "method", False),
        ("sfmc", 200, "", False),
        ("emarsys", 404, "closed", False),
    ]
    assert found[1].note.startswith("the ESP verifies this URL")
    assert (found[-1].counts or {})["accepted"] == 1
    # The caller can be told from others, and is not named.
    assert len({one.caller for one in found}) == 1
    assert len(found[0].caller) == 32

    run = app.test_cli_runner().invoke(args=["webhooks", "sendgrid"])
    assert (run.exit_code, len(run.output.splitlines())) == (0, 5)
    assert "1 accepted" in run.output
    assert "jane@example.com" not in run.output
    run = app.test_cli_runner().invoke(args=["webhooks", "--json", "--limit", "1", "sendgrid"])
    assert json.loads(run.output)["reason"] == "method"
