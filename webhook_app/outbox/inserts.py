"""Insert-or-ignore of many events at once. Never look and then insert: a rival may store the same in between.

Written for each engine's driver: SQLAlchemy's own insert costs more for each row than the row itself.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import compress
from typing import Any

from sqlalchemy import Connection

from webhook_app.outbox.database import CHANNEL
from webhook_app.outbox.rows import NewRow
from webhook_app.outbox.tables import events

_IGNORE = "ON CONFLICT (dedupe_key) DO NOTHING"
_TYPES = {bytes: "bytea", str: "text", int: "bigint"}


def insert_events(connection: Connection, rows: Sequence[NewRow]) -> list[bool]:
    """Store the rows in the transaction of `connection`, and tell the waiting workers; for each, whether it was new."""
    if not rows:
        return []
    cursor = connection.connection.cursor()
    try:
        if connection.dialect.name == "sqlite":
            # A call for each row, for only that tells which of them were new; SQLite's are calls of a function.
            return [cursor.execute(*_for_sqlite(row)).rowcount == 1 for row in rows]
        cursor.execute(*_for_postgresql(rows))
        new = {bytes(key) for key, _ in cursor.fetchall()}
        return [_take(new, row.dedupe_key) for row in rows]
    finally:
        cursor.close()


def _for_sqlite(row: NewRow) -> tuple[str, list[Any]]:
    """A statement and its parameters.

    What is None is left out, and bytes become a bytearray: the driver takes that, texts and integers as they are, and
    looks for an adapter, by way of an exception, for anything else. It was a tenth of the insert.
    """
    given = [bytearray(value) if type(value) is bytes else value for value in row if value is not None]
    return _insert_into_sqlite(tuple([value is not None for value in row])), given


@lru_cache
def _insert_into_sqlite(given: tuple[bool, ...]) -> str:
    columns = list(compress(NewRow._fields, given))
    return f"INSERT INTO events ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) {_IGNORE}"  # noqa: S608


def _for_postgresql(rows: Sequence[NewRow]) -> tuple[str, list[Any]]:
    # Sorted: two transactions with the same events wait for each other in one direction, never in a ring.
    columns = [list(column) for column in zip(*sorted(rows, key=_dedupe_key), strict=True)]
    given = tuple([column.count(None) < len(rows) for column in columns])
    return _insert_into_postgresql(given), list(compress(columns, given))


@lru_cache
def _insert_into_postgresql(given: tuple[bool, ...]) -> str:
    """Stores and announces in one message. Without new rows there is nothing to announce.

    A column is an array, in binary form: one parameter instead of one for each row, and one way there and back.
    """
    columns = list(compress(NewRow._fields, given))
    arrays = ", ".join(f"%b::{_TYPES[events.c[name].type.python_type]}[]" for name in columns)
    insert = f"INSERT INTO events ({', '.join(columns)}) SELECT * FROM unnest({arrays}) {_IGNORE}"  # noqa: S608
    return f"WITH stored AS ({insert} RETURNING dedupe_key) SELECT dedupe_key, pg_notify('{CHANNEL}', '') FROM stored"  # noqa: S608


def _dedupe_key(row: NewRow) -> bytes:
    return row.dedupe_key


def _take(new: set[bytes], key: bytes) -> bool:
    """Whether a key is among the new ones. Of two rows with one key the first is the new one."""
    if key not in new:
        return False
    new.remove(key)
    return True
