"""PostgreSQL: any number of processes on any number of machines."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from webhook_app.outbox.database import CHANNEL, LOCK_TIMEOUT, OutboxUnavailable, summary, unavailable

STATEMENT_TIMEOUT = 15.0  # seconds
CONNECT_TIMEOUT = 5  # seconds
PING_AFTER = 0.5  # seconds
DDL_LOCK_TIMEOUT = 1.0  # seconds a change of the tables waits, and others behind it
ALTER_TIMEOUT = 120.0  # seconds to wait while another process changes the tables


class PostgreSQL:
    """Any number of processes on any number of machines."""

    dialect = "postgresql"

    #: Any number does, as long as every worker takes the same.
    CLAIM_LOCK = 0x6F7574626F78
    ALTER_LOCK = 0x6D6967726174

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(
            url, pool_size=8, max_overflow=8, pool_timeout=LOCK_TIMEOUT, connect_args=_connect_args(url)
        )
        _ping_after_a_rest(self._engine)
        self._each_statement_alone = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._listener: psycopg.Connection[Any] | None = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with unavailable(psycopg.Error), self._engine.begin() as connection:
            yield connection

    read = write

    @contextmanager
    def write_at_once(self) -> Iterator[Connection]:
        with unavailable(psycopg.Error), self._each_statement_alone.connect() as connection:
            yield connection

    @contextmanager
    def alter(self) -> Iterator[Connection]:
        with unavailable(psycopg.Error), self._engine.connect() as connection:
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
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")

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
            raise OutboxUnavailable(summary(error)) from None

    def close(self) -> None:
        self._forget_listener()
        self._engine.dispose()

    def _listen(self) -> psycopg.Connection[Any]:
        connection = self._engine.raw_connection()
        driver: psycopg.Connection[Any] = connection.driver_connection  # type: ignore[assignment] # a DBAPIConnection
        # For good: it must never come back to the pool.
        connection.detach()
        driver.autocommit = True
        driver.execute(f"LISTEN {CHANNEL}")
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
