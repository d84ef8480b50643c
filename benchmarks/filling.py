"""Many rows in a moment, made by the database itself."""

import os
import sqlite3
from contextlib import closing
from typing import Any

import psycopg

from benchmarks.product import Place

_COLUMNS = (
    "dedupe_key, identity_hash, identity_value, provider, state, action, identity_kind, reason, occurred_at, version,"
    " received_at, due_at, settled_at, raw"
)
_SHARED = """'emarsys', '{state}', 'opt_out', 'external', 'opt_out', 1767607200000000 + i,
    2 * (1767607200000000 + i) + 1, 1767607200000000 + i, {due_at}, {settled_at}, {raw}"""

_SQLITE = """
WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {count})
INSERT INTO events ({columns}) SELECT randomblob(20), randomblob(16), 'C-{state}-' || hex(randomblob(6)) || i, {shared}
FROM numbers
"""
_POSTGRESQL = """
INSERT INTO events ({columns})
SELECT decode(md5(random()::text || i), 'hex'), decode(md5(random()::text || i), 'hex'),
    'C-{state}-' || md5(random()::text || i), {shared}
FROM generate_series(1, {count}) AS i
"""
_ATTEMPTS = """
INSERT INTO attempts (event_id, started_at, duration, outcome, status)
SELECT id, received_at, 10000, 'delivered', 204 FROM events WHERE state = 'delivered'
"""
_REGISTER = """
INSERT INTO consents
    (identity_hash, section, version, action, event_id, told_version, told_action, told_at, due_at)
SELECT identity_hash, 'default', version, action, id, {told}, {due_at} FROM events WHERE state = '{state}'
ON CONFLICT (identity_hash, section) DO NOTHING
"""


def fill(place: Place, *, delivered: int = 0, pending: int = 0) -> None:
    """Add so many rows in these states, as if they had come and gone long ago."""
    for state, count in (("delivered", delivered), ("pending", pending)):
        if count:
            _execute(place, _statement(place.engine, state, count))
    if delivered:
        _execute(place, _ATTEMPTS)
        _execute(place, _REGISTER.format(state="delivered", told="version, action, settled_at", due_at="NULL"))
    if pending:
        _execute(place, _REGISTER.format(state="pending", told="NULL, NULL, NULL", due_at="received_at"))
    _execute(place, "ANALYZE")
    # Hundreds of megabytes that the system still has to write would slow down every fsync of what is measured next.
    os.sync()


def scalar(place: Place, query: str) -> int:
    found = _rows(place, query)
    return int(found[0][0] or 0) if found else 0


def some_people(place: Place, count: int) -> list[str]:
    """The ids of so many people, from all over the log."""
    last = scalar(place, "SELECT max(id) FROM events")
    numbers = ", ".join(str(last * number // count) for number in range(1, count + 1))
    query = f"SELECT identity_value FROM events WHERE id IN ({numbers})"  # noqa: S608 (numbers)
    return [value for (value,) in _rows(place, query)]


def _rows(place: Place, query: str) -> list[Any]:
    if place.engine == "sqlite":
        with closing(sqlite3.connect(place.database_url.removeprefix("sqlite:///"), timeout=30)) as connection:
            return connection.execute(query).fetchall()
    with psycopg.connect(place.database_url) as connection:
        return connection.execute(query.encode()).fetchall()


def _execute(place: Place, statement: str) -> None:
    if place.engine == "sqlite":
        with closing(sqlite3.connect(place.database_url.removeprefix("sqlite:///"), timeout=30)) as connection:
            connection.execute(statement)
            connection.commit()
    else:
        with psycopg.connect(place.database_url, autocommit=True) as connection:
            connection.execute(statement.encode())


def _statement(engine: str, state: str, count: int) -> str:
    sqlite = engine == "sqlite"
    shared = _SHARED.format(
        state=state,
        due_at="NULL",
        settled_at="NULL" if state == "pending" else "1767607200000000 + i",
        raw="randomblob(120)" if sqlite else "decode(repeat(md5(i::text), 4), 'hex')",
    )
    template = _SQLITE if sqlite else _POSTGRESQL
    return template.format(columns=_COLUMNS, shared=shared, state=state, count=count)
