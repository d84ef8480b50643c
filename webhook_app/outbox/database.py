"""The port to a database: what the outbox asks of it, whichever engine it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

LOCK_TIMEOUT = 5.0  # seconds to wait for another writer
#: On which PostgreSQL tells the waiting workers that something was stored.
CHANNEL = "outbox"


class OutboxUnavailable(Exception):
    """The database cannot be used now: down, locked, read-only, full or without our tables."""

    def __init__(self, message: str = "", *, sqlstate: str = "") -> None:
        super().__init__(message)
        #: What PostgreSQL calls it, in whatever language it speaks; empty where it says none.
        self.sqlstate = sqlstate


class NoDatabase(OutboxUnavailable):
    """There is no database yet, and reading makes none."""


class Database(Protocol):
    """What the outbox asks of an engine."""

    @property
    def dialect(self) -> str: ...

    def write(self) -> Any:
        """A transaction that may change rows, as a context manager; committed to disk when it ends well.

        Raises `OutboxUnavailable`.
        """

    def write_at_once(self) -> Any:
        """The same for a single statement, which is its own transaction where that saves two messages to the engine."""

    def read(self) -> Any:
        """A connection that only reads, as a context manager. Raises `OutboxUnavailable`."""

    def alter(self) -> Any:
        """A connection that may change the tables, as a context manager; nobody else has one meanwhile.

        On PostgreSQL it is in no transaction yet. Raises `OutboxUnavailable`.
        """

    def prepare_claim(self, connection: Connection) -> None:
        """Whatever makes a claim cheap, until this transaction ends."""

    def announce(self, connection: Connection) -> None:
        """Tell the waiting workers, when this transaction commits, that there is something to do."""

    def wait(self, timeout: float) -> None:
        """Return when something was announced, or after `timeout` seconds."""

    def setup_problem(self) -> str | None:
        """Why it can never be used as it is set up, with the cure; None where waiting may help."""

    def close(self) -> None: ...


@contextmanager
def unavailable(driver_error: type[Exception]) -> Iterator[None]:
    """Whatever the driver raises means the same to the outbox; the parameters, which hold addresses, are left out."""
    try:
        yield
    except (SQLAlchemyError, driver_error, OSError) as error:
        cause = (error.orig if isinstance(error, DBAPIError) else None) or error
        raise OutboxUnavailable(summary(cause), sqlstate=getattr(cause, "sqlstate", None) or "") from None


def summary(error: BaseException) -> str:
    """The first line of an error. PostgreSQL's further lines may quote the row."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
