"""Timestamps: whole microseconds since 1970 in UTC. Integers, because floats lose the last digits."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, bindparam, literal_column

from webhook_app.outbox.database import Database

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: When the statement began, by the clock of the server.
SERVER_TIME = "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS bigint)"


def to_micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def maybe_from_micros(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def seconds_to_micros(seconds: float) -> int:
    return round(seconds * 1_000_000)


def duration_to_micros(duration: timedelta) -> int:
    return duration // _MICROSECOND


def current_time(dialect: str) -> ColumnElement[int]:
    """As `Time.now`, without a clock of one's own."""
    if dialect == "postgresql":
        return literal_column(SERVER_TIME, BigInteger())
    return bindparam("now", callable_=lambda: seconds_to_micros(time.time()), type_=BigInteger)


def due_when_stored(database: Database, clock: Callable[[], float] | None) -> str:
    """When a new change is due: by the server's clock where there is one, for it is the one that workers claim by."""
    return SERVER_TIME if clock is None and database.dialect == "postgresql" else "received_at"


class Time:
    """What time it is, to a statement: the server's on PostgreSQL, or the clocks of two machines could tell two times.

    `clock` gives seconds since 1970 and counts instead of the server's, for tests.
    """

    def __init__(self, database: Database, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.time
        self.now: ColumnElement[int] = (
            current_time(database.dialect)
            if clock is None
            else bindparam("now", callable_=self.micros, type_=BigInteger)
        )

    def micros(self) -> int:
        """By this machine's clock: only good for durations."""
        return seconds_to_micros(self._clock())

    def until(self, moment: float) -> int:
        """Microseconds from now to a moment that this machine's clock has shown or will show, in seconds since 1970."""
        return seconds_to_micros(moment) - self.micros()
