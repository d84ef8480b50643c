"""What was not understood at first, and is after a mapping was mended."""

import time
from collections.abc import Callable, Iterable

from sqlalchemy import select, update

from webhook_app.consent import ConsentChange
from webhook_app.outbox.database import Database
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.inserts import insert_events
from webhook_app.outbox.rows import row_of_change, row_of_quarantined
from webhook_app.outbox.tables import State, events, key_once_set_aside
from webhook_app.outbox.times import seconds_to_micros

#: Numbers of new changes named in the note; a whole batch may have become readable.
NAMED = 5


class Quarantine:
    """Raises `OutboxUnavailable` where the database cannot be used. `clock` gives seconds since 1970."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def release(
        self,
        number: int,
        provider: str,
        *,
        changes: Iterable[tuple[ConsentChange, bytes]],
        quarantined: Iterable[tuple[str, bytes]] = (),
    ) -> bool:
        """Store what a quarantined event turned out to say, and put it aside itself.

        False, and nothing is stored, where it is not in quarantine any more: somebody else was faster.
        """
        hasher = load_hasher(self._database)
        now = seconds_to_micros(self._clock())
        rows = [row_of_change(provider, change, raw, hasher, now) for change, raw in changes]
        rows += [row_of_quarantined(provider, reason, raw, hasher, now) for reason, raw in quarantined]
        mine = (events.c.id == number) & (events.c.state == State.QUARANTINED)
        new_key = key_once_set_aside(self._database.dialect)
        aside = update(events).where(mine).values(state=State.DISCARDED, settled_at=now, dedupe_key=new_key)
        with self._database.write() as connection:
            if not connection.execute(aside).rowcount:
                return False
            note = "read again: it says nothing about consent"
            if rows:
                insert_events(connection, rows)
                keys = [row.dedupe_key for row in rows[:NAMED]]
                found = connection.execute(select(events.c.id).where(events.c.dedupe_key.in_(keys))).scalars()
                named = ", ".join(f"#{one}" for one in sorted(found))
                note = f"read again: it is now {named}{' …' if len(rows) > NAMED else ''}"
            connection.execute(update(events).where(events.c.id == number).values(error=note))
        return True

    def keep(self, number: int, reason: str) -> None:
        """It is still not understood; the reason may be another."""
        mine = (events.c.id == number) & (events.c.state == State.QUARANTINED)
        with self._database.write() as connection:
            connection.execute(update(events).where(mine).values(error=reason))
