"""The daily pruning, on both engines."""

from datetime import timedelta

import pytest

from tests.outbox.world import Clock, add, change, rows, send_all
from webhook_app.outbox import Database, Intake, Queue
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.retention import TURN, Retention

DAY = 86_400.0  # seconds


@pytest.fixture
def finished(intake: Intake, queue: Queue, clock: Clock) -> None:
    """A change that was finished two days ago."""
    add(intake, change())
    send_all(queue)
    clock.go(2 * DAY)


def retention(database: Database, clock: Clock, *, batch: int = 100) -> Retention:
    return Retention(database, Maintenance(database, clock), keep=timedelta(days=1), clock=clock)


def test_a_worker_prunes_when_it_starts_and_then_once_a_day(
    finished: None, database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    worker = retention(database, clock)
    assert [worker.step(), worker.step()] == [True, False]
    assert rows(database)[0].raw is None

    add(intake, change(ago=30))
    send_all(queue)
    clock.go(DAY - 1)
    assert worker.step() is False  # not due, and not old enough either
    clock.go(2)
    assert worker.step() is True


def test_a_restart_does_not_begin_the_day_anew(finished: None, database: Database, clock: Clock) -> None:
    before = retention(database, clock)
    before.step()
    before.step()
    clock.go(DAY / 2)
    assert retention(database, clock)._have_turn(round(clock() * 1e6)) is False
    clock.go(DAY / 2)
    assert retention(database, clock)._have_turn(round(clock() * 1e6)) is True


def test_two_workers_do_not_prune_together_and_one_that_dies_is_replaced(
    finished: None, database: Database, clock: Clock
) -> None:
    one, other = retention(database, clock), retention(database, clock)
    assert one.step() is True
    assert other.step() is False
    clock.go(TURN.total_seconds())
    # The first has been killed: nothing was written down as done, so the other goes on.
    assert other._have_turn(round(clock() * 1e6)) is True


def test_a_long_pruning_keeps_its_turn(finished: None, database: Database, clock: Clock) -> None:
    one, other = retention(database, clock), retention(database, clock)
    for _ in range(10):
        assert one._have_turn(round(clock() * 1e6)) is True
        assert other.step() is False
        clock.go(TURN.total_seconds() / 2)
