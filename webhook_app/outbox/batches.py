"""Reading in batches: all rows of a query, and no transaction stays open between two batches."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Column, Select, tuple_

from webhook_app.outbox.database import Database


def in_batches(database: Database, query: Select[Any], *key: Column[Any], size: int) -> Iterator[Sequence[Any]]:
    """The rows in the order of a unique key, which they hold. Raises `OutboxUnavailable`."""
    ordered = query.order_by(*key).limit(size)
    some = ordered
    while True:
        with database.read() as connection:
            rows = connection.execute(some).all()
        if rows:
            yield rows
        if len(rows) < size:
            return
        # From where the last batch ended, and not by an offset: each row is looked at once.
        some = ordered.where(tuple_(*key) > tuple(getattr(rows[-1], column.name) for column in key))
