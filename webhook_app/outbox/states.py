"""States of events, derived from the log, the register and the attempts."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, literal, or_, select, true

from webhook_app.outbox.tables import SET_ASIDE, State, attempts, consents, counts, events, set_aside
from webhook_app.outbox.times import current_time

#: The rows of the register that want an event: one for each section at most.
_wants_it = and_(consents.c.identity_hash == events.c.identity_hash, consents.c.event_id == events.c.id)


def _some(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether there is such a row. Not EXISTS: PostgreSQL would read the whole table instead of looking a few up."""
    return select(literal(1)).where(*conditions).limit(1).scalar_subquery().is_not(None)


#: How often what an event wants has failed.
tries = func.coalesce(select(func.max(consents.c.tries)).where(_wants_it).scalar_subquery(), 0)

#: Not `IS NOT NULL`: by statistics from a quiet moment PostgreSQL would go through all that is due for each event,
#: instead of looking up its person.
_is_dead = _some(_wants_it, func.coalesce(consents.c.dead_at, 0) > 0)
#: Whether nothing is done about it yet, or nothing any more, though Dynamic Yield does not know.
is_unfinished = _some(_wants_it, func.coalesce(consents.c.due_at, consents.c.dead_at, 0) > 0)
_was_taken = or_(
    _some(attempts.c.event_id == events.c.id, attempts.c.outcome == State.DELIVERED.value),
    _some(_wants_it, consents.c.told_version == consents.c.version),
)
#: Something as new is in the register. Where not, a version without a register has stored it a moment ago.
_is_covered = _some(consents.c.identity_hash == events.c.identity_hash, consents.c.version >= events.c.version)

#: By the register's own indexes. A person in two sections is counted twice.
WAITING = select(consents.c.event_id).where(consents.c.due_at.is_not(None))
DEAD = select(consents.c.event_id).where(consents.c.dead_at.is_not(None))

#: What a list of one state holds.
IN_STATE: Mapping[State, ColumnElement[bool]] = {
    State.PENDING: and_(counts(), events.c.id.in_(WAITING), ~_is_dead),
    State.DEAD: and_(counts(), events.c.id.in_(DEAD)),
    State.DELIVERED: and_(counts(), ~is_unfinished, _was_taken),
    State.SUPERSEDED: and_(counts(), ~is_unfinished, ~_was_taken, _is_covered),
    **{state: and_(set_aside(), events.c.state == state.value) for state in SET_ASIDE},
}


def is_configured(sections: Collection[str] | None) -> ColumnElement[bool]:
    """Whether a row of the register is of one of these sections; None for any. Nobody tells the others."""
    return true() if sections is None else consents.c.section.in_(sections)


#: Something is left to do for the same person: should it be given up, an older change may count again. Also for a
#: section that is not configured: it may come back, and whoever runs it is told until it is dropped.
is_of_somebody_unfinished = _some(
    consents.c.identity_hash == events.c.identity_hash, func.coalesce(consents.c.due_at, consents.c.dead_at, 0) > 0
)


def is_being_sent(dialect: str) -> ColumnElement[bool]:
    """Under a lease that has not run out. One that has is of a worker that was killed, and nobody sends it."""
    return and_(consents.c.lease.is_not(None), consents.c.due_at > current_time(dialect))


def told_since(moment: int) -> ColumnElement[bool]:
    """Whether Dynamic Yield was told of an event since then."""
    return _some(_wants_it, consents.c.told_at >= moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStatus:
    """Times are in microseconds."""

    state: State
    due_at: int | None = None
    settled_at: int | None = None
    in_flight: bool = False
    tries: int = 0
    error: str | None = None


def event_statuses(connection: Connection, rows: Sequence[Any]) -> list[EventStatus]:
    """What became of each of these rows of the log, in two statements for all of them."""
    people = {row.identity_hash for row in rows if row.identity_hash is not None}
    register: dict[bytes, list[Any]] = {}
    being_sent = is_being_sent(connection.dialect.name).label("is_being_sent")
    for one in connection.execute(select(consents, being_sent).where(consents.c.identity_hash.in_(people))):
        register.setdefault(bytes(one.identity_hash), []).append(one)
    ended = func.max(attempts.c.started_at + attempts.c.duration)
    deliveries = (
        select(attempts.c.event_id, ended)
        .where(
            attempts.c.event_id.in_([row.id for row in rows if row.state not in SET_ASIDE]),
            attempts.c.outcome == State.DELIVERED.value,
        )
        .group_by(attempts.c.event_id)
    )
    taken: dict[int, int] = dict(connection.execute(deliveries).all())
    return [_event_status(row, register.get(bytes(row.identity_hash or b""), ()), taken.get(row.id)) for row in rows]


def _event_status(row: Any, register: Iterable[Any], taken_at: int | None) -> EventStatus:
    if row.state in SET_ASIDE:
        return EventStatus(state=State(row.state), settled_at=row.settled_at, error=row.error)
    wanting = [one for one in register if one.event_id == row.id]
    dead = next((one for one in wanting if one.dead_at is not None), None)
    if dead:
        return EventStatus(state=State.DEAD, settled_at=dead.dead_at, tries=dead.tries, error=dead.error)
    waiting = [one for one in wanting if one.due_at is not None]
    if waiting:
        first = min(waiting, key=lambda one: one.due_at)
        return EventStatus(
            state=State.PENDING,
            due_at=first.due_at,
            in_flight=any(one.is_being_sent for one in waiting),
            tries=max(one.tries for one in waiting),
            error=first.error,
        )
    told_at = max((one.told_at for one in wanting if one.told_version == one.version), default=taken_at)
    if told_at is not None:
        return EventStatus(
            state=State.DELIVERED, settled_at=told_at, tries=max((one.tries for one in wanting), default=0)
        )
    if any(one.version >= (row.version or 0) for one in register):
        return EventStatus(state=State.SUPERSEDED)
    # A version without a register has stored it a moment ago; or its section was dropped, and nobody will be told.
    return EventStatus(state=State.DISCARDED if row.due_at is None else State.PENDING)
