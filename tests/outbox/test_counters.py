"""Statistics: cheap to count, right when several processes add them up, on both engines."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.processes import wait_until
from webhook_app.ops.logs import without_exception_text
from webhook_app.outbox import Database, OutboxUnavailable, open_database, schema
from webhook_app.outbox.counters import SUM, Count, Counters, Timing, activity_since, counted

NOW = datetime(2026, 3, 1, 12, 3, tzinfo=UTC)


class Clock:
    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now.timestamp()


def values(database: Database) -> dict[tuple[str, str, str], int]:
    return {(one.name, one.provider, one.label): one.value for one in counted(database)}


def test_what_several_processes_count_makes_one_sum(database: Database) -> None:
    first, second = Counters(database), Counters(database)
    first.add(((Count.ACCEPTED, "sendgrid", "", 2),))
    second.add(((Count.ACCEPTED, "sendgrid", "", 3),))
    second.add(((Count.UNAUTHENTICATED, "sendgrid", "wrong_signature", 1),))
    first.flush()
    second.flush()
    first.flush()
    assert values(database) == {
        ("accepted", "sendgrid", ""): 5,
        ("unauthenticated", "sendgrid", "wrong_signature"): 1,
    }


def test_processes_that_write_at_the_same_time_lose_nothing(database: Database) -> None:
    """Seen if it failed: a deadlock on PostgreSQL, or a sum below 400."""
    all_counters = [Counters(database) for _ in range(4)]

    def work(counters: Counters) -> None:
        for number in range(20):
            for count in (Count.ACCEPTED, Count.IGNORED, Count.WEBHOOKS, Count.DELIVERED, Count.FAILED):
                counters.add(((count, f"provider-{number % 3}", "", 1),))
            counters.flush()

    threads = [threading.Thread(target=work, args=(counters,)) for counters in all_counters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(values(database).values()) == 4 * 20 * 5


def test_a_counter_knows_when_it_last_went_up(database: Database) -> None:
    clock = Clock()
    early, late = Counters(database, clock=clock), Counters(database, clock=clock)
    early.add(((Count.WEBHOOKS, "sendgrid", "", 1),))
    clock.now += timedelta(minutes=1)
    late.add(((Count.WEBHOOKS, "sendgrid", "", 1),))
    late.flush()
    early.flush()
    assert [one.last_at for one in counted(database)] == [NOW + timedelta(minutes=1)]


def test_a_timing_falls_into_the_bucket_whose_upper_bound_it_does_not_exceed(database: Database) -> None:
    counters = Counters(database)
    for seconds in (0.0009, 0.001, 0.0011, 99):
        counters.add((), Timing.RECEIVE, seconds)
    counters.flush()
    assert values(database) == {
        ("receive", "", "0.001"): 2,
        ("receive", "", "0.0025"): 1,
        ("receive", "", "+Inf"): 1,
        ("receive", "", SUM): 99_003_000,
    }


def test_activity_is_kept_by_time_and_summed_by_the_step_asked_for(database: Database) -> None:
    clock = Clock()
    counters = Counters(database, clock=clock)
    for minutes in (0, 8, 62):
        clock.now = NOW + timedelta(minutes=minutes)
        counters.add(((Count.DELIVERED, "sendgrid", "", 10),))
        counters.add(((Count.WEBHOOKS, "sendgrid", "", 1),))
    counters.flush()
    fine = activity_since(database, NOW - timedelta(days=1), timedelta(minutes=10))
    # 12:03 → 12:00, 12:11 → 12:10, 13:05 → 13:00
    assert fine["delivered"] == {
        datetime(2026, 3, 1, 12, 0, tzinfo=UTC): 10,
        datetime(2026, 3, 1, 12, 10, tzinfo=UTC): 10,
        datetime(2026, 3, 1, 13, 0, tzinfo=UTC): 10,
    }
    coarse = activity_since(database, NOW - timedelta(days=1), timedelta(hours=1))
    assert list(coarse["delivered"].values()) == [20, 10]
    assert coarse["accepted"] == {}


def test_activity_is_forgotten_after_a_month_and_the_counters_stay(database: Database) -> None:
    clock = Clock()
    counters = Counters(database, clock=clock)
    counters.add(((Count.DELIVERED, "sendgrid", "", 1),))
    counters.flush()
    clock.now += timedelta(days=32)
    counters.add(((Count.DELIVERED, "sendgrid", "", 1),))
    counters.flush()
    series = activity_since(database, NOW - timedelta(days=1), timedelta(minutes=10))["delivered"]
    assert list(series) == [datetime(2026, 4, 2, 12, 0, tzinfo=UTC)]
    assert values(database)["delivered", "sendgrid", ""] == 2


def test_counts_survive_a_database_that_is_away_for_a_while(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/outbox.db")
    counters = Counters(database)
    counters.add(((Count.ACCEPTED, "sendgrid", "", 1),))
    with pytest.raises(OutboxUnavailable):
        counters.flush()  # there are no tables yet
    counters.add(((Count.ACCEPTED, "sendgrid", "", 1),))
    schema.upgrade(database)
    counters.flush()
    assert values(database) == {("accepted", "sendgrid", ""): 2}
    database.close()


def test_the_thread_outlives_an_error_nobody_expected_and_says_so(database: Database) -> None:
    fails = [ValueError("jane@example.com")]

    def also() -> None:
        if fails:
            raise fails.pop()

    counters = Counters(database, every=0.01, also=also)
    with capture_logs(processors=[without_exception_text]) as lines:
        counters.add(((Count.WEBHOOKS, "sendgrid", "", 1),))
        wait_until(lambda: counted(database), "the counts are written all the same")
    (line,) = lines
    assert "test_counters.py:" in line.pop("place")
    assert line == {"event": "statistics_failed", "error": "ValueError", "log_level": "error"}
