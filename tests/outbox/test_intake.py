"""Storing what webhooks say: once, whole, and nothing that a database cannot hold. On both engines."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError
from sqlalchemy import select

from tests.outbox.world import START, Clock, add, change, rows, states
from tests.processes import wait_until
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox import Database, Intake, OutboxUnavailable, Queue, TokenReused, open_database
from webhook_app.outbox.intake import LARGE_AT_ONCE, READ_TOGETHER
from webhook_app.outbox.tables import one_time_tokens
from webhook_app.providers import dump_raw
from webhook_app.providers.sendgrid import SendGridEvent

# ---------------------------------------------------------------- once


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"event_id": "another"}, True),  # ESPs send again under new ids
        ({"identity": Identity(kind=IdentityKind.EMAIL, value=" JANE@example.com ")}, True),  # one mailbox
        ({"message_id": "another"}, False),
        ({"reason": "spamreport"}, False),
        ({"action": Action.OPT_IN}, False),
        ({"identity": Identity(kind=IdentityKind.EXTERNAL, value="jane@example.com")}, False),
        ({"occurred_at": datetime.fromtimestamp(START - 61, UTC)}, False),
    ],
    ids=str,
)
def test_what_counts_as_the_same_event(other: dict[str, Any], same: bool, intake: Intake) -> None:
    add(intake, change(event_id="e1", message_id="m1"))
    added = intake.add("sendgrid", changes=[(change(**({"event_id": "e1", "message_id": "m1"} | other)), b"{}")])
    assert (added.accepted, added.duplicates) == (int(not same), int(same))


def test_the_same_event_of_another_esp_is_another_event(intake: Intake) -> None:
    add(intake, change())
    assert intake.add("mailgun", changes=[(change(), b"{}")]).accepted == 1


def test_without_a_time_the_esps_id_tells_and_without_either_everything_is_new(intake: Intake) -> None:
    add(intake, change(occurred_at=None, event_id="e1"))
    assert intake.add("sendgrid", changes=[(change(occurred_at=None, event_id="e1"), b"{}")]).duplicates == 1
    add(intake, change(occurred_at=None))
    assert intake.add("sendgrid", changes=[(change(occurred_at=None), b"{}")]).accepted == 1


def test_ten_thousand_duplicates_from_sixteen_threads_make_one_row(database_url: str, database: Database) -> None:
    """Through databases of their own, as web processes have them: no lock of ours orders the threads of different
    ones. With look-then-insert a few of them would be second."""
    databases = [open_database(database_url) for _ in range(4)]
    intakes = [Intake(one) for one in databases]

    def send(number: int) -> tuple[int, int]:
        added = intakes[number % 4].add("sendgrid", changes=[(change(), b"{}")] * 25)
        return added.accepted, added.duplicates

    with ThreadPoolExecutor(16) as pool:
        counts = list(pool.map(send, range(400)))
    assert [sum(column) for column in zip(*counts, strict=True)] == [1, 9999]
    assert len(rows(database)) == 1
    for one in databases:
        one.close()


def test_of_hundreds_of_events_those_that_were_known_are_told_from_those_that_are_new(
    database_url: str, intake: Intake, database: Database
) -> None:
    """Across the borders of the statements, twice in one batch, and where another process has stored in between."""
    people = [change(f"u{number}@example.com") for number in range(350)]
    other = open_database(database_url)
    add(intake, people[0], change("ours@example.com"))
    add(Intake(other), *people[90:110], *people[340:])
    other.close()
    again = [*people, people[5], people[349]]
    added = intake.add("sendgrid", changes=[(one, b"{}") for one in again])
    assert (added.accepted, added.duplicates) == (350 - 31, 31 + 2)
    added = intake.add("sendgrid", changes=[(one, b"{}") for one in again])
    assert (added.accepted, added.duplicates) == (0, 352)
    assert len(rows(database)) == 351


def test_the_same_events_in_every_order_from_many_threads_never_wait_for_each_other(
    database_url: str, database: Database
) -> None:
    """Two transactions that insert the same keys in opposite orders deadlock on PostgreSQL: a 503 after a second."""
    databases = [open_database(database_url) for _ in range(4)]
    intakes = [Intake(one) for one in databases]
    batch = [(change(f"u{number}@example.com"), b"{}") for number in range(100)]

    def send(number: int) -> int:
        mine = batch.copy()
        random.Random(number).shuffle(mine)
        return intakes[number % 4].add("sendgrid", changes=mine).accepted

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(send, range(64))) == 100
    assert len(rows(database)) == 100
    for one in databases:
        one.close()


def test_each_webhook_of_a_group_gets_its_own_counts(intake: Intake, database: Database) -> None:
    """Webhooks that come at the same moment share a commit, and still each is told what became of its own."""
    add(intake, *(change(f"old{number}@example.com") for number in range(50)))

    def send(number: int) -> tuple[int, int, int]:
        changes = [change(f"new{number}@example.com"), change(f"old{number}@example.com")]
        added = intake.add(
            "sendgrid",
            changes=[(one, b"{}") for one in changes],
            quarantined=[("email: is missing", b'{"n": %d}' % number)],
        )
        return added.accepted, added.duplicates, added.quarantined

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(send, range(50))) == {(1, 1, 1)}
    assert len(rows(database)) == 150


def test_a_test_event_is_stored_and_not_counted(intake: Intake, database: Database) -> None:
    added = intake.add("sendgrid", changes=[(change(is_test=True), b"{}")])
    assert (added.accepted, added.duplicates) == (0, 0)
    assert states(database) == ["test"]


# ---------------------------------------------------------------- one-time tokens


def test_a_one_time_token_is_good_for_one_body_only(intake: Intake, database: Database) -> None:
    def send(email: str, body: bytes) -> int:
        return intake.add("mailgun", changes=[(change(email), b"{}")], one_time_token=b"token", body=body).accepted

    assert send("jane@example.com", b"first") == 1
    assert send("jane@example.com", b"first") == 0  # the ESP's retry
    with pytest.raises(TokenReused):
        send("joe@example.com", b"second")
    assert len(rows(database)) == 1


def test_a_reused_token_costs_the_others_of_its_group_nothing(intake: Intake, database: Database) -> None:
    def send(number: int) -> bool:
        try:
            intake.add(
                "mailgun",
                changes=[(change(f"u{number}@example.com"), b"{}")],
                one_time_token=b"shared" if number % 2 else b"%d" % number,
                body=b"%d" % number,
            )
        except TokenReused:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        # Twenty with a token of their own, and one of the twenty that share one.
        assert sum(pool.map(send, range(40))) == 21
    assert len(rows(database)) == 21
    with database.read() as connection:
        assert len(connection.execute(select(one_time_tokens)).all()) == 21


# ---------------------------------------------------------------- read by the thread that commits


@dataclass
class Said:
    changes: list[tuple[ConsentChange, bytes]]
    quarantined: list[tuple[str, bytes]] = field(default_factory=list)


def read_and_add(intake: Intake, read: Callable[[], Said], body: bytes = b"small") -> int:
    said, added = intake.read_and_add("sendgrid", read, one_time_token=None, body=body)
    assert added.accepted == len(said.changes)
    return added.accepted


def test_a_webhook_that_cannot_be_read_costs_the_others_of_its_group_nothing(
    intake: Intake, database: Database
) -> None:
    def send(number: int) -> str:
        def read() -> Said:
            if number % 5 == 0:
                raise RuntimeError(f"a bug, met by {number}")
            return Said([(change(f"u{number}@example.com"), b"{}")])

        try:
            return str(read_and_add(intake, read))
        except RuntimeError as error:
            return str(error)

    with ThreadPoolExecutor(16) as pool:
        # Each hears of its own.
        assert list(pool.map(send, range(40))) == [f"a bug, met by {n}" if n % 5 == 0 else "1" for n in range(40)]
    assert len(rows(database)) == 32


@pytest.mark.parametrize(("size", "waits"), [(READ_TOGETHER, True), (READ_TOGETHER + 1, False)])
def test_only_small_webhooks_wait_for_one_another_to_be_read(
    size: int, waits: bool, intake: Intake, database: Database
) -> None:
    """While the first is read, two more come: one thread commits both, and reads both unless they are large."""
    being_read, go_on = threading.Event(), threading.Event()

    def send(number: int) -> int:
        def read() -> Said:
            being_read.set()
            assert number or go_on.wait(60)
            return Said([(change(f"u{number}@example.com"), b"{}")])

        return read_and_add(intake, read, body=b" " * size)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(send, 0)
        assert being_read.wait(60)
        others = [pool.submit(send, number) for number in (1, 2)]
        done, _ = wait(others, timeout=0.5 if waits else 60)
        assert (not done) is waits
        go_on.set()
        assert [each.result() for each in (first, *others)] == [1, 1, 1]
    assert len(rows(database)) == 3


@dataclass
class LargeOnes:
    """Sixteen large webhooks come at once; each is read until it is let go. `most` were read at the same time."""

    intake: Intake
    go_on: threading.Event = field(default_factory=threading.Event)
    reading: int = 0
    most: int = 0
    threads: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, number: int) -> int:
        return read_and_add(self.intake, partial(self._read, number), body=b" " * (READ_TOGETHER + 1))

    def _read(self, number: int) -> Said:
        with self._lock:
            self.reading += 1
            self.most = max(self.most, self.reading)
            self.threads.add(threading.current_thread().name)
        assert self.go_on.wait(60)
        time.sleep(0.005)  # more than are allowed would meet here
        with self._lock:
            self.reading -= 1
        return Said([(change(f"u{number}@example.com"), b"{}")])


def test_large_webhooks_are_read_two_at_a_time_and_a_small_one_waits_for_none_of_them(
    intake: Intake, database: Database
) -> None:
    """Sixteen batches of a thousand events, each read by the thread that it came to, took 100 MB."""
    large = LargeOnes(intake)
    with ThreadPoolExecutor(16) as pool:
        came = [pool.submit(large.send, number) for number in range(16)]
        wait_until(lambda: large.reading == LARGE_AT_ONCE, "the first are read")
        small = Said([(change("small@example.com"), b"{}")])
        assert read_and_add(intake, lambda: small) == 1
        assert not any(each.done() for each in came)
        large.go_on.set()
        assert [each.result() for each in came] == [1] * 16
    assert large.most == LARGE_AT_ONCE
    # Always the same: what each thread has once used of the memory, it keeps.
    assert len(large.threads) == LARGE_AT_ONCE
    assert len(rows(database)) == 17


def test_a_large_webhook_whose_turn_does_not_come_is_refused_and_welcome_again(
    intake: Intake, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook_app.outbox.intake.LARGE_WAIT", 0.2)
    large = LargeOnes(intake)
    with ThreadPoolExecutor(LARGE_AT_ONCE) as pool:
        came = [pool.submit(large.send, number) for number in range(LARGE_AT_ONCE)]
        wait_until(lambda: large.reading == LARGE_AT_ONCE, "the first are read")
        with pytest.raises(OutboxUnavailable, match="too many"):
            large.send(99)
        large.go_on.set()
        # They had begun: however long it takes, they are waited for.
        assert [each.result() for each in came] == [1] * LARGE_AT_ONCE
    assert len(rows(database)) == LARGE_AT_ONCE, "what was refused is not stored behind the sender's back"
    assert large.send(99) == 1


@pytest.mark.parametrize("size", [READ_TOGETHER, READ_TOGETHER + 1])
def test_what_has_nothing_to_be_stored_does_not_wait_for_a_database_that_hangs(
    size: int, database_url: str, intake: Intake
) -> None:
    add(intake)
    rival = open_database(database_url)
    answered = threading.Event()

    def store() -> None:
        add(intake, change("late@example.com"))
        assert answered.is_set()

    with ThreadPoolExecutor(1) as pool:
        with rival.write() as connection:
            # Holds what an intake needs: SQLite's one lock, PostgreSQL's of the table.
            if rival.dialect == "postgresql":
                connection.exec_driver_sql("LOCK TABLE events")
            stored = pool.submit(store)
            time.sleep(1.0)
            assert read_and_add(intake, lambda: Said([]), body=b" " * size) == 0
            answered.set()
        stored.result()
    rival.close()


# ---------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("moment", "stored"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
        (datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime.fromtimestamp(START, UTC)),
        (datetime.fromtimestamp(START + 1, UTC), datetime.fromtimestamp(START, UTC)),
    ],
    ids=str,
)
def test_every_year_can_be_stored_and_one_that_has_not_come_counts_as_now(
    moment: datetime, stored: datetime, intake: Intake, queue: Queue
) -> None:
    add(intake, change(occurred_at=moment))
    (claimed,) = queue.claim(1)
    assert claimed.change is not None
    assert claimed.change.occurred_at == stored


def test_a_change_that_claims_to_be_from_the_future_loses_to_what_happens_later(
    intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change(ago=-timedelta(days=3650).total_seconds(), action=Action.OPT_IN))
    clock.go(60)
    add(intake, change(ago=-60, action=Action.OPT_OUT))
    (claimed,) = queue.claim(10)
    assert claimed.change is not None
    assert claimed.change.action is Action.OPT_OUT


# ---------------------------------------------------------------- values

NASTY = st.text(
    st.characters() | st.sampled_from("\x00\ud800\udfff\uffff\ufeff\u202e\U0010ffff'\"\\%;\n\t{}[]"), max_size=30
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
    max_leaves=5,
)
EVENT = st.fixed_dictionaries(
    {
        "event": st.just("unsubscribe"),
        "email": st.builds("{}@{}".format, NASTY, NASTY) | JSON,
        "timestamp": st.integers(min_value=0, max_value=2**33) | st.floats() | NASTY,
    },
    optional=dict.fromkeys(("sg_event_id", "sg_message_id", "dyid", "dyid_server", "other"), NASTY | JSON),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(event=EVENT)
def test_whatever_passes_the_schema_can_be_stored_and_comes_back_as_it_was(
    event: dict[str, Any], database: Database
) -> None:
    """A value that breaks the database would be a 503 for ever, for the whole batch it came in."""
    try:
        loaded = SendGridEvent().load(event)
    except ValidationError as error:
        stored = Intake(database).add("sendgrid", quarantined=[(str(error.messages)[:50], dump_raw(event))])
        assert stored.quarantined + stored.duplicates == 1
        return
    queue = Queue(database)
    Intake(database).add("sendgrid", changes=[(loaded, dump_raw(event))])
    for claimed in queue.claim(10):
        assert claimed.change is not None
        assert claimed.change.identity.value == loaded.identity.value
        assert claimed.change.visitor == loaded.visitor
        queue.release([claimed])
    with database.write() as connection:
        connection.exec_driver_sql("DELETE FROM consents")
        connection.exec_driver_sql("DELETE FROM events")


def test_a_value_that_breaks_the_database_is_no_stack_trace(intake: Intake, database: Database) -> None:
    """Schemas refuse such values; should one be forgotten, the ESP sends again, and nothing is half stored."""
    with pytest.raises((OutboxUnavailable, UnicodeEncodeError)):
        intake.add("x", changes=[(change("good@example.com"), b"{}"), (change(event_id="\ud800"), b"{}")])
    assert rows(database) == []


# ---------------------------------------------------------------- by the server's clock


def test_what_has_no_time_gets_none_from_what_is_stored_with_it(database: Database) -> None:
    made_up = replace(change("test@example.com"), is_test=True)
    added = Intake(database).add(
        "sendgrid",
        changes=[(change(), b"{}"), (made_up, b'{"test":1}')],
        quarantined=[("no address", b'{"email":1}')],
    )
    assert (added.accepted, added.quarantined, added.tests) == (1, 1, 1)
    found = {row.state: (row.occurred_at is None, row.settled_at is None) for row in rows(database)}
    assert found == {"pending": (False, True), "quarantined": (True, True), "test": (False, False)}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_newest_change_counts_also_where_the_machine_that_stores_it_is_slow(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, real_time = Intake(database), time.time
    monkeypatch.setattr(time, "time", lambda: real_time() - 120)
    slow = Intake(database)
    monkeypatch.undo()
    happened = datetime.fromtimestamp(real_time(), UTC)
    opt_in = replace(change(action=Action.OPT_IN), occurred_at=happened - timedelta(seconds=60))
    add(right, opt_in)
    add(slow, replace(change(), occurred_at=happened))
    (claimed,) = Queue(database).claim(10)
    assert claimed.change is not None
    assert claimed.change.action is Action.OPT_OUT


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_time_that_has_not_come_is_now_by_the_clock_of_the_server(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_time = time.time
    monkeypatch.setattr(time, "time", lambda: real_time() + 3600)
    fast = Intake(database)
    monkeypatch.undo()
    before = real_time()
    tomorrow = datetime.fromtimestamp(real_time() + 86_400, UTC)
    add(fast, replace(change(), occurred_at=tomorrow), replace(change("joe@example.com"), occurred_at=None))
    for row in rows(database):
        assert before - 5 < row.occurred_at / 1e6 == row.version // 2 / 1e6 == row.received_at / 1e6 < real_time() + 5
