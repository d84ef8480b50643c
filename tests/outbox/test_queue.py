"""Claiming and settling, by many workers at once, on both engines."""

import random
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import select

from tests.outbox.world import Clock, add, addresses, change, ending, outcomes, rows, send_all, states
from tests.processes import ROOT
from webhook_app.consent import Action
from webhook_app.outbox import Database, Intake, Queue, State, open_database
from webhook_app.outbox.queue import LEASE
from webhook_app.outbox.tables import workers

# ---------------------------------------------------------------- the newest wins


@pytest.mark.parametrize("order", list(permutations([30, 20, 10])))
def test_the_newest_change_of_a_person_wins_in_whatever_order_they_come(
    order: tuple[int, ...], database: Database, intake: Intake, queue: Queue
) -> None:
    actions = {30: Action.OPT_OUT, 20: Action.OPT_IN, 10: Action.OPT_OUT}
    add(intake, *(change(ago=ago, action=actions[ago]) for ago in order))
    (sent,) = send_all(queue)
    assert sent.change == change(ago=10)
    assert Counter(states(database)) == {"superseded": 2, "delivered": 1}


@pytest.mark.parametrize("first", list(Action))
def test_of_two_changes_at_the_same_moment_the_opt_out_wins(first: Action, intake: Intake, queue: Queue) -> None:
    second = Action.OPT_IN if first is Action.OPT_OUT else Action.OPT_OUT
    add(intake, change(action=first))
    add(intake, change(action=second))
    (sent,) = send_all(queue)
    assert sent.change is not None
    assert sent.change.action is Action.OPT_OUT


def test_two_spellings_of_an_address_are_one_person(database: Database, intake: Intake, queue: Queue) -> None:
    add(intake, change("Jane@Example.com", ago=20), change("jane@example.com", ago=10))
    assert addresses(send_all(queue)) == ["jane@example.com"]


def test_an_older_change_that_comes_after_a_newer_was_delivered_is_not_sent(
    database: Database, intake: Intake, queue: Queue
) -> None:
    add(intake, change(ago=10))
    send_all(queue)
    add(intake, change(ago=20, action=Action.OPT_IN))
    assert send_all(queue) == []
    assert states(database) == ["delivered", "superseded"]


def test_an_older_change_is_not_sent_while_a_newer_waits_for_its_next_try(
    database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change(ago=10))
    (newer,) = queue.claim(1)
    queue.settle([ending(newer, State.PENDING, due_at=clock.now + 600)])
    add(intake, change(ago=20, action=Action.OPT_IN))
    assert queue.claim(10) == []
    assert states(database) == ["pending", "superseded"]


def test_a_newer_change_waits_while_an_older_one_is_in_flight(
    database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change(ago=20))
    (older,) = queue.claim(1)
    add(intake, change(ago=10))
    assert queue.claim(10) == []
    # It failed for now: the newer one takes its place, and it is never tried again.
    queue.settle([ending(older, State.PENDING, due_at=clock.now + 1)])
    (newer,) = queue.claim(10)
    queue.settle([ending(newer)])
    clock.go(10)
    assert queue.claim(10) == []
    assert states(database) == ["superseded", "delivered"]


def test_a_thousand_changes_of_one_person_do_not_keep_others_waiting(
    database: Database, intake: Intake, queue: Queue
) -> None:
    add(intake, *(change(ago=1000 - number) for number in range(1000)))
    add(intake, change("joe@example.com"))
    assert sorted(addresses(queue.claim(10) + queue.claim(10))) == ["jane@example.com", "joe@example.com"]
    assert Counter(states(database)) == {"superseded": 999, "pending": 2}


# ---------------------------------------------------------------- leases


def test_nobody_else_gets_what_is_leased_until_the_lease_runs_out(intake: Intake, queue: Queue, clock: Clock) -> None:
    add(intake, change())
    (first,) = queue.claim(1)
    clock.go(LEASE - 0.001)
    assert queue.claim(1) == []
    clock.go(0.001)
    (again,) = queue.claim(1)
    assert (again.id, again.attempts) == (first.id, 0)
    assert again.lease != first.lease


def test_a_lease_that_is_renewed_goes_on_and_one_that_ran_out_does_not(
    intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change())
    (claimed,) = queue.claim(1)
    for _ in range(10):
        clock.go(LEASE - 1)
        assert queue.renew([claimed]) == {claimed}
    clock.go(LEASE)
    # Nobody has taken over yet, but somebody may be about to: it must not be begun any more.
    assert queue.renew([claimed]) == set()


def test_whoever_lost_its_lease_changes_nothing_any_more(
    database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change())
    (slow,) = queue.claim(1)
    clock.go(LEASE)
    (quick,) = queue.claim(1)
    queue.settle([ending(slow, State.DEAD, message="too late")])
    assert queue.renew([slow]) == set()
    queue.release([slow])
    assert queue.claim(1) == []  # still the other's
    queue.settle([ending(quick)])
    assert [(row.state, row.error) for row in rows(database)] == [("delivered", None)]
    # Both attempts did happen, and both are told.
    assert outcomes(database) == ["refused", "delivered"]


def test_a_released_change_can_be_claimed_at_once_as_if_nothing_had_happened(intake: Intake, queue: Queue) -> None:
    add(intake, change())
    (claimed,) = queue.claim(1)
    queue.release([claimed])
    (again,) = queue.claim(1)
    assert (again.attempts, again.retrying_since) == (0, None)


# ---------------------------------------------------------------- settling


def test_a_failure_counts_and_the_first_one_is_remembered(intake: Intake, queue: Queue, clock: Clock) -> None:
    add(intake, change())
    for number in range(3):
        (claimed,) = queue.claim(1)
        assert claimed.attempts == number
        queue.settle([ending(claimed, State.PENDING, due_at=clock.now + 5, started_at=clock.now)])
        assert queue.claim(1) == []
        clock.go(5)
    (claimed,) = queue.claim(1)
    assert claimed.retrying_since is not None
    assert claimed.retrying_since.timestamp() == clock.now - 15


def test_what_does_not_count_burns_no_try(intake: Intake, queue: Queue, clock: Clock) -> None:
    add(intake, change())
    (claimed,) = queue.claim(1)
    queue.settle([ending(claimed, State.PENDING, due_at=clock.now, counts=False)])
    (again,) = queue.claim(1)
    assert (again.attempts, again.retrying_since) == (0, None)


def test_endings_of_every_kind_are_written_in_one_go(
    database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, *(change(f"u{number}@example.com") for number in range(6)))
    claimed = queue.claim(3) + queue.claim(3)
    kinds = [State.DELIVERED, State.DEAD, State.PENDING] * 2
    queue.settle(
        [
            ending(one, kind, due_at=clock.now + 1 if kind is State.PENDING else None)
            for one, kind in zip(claimed, kinds, strict=True)
        ]
    )
    by_id = {row.id: row.state for row in rows(database)}
    assert [by_id[one.id] for one in claimed] == kinds


def test_the_oldest_due_comes_first_and_a_poisonous_one_goes_to_the_back(
    intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change("poison@example.com"))
    (poison,) = queue.claim(1)
    clock.go(1)
    add(intake, change("joe@example.com"))
    clock.go(1)
    queue.settle([ending(poison, State.PENDING, due_at=clock.now)])
    assert addresses(queue.claim(1) + queue.claim(1)) == ["joe@example.com", "poison@example.com"]


# ---------------------------------------------------------------- many at once


class SlowToLock:
    """A database whose claim lock is held by others for a while."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def lock_claims(self, connection: Any) -> None:
        self._clock.go(5)
        self._database.lock_claims(connection)


def test_what_came_due_while_a_claim_waited_for_its_turn_is_claimed(
    database: Database, intake: Intake, clock: Clock
) -> None:
    """Or the worker would go to sleep beside it."""
    clock.go(3)
    add(intake, change())
    clock.go(-3)
    assert len(Queue(SlowToLock(database, clock), clock=clock).claim(1)) == 1


def test_no_two_changes_of_a_person_are_ever_in_flight_together(database_url: str, database: Database) -> None:
    """Eight claimers with databases of their own, as worker processes have them, and a receiver that never pauses."""
    databases = [open_database(database_url) for _ in range(8)]
    held: Counter[str] = Counter()
    lock, over = threading.Lock(), threading.Event()
    overlaps: list[str] = []
    newest_sent: dict[str, float] = {}

    def work(number: int) -> int:
        queue, dice, done = Queue(databases[number]), random.Random(number), 0
        while True:
            batch = queue.claim(dice.randint(1, 5))
            with lock:
                held.update(one.pseudonym for one in batch)
                overlaps.extend(person for person in held if held[person] > 1)
                for one in batch:
                    assert one.change is not None
                    assert one.change.occurred_at is not None
                    moment = one.change.occurred_at.timestamp()
                    # If this failed, an older change would have been sent after a newer one.
                    assert moment >= newest_sent.get(one.pseudonym, 0)
                    newest_sent[one.pseudonym] = moment
            if not batch and over.is_set():
                return done
            with lock:
                held.subtract(one.pseudonym for one in batch)
            queue.settle([ending(one) for one in batch if dice.random() < 0.8])
            queue.release(one for one in batch)  # what was settled is not ours any more: no harm
            done += len(batch)

    def receive() -> None:
        intake, dice = Intake(database), random.Random(99)
        for _ in range(100):
            ages = dice.sample(range(100_000), 10)
            add(intake, *(change(f"u{dice.randint(1, 10)}@example.com", ago=age) for age in ages))
        over.set()

    with ThreadPoolExecutor(9) as pool:
        receiving = pool.submit(receive)
        working = [pool.submit(work, number) for number in range(8)]
        receiving.result(60)
        for one in working:
            one.result(60)
    assert overlaps == []
    assert set(states(database)) == {"delivered", "superseded"}
    for each in databases:
        each.close()


_CLAIMER = """
import sys
from tests.outbox.world import ending
from webhook_app.outbox import Queue, open_database
queue = Queue(open_database(sys.argv[1]))
while batch := queue.claim(7):
    for one in batch:
        print(one.id, flush=True)
    queue.settle([ending(one) for one in batch])
"""


@pytest.mark.slow
def test_four_processes_share_the_work_and_send_nothing_twice(
    database_url: str, database: Database, intake: Intake
) -> None:
    add(intake, *(change(f"u{number}@example.com") for number in range(1000)))
    command = [sys.executable, "-c", _CLAIMER, database_url]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    sent: list[int] = []
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        sent += map(int, output.split())
    assert sorted(sent) == list(range(1, 1001))


# ---------------------------------------------------------------- the workers' own rows


def test_a_worker_reports_and_signs_off(database: Database, queue: Queue, clock: Clock) -> None:
    def reported() -> list[tuple[str, str | None]]:
        with database.read() as connection:
            query = select(workers.c.id, workers.c.paused_reason).order_by(workers.c.id)
            return [(row.id, row.paused_reason) for row in connection.execute(query)]

    queue.report("a")
    queue.report("b", paused_reason="wrong key", paused_until=clock.now + 30)
    assert reported() == [("a", None), ("b", "wrong key")]
    queue.report("b")
    queue.sign_off("a")
    assert reported() == [("b", None)]


def test_nothing_to_settle_touches_no_database(queue: Queue, database: Database) -> None:
    database.close()
    queue.settle([])
    queue.release([])
    assert queue.renew([]) == set()


def test_a_claimed_change_does_not_show_its_lease_or_its_address(intake: Intake, queue: Queue) -> None:
    add(intake, change())
    (claimed,) = queue.claim(1)
    shown = repr(claimed) + repr(replace(claimed))
    assert "jane" not in shown
    assert claimed.lease not in shown
