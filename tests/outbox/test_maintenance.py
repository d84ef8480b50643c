"""Replaying, discarding and forgetting, on both engines."""

from datetime import timedelta

import pytest
from sqlalchemy import insert, select

from tests.outbox.world import START, Clock, add, addresses, change, ending, register, rows, send_all, states
from webhook_app.consent import Action
from webhook_app.outbox import Database, Intake, Queue, State
from webhook_app.outbox.maintenance import BATCH, Maintenance
from webhook_app.outbox.tables import one_time_tokens, workers
from webhook_app.outbox.times import seconds_to_micros

MONTH = timedelta(days=30)
#: The numbers of all events that a test may have stored.
ALL = range(1, 100)


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


def test_what_was_delivered_or_discarded_is_replayed_and_what_waits_is_sent_at_once(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    add(intake, change("delivered@example.com"), change("discarded@example.com"), change("waiting@example.com"))
    first, _, third = queue.claim(10)
    queue.settle([ending(first), ending(third, State.PENDING, due_at=clock.now + 600)])
    clock.go(30)
    maintenance.discard([2])
    assert states(database) == ["delivered", "discarded", "pending"]
    assert queue.claim(10) == []
    assert maintenance.replay(ALL) == 3
    assert [one.attempts for one in send_all(queue)] == [0, 0, 0]


@pytest.mark.parametrize("state", [State.QUARANTINED, State.TEST])
def test_what_says_nothing_that_could_be_sent_is_never_replayed(
    state: State, database: Database, intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    if state is State.TEST:
        add(intake, change(is_test=True))
    else:
        intake.add("sendgrid", quarantined=[("email: is missing", b"{}")])
    assert maintenance.replay(ALL) == 0
    assert states(database) == [state]
    assert queue.claim(1) == []


def test_what_is_being_sent_just_now_is_not_sent_a_second_time_by_a_replay(
    intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    add(intake, change())
    queue.claim(1)
    assert maintenance.replay([1]) == 0
    assert queue.claim(1) == []


def test_an_old_change_that_is_replayed_never_undoes_a_newer_one(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    add(intake, change(ago=60))
    send_all(queue)
    add(intake, change(ago=30))
    send_all(queue)
    assert maintenance.replay([1]) == 0
    assert send_all(queue) == []
    assert states(database) == ["delivered", "delivered"]


def test_what_was_discarded_and_is_older_than_what_was_told_stays_unsent_when_it_is_replayed(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    add(intake, change(ago=60, action=Action.OPT_IN))
    maintenance.discard([1])
    add(intake, change(ago=30))
    send_all(queue)
    assert maintenance.replay([1]) == 0
    assert send_all(queue) == []
    assert states(database) == ["superseded", "delivered"]


# ---------------------------------------------------------------- what counts when the newest does not


def test_where_the_newest_change_is_discarded_the_one_before_is_sent_after_all(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    """It was accepted, and nobody has told Dynamic Yield of it: without this it would be lost."""
    add(intake, change(ago=60), change(ago=30, action=Action.OPT_IN))
    assert maintenance.discard([2]) == 1
    (sent,) = send_all(queue)
    assert sent.id == 1
    assert states(database) == ["delivered", "discarded"]


def test_where_the_newest_change_is_discarded_what_was_told_before_is_not_told_again(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    add(intake, change(ago=60))
    send_all(queue)
    add(intake, change(ago=30, action=Action.OPT_IN))
    maintenance.discard([2])
    assert send_all(queue) == []
    assert states(database) == ["delivered", "discarded"]


def test_what_was_told_and_is_only_to_be_told_again_can_be_called_off_and_stays_told(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    add(intake, change())
    send_all(queue)
    maintenance.replay([1])
    assert states(database) == ["pending"]
    assert maintenance.discard([1]) == 1
    assert send_all(queue) == []
    assert states(database) == ["delivered"]


def test_what_is_discarded_and_may_have_been_taken_all_the_same_is_undone(
    intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    """The answer to the opt-in got lost: Dynamic Yield may have it, and the opt-out before it counts again."""
    add(intake, change(ago=60))
    send_all(queue)
    add(intake, change(ago=30, action=Action.OPT_IN))
    (lost,) = queue.claim(1)
    queue.settle([ending(lost, State.PENDING, due_at=clock.now, lost=True)])
    maintenance.discard([2])
    assert [one.id for one in send_all(queue)] == [1]


@pytest.mark.parametrize("ends", [State.PENDING, State.DEAD])
@pytest.mark.parametrize("first", list(Action))
def test_a_discarded_change_is_not_sent_in_the_place_of_one_that_was_told_and_emptied(
    first: Action, ends: State, database: Database, intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    """It may have been taken, its answer lost; but the change before has no address any more to be told again with."""
    second = Action.OPT_IN if first is Action.OPT_OUT else Action.OPT_OUT
    add(intake, change(ago=60, action=first))
    send_all(queue)
    clock.go(1)
    maintenance.prune(clock.moment)
    add(intake, change(ago=30, action=second))
    (lost,) = queue.claim(1)
    due_at = clock.now if ends is State.PENDING else None
    queue.settle([ending(lost, ends, due_at=due_at, lost=True)])
    assert maintenance.discard([2]) == 1
    assert send_all(queue) == []
    assert [(row.event_id, row.version, row.action) for row in register(database)] == [
        (1, rows(database)[0].version, first)
    ]
    assert states(database) == ["delivered", "discarded"]


def test_a_selection_of_any_size_is_replayed_in_batches(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance
) -> None:
    number = 2 * BATCH + 1
    add(intake, *(change(f"u{one}@example.com") for one in range(number)))
    assert maintenance.discard(range(1, number + 1)) == number
    assert set(states(database)) == {"discarded"}
    assert maintenance.replay(range(1, number + 1)) == number
    assert len(send_all(queue)) == number


def test_discarding_leaves_alone_what_is_being_sent(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    add(intake, change("jane@example.com"), change("joe@example.com"))
    queue.claim(1)
    assert maintenance.discard(ALL) == 1
    assert sorted(states(database)) == ["discarded", "pending"]
    # Its worker has died: nobody sends it any more.
    clock.go(21)
    assert maintenance.discard(ALL) == 1


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
    assert states(database) == ["delivered"]
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
    maintenance.discard(ALL)
    clock.go(1)
    assert maintenance.prune(clock.moment) == 2
    assert [row.raw for row in rows(database)] == [None, None]


def test_a_change_that_lost_its_address_cannot_be_replayed(
    intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    add(intake, change())
    send_all(queue)
    clock.go(1)
    maintenance.prune(clock.moment)
    assert maintenance.replay([1]) == 0


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
