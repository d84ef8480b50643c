"""Backfill: a section that was added later learns what the log knows of everybody."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, false, func, or_, select, update

from webhook_app.consent import Action, IdentityKind
from webhook_app.outbox.database import Database
from webhook_app.outbox.queries import newest_number
from webhook_app.outbox.register import concerns, want
from webhook_app.outbox.routing import RoutingCondition
from webhook_app.outbox.tables import DEFAULT_SECTION, LATE, SET_ASIDE, consents, counts, events
from webhook_app.outbox.times import due_when_stored

BATCH = 500  # events


@dataclass(frozen=True, slots=True)
class Filled:
    """Events that were looked at, that concern the section, and of which its condition made no sense."""

    seen: int = 0
    concerned: int = 0
    failed: int = 0


def fill(database: Database, section: str, condition: RoutingCondition) -> Iterator[Filled]:
    """Route every event that still has its address to the section if it concerns it, and tell after each batch.

    The newest first: what is older than what the section wants already is not sent. Nor is what was undone by an event
    that retention has emptied. Raises `OutboxUnavailable`.
    """
    before = newest_number(database) + 1
    while before > 1:
        some = (
            select(events)
            .where(events.c.id < before, counts(), events.c.raw.is_not(None), _is_new_to(section), ~_is_undone())
            .order_by(events.c.id.desc())
            .limit(BATCH)
        )
        with database.write() as connection:
            rows = connection.execute(some).all()
            if not rows:
                return
            found = [(row, _holds(condition, row)) for row in rows]
            _route(database, connection, section, [row for row, holds in found if holds])
            database.announce(connection)
        yield Filled(
            seen=before - rows[-1].id,
            concerned=sum(holds is True for _, holds in found),
            failed=sum(holds is None for _, holds in found),
        )
        before = rows[-1].id


def _is_new_to(section: str) -> ColumnElement[bool]:
    """Whether an event was not routed to the section; or was, and the section was dropped since."""
    row = select(consents.c.version).where(
        consents.c.identity_hash == events.c.identity_hash, consents.c.section == section
    )
    return or_(~concerns(section), row.scalar_subquery().is_(None))


def _is_undone() -> ColumnElement[bool]:
    """Whether the newest of the person's emptied events is newer and says the opposite.

    Whether the section is concerned by that one nobody can tell any more, and what it undid must not be told as news.
    """
    emptied = events.alias()
    mine = (emptied.c.identity_hash == events.c.identity_hash, emptied.c.state.not_in(SET_ASIDE))
    newest = select(func.max(emptied.c.version)).where(*mine, emptied.c.raw.is_(None)).scalar_subquery()
    is_opposite = newest % 2 != events.c.version % 2
    return func.coalesce(and_(newest > events.c.version, is_opposite), false())


def _holds(condition: RoutingCondition, row: Any) -> bool | None:
    """None where the condition fails."""
    try:
        return bool(condition.concerns(row.raw, row.provider, Action(row.action), IdentityKind(row.identity_kind)))
    except Exception:
        return None


def _route(database: Database, connection: Connection, section: str, rows: list[Any]) -> None:
    if not rows:
        return
    named = {row.id: json.loads(row.sections) if row.sections else [DEFAULT_SECTION] for row in rows}
    connection.execute(
        update(events).where(events.c.id == bindparam("number")).values(sections=bindparam("written")),
        [
            {"number": number, "written": json.dumps(sections if section in sections else [*sections, section])}
            for number, sections in named.items()
        ],
    )
    want(connection, list(named), due_at=due_when_stored(database, None))
    wanted = (
        consents.c.identity_hash.in_({row.identity_hash for row in rows}),
        consents.c.section == section,
        consents.c.event_id.in_(named),
    )
    connection.execute(update(consents).where(*wanted).values(in_doubt=consents.c.in_doubt.op("|")(LATE)))
