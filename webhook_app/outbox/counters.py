"""Counters and histograms: counted in memory, added to the database every few seconds.

Statistics, no promises: a process that is killed takes its last seconds of counting with it. What was promised stands
in `events`. The database is where the processes meet: any number of web and worker processes, on any number of
machines, make one sum, and it outlives them all.
"""

import atexit
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import Insert, Table, case, delete, func, select

from webhook_app.outbox.database import Database, OutboxUnavailable
from webhook_app.outbox.tables import activity, counters
from webhook_app.outbox.times import duration_to_micros, from_micros, seconds_to_micros, to_micros
from webhook_app.outbox.upsert import insert_into

FLUSH_EVERY = 5.0  # seconds
STRETCH = timedelta(minutes=10)
KEEP_ACTIVITY = timedelta(days=31)

log = structlog.get_logger()


class Count(StrEnum):
    #: Webhooks that came in, whatever became of them.
    WEBHOOKS = "webhooks"
    #: Changes that were stored and will be forwarded.
    ACCEPTED = "accepted"
    #: Changes that were known already.
    DUPLICATES = "duplicates"
    #: Events that say nothing about consent, opt-ins that are not forwarded, and the test button's events.
    IGNORED = "ignored"
    #: Events that were authentic and not understood.
    QUARANTINED = "quarantined"
    #: Quarantined events of a type that their provider does not know, by the type's name.
    UNKNOWN_TYPES = "unknown_types"
    #: Webhooks answered 401, by reason.
    UNAUTHENTICATED = "unauthenticated"
    #: Webhooks answered 4xx or 5xx for another reason.
    REFUSED = "refused"
    #: Attempts to deliver a change, by outcome.
    ATTEMPTS = "attempts"
    #: Changes that Dynamic Yield has taken.
    DELIVERED = "delivered"
    #: Attempts that did not end in a delivery.
    FAILED = "failed"


class Timing(StrEnum):
    #: From the first byte of a webhook to its answer.
    RECEIVE = "receive"
    #: From the commit of a change to Dynamic Yield's taking it.
    DELIVERY = "delivery"


#: What the chart shows.
CHARTED = frozenset({Count.ACCEPTED, Count.DELIVERED, Count.FAILED})

#: What is kept for each provider and stretch of time as well: an ESP's rhythm, and who knocks without a key.
OF_PROVIDERS = frozenset({Count.WEBHOOKS, Count.UNAUTHENTICATED})

#: Upper bounds of a timing's buckets, in seconds.
BOUNDS: Mapping[Timing, tuple[float, ...]] = {
    Timing.RECEIVE: (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
    Timing.DELIVERY: (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0),
}
SUM = "sum"
#: What the buckets are called.
LABELS: Mapping[Timing, tuple[str, ...]] = {timing: (*map(str, bounds), "+Inf") for timing, bounds in BOUNDS.items()}

#: What happened, the provider, a label, and how often.
Counting = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One counter as it stands in the database."""

    name: str
    provider: str
    label: str
    value: int
    last_at: datetime


_Key = tuple[str, str, str]


#: A stretch of time, and what happened together in it: counts, and a timing's bucket.
_Seen = tuple[int, tuple[Counting, ...], Timing | None, int]


class Counters:
    """Counts from any thread. `every` seconds a thread of its own writes them down; without it, only `flush` does.

    The thread begins with the first count, so it is the serving process that has it and not one that forks.
    `also` is what else is to be written down then. `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        *,
        every: float | None = None,
        clock: Callable[[], float] = time.time,
        also: Callable[[], None] | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self.every = every
        self._also = also
        self._lock = threading.Lock()
        #: What is not written down yet: how often, when last, and microseconds.
        self._times: Counter[_Seen] = Counter()
        self._last_at: dict[_Seen, int] = {}
        self._sums: Counter[Timing] = Counter()
        self._thread: threading.Thread | None = None
        self._swept = 0
        self._failing = False

    def add(self, counts: tuple[Counting, ...], timing: Timing | None = None, seconds: float = 0.0) -> None:
        """Count several things that happened together, and what took so long."""
        now = seconds_to_micros(self._clock())
        # Added up when it is written down: what happens thousands of times a second is nearly always the same.
        seen = _stretch(now), counts, timing, bisect_left(BOUNDS[timing], seconds) if timing else 0
        with self._lock:
            self._times[seen] += 1
            self._last_at[seen] = now
            if timing:
                self._sums[timing] += seconds_to_micros(max(seconds, 0))
        self.start()

    def start(self) -> None:
        """Begin to write down every few seconds, where that is wanted."""
        if self.every is None or self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_flushing, name="counters", daemon=True)
                self._thread.start()
                # gunicorn's workers and `flask forward` end by returning, and lose nothing then.
                atexit.register(self._flush_or_log)

    def flush(self) -> None:
        """Write down what was counted since the last time. Raises `OutboxUnavailable`; the counts are kept then."""
        if self._also:
            self._also()
        with self._lock:
            times, self._times = self._times, Counter()
            last_at, self._last_at = self._last_at, {}
            sums, self._sums = self._sums, Counter()
        if not times:
            return
        try:
            self._write(times, last_at, sums)
        except OutboxUnavailable:
            with self._lock:
                self._times.update(times)
                self._last_at = last_at | self._last_at
                self._sums.update(sums)
            raise

    def _keep_flushing(self) -> None:
        while True:
            time.sleep(self.every or FLUSH_EVERY)
            self._flush_or_log()

    def _flush_or_log(self) -> None:
        try:
            self.flush()
        except OutboxUnavailable as error:
            if not self._failing:
                log.warning("statistics_not_written", reason=str(error))
            self._failing = True
        except Exception as error:
            # Without this thread the figures would stand still, and nobody would hear why.
            log.error("statistics_failed", exc_info=error)
        else:
            self._failing = False

    def _write(self, times: Counter[_Seen], last_at: dict[_Seen, int], sums: Counter[Timing]) -> None:
        values: Counter[_Key] = Counter({(timing.value, "", SUM): micros for timing, micros in sums.items()})
        last = dict.fromkeys(values, max(last_at.values()))
        stretches: Counter[tuple[int, str]] = Counter()
        for seen, often in times.items():
            stretch, counts, timing, bucket = seen
            timings = ((timing, "", LABELS[timing][bucket], 1),) if timing else ()
            for name, provider, label, by in counts + timings:
                key = str(name), provider, str(label)
                values[key] += by * often
                last[key] = max(last.get(key, 0), last_at[seen])
                if name in CHARTED:
                    stretches[stretch, str(name)] += by * often
                if name in OF_PROVIDERS:
                    stretches[stretch, f"{name}:{provider}"] += by * often
        # In order: two processes that took the same rows in different orders would deadlock on PostgreSQL.
        rows = [
            {"name": name, "provider": provider, "label": label, "value": value, "last_at": last[name, provider, label]}
            for (name, provider, label), value in sorted(values.items())
        ]
        charted = [
            {"began_at": began_at, "name": name, "value": value}
            for (began_at, name), value in sorted(stretches.items())
        ]
        oldest = _stretch(seconds_to_micros(self._clock()) - duration_to_micros(KEEP_ACTIVITY))
        with self._database.write() as connection:
            connection.execute(_add_to(self._database.dialect, counters), rows)
            if charted:
                connection.execute(_add_to(self._database.dialect, activity), charted)
            if oldest > self._swept:
                connection.execute(delete(activity).where(activity.c.began_at < oldest))
        self._swept = oldest


def counted(database: Database) -> list[Counted]:
    """Every counter. Raises `OutboxUnavailable`."""
    with database.read() as connection:
        rows = connection.execute(
            select(counters).order_by(counters.c.name, counters.c.provider, counters.c.label)
        ).all()
    return [
        Counted(
            name=row.name, provider=row.provider, label=row.label, value=row.value, last_at=from_micros(row.last_at)
        )
        for row in rows
    ]


def activity_since(database: Database, since: datetime, step: timedelta) -> dict[str, dict[datetime, int]]:
    """How often each charted thing happened, by the beginning of each `step`. Raises `OutboxUnavailable`."""
    width = duration_to_micros(step)
    began_at = activity.c.began_at - activity.c.began_at % width
    query = (
        select(activity.c.name, began_at.label("began_at"), func.sum(activity.c.value).label("value"))
        .where(activity.c.began_at >= to_micros(since), activity.c.name.in_(CHARTED))
        .group_by(activity.c.name, began_at)
        .order_by(began_at)
    )
    series: dict[str, dict[datetime, int]] = {name.value: {} for name in CHARTED}
    with database.read() as connection:
        for row in connection.execute(query):
            series.setdefault(row.name, {})[from_micros(row.began_at)] = int(row.value)
    return series


def of_providers_since(database: Database, name: Count, since: datetime) -> dict[str, dict[datetime, int]]:
    """How often one of `OF_PROVIDERS` happened, by provider and the beginning of each stretch, oldest first.

    Raises `OutboxUnavailable`.
    """
    begins = f"{name}:"
    query = (
        select(activity)
        .where(activity.c.began_at >= to_micros(since), activity.c.name.startswith(begins, autoescape=True))
        .order_by(activity.c.began_at)
    )
    found: dict[str, dict[datetime, int]] = {}
    with database.read() as connection:
        for row in connection.execute(query):
            found.setdefault(row.name.removeprefix(begins), {})[from_micros(row.began_at)] = row.value
    return found


_STRETCH_MICROS = duration_to_micros(STRETCH)


def _stretch(micros: int) -> int:
    return micros - micros % _STRETCH_MICROS


def _add_to(dialect: str, table: Table) -> Insert:
    """Insert the row, or add its value to the one that is there."""
    insert = insert_into(dialect, table)
    new = insert.excluded
    changes: dict[str, Any] = {"value": table.c.value + new.value}
    if "last_at" in table.c:
        # Another process may have counted later and written sooner.
        changes["last_at"] = case((new.last_at > table.c.last_at, new.last_at), else_=table.c.last_at)
    statement: Insert = insert.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=changes)
    return statement
