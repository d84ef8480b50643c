"""Reading quarantined events again, once a mapping was mended."""

import json
import time
from collections.abc import Iterable, Mapping

from sqlalchemy import and_, or_, select, update

from webhook_app.consent import ConsentChange
from webhook_app.outbox import mentions
from webhook_app.outbox.database import Database
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.inserts import insert_events
from webhook_app.outbox.routing import RoutingCondition, rows_of
from webhook_app.outbox.tables import State, events, is_entry_of_list, key_once_set_aside
from webhook_app.outbox.times import due_when_stored, seconds_to_micros

#: Of what was read again: it concerns no section itself, but the changes that came of it do.
READ_AGAIN = json.dumps([])
#: What was not understood, and is still there; also where somebody has discarded it.
CAN_READ_AGAIN = and_(
    or_(events.c.state == State.QUARANTINED, events.c.state == State.DISCARDED),
    events.c.action.is_(None),
    events.c.raw.is_not(None),
    events.c.sections.is_(None),
)

#: Numbers of new changes named in the note; a whole batch may have become readable.
NAMED = 5


def can_read_again(database: Database, number: int) -> bool:
    """Whether an event can be read again. Raises `OutboxUnavailable`."""
    with database.read() as connection:
        mine = select(events.c.id).where(events.c.id == number, CAN_READ_AGAIN)
        return connection.execute(mine).first() is not None


class Quarantine:
    """The quarantined events: what was read out of one takes its place.

    Raises `OutboxUnavailable` where the database cannot be used. `sections` are as those of `Intake`.
    """

    def __init__(self, database: Database, *, sections: Mapping[str, RoutingCondition] | None = None) -> None:
        self._database = database
        self._sections = sections or {}
        self._due_at = due_when_stored(database, None)

    def release(
        self,
        number: int,
        provider: str,
        *,
        changes: Iterable[tuple[ConsentChange, bytes]],
        quarantined: Iterable[tuple[str, bytes]] = (),
    ) -> bool:
        """Store what an event that was not understood turned out to say, and put it aside itself.

        False, and nothing is stored, where that was done already: somebody else was faster.
        """
        hasher = load_hasher(self._database)
        now = seconds_to_micros(time.time())
        rows, _ = rows_of(provider, changes, quarantined, sections=self._sections, hasher=hasher, now=now)
        mine = and_(events.c.id == number, CAN_READ_AGAIN)
        new_key = key_once_set_aside(self._database.dialect)
        aside_as = {"state": State.DISCARDED, "settled_at": now, "dedupe_key": new_key, "sections": READ_AGAIN}
        aside = update(events).where(mine).values(aside_as)
        with self._database.write() as connection:
            if not connection.execute(aside).rowcount:
                return False
            note = "read again: it says nothing about consent"
            if rows:
                insert_events(connection, rows, due_at=self._due_at)
                mentions.note(connection, mentions.mentions_in(rows, hasher))
                keys = [row.dedupe_key for row in rows[:NAMED]]
                found = connection.execute(select(events.c.id).where(events.c.dedupe_key.in_(keys))).scalars()
                named = ", ".join(f"#{one}" for one in sorted(found))
                note = f"read again: it is now {named}{' …' if len(rows) > NAMED else ''}"
            connection.execute(update(events).where(events.c.id == number).values(error=note))
        return True

    def keep(self, number: int, reason: str) -> None:
        """It is still not understood; the reason may be another, but of an entry of a list, which is no webhook."""
        mine = (events.c.id == number) & (events.c.state == State.QUARANTINED) & ~is_entry_of_list()
        with self._database.write() as connection:
            connection.execute(update(events).where(mine).values(error=reason))
