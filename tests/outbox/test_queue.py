"""Claiming and settling, by many workers at once, on both engines."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations

import pytest
from sqlalchemy import delete, select, update
from structlog.testing import capture_logs

from tests.outbox.world import (
    Clock,
    ConcernedBy,
    add,
    addresses,
    change,
    concerned_by_word,
    ending,
    outcomes,
    register,
    rows,
    send_all,
    states,
)
from tests.processes import ROOT
from webhook_app.consent import Action
from webhook_app.delivery.answers import RETRY_AFTER_LIMIT
from webhook_app.delivery.breaker import PROBE_EVERY
from webhook_app.delivery.retrying import BACKOFF_CAP
from webhook_app.outbox import Database, Intake, Queue, State, open_database, schema
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.lookup import newest_changes
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.pauses import PauseCause, ReportedPause
from webhook_app.outbox.people import erase_person
from webhook_app.outbox.queue import LEASE, LONGEST_WAIT
from webhook_app.outbox.rows import Sent
from webhook_app.outbox.settling import KEPT_ATTEMPTS, REPEAT_AFTER
from webhook_app.outbox.status import status
from webhook_app.outbox.tables import attempts, consents, events, workers

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


def test_a_clock_that_is_set_back_by_hours_keeps_nobody_waiting(intake: Intake, queue: Queue, clock: Clock) -> None:
    add(intake, change("jane@example.com"), change("joe@example.com"))
    (failed,) = queue.claim(1)
    queue.settle([ending(failed, State.PENDING, due_at=clock.now + 600, started_at=clock.now)])
    clock.go(-3 * 3600)
    assert len(queue.claim(10)) == 2
    assert queue.claim(10) == []


def test_nobody_who_waits_as_long_as_is_ever_waited_is_called_back(intake: Intake, queue: Queue, clock: Clock) -> None:
    assert max(RETRY_AFTER_LIMIT, BACKOFF_CAP, REPEAT_AFTER, PROBE_EVERY) < LONGEST_WAIT
    add(intake, change())
    (failed,) = queue.claim(1)
    queue.settle([ending(failed, State.PENDING, due_at=clock.now + RETRY_AFTER_LIMIT, started_at=clock.now)])
    assert queue.claim(1) == []
    clock.go(RETRY_AFTER_LIMIT)
    assert len(queue.claim(1)) == 1


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
    assert [(row.told_version == row.version, row.error) for row in register(database)] == [(True, None)]
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


@pytest.mark.parametrize("counts", [True, False])
def test_of_many_failed_attempts_the_first_and_the_last_ones_are_kept(
    counts: bool, database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    """An outage of three days is some 900 attempts for each person, each with its request."""
    add(intake, change(), change("max@example.com"))
    send_all(queue)
    Maintenance(database, clock).replay([1])
    for number in range(3 * KEPT_ATTEMPTS):
        (claimed,) = queue.claim(2)
        queue.settle([ending(claimed, State.PENDING, due_at=clock.now, counts=counts, message=str(number))])
    (row, _) = register(database)
    assert row.tries == (3 * KEPT_ATTEMPTS if counts else 0)
    with database.read() as connection:
        kept = connection.execute(select(attempts).order_by(attempts.c.id)).all()
    first = [str(number) for number in range(KEPT_ATTEMPTS - 1)]
    last = [str(number) for number in range(2 * KEPT_ATTEMPTS, 3 * KEPT_ATTEMPTS)]
    assert [one.message for one in kept if one.event_id == 1] == [None, *first, *last]
    send_all(queue)
    assert outcomes(database).count("delivered") == 3


def test_what_does_not_count_burns_no_try(intake: Intake, queue: Queue, clock: Clock) -> None:
    add(intake, change())
    (claimed,) = queue.claim(1)
    queue.settle([ending(claimed, State.PENDING, due_at=clock.now, counts=False)])
    (again,) = queue.claim(1)
    assert (again.attempts, again.retrying_since) == (0, None)


def test_after_a_pause_the_first_failure_is_the_one_that_comes_next(intake: Intake, queue: Queue, clock: Clock) -> None:
    """Or what failed once before the key was revoked on Friday would be given up at its first failure on Monday."""
    add(intake, change())
    for counts in (True, False):
        (claimed,) = queue.claim(1)
        queue.settle([ending(claimed, State.PENDING, due_at=clock.now, started_at=clock.now, counts=counts)])
    clock.go(3 * 86_400)
    (again,) = queue.claim(1)
    assert (again.attempts, again.retrying_since) == (1, None)
    queue.settle([ending(again, State.PENDING, due_at=clock.now, started_at=clock.now)])
    (last,) = queue.claim(1)
    assert (last.attempts, last.retrying_since) == (2, clock.moment)


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
    by_id = dict(enumerate(states(database), start=1))
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


# ---------------------------------------------------------------- an answer that got lost


def test_a_request_whose_answer_got_lost_is_made_up_for_once_the_opposite_was_told(
    database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    """Dynamic Yield may take the opt-in late, after the opt-out that is newer: so that one is told once more."""
    add(intake, change(ago=20, action=Action.OPT_IN))
    (lost,) = queue.claim(1)
    queue.settle([ending(lost, State.PENDING, due_at=clock.now + 2, lost=True)])
    add(intake, change(ago=10))
    (newer,) = queue.claim(1)
    queue.settle([ending(newer, status=204)])
    assert queue.claim(1) == []
    clock.go(REPEAT_AFTER)
    (again,) = queue.claim(1)
    assert again.version == newer.version
    queue.settle([ending(again, status=204)])
    clock.go(10 * REPEAT_AFTER)
    assert queue.claim(1) == []
    assert states(database) == ["superseded", "delivered"]


def test_what_a_killed_worker_may_have_sent_is_made_up_for_once_the_opposite_was_told(
    database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change(ago=20))
    assert queue.claim(1)  # sent, and the worker is killed before it could say so
    add(intake, change(ago=10, action=Action.OPT_IN))
    clock.now += LEASE + 1
    (opt_in,) = queue.claim(1)
    queue.settle([ending(opt_in)])
    clock.now += REPEAT_AFTER + 1
    (again,) = queue.claim(1)
    assert again.change == change(ago=10, action=Action.OPT_IN)
    queue.settle([ending(again)])
    clock.now += REPEAT_AFTER + 1
    assert queue.claim(1) == []


def test_what_was_answered_before_the_opposite_was_told_is_not_made_up_for(
    intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change(ago=20))
    (first,) = queue.claim(1)
    add(intake, change(ago=10, action=Action.OPT_IN))
    queue.settle([ending(first)])
    (second,) = queue.claim(1)
    add(intake, change(ago=5))
    queue.release([second])
    (last,) = queue.claim(1)
    queue.settle([ending(last)])
    clock.go(10 * REPEAT_AFTER)
    assert queue.claim(1) == []


def test_what_a_killed_worker_may_have_sent_is_made_up_for_when_it_is_discarded(
    database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change(ago=20, action=Action.OPT_IN))
    send_all(queue)
    add(intake, change(ago=10))
    (killed,) = queue.claim(1)
    clock.now += LEASE + 1
    assert Maintenance(database, clock).discard([killed.id]) == 1
    (again,) = queue.claim(1)
    assert again.change == change(ago=20, action=Action.OPT_IN)


def test_what_was_answered_or_is_of_the_same_action_is_not_repeated(intake: Intake, queue: Queue, clock: Clock) -> None:
    add(intake, change("jane@example.com", ago=20, action=Action.OPT_IN), change("joe@example.com", ago=20))
    for one in queue.claim(10):
        # The opt-in was answered: Dynamic Yield has not taken it. And a late opt-out says what the newer opt-out says.
        lost = bool(one.change and one.change.action is Action.OPT_OUT)
        queue.settle([ending(one, State.PENDING, due_at=clock.now, lost=lost)])
    add(intake, change("jane@example.com", ago=10), change("joe@example.com", ago=10, reason="spamreport"))
    assert len(send_all(queue)) == 2
    clock.go(10 * REPEAT_AFTER)
    assert queue.claim(10) == []


def test_an_opt_out_that_was_lost_and_repeated_may_still_undo_a_later_opt_in(
    intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change(ago=20))
    (lost,) = queue.claim(1)
    queue.settle([ending(lost, State.PENDING, due_at=clock.now, lost=True)])
    send_all(queue)
    add(intake, change(ago=10, action=Action.OPT_IN))
    send_all(queue)
    clock.go(REPEAT_AFTER)
    (again,) = queue.claim(1)
    assert again.change is not None
    assert again.change.action is Action.OPT_IN


def test_what_a_worker_without_a_lease_has_sent_late_is_made_up_for(intake: Intake, queue: Queue, clock: Clock) -> None:
    """Its opt-in arrived after the opt-out that another worker was told to send meanwhile."""
    add(intake, change(ago=20, action=Action.OPT_IN))
    (slow,) = queue.claim(1)
    clock.go(LEASE)
    add(intake, change(ago=10))
    send_all(queue)
    queue.settle([ending(slow)])
    clock.go(REPEAT_AFTER)
    assert [one.change and one.change.action for one in queue.claim(1)] == [Action.OPT_OUT]


# ---------------------------------------------------------------- rows that are gone


@pytest.mark.parametrize("gone", ["consents", "events", "both"])
def test_a_row_that_is_gone_costs_only_its_own_settlement_and_is_said_once(
    gone: str, database: Database, intake: Intake, queue: Queue
) -> None:
    """Restored from a backup, or erased, while it was being sent."""
    add(intake, *(change(f"u{number}@example.com") for number in range(3)))
    claimed = queue.claim(3)
    with database.write() as connection:
        if gone in ("events", "both"):
            connection.execute(delete(events).where(events.c.id == claimed[1].id))
        if gone in ("consents", "both"):
            connection.execute(delete(consents).where(consents.c.event_id == claimed[1].id))
    with capture_logs() as lines:
        queue.settle([ending(one) for one in claimed])
    assert [line["event"] for line in lines] == ([] if gone == "events" else ["settled_row_is_gone"])
    told = [row.event_id for row in register(database) if row.told_version is not None]
    assert told == [1, 2, 3] if gone == "events" else [1, 3]
    assert outcomes(database) == ["delivered"] * (2 if gone == "both" else 3)


def test_of_somebody_who_is_erased_while_they_are_told_nothing_stays(
    database: Database, intake: Intake, queue: Queue
) -> None:
    # One after the other: which of two that come together has the first number is open.
    add(intake, change("jane@example.com"))
    add(intake, change("joe@example.com"))
    jane, joe = queue.claim(10)
    erase_person(database, "jane@example.com")
    sent = Sent("POST", "https://dy-api.com/", b"jane@example.com")
    with capture_logs():
        queue.settle([ending(jane, sent=sent), ending(joe)])
    with database.read() as connection:
        assert list(connection.execute(select(attempts.c.event_id)).scalars()) == [joe.id]


def test_somebody_whose_event_is_gone_is_claimed_and_says_so(database: Database, intake: Intake, queue: Queue) -> None:
    add(intake, change("jane@example.com"), change("joe@example.com"))
    with database.write() as connection:
        connection.execute(delete(events).where(events.c.id == 1))
    gone, there = queue.claim(10)
    assert (gone.change, gone.unreadable) == (None, "the stored change cannot be read: LookupError")
    queue.settle([ending(gone, State.DEAD), ending(there)])
    assert queue.claim(10) == []


@pytest.mark.parametrize("action", list(Action))
def test_an_event_that_says_the_opposite_of_what_is_wanted_is_claimed_and_never_sent(
    action: Action, database: Database, intake: Intake, queue: Queue
) -> None:
    add(intake, change("jane@example.com", action=action), change("joe@example.com", action=action))
    with database.write() as connection:
        connection.execute(update(consents).where(consents.c.event_id == 1).values(version=consents.c.version + 1))
    opposite, right = queue.claim(10)
    assert (opposite.change, opposite.unreadable) == (None, "the stored change cannot be read: ValueError")
    assert right.change is not None


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "\N{PILE OF POO}" * 5000])
def test_whatever_an_answer_says_can_be_written_down(text: str, intake: Intake, queue: Queue, clock: Clock) -> None:
    add(intake, change())
    (claimed,) = queue.claim(1)
    queue.settle([ending(claimed, State.PENDING, due_at=clock.now, message=text, trace_id=text)])
    assert len(queue.claim(1)) == 1


# ---------------------------------------------------------------- whose clock


@pytest.mark.parametrize("ahead", [60.0, -60.0])
def test_workers_whose_clocks_are_a_minute_apart_take_nothing_from_each_other(
    ahead: float, new_postgres_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases and due times are by the server's clock."""
    database = open_database(new_postgres_database())
    schema.upgrade(database)
    add(Intake(database), change("jane@example.com"), change("joe@example.com"))
    (mine,) = Queue(database).claim(1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    other = Queue(database)
    (theirs,) = other.claim(10)
    assert theirs.id != mine.id
    # In five seconds by its own clock is in five seconds.
    other.settle([ending(theirs, State.PENDING, due_at=time.time() + 5, started_at=time.time())])
    assert other.claim(10) == []
    (waiting,) = (row.due_at / 1e6 for row in register(database) if row.event_id == theirs.id)
    assert real() < waiting < real() + 10
    other.report("other")
    monkeypatch.undo()
    assert Queue(database).renew([mine]) == {mine}
    # And what the other process receives is due at once.
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    add(Intake(database), change("ann@example.com"))
    monkeypatch.undo()
    assert addresses(Queue(database).claim(10)) == ["ann@example.com"]
    assert status(database).workers_alive == 1
    database.close()


# ---------------------------------------------------------------- sections


def test_an_event_goes_to_each_section_that_it_concerns_and_they_do_not_disturb_one_another(
    database: Database, clock: Clock, queue: Queue
) -> None:
    intake = Intake(database, sections=concerned_by_word(uk="uk", app="app"), clock=clock)
    both = intake.add(
        "sendgrid", changes=[(change("jane@example.com"), b'"uk app"'), (change("joe@example.com"), b'"uk"')]
    )
    assert (both.accepted, both.no_section) == (2, 0)
    assert queue.claim(10) == []  # nobody's is the default section
    assert addresses(queue.claim(10, section="app")) == ["jane@example.com"]
    assert sorted(addresses(queue.claim(10, section="uk"))) == ["jane@example.com", "joe@example.com"]


def test_a_newer_change_of_one_section_leaves_the_other_as_it_is(
    database: Database, clock: Clock, queue: Queue
) -> None:
    intake = Intake(database, sections=concerned_by_word(uk="uk", app="app"), clock=clock)
    intake.add("sendgrid", changes=[(change(ago=20), b'"uk app"')])
    intake.add("sendgrid", changes=[(change(ago=10, action=Action.OPT_IN), b'"app"')])
    told = {}
    for section in ("uk", "app"):
        (claimed,) = queue.claim(10, section=section)
        queue.settle([ending(claimed)])
        told[section] = claimed.change and claimed.change.action
    assert told == {"uk": Action.OPT_OUT, "app": Action.OPT_IN}
    assert states(database) == ["delivered", "delivered"]


def test_two_groups_that_are_left_with_one_click_are_told_to_the_section_of_each(
    database: Database, clock: Clock, queue: Queue
) -> None:
    """They differ in nothing else: the second was taken for a repetition of the first."""
    intake = Intake(database, sections=concerned_by_word(uk="uk", de="de"), clock=clock)
    left = [(change(), b'"uk"'), (change(), b'"de"')]
    for duplicates in (0, 2):
        added = intake.add("sendgrid", changes=left)
        assert (added.accepted, added.duplicates) == (2 - duplicates, duplicates)
    assert intake.add("sendgrid", changes=[(change(), b'"another group, uk"')]).duplicates == 1
    for section in ("uk", "de"):
        assert addresses(queue.claim(10, section=section)) == ["jane@example.com"]


def test_what_is_known_of_a_person_may_be_asked_for_one_section(database: Database, clock: Clock) -> None:
    jane, hasher = change().identity, load_hasher(database)
    Intake(database, clock=clock).add("sendgrid", changes=[(change(ago=90), b'"of the only section"')])
    Intake(database, sections=concerned_by_word(uk="uk", de="de"), clock=clock).add(
        "sendgrid", changes=[(change(), b'"uk"')]
    )
    known = {name: newest_changes(database, hasher, [jane], section=name) for name in (None, "uk", "de", "default")}
    assert {name: len(found) for name, found in known.items()} == {None: 1, "uk": 1, "de": 0, "default": 1}
    assert known[None] == known["uk"] != known["default"]


def test_what_concerns_no_section_is_counted_and_not_kept(database: Database, clock: Clock) -> None:
    intake = Intake(database, sections=concerned_by_word(uk="uk"), clock=clock)
    added = intake.add("sendgrid", changes=[(change(), b'"us"')])
    assert (added.accepted, added.no_section) == (0, 1)
    assert rows(database) == []


def test_a_condition_that_fails_on_an_event_quarantines_that_one_and_names_the_section(
    database: Database, clock: Clock, queue: Queue
) -> None:
    def fussy(raw: bytes) -> bool:
        return bool(json.loads(raw)["group"] == 4711)

    intake = Intake(database, sections={"uk": ConcernedBy(fussy)}, clock=clock)
    good, bad = (change("jane@example.com"), b'{"group": 4711}'), (change("joe@example.com"), b"[]")
    added = intake.add("sendgrid", changes=[good, bad])
    assert (added.accepted, added.quarantined) == (1, 1)
    assert [row.error for row in rows(database) if row.error] == ["the condition of section uk failed: TypeError"]
    assert addresses(queue.claim(10, section="uk")) == ["jane@example.com"]


# ---------------------------------------------------------------- many at once


def test_nobody_is_ever_told_two_things_at_the_same_time(database_url: str, database: Database) -> None:
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
    def reported() -> tuple[int, tuple[ReportedPause, ...]]:
        now = status(database, clock)
        return now.workers_alive, now.paused

    queue.report("a")
    pauses = ReportedPause("default", "wrong key"), ReportedPause("uk", "slow down", PauseCause.ASKED_TO_WAIT)
    queue.report("b", pauses=pauses)
    assert reported() == (2, pauses)
    queue.report("b")
    queue.sign_off("a")
    assert reported() == (1, ())


def test_a_worker_of_an_earlier_version_can_be_read_while_it_is_replaced(
    database: Database, queue: Queue, clock: Clock
) -> None:
    """It wrote until when where the cause stands now, and began the reason of a pause that was asked for so."""
    wait, until = "Dynamic Yield asked to be left alone: HTTP 429", 1_764_000_000_000_000
    queue.report("a")
    with database.write() as connection:
        written = json.dumps({"app": [wait, until], "uk": ["wrong key", until]})
        connection.execute(update(workers).values(pauses=written))
    pauses = (
        ReportedPause("app", wait, PauseCause.ASKED_TO_WAIT),
        ReportedPause("uk", "wrong key", PauseCause.MISCONFIGURED),
    )
    assert status(database, clock).paused == pauses
    # One of this version says the same: it is told once.
    queue.report("b", pauses=pauses)
    assert status(database, clock).paused == pauses


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
