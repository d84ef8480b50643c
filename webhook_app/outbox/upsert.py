"""Upserts: inserts that say what becomes of a row that is there already, which each engine has in its own dialect.

Never look and then insert: a rival with the same row may come in between.
"""

from typing import Any

from sqlalchemy import Table

#: Of either engine: both know the same methods.
Insert = Any


def insert_into(dialect: str, table: Table) -> Insert:
    """An insert that takes `on_conflict_do_update`."""
    # Only now: a process needs one of the two, and each takes its time to load.
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def insert_or_ignore(dialect: str, table: Table, key: str) -> Insert:
    return insert_into(dialect, table).on_conflict_do_nothing(index_elements=[key])
