"""The journal: who replayed, discarded, erased, exported or changed a setting, as a hash chain.

Each entry's hash covers the one before, so that an entry that is changed or taken away later is seen by `broken_at`.
Whoever can write to the database can also write the whole chain anew; the hash of each entry therefore stands in the
log as well, which is kept elsewhere.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import select

from webhook_app.outbox.batches import in_batches
from webhook_app.outbox.database import Database, OutboxUnavailable
from webhook_app.outbox.tables import journal
from webhook_app.outbox.times import seconds_to_micros
from webhook_app.outbox.upsert import insert_or_ignore

log = structlog.get_logger()

#: What the first entry holds on to.
BEGINNING = bytes(32)
TRIES = 20
PAGE = 1000  # entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    id: int
    at: datetime
    #: The login at the console, `flask` with the account that ran it, or `worker`.
    who: str
    what: str
    #: Never an address: a person is named by their keyed hash.
    details: Mapping[str, Any]
    hash: str


class Journal:
    """The journal in the database.

    Raises `OutboxUnavailable` where the database cannot be used. `clock` gives seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def record(self, who: str, what: str, **details: Any) -> None:
        """Add an entry."""
        at, written = seconds_to_micros(self._clock()), json.dumps(details, sort_keys=True)
        for _ in range(TRIES):
            with self._database.read() as connection:
                last = connection.execute(select(journal.c.hash).order_by(journal.c.id.desc()).limit(1)).scalar()
            previous = last or BEGINNING
            own = _hash(previous, at, who, what, written)
            entry = {"at": at, "who": who, "what": what, "details": written, "previous": previous, "hash": own}
            if self._append(entry):
                log.info("journal", who=who, what=what, hash=own.hex())
                return
        raise OutboxUnavailable("the journal is written to by too many at once")

    def _append(self, entry: Mapping[str, Any]) -> bool:
        # Nobody inserted: another entry came in between. The unique index lets no two hold on to the same one.
        with self._database.write() as connection:
            added = insert_or_ignore(self._database.dialect, journal, "previous").values(**entry)
            return connection.execute(added.returning(journal.c.id)).first() is not None

    def entries(self, *, before: int | None = None, limit: int = 50) -> list[Entry]:
        """The newest first, or those before the entry with the number `before`."""
        some = select(journal).order_by(journal.c.id.desc()).limit(limit)
        if before is not None:
            some = some.where(journal.c.id < before)
        with self._database.read() as connection:
            return [_entry(row) for row in connection.execute(some)]

    def last(self, what: str) -> Entry | None:
        newest = select(journal).where(journal.c.what == what).order_by(journal.c.id.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(newest).first()
        return None if row is None else _entry(row)

    def broken_at(self) -> int | None:
        """The number of the first entry that does not hold on to the one before it; None where all do."""
        previous = BEGINNING
        for rows in in_batches(self._database, select(journal), journal.c.id, size=PAGE):
            for row in rows:
                if row.previous != previous or row.hash != _hash(previous, row.at, row.who, row.what, row.details):
                    return int(row.id)
                previous = row.hash
        return None


def _hash(previous: bytes, at: int, who: str, what: str, details: str) -> bytes:
    return hashlib.sha256(json.dumps([previous.hex(), at, who, what, details]).encode()).digest()


def _entry(row: Any) -> Entry:
    return Entry(
        id=row.id,
        at=datetime.fromtimestamp(row.at / 1_000_000, UTC),
        who=row.who,
        what=row.what,
        details=json.loads(row.details),
        hash=row.hash.hex(),
    )
