"""What Prometheus reads, over the real app; the parser is Prometheus' own."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from tests.signing import SendGridSigner
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.delivery import Answer, Outcome
from webhook_app.ops.metrics import count_attempt, described
from webhook_app.outbox import Intake, Queue, Settlement, State

MakeApp = Callable[..., Flask]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(app: Flask) -> Samples:
    answer = app.test_client().get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name.removeprefix("esp_webhooks_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def unsubscribe(email: str) -> dict[str, object]:
    return {"email": email, "event": "unsubscribe", "timestamp": 1760000000}


SENDGRID = ("provider", "sendgrid")


def test_webhooks_are_counted_by_what_became_of_them(make_app: MakeApp, sendgrid_signer: SendGridSigner) -> None:
    app = make_app(MAX_BODY_BYTES="4096")
    client = app.test_client()
    batch = [unsubscribe("jane@example.com"), {"event": "open"}, {"event": "unsubscribe"}]
    body = json.dumps(batch).encode()
    for _ in range(2):
        client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    client.post("/webhooks/sendgrid", data=body, headers=SendGridSigner().headers(body))
    client.post("/webhooks/sendgrid", data=b"x" * 5000)
    client.post("/webhooks/emarsys", data=b"{}")
    client.post("/webhooks/jane@example.com", data=b"{}")
    app.extensions["counters"].flush()
    samples = scrape(app)
    emarsys = ("provider", "emarsys")
    expected = {
        ("webhooks_total", (SENDGRID,)): 4,
        ("accepted_total", (SENDGRID,)): 1,
        ("duplicates_total", (SENDGRID,)): 2,
        ("ignored_total", (SENDGRID,)): 2,
        ("quarantined_total", (SENDGRID,)): 1,
        ("unauthenticated_total", (SENDGRID, ("reason", "signature_invalid"))): 1,
        ("refused_total", (SENDGRID, ("reason", "too_large"))): 1,
        ("webhooks_total", (emarsys,)): 1,
        ("refused_total", (emarsys, ("reason", "closed"))): 1,
        ("receive_seconds_count", ()): 5,
        ("changes", (("state", "pending"),)): 1,
        ("changes", (("state", "quarantined"),)): 1,
        ("database_up", ()): 1,
        ("workers_alive", ()): 0,
        ("paused", (("section", "default"),)): 0,
    }
    assert {key: samples.get(key) for key in expected} == expected
    assert samples["oldest_waiting_seconds", ()] >= 0
    assert "jane" not in app.test_client().get("/metrics").text


def test_attempts_are_counted_by_outcome_and_reason(make_app: MakeApp) -> None:
    app = make_app()
    database, counters = app.extensions["database"], app.extensions["counters"]
    now = datetime.now(UTC)
    change = ConsentChange(
        action=Action.OPT_OUT,
        identity=Identity(kind=IdentityKind.EMAIL, value="jane@example.com"),
        reason="unsubscribe",
        occurred_at=now,
    )
    Intake(database).add("sendgrid", changes=[(change, b"{}")])
    queue = Queue(database)
    (claimed,) = queue.claim(1)
    answers = [
        Answer(outcome=Outcome.RETRY, reason="http_503", status=503),
        Answer(outcome=Outcome.DELIVERED, reason="taken", status=204),
    ]
    for answer in answers:
        settlement = Settlement(
            claimed=claimed,
            state=State.DELIVERED,
            started_at=(claimed.received_at + timedelta(seconds=2)).timestamp(),
            duration=0.1,
            outcome=answer.outcome,
        )
        count_attempt(counters, settlement, answer)
    # Told late on purpose, or once more: taken, and no measure of how long it takes.
    for again in (replace(claimed, is_late=True), replace(claimed, is_told=True)):
        count_attempt(counters, replace(settlement, claimed=again), answers[-1])
    counters.flush()
    samples = scrape(app)
    assert samples["delivery_attempts_total", (("outcome", "retry"), SENDGRID)] == 1
    assert samples["failed_attempts_total", (SENDGRID, ("reason", "http_503"))] == 1
    assert samples["delivered_total", (SENDGRID,)] == 3
    # Taken 2.1 s after the commit: above 1 s, not above 2.5 s.
    assert samples["commit_to_delivered_seconds_bucket", (("le", "1.0"),)] == 0
    assert samples["commit_to_delivered_seconds_bucket", (("le", "2.5"),)] == 1
    assert round(samples["commit_to_delivered_seconds_sum", ()], 3) == 2.1


def test_a_database_that_is_down_is_a_metric_and_no_failed_scrape(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(DATABASE_URL=f"sqlite:///{tmp_path}/other.db")
    app.extensions["database"].close()
    (tmp_path / "other.db").rename(tmp_path / "hidden.db")
    (tmp_path / "other.db").mkdir()
    assert scrape(app) == {("database_up", ()): 0}


def test_everything_served_is_described_and_everything_described_is_served(make_app: MakeApp) -> None:
    app = make_app()
    text = app.test_client().get("/metrics").text
    served = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    assert served == {f"esp_webhooks_{one.name}" for one in described()}
