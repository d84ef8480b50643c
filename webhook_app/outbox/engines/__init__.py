"""The two engines: SQLite for one machine, PostgreSQL for any number of them. Same statements, same promises."""

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from webhook_app.outbox.database import Database


def open_database(url: str) -> Database:
    """The engine for a `DATABASE_URL`. Nothing is connected yet: it may be made before a fork and used after.

    Raises `ValueError` with the cure.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("is not a database URL; write it like postgres://user:password@host/name") from None
    match parsed.get_backend_name():
        case "postgres" | "postgresql":
            # Only now: its driver takes 6 MB in each process, which nobody needs on SQLite.
            from webhook_app.outbox.engines.postgresql import PostgreSQL

            return PostgreSQL(parsed.set(drivername="postgresql+psycopg"))
        case "sqlite":
            from webhook_app.outbox.engines.sqlite import SQLite

            return SQLite(parsed)
    raise ValueError("must begin with postgres://, postgresql:// or sqlite:///")
