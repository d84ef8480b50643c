"""Insert-or-ignore of many events at once. Never look and then insert: a rival may store the same in between.

Written for each engine's driver: SQLAlchemy's own insert costs more for each row than the row itself.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from webhook_app.outbox.database import CHANNEL
from webhook_app.outbox.rows import NewRow
from webhook_app.outbox.tables import events

_COLUMNS = ", ".join(NewRow._fields)
_IGNORE = "ON CONFLICT (dedupe_key) DO NOTHING"

#: A column is an array, in binary form: one parameter instead of one for each row, and one way there and back.
_TYPES = {bytes: "bytea", str: "text", int: "bigint"}
_ARRAYS = ", ".join(f"%b::{_TYPES[events.c[name].type.python_type]}[]" for name in NewRow._fields)
#: Stores and announces in one message. Without new rows there is nothing to announce.
_POSTGRESQL = (
    f"WITH stored AS (INSERT INTO events ({_COLUMNS}) SELECT * FROM unnest({_ARRAYS}) {_IGNORE} RETURNING dedupe_key) "  # noqa: S608
    f"SELECT dedupe_key, pg_notify('{CHANNEL}', '') FROM stored"
)


def insert_events(connection: Connection, rows: Sequence[NewRow]) -> list[bool]:
    """Store the rows in the transaction of `connection`, and tell the waiting workers; for each, whether it was new."""
    if connection.dialect.name == "sqlite":
        # A call for each row, for only that tells which of them were new; SQLite's are calls of a function.
        cursor = connection.connection.cursor()
        try:
            return [cursor.execute(*_for_sqlite(row)).rowcount == 1 for row in rows]
        finally:
            cursor.close()
    if not rows:
        return []
    # Sorted: two transactions with the same events wait for each other in one direction, never in a ring.
    columns = tuple(map(list, zip(*sorted(rows, key=_dedupe_key), strict=True)))
    new = {bytes(key) for key, _ in connection.exec_driver_sql(_POSTGRESQL, columns)}
    return [_take(new, row.dedupe_key) for row in rows]


def _for_sqlite(row: NewRow) -> tuple[str, list[Any]]:
    """A statement and its parameters.

    What is None is left out, and bytes become a bytearray: the driver takes that, texts and integers as they are, and
    looks for an adapter, by way of an exception, for anything else. It was a tenth of the insert.
    """
    given = [bytearray(value) if type(value) is bytes else value for value in row if value is not None]
    return _insert_into_sqlite(tuple([value is not None for value in row])), given


@lru_cache
def _insert_into_sqlite(given: tuple[bool, ...]) -> str:
    columns = [name for name, is_given in zip(NewRow._fields, given, strict=True) if is_given]
    return f"INSERT INTO events ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) {_IGNORE}"  # noqa: S608


def _dedupe_key(row: NewRow) -> bytes:
    return row.dedupe_key


def _take(new: set[bytes], key: bytes) -> bool:
    """Whether a key is among the new ones. Of two rows with one key the first is the new one."""
    if key not in new:
        return False
    new.remove(key)
    return True
