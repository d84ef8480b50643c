"""Upserts: inserts that say what becomes of a row that is there already, which each engine has in its own dialect.

Never look and then insert: a rival with the same row may come in between.
"""

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

#: Of either engine: both know the same methods.
Insert = Any


def insert_into(dialect: str, table: Table) -> Insert:
    """An insert that takes `on_conflict_do_update`."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def insert_or_ignore(dialect: str, table: Table, key: str) -> Insert:
    return insert_into(dialect, table).on_conflict_do_nothing(index_elements=[key])
