"""The worker: what an answer makes of a change, and what it makes of the whole worker.

The destination is the sandbox over real sockets; its own log is what counts.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from tests.outbox.world import START, change, seen, states
from tests.processes import wait_until
from webhook_app.consent import ConsentChange
from webhook_app.delivery import Answer, Call, Outcome, breaker, retrying, sender
from webhook_app.delivery import worker as module
from webhook_app.delivery.answers import RETRY_AFTER_LIMIT
from webhook_app.delivery.client import Client, Timeouts
from webhook_app.delivery.events_api import EventsApi
from webhook_app.delivery.retrying import BACKOFF_CAP, FEWEST_TRIES, GIVE_UP_AFTER, backoff, decide
from webhook_app.delivery.sections import Section
from webhook_app.delivery.worker import Worker
from webhook_app.dev.sandbox import Sandbox, running
from webhook_app.ops.logs import without_exception_text
from webhook_app.outbox import Claimed, Database, Intake, Queue, State
from webhook_app.outbox.tables import consents, events

RNG = random.Random(5)
FIRST_TRY = Claimed(
    id=1,
    lease="a",
    provider="sendgrid",
    change=change(),
    pseudonym="00",
    attempts=0,
    received_at=datetime.fromtimestamp(START, UTC),
    retrying_since=None,
)
PASSING = Answer(outcome=Outcome.RETRY, status=503)


# ---------------------------------------------------------------- what an answer makes of a change


@pytest.mark.parametrize(
    ("attempts", "most"),
    [
        (0, 2.0),  # 2 · 2⁰
        (1, 4.0),
        (5, 64.0),
        (8, 512.0),
        (9, BACKOFF_CAP),  # 2 · 2⁹ = 1024 is over the cap
        (10_000, BACKOFF_CAP),  # 2 · 2¹⁰⁰⁰⁰ would be no float any more
    ],
)
def test_the_wait_grows_with_every_failure_up_to_a_cap(attempts: int, most: float) -> None:
    waits = [backoff(attempts, RNG) for _ in range(1000)]
    assert all(0 <= wait <= most for wait in waits)
    # Full jitter: spread over the whole range, or all that failed together would come back together.
    assert min(waits) < most / 10
    assert max(waits) > most * 9 / 10


@pytest.mark.parametrize(
    ("outcome", "state", "counts"),
    [
        (Outcome.DELIVERED, State.DELIVERED, True),
        (Outcome.REFUSED, State.DEAD, True),
        (Outcome.RETRY, State.PENDING, True),
        (Outcome.MISCONFIGURED, State.PENDING, False),  # says nothing about this change: burns no try
    ],
)
def test_an_outcome_decides_the_state(outcome: Outcome, state: State, counts: bool) -> None:
    settlement = decide(FIRST_TRY, Answer(outcome=outcome), started_at=START, duration=1.0, rng=RNG)
    assert (settlement.state, settlement.counts) == (state, counts)


@pytest.mark.parametrize(
    ("age", "state"),
    [
        (timedelta(0), State.PENDING),
        (timedelta(hours=71, minutes=59), State.PENDING),
        (timedelta(hours=72), State.DEAD),
        (timedelta(days=365), State.DEAD),
    ],
)
def test_a_change_is_given_up_after_72_hours_of_failing(age: timedelta, state: State) -> None:
    tried = replace(FIRST_TRY, attempts=FEWEST_TRIES, retrying_since=datetime.fromtimestamp(START, UTC) - age)
    settlement = decide(tried, PASSING, started_at=START, duration=0.0, rng=RNG)
    assert settlement.state is state
    assert ("given up after 72 hours" in settlement.message) is (state is State.DEAD)


def test_a_change_that_has_waited_for_long_without_a_try_is_not_given_up_at_its_first_failure() -> None:
    """The worker was off for a week: that is no failure of the change."""
    waited = replace(FIRST_TRY, received_at=datetime.fromtimestamp(START, UTC) - timedelta(days=7))
    assert decide(waited, PASSING, started_at=START, duration=0.0, rng=RNG).state is State.PENDING


@pytest.mark.parametrize(("attempts", "state"), [(1, State.PENDING), (71, State.PENDING), (72, State.DEAD)])
def test_a_change_that_was_hardly_tried_is_not_given_up_for_its_age(attempts: int, state: State) -> None:
    """It failed once on Friday, and until Monday nobody sent anything: the worker was off, or paused."""
    tried = replace(FIRST_TRY, attempts=attempts, retrying_since=datetime.fromtimestamp(START, UTC) - timedelta(days=3))
    assert decide(tried, PASSING, started_at=START, duration=0.0, rng=RNG).state is state


def test_who_is_tried_as_seldom_as_dynamic_yield_may_ask_is_given_up_after_72_hours_all_the_same() -> None:
    assert timedelta(seconds=FEWEST_TRIES * RETRY_AFTER_LIMIT) <= GIVE_UP_AFTER


def test_a_change_waits_at_least_as_long_as_dynamic_yield_asks() -> None:
    settlement = decide(FIRST_TRY, replace(PASSING, retry_after=100.0), started_at=START, duration=1.0, rng=RNG)
    assert settlement.due_at == START + 101.0


# ---------------------------------------------------------------- the worker at work


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with running("key") as sandbox:
        yield sandbox


@pytest.fixture
def intake(database: Database) -> Intake:
    return Intake(database)


Working = Callable[..., AbstractContextManager[Worker]]


@pytest.fixture
def working(database: Database, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Working:
    """Runs a worker in a thread for as long as the block lasts. It asks often, so that tests need not wait."""
    monkeypatch.setattr(breaker, "PROBE_EVERY", 0.3)
    monkeypatch.setattr(retrying, "PROBE_EVERY", 0.3)
    monkeypatch.setattr(retrying, "BACKOFF_BASE", 0.05)
    monkeypatch.setattr(module, "IDLE_WAIT", 0.05)

    @contextmanager
    def work(key: str = "key", **more: Any) -> Iterator[Worker]:
        client = Client(box.url, key)
        options: dict[str, Any] = {"concurrency": 4} | more
        send = options.pop("send", client.send)
        worker = Worker(Queue(database), [Section(form=EventsApi())], connect=lambda _: send, **options)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            yield worker
        finally:
            worker.stop()
            thread.join(30)
            client.close()
        assert not thread.is_alive()

    return work


def add(intake: Intake, *changes: ConsentChange) -> None:
    intake.add("sendgrid", changes=[(one, b"{}") for one in changes])


def people(number: int) -> list[ConsentChange]:
    return [change(f"u{one}@example.com") for one in range(number)]


def arrived(box: Sandbox) -> list[str]:
    """The addresses that arrived, whatever the answer was."""
    return [one["body"]["events"][0]["properties"]["plainTextEmail"] for one in box.received]


def all_are(database: Database, state: State) -> Callable[[], bool]:
    return lambda: set(states(database)) == {state}


def test_everything_stored_arrives_once(database: Database, box: Sandbox, intake: Intake, working: Working) -> None:
    add(intake, *people(300))
    with working():
        wait_until(all_are(database, State.DELIVERED), "300 deliveries")
    assert sorted(arrived(box)) == sorted(f"u{one}@example.com" for one in range(300))


def test_one_refused_change_goes_dead_with_the_reason_and_the_others_arrive(
    database: Database, box: Sandbox, intake: Intake, working: Working
) -> None:
    box.fault("status", status=422, body={"message": "no such thing", "type": "validation_error"})
    add(intake, *people(20))
    with working(concurrency=1):
        wait_until(lambda: "pending" not in states(database), "20 endings")
    assert sorted(states(database)) == ["dead"] + ["delivered"] * 19
    (dead,) = (event for event in seen(database) if event.state == "dead")
    assert "no such thing" in dead.error


@pytest.mark.parametrize(
    "damage",
    [
        {"action": "nonsense"},
        {"identity_kind": "nonsense"},
        {"identity_value": ""},
        {"identity_value": None},
        {"identity_hash": None},
        {"visitor": "{"},
        {"visitor": '{"unknown": 1}'},
        {"push_channel": "nonsense"},
        {"occurred_at": None},
        {"occurred_at": 2**62},  # the year 148,097
    ],
    ids=str,
)
def test_a_row_that_cannot_be_read_goes_dead_and_stops_nothing(
    damage: dict[str, Any], database: Database, intake: Intake, working: Working
) -> None:
    add(intake, *people(3))
    with database.write() as connection:
        connection.execute(update(events).where(events.c.id == 1).values(damage))
    with working():
        wait_until(lambda: "pending" not in states(database), "three endings")
    unharmed = "identity_hash" in damage  # only finds people; the row itself says everything that is sent
    assert states(database) == ["delivered" if unharmed else "dead", "delivered", "delivered"]


def test_what_is_given_up_without_a_request_says_nothing_about_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "PROBE_EVERY", 0.0)
    ended: SimpleQueue[sender.Job] = SimpleQueue()
    wrong_key = Answer(outcome=Outcome.MISCONFIGURED, message="who are you?")
    section = sender.Sender(
        Section(form=EventsApi()),
        lambda _: wrong_key,
        concurrency=1,
        done=ended.put,
        stopping=threading.Event(),
        clock=time.time,
    )

    def give(number: int, stored: ConsentChange | None) -> Answer | None:
        claimed = replace(FIRST_TRY, id=number, change=stored, unreadable="the stored change cannot be read")
        assert section.room() > 0
        section.take([claimed], time.monotonic() + 60)
        job = ended.get(timeout=30)
        section.under_way.discard(job)
        return job.answer

    for number in (1, 2):
        assert give(number, change("jane@example.com")) == wrong_key
    assert section.pause()
    answer = give(3, None)
    assert answer is not None
    assert answer.outcome is Outcome.REFUSED
    assert section.pause()
    section.stop()


def test_what_fails_for_now_is_tried_again_until_it_is_taken(
    database: Database, box: Sandbox, intake: Intake, working: Working
) -> None:
    box.fault("status", times=3, status=503)
    add(intake, change())
    with working():
        wait_until(all_are(database, State.DELIVERED), "the fourth try")
    assert len(box.received) == 4
    assert seen(database)[0].attempts == 3


def test_a_slow_answer_delays_nobody_else(database: Database, box: Sandbox, intake: Intake, working: Working) -> None:
    box.fault("timeout", times=3)
    add(intake, *people(50))
    client = Client(box.url, "key", timeouts=Timeouts(total=2.0))
    began = time.monotonic()
    with working(send=client.send):
        # Three of four sending threads hang until their time is over. 47 must not wait for them.
        wait_until(lambda: states(database).count("delivered") == 47, "the others")
        assert time.monotonic() - began < 2.0
    client.close()


# ---------------------------------------------------------------- pausing


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407, 302])
def test_a_wrong_configuration_pauses_everything_burns_nothing_and_ends_by_itself(
    status: int, database: Database, box: Sandbox, intake: Intake, working: Working
) -> None:
    box.fault("status", times=None, status=status)
    add(intake, *people(50))
    with working(concurrency=2):
        wait_until(lambda: len(box.received) >= 4, "a few tries")
        before, began = len(box.received), time.monotonic()
        time.sleep(1.0)
        # One every 0.3 s.
        assert len(box.received) - before <= 1 + (time.monotonic() - began) / 0.3
        assert all(event.attempts == 0 and event.state == "pending" for event in seen(database))
        box.heal()
        wait_until(all_are(database, State.DELIVERED), "everything, after it was mended")


def test_a_misconfiguration_without_a_word_pauses_too(
    database: Database, intake: Intake, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause is a state, not a text: once, an empty message made the worker claim 400 times a second."""
    claims: list[float] = []
    claim = Queue.claim

    def counted(*args: Any, **more: Any) -> Any:
        claims.append(time.monotonic())
        return claim(*args, **more)

    monkeypatch.setattr(Queue, "claim", counted)
    add(intake, *people(50))
    with working(send=lambda _: Answer(outcome=Outcome.MISCONFIGURED), concurrency=2):
        wait_until(lambda: len(claims) >= 4, "a few tries")
        seen, began = len(claims), time.monotonic()
        time.sleep(2.0)
        # One for each try, every 0.3 s, and one that finds nothing now and then.
        assert len(claims) - seen <= 4 + 2 * (time.monotonic() - began) / 0.3
    assert set(states(database)) == {"pending"}


def test_a_few_changes_that_are_refused_as_if_the_key_were_wrong_do_not_stop_the_others(
    database: Database, box: Sandbox, intake: Intake, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall on the way may dislike an address. Pausing for it again and again would stop everybody."""
    add(intake, *people(60))
    client = Client(box.url, "key")
    disliked = [f"u{number}@example.com" for number in (7, 8, 9, 23, 40)]

    def send(call: Call) -> Answer:
        if any(address.encode() in call.body for address in disliked):
            return Answer(outcome=Outcome.MISCONFIGURED, status=403, message="forbidden")
        return client.send(call)

    with working(send=send, concurrency=2):
        wait_until(lambda: states(database).count("delivered") == 55, "the others")
        # They keep coming, and the few are given up: visible, with the reason.
        for number in range(200):
            add(intake, change(f"late{number}@example.com"))
            if states(database).count("dead") == 5:
                break
            time.sleep(0.1)
        wait_until(lambda: "pending" not in states(database), "all is settled")
    client.close()
    dead = [event for event in seen(database) if event.state == "dead"]
    assert sorted(row.identity_value or "" for row in dead) == sorted(disliked)
    assert all("while others were taken: forbidden" in row.error for row in dead)


def test_retry_after_slows_the_whole_worker(database: Database, box: Sandbox, intake: Intake, working: Working) -> None:
    """By the order on the wire: however busy the machine is, nobody may go on before the pause is over."""
    pause = 2
    box.fault("status", status=429, retry_after=pause)
    add(intake, *people(30))
    with capture_logs() as logs, working(concurrency=2):
        wait_until(all_are(database, State.DELIVERED), "everything after the pause")
    # So short a pause is no incident.
    assert not [line for line in logs if line["event"] == "destination_paused"]
    first, *later = [one["at"] for one in box.received]
    # What was under way with the first one, and what a thread had taken up by then; nobody else.
    assert sum(moment < first + pause for moment in later) <= 2


def test_an_unexpected_error_of_a_sending_thread_costs_one_try_and_is_said(
    database: Database, box: Sandbox, intake: Intake, working: Working
) -> None:
    add(intake, *people(20))
    client = Client(box.url, "key")
    failing = itertools.count()

    def send(call: Call) -> Answer:
        if next(failing) < 8:
            raise RuntimeError("u1@example.com")
        return client.send(call)

    with capture_logs(processors=[without_exception_text]) as logs, working(send=send, concurrency=2):
        wait_until(all_are(database, State.DELIVERED), "everything")
    client.close()
    said = [line for line in logs if line["event"] == "attempt_failed"]
    assert len(said) == 8
    assert {line["error"] for line in said} == {"RuntimeError"}
    assert all("test_worker.py:" in line["place"] for line in said)
    assert "u1@" not in str(logs)


def test_an_unexpected_error_of_housekeeping_keeps_nobody_waiting_and_is_said(
    database: Database, intake: Intake, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIDY_WAIT", 0.01)

    def tidy() -> bool:
        raise RuntimeError

    with capture_logs(processors=[without_exception_text]) as logs, working(tidy=tidy):
        wait_until(lambda: any(line["event"] == "housekeeping_failed" for line in logs), "it is said")
        add(intake, change())
        wait_until(all_are(database, State.DELIVERED), "a delivery all the same")


def test_a_worker_that_meets_a_bug_ends_and_says_where(database: Database) -> None:
    class Broken(Queue):
        def report(self, *args: Any, **more: Any) -> None:
            raise RuntimeError("jane@example.com")

    section = Section(form=EventsApi())
    worker = Worker(Broken(database), [section], connect=lambda _: lambda _: PASSING, concurrency=1)
    with capture_logs(processors=[without_exception_text]) as logs, pytest.raises(SystemExit):
        worker.run()
    (line,) = (line for line in logs if line["event"] == "worker_failed")
    assert line["error"] == "RuntimeError"
    assert "test_worker.py:" in line["place"]
    assert "jane" not in str(logs)


def test_what_hangs_where_nothing_can_cut_it_off_is_given_up_in_time(
    database: Database, intake: Intake, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's resolver knows no time limit of ours."""
    monkeypatch.setattr(sender, "ATTEMPT_DEADLINE", 0.2)
    monkeypatch.setattr(sender, "GRACE", 0.1)
    released, asked = threading.Event(), itertools.count()

    def send(call: Call) -> Answer:
        if next(asked) == 0:
            released.wait(60)
        return Answer(outcome=Outcome.DELIVERED)

    add(intake, change())
    with working(send=send, concurrency=2):
        wait_until(all_are(database, State.DELIVERED), "the second try, while the first still hangs")
        released.set()
    # Once: what came of the first in the end is of no interest any more.
    assert seen(database)[0].attempts == 1


# ---------------------------------------------------------------- leases


def test_a_send_never_begins_on_a_lease_that_could_end_before_it(
    database: Database, box: Sandbox, intake: Intake, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "ATTEMPT_DEADLINE", 19.99)  # of a lease of 20: 10 ms after the claim it is too late
    monkeypatch.setattr(module, "RENEW_EVERY", 3600.0)
    add(intake, *people(40))
    slow = threading.Event()

    def send(call: Call) -> Answer:
        slow.wait(0.05)
        return Answer(outcome=Outcome.DELIVERED)

    with working(send=send, concurrency=1):
        wait_until(all_are(database, State.DELIVERED), "everything, in many claims")
    # Had one begun on a stale lease, there would be a first attempt behind a slow one in the same claim.
    assert max(event.attempts for event in seen(database)) == 0


def test_what_was_taken_over_meanwhile_is_not_begun(
    database: Database, intake: Intake, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was stopped for a while (a laptop asleep) wakes up with a queue full of other people's work."""
    monkeypatch.setattr(module, "RENEW_EVERY", 0.01)
    sent: list[bytes] = []
    first, go_on = threading.Event(), threading.Event()

    def send(call: Call) -> Answer:
        sent.append(call.body)
        first.set()
        go_on.wait(10)
        return Answer(outcome=Outcome.DELIVERED)

    add(intake, *people(5))
    with working(send=send, concurrency=1):
        first.wait(10)
        with database.write() as connection:
            # As if the lease had run out and another worker had claimed them.
            connection.execute(update(consents).values(lease="another's", due_at=2**60))
        time.sleep(0.2)
        go_on.set()
        time.sleep(0.2)
    assert len(sent) == 1
    # The late answer changes nothing: what becomes of the change is the other's business.
    assert set(states(database)) == {"pending"}


# ---------------------------------------------------------------- the end


def test_sigterm_finishes_what_is_under_way_and_hands_back_the_rest(
    database: Database, box: Sandbox, intake: Intake, working: Working
) -> None:
    box.latency = 0.5
    add(intake, *people(30))
    with working(concurrency=4):
        wait_until(lambda: len(box.received) >= 4, "four under way")
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 2.0
    delivered = [event for event in seen(database) if event.state == "delivered"]
    handed_back = [event for event in seen(database) if event.state == "pending"]
    assert len(delivered) == len(box.received)
    # Nobody has to wait for a lease to run out, and no try was burnt.
    assert all(not event.in_flight and event.attempts == 0 for event in handed_back)
    assert len(Queue(database).claim(100)) == len(handed_back) > 0


def test_an_idle_worker_ends_at_once(working: Working) -> None:
    with working():
        time.sleep(0.1)
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 1.0


def test_housekeeping_is_done_a_little_at_a_time_while_there_is_more(
    working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIDY_EVERY", 0.02)
    steps: list[float] = []

    def tidy() -> bool:
        steps.append(time.monotonic())
        return len(steps) < 3

    with working(tidy=tidy):
        wait_until(lambda: len(steps) == 3, "three steps")
        time.sleep(0.2)
    assert len(steps) == 3
