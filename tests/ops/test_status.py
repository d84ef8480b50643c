"""`/readyz` and `/status`: what each says, and to whom nothing is said."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import insert, update

from tests.outbox.world import give_all_up
from tests.processes import ROOT
from webhook_app import build_app
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.ops.status import findings, silent_for
from webhook_app.outbox import Database, Intake, Queue, schema
from webhook_app.outbox.counters import Count, Counters
from webhook_app.outbox.pauses import PauseCause, ReportedPause
from webhook_app.outbox.tables import attempts, events

MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


def ask(app: Flask, path: str) -> tuple[int, Any]:
    answer = app.test_client().get(path)
    return answer.status_code, answer.json


def slugs(app: Flask) -> list[str]:
    return [one["slug"] for one in ask(app, "/status")[1]["findings"]]


def store(app: Flask, email: str, *, minutes_ago: float = 0.0) -> int:
    change = ConsentChange(
        action=Action.OPT_OUT,
        identity=Identity(kind=IdentityKind.EMAIL, value=email),
        reason="unsubscribe",
        occurred_at=datetime.now(UTC),
    )
    database = app.extensions["database"]
    Intake(database).add("sendgrid", changes=[(change, b"{}")])
    with database.write() as connection:
        number = connection.exec_driver_sql("SELECT max(id) FROM events").scalar_one()
        if minutes_ago:
            received = events.c.received_at - round(minutes_ago * 60e6)
            connection.execute(update(events).where(events.c.id == number).values(received_at=received))
    return int(number)


def attempt(app: Flask, number: int, *outcomes: str, minutes_ago: float = 0.0, section: str | None = None) -> None:
    started = round((datetime.now(UTC).timestamp() - minutes_ago * 60) * 1e6)
    made = {"event_id": number, "started_at": started, "duration": 1, "section": section}
    rows = [made | {"outcome": outcome} for outcome in outcomes]
    with app.extensions["database"].write() as connection:
        connection.execute(insert(attempts), rows)


def test_a_receiver_without_worker_is_ready_and_the_service_does_not_work(app: Flask) -> None:
    assert ask(app, "/readyz") == (200, {"status": "ready", "reasons": []})
    status, said = ask(app, "/status")
    assert (status, said["status"]) == (503, "not working")
    assert said["reasons"] == [
        "no live worker: nothing is forwarded (start `flask forward` (on Heroku: `heroku ps:scale worker=1`))"
    ]


def test_with_a_worker_and_nothing_waiting_it_works(app: Flask) -> None:
    Queue(app.extensions["database"]).report("a worker")
    assert ask(app, "/status") == (200, {"status": "working", "reasons": [], "findings": []})


def test_a_pause_is_told_without_dynamic_yields_words(app: Flask) -> None:
    reason = "refused by jane@example.com at 10.1.2.3:443"
    Queue(app.extensions["database"]).report("a worker", pauses=[ReportedPause("default", reason)])
    assert ask(app, "/readyz")[0] == 200
    status, said = ask(app, "/status")
    assert (status, slugs(app)) == (503, ["paused"])
    assert not [word for word in ("jane", "10.1.2.3", "443") if word in str(said)]
    assert [one.detail for one in findings(app.extensions["database"], open_esps=["sendgrid"])] == [
        "refused by jane@example.com at 10.1.2.3:443"
    ]


@pytest.mark.parametrize(
    ("causes", "look_at"),
    [
        ([PauseCause.MISCONFIGURED], ["EVENTS_API_KEY"]),
        ([PauseCause.ASKED_TO_WAIT], ["REQUESTS_PER_SECOND"]),
        ([PauseCause.ASKED_TO_WAIT, PauseCause.MISCONFIGURED], ["EVENTS_API_KEY", "REQUESTS_PER_SECOND"]),
    ],
)
def test_a_pause_is_told_with_its_own_mend(app: Flask, causes: list[PauseCause], look_at: list[str]) -> None:
    for number, cause in enumerate(causes):
        Queue(app.extensions["database"]).report(f"worker {number}", pauses=[ReportedPause("default", "why", cause)])
    (said,) = ask(app, "/status")[1]["reasons"]
    assert [name for name in ("EVENTS_API_KEY", "REQUESTS_PER_SECOND") if name in said] == look_at


def test_an_opt_out_that_waits_for_too_long_is_told(app: Flask) -> None:
    Queue(app.extensions["database"]).report("a worker")
    store(app, "jane@example.com", minutes_ago=14)
    assert ask(app, "/status")[0] == 200
    store(app, "max@example.com", minutes_ago=0)
    assert ask(app, "/status")[0] == 200
    with app.extensions["database"].write() as connection:
        connection.execute(update(events).values(received_at=events.c.received_at - round(2 * 60e6)))
    assert ask(app, "/status")[0] == 503
    assert slugs(app) == ["too_old"]


@pytest.mark.parametrize(
    ("outcomes", "fails"),
    [
        (["retry"], False),  # a single time-out is mended by its retry
        (["retry"] * 3, True),
        (["delivered"] * 10 + ["retry"] * 10, False),  # half
        (["delivered"] * 9 + ["retry"] * 11, True),
        (["retry"] * 30 + ["delivered"] * 20, False),  # what was before the last twenty is history
        (["refused"] * 2 + ["misconfigured"], True),
    ],
)
def test_dynamic_yield_fails_when_most_of_the_last_attempts_did(app: Flask, outcomes: list[str], fails: bool) -> None:
    Queue(app.extensions["database"]).report("a worker")
    attempt(app, store(app, "jane@example.com"), *outcomes)
    assert (ask(app, "/status")[0], slugs(app)) == ((503, ["failing"]) if fails else (200, []))


def test_a_section_that_fails_is_named_however_much_another_one_delivers(app: Flask) -> None:
    Queue(app.extensions["database"]).report("a worker")
    number = store(app, "jane@example.com")
    attempt(app, number, *["retry"] * 5, section="uk")
    attempt(app, number, *["delivered"] * 200, section="app")
    status, said = ask(app, "/status")
    assert (status, slugs(app)) == (503, ["failing"])
    assert said["reasons"][0].startswith("Dynamic Yield fails for section uk: 5 of the last 5 attempts")


def test_a_pause_names_its_section_and_another_one_may_still_fail(app: Flask) -> None:
    Queue(app.extensions["database"]).report("a worker", pauses=[ReportedPause("uk", "HTTP 401")])
    attempt(app, store(app, "jane@example.com"), *["retry"] * 5, section="app")
    _, said = ask(app, "/status")
    assert slugs(app) == ["paused", "failing"]
    assert "paused for section uk because" in said["reasons"][0]
    assert "its table in SECTIONS_FILE" in said["reasons"][0]
    assert "fails for section app" in said["reasons"][1]


def test_failures_are_over_when_nothing_waits_any_more_and_after_a_quarter_of_an_hour(app: Flask) -> None:
    Queue(app.extensions["database"]).report("a worker")
    number = store(app, "jane@example.com")
    attempt(app, number, *["retry"] * 10, minutes_ago=16)
    assert ask(app, "/status")[0] == 200
    attempt(app, number, *["retry"] * 10, "delivered")
    assert slugs(app) == ["failing"]
    with app.extensions["database"].write() as connection:
        connection.execute(update(events).values(state="delivered", due_at=None))
    assert ask(app, "/status")[0] == 200


def test_dead_changes_are_a_reason_and_quarantined_ones_only_a_finding(app: Flask) -> None:
    Queue(app.extensions["database"]).report("a worker")
    store(app, "jane@example.com")
    with app.extensions["database"].write() as connection:
        connection.execute(update(events).values(state="quarantined", due_at=None))
    status, said = ask(app, "/status")
    assert (status, said["reasons"], slugs(app)) == (200, [], ["quarantined"])
    with app.extensions["database"].write() as connection:
        connection.execute(update(events).values(state="pending"))
    give_all_up(app.extensions["database"])
    status, said = ask(app, "/status")
    assert (status, slugs(app)) == (503, ["dead"])
    assert "1 change was given up" in said["reasons"][0]
    assert said["findings"][0]["mend"].startswith("console → Events → state “dead”: mend the cause")


def test_a_schema_that_is_behind_is_not_ready_and_says_what_to_do(sqlite_url: str) -> None:
    app = build_app({"DATABASE_URL": sqlite_url})
    status, said = ask(app, "/readyz")
    assert status == 503
    behind = f"the database schema is behind (no tables, needed: {schema.newest()})"
    assert said["reasons"] == [f"{behind} (run `flask db upgrade`)"]
    status, said = ask(app, "/status")
    (found,) = said["findings"]
    assert (status, found["sentence"], found["mend"]) == (503, behind, "run `flask db upgrade`")


@pytest.mark.parametrize(
    "url",
    [
        "postgres://someone:pass%40word@db.internal.example:6543/name",
        "postgres://someone:password@10.9.8.7:6543/name?connect_timeout=1",
        "postgres://someone:password@/name?host=/nowhere/at/all",
    ],
)
def test_a_database_that_cannot_be_reached_is_told_without_its_drivers_words(url: str) -> None:
    client = build_app({"DATABASE_URL": url}).test_client()
    for path in ("/readyz", "/status"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "the database cannot be used" in answer.json["reasons"][0]  # type: ignore[index] # it is JSON
        for word in (
            "someone",
            "word@",
            "password",
            "internal",
            "10.9",
            "6543",
            "nowhere",
            "name",
            "psycopg",
            "failed",
        ):
            assert word not in answer.text, f"{word} in {path}"


def test_a_file_that_is_no_database_is_told_without_its_path(sqlite_url: str) -> None:
    Path(sqlite_url.removeprefix("sqlite:///")).write_bytes(b"to whom it may concern " * 100)
    client = build_app({"DATABASE_URL": sqlite_url}).test_client()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "outbox.db" not in answer.text
    assert "file is not" not in answer.text


START = datetime(2026, 11, 1, tzinfo=UTC)


def times(*hours: float) -> list[datetime]:
    return [START + timedelta(hours=hour) for hour in hours]


@pytest.mark.parametrize(
    ("calls", "now", "silent"),
    [
        (times(*range(24)), 24, False),
        (times(*range(24)), 25.1, True),  # hourly, and now silent for more than two hours
        (times(*(day * 24.0 for day in range(20))), 20 * 24, False),
        (times(*(day * 24.0 for day in range(20))), 21.1 * 24, True),  # daily: two days and more after the last
        (times(*range(19)), 500, False),  # too few to have a rhythm
        ([], 0, False),
        (times(*(minute / 6 for minute in range(30))), 6.8, False),  # every ten minutes: under two hours is no news
    ],
)
def test_an_esp_is_silent_by_its_own_rhythm(calls: list[datetime], now: float, silent: bool) -> None:
    assert (silent_for(calls, START + timedelta(hours=now)) is not None) is silent


def test_an_esp_that_fell_silent_and_one_whose_key_is_wrong_are_told(make_app: MakeApp) -> None:
    app = make_app()
    database = app.extensions["database"]
    Queue(database).report("a worker")
    clock = [time.time() - 30 * 3600]
    counters = Counters(database, clock=lambda: clock[0])
    for _ in range(24):
        counters.add(((Count.WEBHOOKS, "sendgrid", "", 1), (Count.WEBHOOKS, "mailgun", "", 1)))
        clock[0] += 3600
    clock[0] = time.time()
    counters.add(((Count.UNAUTHENTICATED, "sendgrid", "signature", 5),))
    counters.flush()
    # Mailgun is closed here: nobody waits for it.
    assert slugs(app) == ["silent:sendgrid", "unauthenticated:sendgrid"]
    # Neither makes `/status` fail: a stranger can bring about the second.
    assert ask(app, "/status")[0] == 200


def test_no_esp_that_can_call_is_a_service_that_does_not_work(make_app: MakeApp) -> None:
    app = make_app(SENDGRID_VERIFICATION_KEYS="", EMARSYS_TOKENS="")
    Queue(app.extensions["database"]).report("a worker")
    assert (ask(app, "/status")[0], slugs(app)) == (503, ["all_closed"])


def test_a_day_of_waiting_is_told_before_the_two_days_are_over(app: Flask) -> None:
    Queue(app.extensions["database"]).report("a worker")
    store(app, "jane@example.com", minutes_ago=25 * 60)
    assert slugs(app) == ["near_deadline", "too_old"]


def test_the_page_on_heroku_says_what_status_says_before_an_esp_is_connected(database: Database) -> None:
    (closed,) = [one for one in findings(database, open_esps=[]) if one.slug == "all_closed"]
    assert f"\n{closed.text()}\n" in (ROOT / "docs" / "heroku.md").read_text("utf-8")
