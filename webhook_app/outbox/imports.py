"""Progress of imports. In the database: the disk of a one-off machine is gone when it ends."""

import time
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select, update

from webhook_app.outbox.database import Database
from webhook_app.outbox.tables import imports
from webhook_app.outbox.times import from_micros, maybe_from_micros, seconds_to_micros, to_micros
from webhook_app.outbox.upsert import insert_or_ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One file, known by its content: under another name it is still the same import."""

    id: str
    #: What rows without a time count as. Fixed by the first run: a copy of the file has another modification time.
    as_of: datetime
    #: Rows that are on disk.
    rows: int = 0
    accepted: int = 0
    duplicates: int = 0
    finished_at: datetime | None = None


class Imports:
    """Records of imports: how far each file has come. Raises `OutboxUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = insert_or_ignore(database.dialect, imports, "id")

    def find(self, import_id: str) -> Import | None:
        with self._database.read() as connection:
            row = connection.execute(select(imports).where(imports.c.id == import_id)).one_or_none()
        if row is None:
            return None
        return Import(
            id=row.id,
            as_of=from_micros(row.as_of),
            rows=row.rows,
            accepted=row.accepted,
            duplicates=row.duplicates,
            finished_at=maybe_from_micros(row.finished_at),
        )

    def begin(self, new: Import, provider: str) -> None:
        with self._database.write() as connection:
            connection.execute(
                self._insert,
                {
                    "id": new.id,
                    "provider": provider,
                    "as_of": to_micros(new.as_of),
                    "started_at": seconds_to_micros(time.time()),
                    "rows": 0,
                    "accepted": 0,
                    "duplicates": 0,
                },
            )

    def forget(self, import_id: str) -> None:
        """Let the same file be imported once more, from its beginning."""
        with self._database.write() as connection:
            connection.execute(delete(imports).where(imports.c.id == import_id))

    def advance(self, import_id: str, *, rows: int, accepted: int, duplicates: int, finished: bool = False) -> None:
        """Write down that so many rows in all are on disk.

        Comes after their commit, not with it: what a crash in between repeats are duplicates.
        """
        with self._database.write() as connection:
            connection.execute(
                update(imports)
                .where(imports.c.id == import_id)
                .values(
                    rows=rows,
                    accepted=imports.c.accepted + accepted,
                    duplicates=imports.c.duplicates + duplicates,
                    finished_at=seconds_to_micros(time.time()) if finished else None,
                )
            )
