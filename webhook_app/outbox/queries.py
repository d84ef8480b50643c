"""Queries over the log: finding a person's changes, listing, counting, one change with all that is known of it.

Only reads. Lists go forward and back by the key of the row at their edge, so that the last page of ten million costs
what the first one does.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, literal, or_, select, true, tuple_, union

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox.database import Database
from webhook_app.outbox.hashing import HASH_BYTES, load_hasher
from webhook_app.outbox.rows import Sent, change_of_row
from webhook_app.outbox.states import DEAD, IN_STATE, WAITING, EventStatus, event_statuses, tries
from webhook_app.outbox.tables import DEFAULT_SECTION, State, attempts, events, mentions
from webhook_app.outbox.times import duration_to_micros, from_micros, maybe_from_micros, to_micros

PAGE = 50  # rows
BATCH = 1000  # rows
#: How far the times of receipt may be out of step with the order of the rows: clocks of several machines.
SKEW = duration_to_micros(timedelta(hours=1))
COUNT_LIMIT = 100_000
EVERYTHING = true()

_LARGEST = 2**63 - 1
#: Between the pseudonyms of one that is known by several: as an address, and as an external id.
_BETWEEN = "."


class Sort(StrEnum):
    #: When it was received.
    RECEIVED = "received"
    #: When the person acted, as the ESP says.
    OCCURRED = "occurred"
    #: How many attempts have failed.
    ATTEMPTS = "attempts"


_SORT_KEYS: dict[Sort, ColumnElement[Any]] = {
    Sort.RECEIVED: events.c.id,
    Sort.OCCURRED: func.coalesce(events.c.occurred_at, events.c.received_at),
    Sort.ATTEMPTS: tries,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which changes. What is left empty does not narrow; times are those of receipt, from `since` to before `until`."""

    #: An address, an external or push id, a change's number behind `#`, or the pseudonym that stands in the logs.
    person: str = field(default="", repr=False)
    state: State | None = None
    provider: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def described(self) -> dict[str, str]:
        """What it narrows to, for the journal: no address, only that one was given."""
        times = {"since": self.since, "until": self.until}
        return {
            **({"person": "one, by address or id"} if self.person else {}),
            **({"state": str(self.state)} if self.state else {}),
            **({"provider": self.provider} if self.provider else {}),
            **{name: moment.isoformat() for name, moment in times.items() if moment},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change as it stands now. What retention has emptied is None."""

    id: int
    provider: str
    state: State
    action: Action | None
    #: The ESP's word for what happened.
    reason: str
    identity_kind: IdentityKind | None
    identity_value: str | None = field(repr=False)
    #: The keyed hash that stands for the person in the logs; empty while nothing is understood of the event.
    pseudonym: str
    esp_event_id: str
    esp_message_id: str
    occurred_at: datetime | None
    received_at: datetime
    due_at: datetime | None
    settled_at: datetime | None
    in_flight: bool
    attempts: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    started_at: datetime
    duration: float  # seconds
    outcome: str
    status: int | None
    message: str
    trace_id: str
    warnings: tuple[str, ...]
    section: str
    #: What was really sent, without the key; None where nothing was, or nothing was kept.
    sent: Sent | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDetails:
    """One change with all that is known of it."""

    event: Event
    #: Oldest first.
    attempts: tuple[Attempt, ...]
    #: As the ESP sent it; None after retention.
    raw: bytes | None = field(repr=False)
    #: None where nothing was understood, or after retention.
    change: ConsentChange | None
    #: The same person's other changes, newest first, at most `PAGE`.
    others: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    events: list[Event]
    #: What to hand in as `after` or `before` for the neighbouring pages; None where there are no more.
    next: str | None
    previous: str | None


def search(
    database: Database,
    which: Filter,
    *,
    sort: Sort = Sort.RECEIVED,
    ascending: bool = False,
    after: str = "",
    before: str = "",
    limit: int = PAGE,
) -> Page:
    """One page of what the filter lets through. A cursor that cannot be read counts as none.

    Raises `OutboxUnavailable`.
    """
    key = _SORT_KEYS[sort]
    place = _parse_cursor(after or before)
    backwards = place is not None and not after
    upwards = ascending is not backwards
    order = (key.asc(), events.c.id.asc()) if upwards else (key.desc(), events.c.id.desc())
    with database.read() as connection:
        query = _columns(key.label("sort_key")).where(_conditions(database, connection, which))
        if place is not None:
            here, edge = tuple_(key, events.c.id), tuple_(*(literal(number) for number in place))
            query = query.where(here > edge if upwards else here < edge)
        rows = list(connection.execute(query.order_by(*order).limit(limit + 1)).all())
        more, rows = len(rows) > limit, rows[:limit]
        if backwards:
            rows.reverse()
        found = _events(connection, rows)
    first = _cursor(rows[0]) if rows else None
    last = _cursor(rows[-1]) if rows else None
    return Page(
        events=found,
        next=last if more or backwards else None,
        previous=first if (backwards and more) or (place is not None and not backwards) else None,
    )


def show(database: Database, number: int) -> EventDetails | None:
    """One change, None where there is none of this number. Raises `OutboxUnavailable`."""
    if not 0 < number <= _LARGEST:
        return None
    with database.read() as connection:
        row = connection.execute(select(events).where(events.c.id == number)).first()
        if row is None:
            return None
        tried = connection.execute(select(attempts).where(attempts.c.event_id == number).order_by(attempts.c.id)).all()
        person = [] if row.identity_hash is None else [row.identity_hash]
        newer_first = connection.execute(
            _columns()
            .where(events.c.identity_hash.in_(person), events.c.id != number)
            .order_by(events.c.version.desc(), events.c.id.desc())
            .limit(PAGE)
        ).all()
        event, *others = _events(connection, [row, *newer_first])
    try:
        change = change_of_row(row._mapping)
    except (ValueError, TypeError):
        change = None
    return EventDetails(
        event=event,
        attempts=tuple(attempt_of(one) for one in tried),
        raw=row.raw,
        change=change,
        others=tuple(others),
    )


def count(database: Database, which: Filter, also: ColumnElement[bool] = EVERYTHING) -> int:
    """Exactly how many. Raises `OutboxUnavailable`."""
    with database.read() as connection:
        conditions = _conditions(database, connection, which)
        query = select(func.count()).select_from(events).where(conditions, also)
        return int(connection.execute(query).scalar_one())


def newest_number(database: Database) -> int:
    """The number of the change that came in last, 0 when there is none. Raises `OutboxUnavailable`."""
    with database.read() as connection:
        return int(connection.execute(select(func.max(events.c.id))).scalar() or 0)


_COUNTED = {State.PENDING: WAITING, State.DEAD: DEAD}


def count_by_state(database: Database, states: tuple[State, ...], *, limit: int = COUNT_LIMIT) -> dict[State, int]:
    """How many are in each state; counting stops at `limit`. Raises `OutboxUnavailable`."""
    found = {}
    with database.read() as connection:
        for state in states:
            some = _COUNTED.get(state, select(events.c.id).where(IN_STATE[state])).limit(limit).subquery()
            found[state] = int(connection.execute(select(func.count()).select_from(some)).scalar_one())
    return found


def stream(
    database: Database,
    which: Filter,
    also: ColumnElement[bool] = EVERYTHING,
    *,
    after: int = 0,
    up_to: int = _LARGEST,
    batch: int = BATCH,
) -> Iterator[list[Event]]:
    """All that the filter lets through, oldest first, in batches; no transaction stays open between two of them.

    Begins behind the change with the number `after`, ends with the one with the number `up_to`.

    Ends at the newest row there is when it begins: what comes in meanwhile is not waited for. Raises
    `OutboxUnavailable`.
    """
    with database.read() as connection:
        conditions = _conditions(database, connection, which)
        newest = min(connection.execute(select(func.max(events.c.id))).scalar() or 0, up_to)
    last = after
    while True:
        with database.read() as connection:
            query = _columns().where(conditions, also, events.c.id > last, events.c.id <= newest)
            rows = connection.execute(query.order_by(events.c.id).limit(batch)).all()
            found = _events(connection, rows)
        if not rows:
            return
        yield found
        last = rows[-1].id


def _columns(*more: ColumnElement[Any]) -> Select[Any]:
    """Everything but the raw event: it may be large, and no list shows it."""
    return select(*(column for column in events.c if column.name != "raw"), *more)


def _conditions(database: Database, connection: Connection, which: Filter) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [events.c.id > 0]
    # A blank one that was given is nobody, not everybody.
    if which.person:
        conditions.append(_is_person(database, which.person.strip()))
    if which.state is not None:
        conditions.append(IN_STATE[which.state])
    if which.provider:
        conditions.append(events.c.provider == which.provider)
    if which.since is not None:
        conditions += [
            events.c.received_at >= to_micros(which.since),
            events.c.id >= first_since(connection, to_micros(which.since) - SKEW),
        ]
    if which.until is not None:
        conditions += [
            events.c.received_at < to_micros(which.until),
            events.c.id < first_since(connection, to_micros(which.until) + SKEW),
        ]
    return and_(*conditions)


def pseudonyms(database: Database, person: str) -> str:
    """What may stand in a URL instead of `person`: keyed hashes, or a change's number. The same search finds the same.

    A router on the way logs URLs, and an address must not stand in anybody's log. Raises `OutboxUnavailable`.
    """
    hashes, number = hashes_of(database, person), _number_of(person)
    with database.read() as connection:
        of_events, of_mentions = (
            select(table.c.identity_hash).where(table.c.identity_hash.in_(hashes)) for table in (events, mentions)
        )
        known = sorted(bytes(hashed).hex() for hashed in connection.execute(union(of_events, of_mentions)).scalars())
        if known or number is None:
            return _BETWEEN.join(known) or bytes(HASH_BYTES).hex()
        return f"#{number}"


def _is_person(database: Database, person: str) -> ColumnElement[bool]:
    """By keyed hash, so that it finds people after retention has emptied their rows, and needs no address on disk."""
    about = events.c.identity_hash.in_(hashes_of(database, person))
    # Not a bare number: it may be somebody's id, and an order would reach a stranger's change with it.
    number = _number_of(person) if person.startswith("#") else None
    return about if number is None else or_(about, events.c.id == number)


def hashes_of(database: Database, person: str) -> list[bytes]:
    hasher = load_hasher(database)
    hashes = []
    # Blank, or a lone surrogate: nobody is called so, for it could not have been stored.
    with suppress(ValueError):
        hashes = [hasher.identity(Identity(kind=kind, value=person)) for kind in IdentityKind]
    parts = person.split(_BETWEEN)
    if all(len(part) == 2 * HASH_BYTES for part in parts):
        with suppress(ValueError):
            hashes += [bytes.fromhex(part) for part in parts]
    return hashes


def _number_of(person: str) -> int | None:
    digits = person.removeprefix("#")
    if digits.isascii() and digits.isdecimal() and 0 < int(digits[:20]) <= _LARGEST:
        return int(digits[:20])
    return None


def first_since(connection: Connection, moment: int) -> int:
    """The number from which on rows were received at `moment` or later, found by halving.

    Rows are numbered as they come in, so the primary key serves as an index of time, and the hot path need not keep
    a second one.
    """
    low, high = 0, (connection.execute(select(func.max(events.c.id))).scalar() or 0) + 1
    while low < high:
        middle = (low + high) // 2
        query = select(events.c.id, events.c.received_at).where(events.c.id >= middle).order_by(events.c.id).limit(1)
        row = connection.execute(query).first()
        if row is None or row.received_at >= moment:
            high = middle
        else:
            low = row.id + 1
    return low


def _cursor(row: Any) -> str:
    return f"{row.sort_key}.{row.id}"


def _parse_cursor(text: str) -> tuple[int, int] | None:
    key, _, number = text[:50].partition(".")
    try:
        place = int(key), int(number)
    except ValueError:
        return None
    # No database takes larger numbers.
    return place if all(-_LARGEST <= part <= _LARGEST for part in place) else None


def _events(connection: Connection, rows: Sequence[Any]) -> list[Event]:
    return [_event(row, status) for row, status in zip(rows, event_statuses(connection, rows), strict=True)]


def _event(row: Any, status: EventStatus) -> Event:
    return Event(
        id=row.id,
        provider=row.provider,
        state=status.state,
        action=None if row.action is None else Action(row.action),
        reason=row.reason or "",
        identity_kind=None if row.identity_kind is None else IdentityKind(row.identity_kind),
        identity_value=row.identity_value,
        pseudonym="" if row.identity_hash is None else row.identity_hash.hex(),
        esp_event_id=row.esp_event_id or "",
        esp_message_id=row.esp_message_id or "",
        occurred_at=maybe_from_micros(row.occurred_at),
        received_at=from_micros(row.received_at),
        due_at=maybe_from_micros(status.due_at),
        settled_at=maybe_from_micros(status.settled_at),
        in_flight=status.in_flight,
        attempts=status.tries,
        error=status.error or "",
    )


def attempt_of(row: Any) -> Attempt:
    return Attempt(
        started_at=from_micros(row.started_at),
        duration=row.duration / 1_000_000,
        outcome=row.outcome,
        status=row.status,
        message=row.message or "",
        trace_id=row.trace_id or "",
        warnings=tuple(json.loads(row.warnings)) if row.warnings else (),
        section=row.section or DEFAULT_SECTION,
        sent=None if row.body is None else Sent(row.method, row.url, row.body),
    )
