"""PostgreSQL: any number of processes on any number of machines.

Works behind a pooler in transaction mode (PgBouncer, RDS Proxy, Neon's pooled address) as well, where each transaction
may run in another session and other clients use that session next: nothing is set, locked or prepared for longer than
a transaction.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, ExceptionContext, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from webhook_app.outbox.database import CHANNEL, LOCK_TIMEOUT, OutboxUnavailable, unavailable
from webhook_app.outbox.engines.deadlines import Deadlines
from webhook_app.outbox.engines.postgresql_url import read_url

STATEMENT_TIMEOUT = 15.0  # seconds
TRANSACTION_TIMEOUT = 16.0  # seconds; a worker that is told to stop has 30
AT_ONCE_TIMEOUT = 10.0  # seconds for a single statement that is its own transaction
CONNECT_TIMEOUT = 5  # seconds for each host
PING_AFTER = 0.5  # seconds
PING_TIMEOUT = 3.0  # seconds
SETUP_TIMEOUT = 5.0  # seconds for the first questions on a new connection
DDL_LOCK_TIMEOUT = 1.0  # seconds a change of the tables waits, and others behind it
ALTER_TIMEOUT = 120.0  # seconds to wait while another process changes the tables
POLL = 0.2  # seconds between two looks for work where nothing can be announced

#: The server cannot do its work any more, whatever is asked: it fails over, shuts down or starts, or has become a
#: standby that answers and cannot write. https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOST = ("08", "25006", "57P01", "57P02", "57P03")

Driver = psycopg.Connection[Any]


class PostgreSQL:
    """Any number of processes on any number of machines."""

    dialect = "postgresql"

    #: Any number does, as long as everybody takes the same.
    ALTER_LOCK = 0x6D6967726174

    def __init__(self, url: str) -> None:
        self._parameters = _with_defaults(read_url(url))
        self._deadlines = Deadlines()
        self._engine = create_engine(
            "postgresql+psycopg://",
            connect_args=self._parameters,
            isolation_level="AUTOCOMMIT",
            pool_size=8,
            max_overflow=8,
            pool_timeout=LOCK_TIMEOUT,
        )
        self._altering = self._engine.execution_options(isolation_level="READ COMMITTED")
        self._listener: Driver | None = None
        #: Nobody would hear: behind a pooler, or connected to a server that is gone.
        self._polls = False
        self._lost = False
        # First, before SQLAlchemy's own questions to a new connection.
        event.listen(self._engine, "connect", self._on_connect, insert=True)
        event.listen(self._engine, "checkout", self._on_checkout)
        event.listen(self._engine, "checkin", self._on_checkin)
        event.listen(self._engine, "handle_error", self._on_error)
        event.listen(self._altering, "begin", _on_begin_to_alter)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with unavailable(psycopg.Error), self._engine.begin() as connection:
            connection.exec_driver_sql(
                f"BEGIN; SET LOCAL statement_timeout = {STATEMENT_TIMEOUT * 1000:.0f}; "
                f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f}"
            )
            yield connection

    read = write

    @contextmanager
    def write_at_once(self) -> Iterator[Connection]:
        with unavailable(psycopg.Error), self._engine.connect() as connection:
            self._deadlines.set(_driver(connection), AT_ONCE_TIMEOUT)
            yield connection

    @contextmanager
    def alter(self) -> Iterator[Connection]:
        with unavailable(psycopg.Error), self._only_one_to_alter(), self._altering.connect() as connection:
            self._deadlines.lift(_driver(connection))
            yield connection

    @contextmanager
    def _only_one_to_alter(self) -> Iterator[None]:
        """Hold a lock in a transaction of its own, which does nothing else.

        An index that is built concurrently waits for no transaction that has no statement under way. It would wait for
        one that waits for the lock: so that is asked for again and again.
        """
        deadline = time.monotonic() + ALTER_TIMEOUT
        with self._engine.connect() as connection:
            while not self._locked_for_altering(connection):
                connection.rollback()
                if time.monotonic() > deadline:
                    raise OutboxUnavailable("another process is changing the tables")
                time.sleep(0.2)
            self._deadlines.lift(_driver(connection))
            yield
            connection.commit()

    def _locked_for_altering(self, connection: Connection) -> bool:
        self._deadlines.set(_driver(connection), TRANSACTION_TIMEOUT)
        connection.exec_driver_sql("BEGIN")
        # Not every version has both of these.
        connection.exec_driver_sql(
            "SELECT set_config(name, '0', true) FROM pg_settings "
            "WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')"
        )
        return bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({self.ALTER_LOCK})").scalar())

    def prepare_claim(self, connection: Connection) -> None:
        # No sorting: of rows that came within the last minute PostgreSQL's statistics know nothing. It takes a burst
        # for a handful, and would sort all of it for each claim instead of walking the index.
        connection.exec_driver_sql("SELECT set_config('enable_sort', 'off', true)")

    def announce(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")

    def wait(self, timeout: float) -> None:
        try:
            if self._lost:
                self._forget_listener()
            if self._polls:
                time.sleep(min(timeout, POLL))
            elif self._listener is None:
                # Something may have been announced before we listened: look for work first.
                with unavailable(psycopg.Error):
                    self._listen()
            else:
                with unavailable(psycopg.Error):
                    for _ in self._listener.notifies(timeout=timeout, stop_after=1):
                        pass
        except OutboxUnavailable:
            self._forget_listener()
            raise

    def setup_problem(self) -> str | None:
        """What can be seen of it without asking it was checked when it was opened."""
        return None

    def close(self) -> None:
        self._forget_listener()
        self._engine.dispose()
        self._deadlines.close()

    def _listen(self) -> None:
        connection = psycopg.connect("", **self._parameters)
        self._deadlines.set(connection, SETUP_TIMEOUT)
        self._lost = False
        self._polls = _is_pooled(connection)
        if self._polls:
            # It would be said in a session that other clients get next.
            connection.close()
        else:
            connection.execute(f"LISTEN {CHANNEL}")
            self._listener = connection
        self._deadlines.lift(connection)

    def _forget_listener(self) -> None:
        self._polls = self._lost = False
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _on_connect(self, driver: Driver, _record: ConnectionPoolEntry) -> None:
        self._deadlines.set(driver, SETUP_TIMEOUT)
        try:
            pooled = _is_pooled(driver)
        except psycopg.Error:
            driver.close()
            raise
        if pooled:
            driver.prepare_threshold = None

    def _on_checkout(self, driver: Driver, record: ConnectionPoolEntry, _fairy: object) -> None:
        # Unless it was in use just now: to ask whether it still lives costs as much as a statement. SQLAlchemy's own
        # way, `pool_pre_ping`, asks each time, and before any event: it would wait for the answer for ever.
        if time.monotonic() - record.info.get("used_at", math.inf) > PING_AFTER:
            self._deadlines.set(driver, PING_TIMEOUT)
            try:
                driver.execute("SELECT")
            except psycopg.Error:
                # The others of the pool will be dead as well.
                raise InvalidatePoolError from None
        self._deadlines.set(driver, TRANSACTION_TIMEOUT)

    def _on_checkin(self, driver: Driver | None, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()
        if driver is not None:
            self._deadlines.lift(driver)

    def _on_error(self, context: ExceptionContext) -> OutboxUnavailable | None:
        if (getattr(context.original_exception, "sqlstate", None) or "").startswith(_LOST):
            context.is_disconnect = True
        # The listener's server has most likely gone the same way, without a word to it.
        self._lost = self._lost or context.is_disconnect
        if context.connection is not None and self._deadlines.passed(_driver(context.connection)):
            return OutboxUnavailable("the database did not answer in time")
        return None


def _on_begin_to_alter(connection: Connection) -> None:
    # Who waits for a table's lock makes everybody queue behind: better give up soon, and try again.
    connection.exec_driver_sql(
        f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {DDL_LOCK_TIMEOUT * 1000:.0f}"
    )


def _with_defaults(parameters: dict[str, str]) -> dict[str, Any]:
    """What the URL does not say itself. No `options`: a pooler refuses them."""
    defaults: dict[str, Any] = {
        # The driver begins nothing by itself: `write` says BEGIN, and what holds for the transaction, in one message.
        "autocommit": True,
        "connect_timeout": CONNECT_TIMEOUT,
        "application_name": "esp-webhooks",
        # Where the network swallows everything, the server's own timeouts never reach us.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": round(2 * STATEMENT_TIMEOUT * 1000),
    }
    if "," in parameters.get("host", ""):
        # Of several hosts, the one that can write: after a fail-over the old primary may live on as a standby.
        defaults["target_session_attrs"] = "read-write"
    return defaults | parameters


def _driver(connection: Connection) -> Driver:
    driver: Driver = connection.connection.driver_connection  # type: ignore[assignment] # a DBAPIConnection
    return driver


def _is_pooled(driver: Driver) -> bool:
    """Whether a pooler stands in between: it gives its clients process ids of its own, to cancel by."""
    found = driver.execute("SELECT pg_backend_pid()").fetchone()
    return found is None or found[0] != driver.info.backend_pid
