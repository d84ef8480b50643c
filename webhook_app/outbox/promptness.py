"""The report of delivery times, from unsubscribe to taken by Dynamic Yield: sums, so that no report reads events.

They are written in the transaction that settles an attempt: what was taken is counted, once, whoever is killed when.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, text

from webhook_app.outbox.database import Database
from webhook_app.outbox.tables import promptness
from webhook_app.outbox.times import duration_to_micros

#: Gmail, Yahoo and regulators expect an unsubscribe to hold within this.
DEADLINE = timedelta(hours=48)
#: An ESP that sends an event again does so for three days. What comes later than this was caught up with, by an import
#: or a comparison: it says nothing about how prompt the webhooks are.
CAUGHT_UP_AFTER = timedelta(days=7)

#: Each bucket ends where it is this much longer than the one before: a percentile is at most so much too high.
STEPS_PER_DOUBLING = 4
#: Bucket 0 ends at the deadline; the first one at 0.7 seconds, the last one at half a year.
FIRST, LAST = -18 * STEPS_PER_DOUBLING, 7 * STEPS_PER_DOUBLING
#: Stands for what was caught up with.
CAUGHT_UP = 1000

_SECONDS = 1_000_000
_DAY = 86_400


class Taken(NamedTuple):
    """An opt-out that Dynamic Yield has taken. Times are microseconds since 1970."""

    provider: str
    #: By the ESP's word; where it says none, when it was received.
    occurred_at: int
    received_at: int
    taken_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One ESP in one month."""

    #: `2026-11`, by when it was taken, in UTC.
    month: str
    provider: str
    #: Opt-outs that were taken; those that were only caught up with are counted apart.
    taken: int
    caught_up: int
    #: None where all were caught up with.
    median: timedelta | None
    p95: timedelta | None
    worst: timedelta | None
    within_deadline: int
    #: Upper ends of the buckets, and how many are in each.
    buckets: Mapping[timedelta, int]

    @property
    def share(self) -> float | None:
        """Of those within 48 hours, from 0 to 1."""
        return self.within_deadline / self.taken if self.taken else None


_ADD = text(
    "INSERT INTO promptness (day, provider, bucket, taken, worst) VALUES (:day, :provider, :bucket, :taken, :worst) "
    "ON CONFLICT (day, provider, bucket) DO UPDATE SET taken = promptness.taken + excluded.taken, "
    "worst = CASE WHEN excluded.worst > promptness.worst THEN excluded.worst ELSE promptness.worst END"
)


def add(connection: Connection, taken: Iterable[Taken]) -> None:
    """Count, in the transaction that settles."""
    counts: Counter[tuple[int, str, int]] = Counter()
    worst: dict[tuple[int, str, int], int] = {}
    for one in taken:
        took = max(one.taken_at - one.occurred_at, 0)
        key = one.taken_at // _SECONDS // _DAY, one.provider, _bucket(one, took)
        counts[key] += 1
        worst[key] = max(worst.get(key, 0), took)
    if counts:
        # In order: two workers that add to the same rows wait for each other in one direction, never in a ring.
        rows = [
            {"day": key[0], "provider": key[1], "bucket": key[2], "taken": count, "worst": worst[key]}
            for key, count in sorted(counts.items())
        ]
        connection.execute(_ADD, rows)


def _bucket(one: Taken, took: int) -> int:
    if one.received_at - one.occurred_at > duration_to_micros(CAUGHT_UP_AFTER):
        return CAUGHT_UP
    doublings = math.log2(max(took, 1) / _SECONDS / DEADLINE.total_seconds())
    return min(max(math.ceil(doublings * STEPS_PER_DOUBLING), FIRST), LAST)


def _end(bucket: int) -> timedelta:
    return DEADLINE * 2 ** (bucket / STEPS_PER_DOUBLING)


def report(database: Database, *, since: datetime | None = None) -> list[Line]:
    """A line for each month and ESP, the newest month first. Whole days in UTC. Raises `OutboxUnavailable`."""
    sums = promptness.c
    some = select(sums.day, sums.provider, sums.bucket, func.sum(sums.taken), func.max(sums.worst)).group_by(
        sums.day, sums.provider, sums.bucket
    )
    if since is not None:
        some = some.where(sums.day >= int(since.timestamp()) // _DAY)
    months: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    with database.read() as connection:
        for day, provider, bucket, taken, worst in connection.execute(some):
            month = f"{date.fromordinal(_EPOCH + day):%Y-%m}"
            months.setdefault((month, provider), []).append((bucket, int(taken), worst))
    newest_first = sorted(months.items(), key=lambda item: item[0][1])
    newest_first.sort(key=lambda item: item[0][0], reverse=True)
    return [_line(month, provider, rows) for (month, provider), rows in newest_first]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).toordinal()


def _line(month: str, provider: str, rows: Sequence[tuple[int, int, int]]) -> Line:
    prompt = Counter[int]()
    for bucket, taken, _ in rows:
        if bucket != CAUGHT_UP:
            prompt[bucket] += taken
    total = prompt.total()
    worst = max((longest for bucket, _, longest in rows if bucket != CAUGHT_UP), default=0)
    longest = timedelta(microseconds=worst)
    return Line(
        month=month,
        provider=provider,
        taken=total,
        caught_up=sum(taken for bucket, taken, _ in rows if bucket == CAUGHT_UP),
        median=_percentile(prompt, 0.5, longest),
        p95=_percentile(prompt, 0.95, longest),
        worst=longest if total else None,
        within_deadline=sum(count for bucket, count in prompt.items() if bucket <= 0),
        buckets={_end(bucket): prompt[bucket] for bucket in sorted(prompt)},
    )


def _percentile(prompt: Mapping[int, int], share: float, worst: timedelta) -> timedelta | None:
    """The end of the bucket in which it lies: no more than the truth allows, and never more than the worst."""
    rank, seen = math.ceil(sum(prompt.values()) * share), 0
    for bucket in sorted(prompt):
        seen += prompt[bucket]
        if seen >= rank:
            return min(_end(bucket), worst)
    return None


def as_row(line: Line) -> dict[str, Any]:
    """Plain values, for JSON and CSV; times in seconds."""

    def seconds(length: timedelta | None) -> float | None:
        return None if length is None else round(length.total_seconds(), 1)

    return {
        "month": line.month,
        "provider": line.provider,
        "taken": line.taken,
        "median_seconds": seconds(line.median),
        "p95_seconds": seconds(line.p95),
        "worst_seconds": seconds(line.worst),
        "within_48h": None if line.share is None else round(line.share, 6),
        "caught_up": line.caught_up,
    }
