"""The two engines: SQLite for one machine, PostgreSQL for any number of them. Same statements, same promises."""

import re

from webhook_app.outbox.database import Database


def open_database(url: str) -> Database:
    """The engine for a `DATABASE_URL`. Nothing is connected yet: it may be made before a fork and used after.

    Raises `ValueError` with the cure.
    """
    if re.match(r"postgres(ql)?(\+\w+)?://", url):
        # Only now: its driver takes 6 MB in each process, which nobody needs on SQLite.
        from webhook_app.outbox.engines.postgresql import PostgreSQL

        return PostgreSQL(url)
    if re.match(r"sqlite(\+\w+)?:", url):
        from webhook_app.outbox.engines.sqlite import SQLite

        return SQLite(url)
    raise ValueError("must begin with postgres://, postgresql:// or sqlite:///")
