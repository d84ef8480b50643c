"""Replaying, discarding and forgetting, on both engines."""

from datetime import timedelta

import pytest
from sqlalchemy import insert, select, true, update

from tests.outbox.world import START, Clock, add, addresses, change, ending, rows, send_all, states
from webhook_app.outbox import Database, Intake, Queue, State
from webhook_app.outbox.maintenance import BATCH, Maintenance
from webhook_app.outbox.tables import events, one_time_tokens, workers
from webhook_app.outbox.times import seconds_to_micros

MONTH = timedelta(days=30)


def test_a_replayed_dead_change_is_sent_as_if_it_had_just_come(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    add(intake, change())
    (claimed,) = queue.claim(1)
    queue.settle([ending(claimed, State.DEAD, message="no such user")])

    assert maintenance.replay([claimed.id]) == 1
    (again,) = queue.claim(1)
    # Tries and age start anew, or a change that had failed for 72 h would be given up at the first hiccup.
    assert (again.attempts, again.retrying_since) == (0, None)
    assert addresses([again]) == ["jane@example.com"]
    assert rows(database)[0].error is None


@pytest.mark.parametrize(
    ("state", "count"),
    [
        (State.PENDING, 0),  # is sent anyway
        (State.DELIVERED, 1),
        (State.DEAD, 1),
        (State.SUPERSEDED, 1),
        (State.QUARANTINED, 0),  # has nothing in it that could be sent
        (State.DISCARDED, 1),
        (State.TEST, 0),  # never
    ],
)
def test_what_can_be_replayed(
    state: State, count: int, database: Database, intake: Intake, maintenance: Maintenance
) -> None:
    add(intake, change())
    with database.write() as connection:
        connection.execute(update(events).values(state=state))
    assert maintenance.replay(true()) == count
    assert states(database) == [State.PENDING if count else state]


def test_an_old_delivered_change_that_is_replayed_never_undoes_a_newer_one(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    add(intake, change(ago=60))
    send_all(queue)
    add(intake, change(ago=30))
    send_all(queue)
    maintenance.replay([1])
    assert send_all(queue) == []
    assert states(database) == ["superseded", "delivered"]


def test_a_selection_of_any_size_is_replayed_in_batches(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    number = 2 * BATCH + 1
    add(intake, *(change(f"u{one}@example.com") for one in range(number)))
    send_all(queue)
    assert maintenance.replay(events.c.provider == "sendgrid") == number
    assert maintenance.discard(range(1, number + 1)) == number
    assert set(states(database)) == {"discarded"}


def test_discarding_leaves_alone_what_is_being_sent(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    add(intake, change("jane@example.com"), change("joe@example.com"))
    queue.claim(1)
    assert maintenance.discard(true()) == 1
    assert states(database) == ["pending", "discarded"]
    # Its worker has died: nobody sends it any more.
    clock.go(21)
    assert maintenance.discard(true()) == 1


def test_retention_empties_what_is_finished_and_keeps_the_proof(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    add(intake, change())
    send_all(queue)
    clock.go(MONTH.total_seconds())
    assert maintenance.prune(clock.moment - MONTH) == 0
    clock.go(1)
    assert maintenance.prune(clock.moment - MONTH) == 1
    (row,) = rows(database)
    assert (row.identity_value, row.visitor, row.raw) == (None, None, None)
    assert row.state == "delivered"
    assert len(row.identity_hash) == 16
    assert maintenance.prune(clock.moment) == 0


def test_retention_keeps_what_somebody_still_has_to_look_at(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    add(intake, change())
    intake.add("sendgrid", quarantined=[("email: is missing", b"{}")])
    queue.settle([ending(claimed, State.DEAD) for claimed in queue.claim(1)])
    clock.go(10 * MONTH.total_seconds())
    assert maintenance.prune(clock.moment) == 0
    maintenance.discard(true())
    clock.go(1)
    assert maintenance.prune(clock.moment) == 2
    assert [row.raw for row in rows(database)] == [None, None]


def test_a_change_that_lost_its_address_cannot_be_replayed_and_is_counted(
    intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    add(intake, change())
    send_all(queue)
    clock.go(1)
    maintenance.prune(clock.moment)
    assert (maintenance.replay([1]), maintenance.emptied([1])) == (0, 1)


def test_retention_works_in_small_batches(database: Database, intake: Intake, queue: Queue, clock: Clock) -> None:
    add(intake, *(change(f"u{one}@example.com") for one in range(7)))
    send_all(queue)
    clock.go(1)
    maintenance = Maintenance(database, clock)
    assert maintenance.prune_some(clock.moment, batch=3) == 3
    assert maintenance.prune(clock.moment, batch=3) == 4


def test_retention_forgets_old_tokens_and_silent_workers(
    database: Database, maintenance: Maintenance, clock: Clock
) -> None:
    start, day = seconds_to_micros(START), seconds_to_micros(86_400)
    with database.write() as connection:
        for token, seen_at in ((b"old", start - 31 * day), (b"young", start - 29 * day)):
            connection.execute(insert(one_time_tokens).values(token_hash=token, body_hash=b"", seen_at=seen_at))
        for worker, seen_at in (("silent", start - 2 * day), ("alive", start)):
            connection.execute(insert(workers).values(id=worker, started_at=0, seen_at=seen_at))
    maintenance.prune(clock.moment)
    with database.read() as connection:
        assert connection.execute(select(one_time_tokens.c.token_hash)).scalars().all() == [b"young"]
        assert connection.execute(select(workers.c.id)).scalars().all() == ["alive"]
