"""Insert-or-ignore of many events at once. Never look and then insert: a rival may store the same in between.

Written for each engine's driver: SQLAlchemy's own insert costs more for each row than the row itself.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import compress
from typing import Any

from sqlalchemy import Connection

from webhook_app.outbox.database import CHANNEL
from webhook_app.outbox.register import wanting
from webhook_app.outbox.rows import NewRow
from webhook_app.outbox.tables import events
from webhook_app.outbox.times import SERVER_TIME

_IGNORE = "ON CONFLICT (dedupe_key) DO NOTHING"
#: Rows in one statement. SQLite takes 32,766 parameters at most, and keeps each form of a statement prepared.
AT_ONCE = 100
_TYPES = {bytes: "bytea", str: "text", int: "bigint"}
#: Placeholder for the time of storing, which PostgreSQL replaces by its own clock: a time that never comes. Two
#: machines' clocks differ, and a newer change that the slower of them stores would count as the older one.
TIME_OF_STORING = 2**61  # microseconds
#: By the server's clock, for what says that it comes later. A version is a time and, in its last bit, the action.
#: What has no time keeps none.
_CAPPED_BY_SERVER_TIME = {
    name: f"CASE WHEN {name} > clock.now THEN clock.now ELSE {name} END"
    for name in ("received_at", "occurred_at", "settled_at")
} | {"version": "least(version, clock.now * 2 + (version & 1))"}


def insert_events(connection: Connection, rows: Sequence[NewRow], *, due_at: str) -> list[bool]:
    """Store the rows in the transaction of `connection`, log and register, and tell the waiting workers; for each,
    whether it was new.

    What is new is due at `due_at`, an expression over the columns of `events`.
    """
    if not rows:
        return []
    if connection.dialect.name == "postgresql":
        # By way of SQLAlchemy: it notices when the connection is good for nothing any more.
        return _new_ones(rows, connection.exec_driver_sql(*_for_postgresql(rows, due_at)))
    cursor = connection.connection.cursor()
    try:
        return _insert_into_sqlite(cursor, rows, due_at)
    finally:
        cursor.close()


def _insert_into_sqlite(cursor: Any, rows: Sequence[NewRow], due_at: str) -> list[bool]:
    # Nobody else writes meanwhile: what is new has the numbers after this one.
    (before,) = cursor.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    stored = 0
    for start in range(0, len(rows), AT_ONCE):
        stored += cursor.execute(*_for_sqlite(rows[start : start + AT_ONCE])).rowcount
    if not stored:
        return [False] * len(rows)
    several = any(row.sections for row in rows)
    cursor.execute(wanting("sqlite", "events", "events.id > ?", due_at=due_at, sections=several), (before,))
    if stored == len(rows):
        return [True] * len(rows)
    return _new_ones(rows, cursor.execute("SELECT dedupe_key FROM events WHERE id > ?", (before,)).fetchall())


def _for_sqlite(rows: Sequence[NewRow]) -> tuple[str, list[Any]]:
    """A statement and its parameters.

    One statement for many rows: the driver lets go of the interpreter's lock for each, and another thread may take it.
    Bytes become a bytearray: the driver takes that, texts and integers as they are, and looks for an adapter, by way of
    an exception, for anything else.
    """
    given = _given(rows)
    values = [bytearray(value) if type(value) is bytes else value for row in rows for value in compress(row, given)]
    return _insertion_into_sqlite(given, len(rows)), values


@lru_cache(maxsize=2 * AT_ONCE)
def _insertion_into_sqlite(given: tuple[bool, ...], count: int) -> str:
    columns = list(compress(NewRow._fields, given))
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO events ({', '.join(columns)}) VALUES {', '.join([row] * count)} {_IGNORE}"  # noqa: S608


def _for_postgresql(rows: Sequence[NewRow], due_at: str) -> tuple[str, tuple[Any, ...]]:
    # Sorted: two transactions with the same events wait for each other in one direction, never in a ring.
    columns = [list(column) for column in zip(*sorted(rows, key=_dedupe_key), strict=True)]
    given = _given(rows)
    return _insertion_into_postgresql(given, due_at), tuple(compress(columns, given))


@lru_cache
def _insertion_into_postgresql(given: tuple[bool, ...], due_at: str) -> str:
    """Stores, wants and announces in one message. Without new rows there is nothing to announce.

    A column is an array, in binary form: one parameter instead of one for each row, and one way there and back.
    """
    columns = list(compress(NewRow._fields, given))
    names, values = ", ".join(columns), ", ".join(_CAPPED_BY_SERVER_TIME.get(name, name) for name in columns)
    arrays = ", ".join(f"%b::{_TYPES[events.c[name].type.python_type]}[]" for name in columns)
    now = SERVER_TIME if due_at == SERVER_TIME else TIME_OF_STORING
    insert = (
        f"INSERT INTO events ({names}) SELECT {values} FROM unnest({arrays}) AS given({names}),"  # noqa: S608
        f" (SELECT {now} AS now) AS clock {_IGNORE}"
    )
    want = wanting("postgresql", "stored", due_at=due_at, sections="sections" in columns)
    return (
        f"WITH stored AS ({insert} RETURNING *), wanted AS ({want})"  # noqa: S608
        f" SELECT dedupe_key, pg_notify('{CHANNEL}', '') FROM stored"
    )


def _given(rows: Sequence[NewRow]) -> tuple[bool, ...]:
    """For each column whether any row has a value for it."""
    return tuple([column.count(None) < len(rows) for column in zip(*rows, strict=True)])


def _dedupe_key(row: NewRow) -> bytes:
    return row.dedupe_key


def _new_ones(rows: Sequence[NewRow], stored: Iterable[Sequence[Any]]) -> list[bool]:
    """For each row whether it is among those that were stored. Of two rows with one key the first is the new one."""
    keys = {bytes(key) for key, *_ in stored}
    return [_take(keys, row.dedupe_key) for row in rows]


def _take(new: set[bytes], key: bytes) -> bool:
    if key not in new:
        return False
    new.remove(key)
    return True
