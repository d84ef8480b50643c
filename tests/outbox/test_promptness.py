"""How long it took until unsubscribes were taken: counted once, in the transaction that settles."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from tests.outbox.world import START, Clock, add, change, ending
from webhook_app.consent import Action
from webhook_app.outbox import Claimed, Database, Intake, Queue, State
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.promptness import Line, report
from webhook_app.outbox.tables import promptness

HOUR = 3600.0
MONTH = f"{datetime.fromtimestamp(START, UTC):%Y-%m}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def intake(database: Database, clock: Clock) -> Intake:
    return Intake(database, clock=clock)


@pytest.fixture
def queue(database: Database, clock: Clock) -> Queue:
    return Queue(database, clock=clock)


def take(queue: Queue, *, after: float = 0.0) -> list[Claimed]:
    """Deliver all that is due, so many seconds after the start."""
    claimed = queue.claim(1000)
    queue.settle([ending(one, started_at=START + after, duration=0.0) for one in claimed])
    return claimed


def one_line(database: Database) -> Line:
    (line,) = report(database)
    return line


def test_the_time_runs_from_the_esps_word_to_taken(database: Database, intake: Intake, queue: Queue) -> None:
    # A hundred people: ninety within a minute, nine within an hour, one after fifty hours.
    for number, ago in enumerate([60.0] * 90 + [HOUR] * 9 + [50 * HOUR]):
        add(intake, change(f"u{number}@example.com", ago=ago))
    take(queue)
    line = one_line(database)
    assert (line.month, line.provider, line.taken, line.within_deadline, line.share) == (
        MONTH,
        "sendgrid",
        100,
        99,
        0.99,
    )
    assert line.worst == timedelta(hours=50)
    assert line.median
    assert line.p95
    # The end of a bucket: never too low, and at most 19 % too high.
    assert 60 <= line.median.total_seconds() <= 60 * 1.19
    assert HOUR <= line.p95.total_seconds() <= HOUR * 1.19


@pytest.mark.parametrize(("hours", "share"), [(47.999, 1.0), (48.0, 1.0), (48.001, 0.0)])
def test_the_deadline_is_exact(database: Database, intake: Intake, queue: Queue, hours: float, share: float) -> None:
    add(intake, change(ago=hours * HOUR))
    take(queue)
    assert one_line(database).share == share


def test_what_is_sent_again_is_counted_once_and_an_opt_in_not_at_all(
    database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change(), change("joe@example.com", action=Action.OPT_IN))
    told = take(queue)
    Maintenance(database, clock).replay([one.id for one in told])
    clock.go(1)
    assert len(take(queue)) == 2
    assert one_line(database).taken == 1


def test_a_failed_try_counts_nothing_and_the_time_goes_on(database: Database, intake: Intake, queue: Queue) -> None:
    add(intake, change(ago=0.0))
    (claimed,) = queue.claim(1)
    queue.settle([ending(claimed, State.PENDING, due_at=START, outcome="http_503")])
    assert report(database) == []
    take(queue, after=600.0)
    assert one_line(database).worst == timedelta(minutes=10)


def test_a_lost_lease_counts_nothing_and_costs_its_neighbour_nothing(
    database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change(), change("joe@example.com"))
    claimed = queue.claim(2)
    clock.go(60)
    (again,) = queue.claim(1)
    queue.settle([ending(one) for one in claimed])
    # One was still held under the first lease's token; the other is somebody else's by now.
    assert one_line(database).taken == 1
    queue.settle([ending(again)])
    assert one_line(database).taken == 2


def test_what_an_import_has_caught_up_with_is_counted_apart(database: Database, intake: Intake, queue: Queue) -> None:
    add(intake, change(ago=30 * 24 * HOUR), change("joe@example.com", ago=60.0))
    take(queue)
    line = one_line(database)
    assert (line.taken, line.caught_up, line.share, line.worst) == (1, 1, 1.0, timedelta(seconds=60))


def test_only_the_time_asked_for(database: Database, intake: Intake, queue: Queue) -> None:
    add(intake, change())
    take(queue)
    taken = datetime.fromtimestamp(START, UTC)
    assert len(report(database, since=taken)) == 1
    assert report(database, since=taken + timedelta(days=1)) == []


def test_the_sums_do_not_grow_with_the_events(database: Database, intake: Intake, queue: Queue) -> None:
    """A report over ten million events reads as many rows as one over a thousand."""
    for number in range(300):
        add(intake, change(f"u{number}@example.com"))
    take(queue)
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(promptness)).scalar() == 1
