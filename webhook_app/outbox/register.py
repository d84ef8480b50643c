"""The register, made from the log: what is wanted of each person, in each section that an event concerns."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, select, text, update

from webhook_app.outbox.tables import (
    DEFAULT_SECTION,
    DOUBT_OF_OVERTAKEN,
    DOUBTS,
    OVERTAKEN,
    SET_ASIDE,
    consents,
    counts,
    events,
)

_ALONE = f"'{DEFAULT_SECTION}' AS section", ""
_EACH = {
    "sqlite": ("named.value AS section", ", json_each(coalesce(sections, '[\"default\"]')) AS named"),
    "postgresql": (
        "named.value AS section",
        ", json_array_elements_text(coalesce(sections, '[\"default\"]')::json) AS named(value)",
    ),
}
_COUNTS = f"state NOT IN ({', '.join(repr(state.value) for state in SET_ASIDE)})"


@cache
def wanting(dialect: str, source: str, where: str = "true", *, due_at: str, sections: bool = True) -> str:
    """The statement that puts changes of `source`, a table with the columns of `events`, into the register.

    The newest change of a person wins, whatever the order in which they come. Without `sections`, every change is for
    the default section alone.
    """
    section, named = _EACH[dialect] if sections else _ALONE
    # PostgreSQL refuses to change a row twice in one statement. In the order of the hash: two statements with the same
    # people wait for each other in one direction, never in a ring.
    newest = "DISTINCT ON (identity_hash, section)" if dialect == "postgresql" else ""
    return f"""
        INSERT INTO consents (identity_hash, section, version, action, event_id, due_at)
        SELECT {newest} identity_hash, section, version, action, id, due FROM (
            SELECT identity_hash, {section}, version, action, {source}.id, {due_at} AS due FROM {source}{named}
            WHERE {where} AND {_COUNTS} AND identity_hash IS NOT NULL AND version IS NOT NULL
        ) AS wanted WHERE true ORDER BY identity_hash, section, version DESC, id
        ON CONFLICT (identity_hash, section) DO UPDATE SET
            version = excluded.version, action = excluded.action, event_id = excluded.event_id,
            tries = 0, retrying_since = NULL, dead_at = NULL, error = NULL,
            in_doubt = (consents.in_doubt & {DOUBTS | OVERTAKEN}) | CASE WHEN consents.lease IS NULL THEN 0
                ELSE {DOUBT_OF_OVERTAKEN} * (1 + (consents.version & 1)) END,
            due_at = CASE WHEN consents.lease IS NULL THEN excluded.due_at ELSE consents.due_at END
        WHERE excluded.version > consents.version
    """  # noqa: S608 (our own names only)


def want(connection: Connection, ids: Sequence[int], *, due_at: str) -> None:
    """Put events of the log into the register."""
    statement = text(wanting(connection.dialect.name, "events", "events.id IN :ids", due_at=due_at))
    connection.execute(statement.bindparams(bindparam("ids", expanding=True)), {"ids": ids})


def want_another(connection: Connection, row: Mapping[str, Any], now: ColumnElement[int]) -> None:
    """What a row of the register wants was set aside: the newest of the person's other changes counts again.

    Never one that is older than what Dynamic Yield was told.
    """
    mine = and_(consents.c.identity_hash == row["identity_hash"], consents.c.section == row["section"])
    theirs = and_(events.c.identity_hash == row["identity_hash"], concerns(row["section"]))
    has_address = events.c.identity_value.is_not(None)
    newest = select(events.c.id, events.c.version, events.c.action).where(theirs, counts(), has_address)
    other = connection.execute(newest.order_by(events.c.version.desc(), events.c.id).limit(1)).first()
    told = row["told_version"]
    if other is None and told is None:
        connection.execute(delete(consents).where(mine))
        return
    if other and (told is None or other.version >= told):
        wanted = {"version": other.version, "action": other.action, "event_id": other.id}
        # What was set aside may have been sent, and its answer or its worker lost.
        in_doubt = row["in_doubt"] | row["in_doubt"] // DOUBT_OF_OVERTAKEN
        in_doubt |= 1 + row["version"] % 2 if row["lease"] else 0
        undone = in_doubt & (1 if other.version % 2 else 2)
        is_due = told is None or other.version > told or undone
    else:
        # Emptied or discarded since it was told: it cannot be told again, and nothing is sent in its place.
        same = select(events.c.id).where(theirs, events.c.version == told).order_by(events.c.id).limit(1)
        told_event = func.coalesce(same.scalar_subquery(), row["event_id"])
        wanted = {"version": told, "action": row["told_action"], "event_id": told_event}
        is_due = False
    afresh = {"lease": None, "tries": 0, "retrying_since": None, "dead_at": None, "error": None}
    due = {"due_at": now if is_due else None}
    connection.execute(update(consents).where(mine).values(wanted | afresh | due))


def concerns(section: str) -> ColumnElement[bool]:
    """Whether an event of the log concerns a section."""
    named: ColumnElement[str] = func.coalesce(events.c.sections, json.dumps([DEFAULT_SECTION]))
    return named.contains(json.dumps(section), autoescape=True)
