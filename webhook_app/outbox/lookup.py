"""Look-ups for imports and comparisons: what the outbox knows already, asked for many people at once."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from webhook_app.consent import Action, Identity
from webhook_app.outbox.database import Database
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.register import concerns
from webhook_app.outbox.states import is_configured
from webhook_app.outbox.status import status
from webhook_app.outbox.tables import DEFAULT_SECTION, State, consents, events
from webhook_app.outbox.times import from_micros

#: In these states a row says nothing about a real person.
NOBODY = (State.QUARANTINED, State.TEST)

#: An event and its entry on a list are written by two machines of the ESP: their times differ a little.
SLACK = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestChange:
    """The newest change of a person that was ever stored, whatever became of it."""

    action: Action
    occurred_at: datetime

    def covers_opt_out(self, at: datetime) -> bool:
        """Whether an opt-out at that time is no news.

        A much older opt-out does not cover it: what made the person opt in again meanwhile may be unknown here.
        """
        return self.action is Action.OPT_OUT and self.occurred_at >= at - SLACK


def newest_changes(
    database: Database, hasher: Hasher, identities: Iterable[Identity], *, section: str | None = None
) -> dict[str, NewestChange]:
    """By the key of the identity; who is absent was never heard of. A thousand at a time at most.

    With `section`, only what concerns that one.

    Hashes stay when retention empties a row, so a person is known for as long as the row exists.
    Raises `OutboxUnavailable`.
    """
    keys = {hasher.identity(identity): identity.key for identity in identities}
    if not keys:
        return {}
    with database.read() as connection:
        rows = _newest_versions(connection, list(keys), section)
    return {
        # A version is the time, and in its last bit the opt-out.
        keys[bytes(person)]: NewestChange(
            action=Action.OPT_OUT if version % 2 else Action.OPT_IN, occurred_at=from_micros(version // 2)
        )
        for person, version in rows
    }


def _newest_versions(connection: Connection, people: list[bytes], section: str | None) -> Sequence[Any]:
    if connection.dialect.name == "postgresql":
        # One parameter for all of them: to write out a thousand costs more than to look them up. Each by itself, for
        # the statistics know nothing of rows that came just now, and the whole table would be read.
        if section is None:
            return connection.exec_driver_sql(_NEWEST_OF_EACH.format(where=""), (people, list(NOBODY))).all()
        of_section = _NEWEST_OF_EACH.format(where=_OF_SECTION)
        return connection.exec_driver_sql(of_section, (people, list(NOBODY), json.dumps(section))).all()
    newest = select(events.c.identity_hash, func.max(events.c.version))
    theirs = newest.where(events.c.identity_hash.in_(people), events.c.state.not_in(NOBODY))
    if section is not None:
        theirs = theirs.where(concerns(section))
    return connection.execute(theirs.group_by(events.c.identity_hash)).all()


_NEWEST_OF_EACH = (
    "SELECT person, newest.version FROM unnest(%b::bytea[]) AS given(person) CROSS JOIN LATERAL"
    " (SELECT max(version) AS version FROM events WHERE identity_hash = person AND state <> ALL(%b::text[]){where})"
    " AS newest"
    " WHERE newest.version IS NOT NULL"
)
#: As `concerns` says it.
_OF_SECTION = f" AND strpos(coalesce(sections, '{json.dumps([DEFAULT_SECTION])}'), %b::text) > 0"


def newest_test(database: Database, provider: str) -> int:
    """The id of the row that the provider's test button made last, 0 if it never did. Raises `OutboxUnavailable`."""
    made = select(func.max(events.c.id)).where(events.c.state == State.TEST, events.c.provider == provider)
    with database.read() as connection:
        return int(connection.execute(made).scalar() or 0)


def is_backlog_over(database: Database, limit: int, sections: Collection[str] | None = None) -> bool:
    """Whether more than `limit` changes wait for one of these sections, None for any. Raises `OutboxUnavailable`."""
    waits = consents.c.due_at.is_not(None)
    waiting = select(consents.c.event_id).where(waits, is_configured(sections)).limit(limit + 1)
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(waiting.subquery())).scalar_one()) > limit


def is_being_worked_off(database: Database) -> bool:
    """Whether some worker sends. Raises `OutboxUnavailable`."""
    current = status(database)
    return current.workers_alive > 0 and not current.paused
