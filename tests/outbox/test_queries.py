"""Finding, listing and counting what is in the outbox, on both engines."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox import Database, Intake, Queue, Settlement, State
from webhook_app.outbox.people import show_person
from webhook_app.outbox.queries import Filter, Sort, count, count_by_state, search, show, stream
from webhook_app.outbox.tables import events

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

Store = Callable[..., None]


def opt_out(value: str, *, kind: IdentityKind = IdentityKind.EMAIL, at: datetime = NOW) -> ConsentChange:
    return ConsentChange(
        action=Action.OPT_OUT,
        identity=Identity(kind=kind, value=value),
        reason="unsubscribe",
        occurred_at=at,
        message_id=f"message to {value}",
    )


@pytest.fixture
def store(database: Database) -> Store:
    def add(*changes: ConsentChange, provider: str = "sendgrid", at: datetime = NOW) -> None:
        intake = Intake(database, clock=at.timestamp)
        for change in changes:
            intake.add(provider, changes=[(change, b"{}")])

    return add


def found(database: Database, **which: Any) -> list[str | None]:
    return [event.identity_value for event in search(database, replace(Filter(), **which)).events]


@pytest.mark.parametrize(
    "wanted", ["jane@example.com", " Jane@Example.COM ", "#1", " #1 ", "JANE@EXAMPLE.COM"], ids=lambda wanted: wanted
)
def test_a_person_is_found_by_address_in_any_case_and_by_number(database: Database, store: Store, wanted: str) -> None:
    store(opt_out("jane@example.com"), opt_out("joe@example.com"))
    assert found(database, person=wanted) == ["jane@example.com"]


def test_a_person_is_found_by_external_and_push_id_and_by_the_pseudonym_of_the_logs(
    database: Database, store: Store
) -> None:
    store(opt_out("852456456", kind=IdentityKind.EXTERNAL), opt_out("token-1", kind=IdentityKind.PUSH))
    assert found(database, person="852456456") == ["852456456"]
    assert found(database, person="token-1") == ["token-1"]
    pseudonym = search(database, Filter(person="token-1")).events[0].pseudonym
    assert found(database, person=pseudonym) == ["token-1"]


def test_a_bare_number_is_somebodys_id_and_never_a_strangers_change(database: Database, store: Store) -> None:
    store(opt_out("jane@example.com"), opt_out("1", kind=IdentityKind.EXTERNAL))
    assert found(database, person="1") == ["1"]
    assert found(database, person="2") == []


def test_a_person_is_found_after_retention_has_emptied_the_row(database: Database, store: Store) -> None:
    store(opt_out("jane@example.com"))
    with database.write() as connection:
        connection.execute(update(events).values(identity_value=None, raw=None))
    (event,) = search(database, Filter(person="jane@example.com")).events
    assert event.identity_value is None
    life = show(database, event.id)
    assert life is not None
    assert (life.change, life.raw) == (None, None)


@pytest.mark.parametrize(
    "person", ["' OR 1=1 --", "%", "\0", "\ud800", "9" * 400, "#-1", "<script>", "0" * 32, "²", " ", "\r"]
)
def test_a_strange_search_finds_nobody(database: Database, store: Store, person: str) -> None:
    store(opt_out("jane@example.com"))
    assert found(database, person=person) == []


def test_filters_narrow_together(database: Database, store: Store) -> None:
    store(opt_out("a@example.com"), at=NOW)
    store(opt_out("b@example.com"), provider="mailgun", at=NOW + timedelta(hours=5))
    store(opt_out("c@example.com"), at=NOW + timedelta(hours=10))
    assert found(database, provider="sendgrid") == ["c@example.com", "a@example.com"]
    assert found(database, provider="sendgrid", until=NOW + timedelta(hours=10)) == ["a@example.com"]
    assert found(database, since=NOW + timedelta(hours=5)) == ["c@example.com", "b@example.com"]
    assert found(database, since=NOW + timedelta(hours=11)) == []
    assert found(database, state=State.DELIVERED) == []
    assert count(database, Filter(state=State.PENDING, since=NOW + timedelta(hours=1))) == 2


def test_times_far_outside_are_no_matter(database: Database, store: Store) -> None:
    store(opt_out("a@example.com"))
    early, late = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert found(database, since=early, until=late) == ["a@example.com"]
    assert found(database, since=late) == found(database, until=early) == []


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("sort", Sort)
def test_pages_go_forward_to_the_end_and_back_to_the_beginning(
    database: Database, store: Store, sort: Sort, ascending: bool
) -> None:
    store(*(opt_out(f"{number}@example.com", at=NOW - timedelta(minutes=number % 3)) for number in range(10)))
    seen: list[int] = []
    page = search(database, Filter(), sort=sort, ascending=ascending, limit=4)
    assert page.previous is None
    sizes = [len(page.events)]
    seen += [event.id for event in page.events]
    while page.next:
        page = search(database, Filter(), sort=sort, ascending=ascending, limit=4, after=page.next)
        sizes.append(len(page.events))
        seen += [event.id for event in page.events]
    assert sizes == [4, 4, 2]
    assert sorted(seen) == list(range(1, 11))
    back = [event.id for event in page.events]
    while page.previous:
        page = search(database, Filter(), sort=sort, ascending=ascending, limit=4, before=page.previous)
        back = [event.id for event in page.events] + back
    assert back == seen
    assert page.next is not None


@pytest.mark.parametrize("cursor", ["1000000000", "x.y", "9" * 30 + ".1", "1.", ".", "-1.-1", "1.1.1", "\0"])
def test_a_cursor_that_makes_no_sense_is_harmless(database: Database, store: Store, cursor: str) -> None:
    store(opt_out("jane@example.com"))
    assert len(search(database, Filter(), after=cursor).events) <= 1
    assert len(search(database, Filter(), before=cursor).events) <= 1


def test_a_life_holds_the_attempts_and_the_persons_other_changes(database: Database, store: Store) -> None:
    store(opt_out("jane@example.com"), opt_out("joe@example.com"))
    store(opt_out("Jane@example.com", at=NOW - timedelta(days=1)))
    queue = Queue(database, clock=lambda: NOW.timestamp() + 1)
    claimed = next(one for one in queue.claim(10) if one.id == 1)
    queue.settle(
        [
            Settlement(
                claimed=claimed,
                state=State.DELIVERED,
                started_at=NOW.timestamp(),
                duration=0.25,
                outcome="delivered",
                status=200,
                trace_id="trace-1",
                warnings=["W1: dropped"],
            )
        ]
    )
    life = show(database, 1)
    assert life is not None
    assert life.event.state is State.DELIVERED
    assert life.change == opt_out("jane@example.com")
    (attempt,) = life.attempts
    assert (attempt.status, attempt.trace_id, attempt.duration) == (200, "trace-1", 0.25)
    assert attempt.warnings == ("W1: dropped",)
    assert [(other.id, other.state) for other in life.others] == [(3, State.SUPERSEDED)]


@pytest.mark.parametrize("number", [0, -1, 99, 10**9, 2**63, 10**30])
def test_there_is_no_change_of_a_number_that_was_never_given(database: Database, number: int) -> None:
    assert show(database, number) is None


def test_counting_by_state_stops_at_its_limit(database: Database, store: Store) -> None:
    store(*(opt_out(f"{number}@example.com") for number in range(5)))
    assert count_by_state(database, (State.PENDING, State.DEAD)) == {State.PENDING: 5, State.DEAD: 0}
    assert count_by_state(database, (State.PENDING,), limit=3) == {State.PENDING: 3}


def test_streaming_gives_each_row_once_and_ends_at_what_was_there_when_it_began(
    database: Database, store: Store
) -> None:
    store(*(opt_out(f"{number}@example.com") for number in range(5)))
    streaming = stream(database, Filter(), batch=2)
    seen = [event.id for event in next(streaming)]
    store(opt_out("late@example.com"))
    seen += [event.id for batch in streaming for event in batch]
    assert seen == [1, 2, 3, 4, 5]


def test_what_a_killed_worker_has_left_behind_is_not_being_sent(database: Database, store: Store) -> None:
    store(opt_out("jane@example.com"))

    def is_being_sent() -> tuple[bool, bool]:
        life, jane = show(database, 1), show_person(database, "jane@example.com")
        assert life
        assert jane
        return life.event.in_flight, jane.consents[0].being_told

    assert Queue(database, clock=lambda: time.time() - 3600).claim(1)
    assert is_being_sent() == (False, False)
    assert Queue(database).claim(1)
    assert is_being_sent() == (True, True)
