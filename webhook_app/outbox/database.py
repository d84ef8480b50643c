"""The two engines: SQLite for one machine, PostgreSQL for any number of them. Same statements, same promises."""

import fcntl
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

LOCK_TIMEOUT = 5.0  # seconds to wait for another writer
STATEMENT_TIMEOUT = 15.0  # seconds
CONNECT_TIMEOUT = 5  # seconds
PING_AFTER = 0.5  # seconds
DDL_LOCK_TIMEOUT = 1.0  # seconds a change of the tables waits, and others behind it
ALTER_TIMEOUT = 120.0  # seconds to wait while another process changes the tables
POLL = 0.005  # seconds between two looks at whether another process has committed to SQLite; 200 cost 1 % of a core


class OutboxUnavailable(Exception):
    """The database cannot be used now: down, locked, read-only, full or without our tables."""


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

    def lock_claims(self, connection: Connection) -> None:
        """Let no other worker claim until this transaction ends."""

    def announce(self, connection: Connection) -> None:
        """Tell the waiting workers, when this transaction commits, that there is something to do."""

    def wait(self, timeout: float) -> None:
        """Return when something was announced, or after `timeout` seconds."""

    def close(self) -> None: ...


def open_database(url: str) -> "Database":
    """The engine for a `DATABASE_URL`. Nothing is connected yet: it may be made before a fork and used after.

    Raises `ValueError` with the cure.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("is not a database URL; write it like postgres://user:password@host/name") from None
    match parsed.get_backend_name():
        case "postgres" | "postgresql":
            return PostgreSQL(parsed.set(drivername="postgresql+psycopg"))
        case "sqlite":
            return SQLite(parsed)
    raise ValueError("must begin with postgres://, postgresql:// or sqlite:///")


class SQLite:
    """One file. All writers of a process share one connection: with one each, they would starve each other.

    Across processes a file lock does the same; SQLite's own waiting sleeps up to 100 ms between two tries.
    """

    dialect = "sqlite"

    def __init__(self, url: URL) -> None:
        if not url.database or url.database == ":memory:":
            raise ValueError("must name a file, like sqlite:///instance/outbox.db: memory is lost with the process")
        self.path = Path(url.database).absolute()
        url = url.set(drivername="sqlite+pysqlite", database=str(self.path))
        # FULL: a commit is on disk before we answer. WAL: readers and the one writer do not wait for each other; the
        # file remembers it, and only under the lock of a writer it is safe to ask for.
        pragmas = ("synchronous=FULL", "journal_mode=WAL", "foreign_keys=ON")
        self._writer = _sqlite_engine(url, begin="BEGIN IMMEDIATE", pool_size=1, pragmas=pragmas)
        self._reader = _sqlite_engine(url, begin="BEGIN", pool_size=8)
        self._mutex = threading.Lock()
        self._lock_file: int | None = None
        #: Device and inode of the file that is open.
        self._opened: tuple[int, int] | None = None
        self._watch: Any = None
        self._seen_version = -1

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with _unavailable(), self._one_writer():
            self._follow_file()
            with self._writer.begin() as connection:
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with _unavailable():
            self._follow_file()
            with self._reader.begin() as connection:
                yield connection

    #: SQLite is a library: a transaction costs no messages.
    write_at_once = write

    #: One transaction from the first step to the last: SQLite takes back DDL, too.
    alter = write

    def lock_claims(self, connection: Connection) -> None:
        """Nothing to do: a write transaction keeps every other writer out."""

    def announce(self, connection: Connection) -> None:
        """Nothing to do: whoever waits sees the commit itself."""

    def wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with _unavailable():
            self._follow_file()
            if self._watch is None:
                self._watch = self._reader.raw_connection()
            # The number changes whenever another connection has committed. What was committed between the
            # worker's last look for work and this call has changed it too, so nothing is slept through.
            cursor = self._watch.cursor()
            while True:
                (version,) = cursor.execute("PRAGMA data_version").fetchone()
                if version != self._seen_version or time.monotonic() >= deadline:
                    self._seen_version = version
                    return
                time.sleep(POLL)

    def close(self) -> None:
        self._forget_connections()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _follow_file(self) -> None:
        """Make the file if there is none; let go of one that was deleted or replaced.

        What we wrote into a deleted file would be acknowledged, and gone with the process.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            _create_private(self.path)
            found = self.path.stat()
        if self._opened != (found.st_dev, found.st_ino):
            self._forget_connections()
            self._opened = found.st_dev, found.st_ino

    def _forget_connections(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._writer.dispose()
        self._reader.dispose()

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        deadline = time.monotonic() + LOCK_TIMEOUT
        if not self._mutex.acquire(timeout=LOCK_TIMEOUT):
            raise OutboxUnavailable("the database is locked")
        try:
            if self._lock_file is None:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock_file = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            while not _try_lock(self._lock_file):
                if time.monotonic() >= deadline:
                    raise OutboxUnavailable("the database is locked")
                time.sleep(0.0002)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        finally:
            self._mutex.release()


class PostgreSQL:
    """Any number of processes on any number of machines."""

    dialect = "postgresql"

    #: Any number does, as long as every worker takes the same.
    CLAIM_LOCK = 0x6F7574626F78
    ALTER_LOCK = 0x6D6967726174
    CHANNEL = "outbox"

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(
            url, pool_size=8, max_overflow=8, pool_timeout=LOCK_TIMEOUT, connect_args=_connect_args(url)
        )
        _ping_after_a_rest(self._engine)
        self._each_statement_alone = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._listener: psycopg.Connection[Any] | None = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with _unavailable(), self._engine.begin() as connection:
            yield connection

    read = write

    @contextmanager
    def write_at_once(self) -> Iterator[Connection]:
        with _unavailable(), self._each_statement_alone.connect() as connection:
            yield connection

    @contextmanager
    def alter(self) -> Iterator[Connection]:
        with _unavailable(), self._engine.connect() as connection:
            # Who waits for a table's lock makes everybody queue behind: better give up soon, and try again.
            connection.exec_driver_sql(f"SET statement_timeout = 0; SET lock_timeout = {DDL_LOCK_TIMEOUT * 1000:.0f}")
            self._become_the_only_one_to_alter(connection)
            try:
                yield connection
            finally:
                # Not back to the pool: the lock and the timeouts end with the session.
                connection.invalidate()

    def _become_the_only_one_to_alter(self, connection: Connection) -> None:
        deadline = time.monotonic() + ALTER_TIMEOUT
        # Asked again and again: an index that is built concurrently would wait for a session that waits for the lock.
        while not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({self.ALTER_LOCK})").scalar():
            connection.commit()
            if time.monotonic() > deadline:
                raise OutboxUnavailable("another process is changing the tables")
            time.sleep(0.2)
        connection.commit()

    def lock_claims(self, connection: Connection) -> None:
        # Without it, two workers could each take one of Jane's two changes: neither sees the other's lease before
        # it is committed. The unique index would stop the second, at the price of its whole claim.
        #
        # And no sorting: of rows that came within the last minute PostgreSQL's statistics know nothing. It takes a
        # burst for a handful, and would sort all of it for each claim instead of walking the index.
        connection.exec_driver_sql(
            f"SELECT pg_advisory_xact_lock({self.CLAIM_LOCK}), set_config('enable_sort', 'off', true)"
        )

    def announce(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"NOTIFY {self.CHANNEL}")

    def wait(self, timeout: float) -> None:
        try:
            if self._listener is None:
                self._listener = self._listen()
                # Something may have been announced before we listened: look for work first.
                return
            for _ in self._listener.notifies(timeout=timeout, stop_after=1):
                pass
        except (psycopg.Error, SQLAlchemyError) as error:
            self._forget_listener()
            raise OutboxUnavailable(_summary(error)) from None

    def close(self) -> None:
        self._forget_listener()
        self._engine.dispose()

    def _listen(self) -> psycopg.Connection[Any]:
        connection = self._engine.raw_connection()
        driver: psycopg.Connection[Any] = connection.driver_connection  # type: ignore[assignment] # a DBAPIConnection
        # For good: it must never come back to the pool.
        connection.detach()
        driver.autocommit = True
        driver.execute(f"LISTEN {self.CHANNEL}")
        return driver

    def _forget_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def _connect_args(url: URL) -> dict[str, Any]:
    """What the URL does not say itself."""
    timeouts = f"-c statement_timeout={STATEMENT_TIMEOUT * 1000:.0f} -c lock_timeout={LOCK_TIMEOUT * 1000:.0f}"
    defaults = {
        "connect_timeout": CONNECT_TIMEOUT,
        "application_name": "esp-webhooks",
        # Where the network swallows everything, the server's own timeouts never reach us.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": round(2 * STATEMENT_TIMEOUT * 1000),
    }
    args: dict[str, Any] = {name: value for name, value in defaults.items() if name not in url.query}
    args["options"] = " ".join([timeouts, *_as_tuple(url.query.get("options", ()))])
    return args


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _ping_after_a_rest(engine: Engine) -> None:
    """Ask a connection whether it still lives, unless it was in use just now: asking costs as much as a statement."""

    @event.listens_for(engine, "checkin")
    def _(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _(connection: Any, record: ConnectionPoolEntry, _fairy: Any) -> None:
        if time.monotonic() - record.info.get("used_at", math.inf) > PING_AFTER:
            try:
                engine.dialect.do_ping(connection)
            except psycopg.Error:
                # The others of the pool will be dead as well.
                raise InvalidatePoolError from None


def _sqlite_engine(url: URL, *, begin: str, pool_size: int, pragmas: Sequence[str] = ()) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=LOCK_TIMEOUT,
        connect_args={"timeout": LOCK_TIMEOUT, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 begins no transactions behind our back
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.connection.execute(begin)

    return engine


def _create_private(path: Path) -> None:
    """Make a file for us alone: it will hold addresses, and SQLite would let everybody on the machine read it.

    A file that exists is not opened: closing it again would drop every lock that SQLite holds on it in this process,
    and another process could then take away the write-ahead log that we still write to.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _unavailable() -> Iterator[None]:
    """Whatever the driver raises means the same to the outbox; the parameters, which hold addresses, are left out."""
    try:
        yield
    except DBAPIError as error:
        raise OutboxUnavailable(_summary(error.orig or error)) from None
    except (SQLAlchemyError, psycopg.Error, sqlite3.Error, OSError) as error:
        raise OutboxUnavailable(_summary(error)) from None


def _summary(error: BaseException) -> str:
    """The first line of an error. PostgreSQL's further lines may quote the row."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
