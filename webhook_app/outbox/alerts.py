"""What people were alerted of, and what they have yet to hear, kept for all processes together."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, or_, select, update

from webhook_app.outbox.database import Database
from webhook_app.outbox.tables import alerts
from webhook_app.outbox.times import seconds_to_micros
from webhook_app.outbox.upsert import insert_or_ignore

LOOK_EVERY = 15.0  # seconds
#: What is well must stay so for so long before that is told.
WELL_FOR = 60.0  # seconds
#: Also how long another worker waits before it takes over from one that died while it told.
RETRY_AFTER = 120.0  # seconds
TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    slug: str
    text: str
    #: Whether it is over.
    well: bool


class Alerts:
    """Compares what is wrong with what was told. Raises `OutboxUnavailable`. `clock` gives seconds since 1970."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._insert = insert_or_ignore(database.dialect, alerts, "slug")

    def record(self, wrong: Mapping[str, str], *, notify_after: Mapping[str, float]) -> None:
        """Write down what is wrong now: slug → text. What must last first: slug → seconds."""
        now = seconds_to_micros(self._clock())
        due = {slug: now + seconds_to_micros(notify_after.get(slug, 0)) for slug in wrong}
        with self._database.write() as connection:
            known = {row.slug: row for row in connection.execute(select(alerts))}
            for slug in sorted(wrong.keys() - known.keys()):
                row = {
                    "slug": slug,
                    "text": wrong[slug],
                    "seen_at": now,
                    "well": False,
                    "due_at": due[slug],
                    "tries": 0,
                }
                connection.execute(self._insert, row)
            for slug in sorted(wrong.keys() & known.keys()):
                again: dict[str, Any] = {"seen_at": now}
                if known[slug].well:
                    again |= {"well": False, "text": wrong[slug], "due_at": due[slug], "tries": 0}
                connection.execute(update(alerts).where(alerts.c.slug == slug).values(again))
            gone = alerts.c.slug.not_in(wrong), alerts.c.seen_at < now - seconds_to_micros(WELL_FOR)
            # What was never told need not be taken back.
            connection.execute(delete(alerts).where(*gone, alerts.c.well.is_(False), alerts.c.due_at.is_not(None)))
            recovered = update(alerts).where(*gone, alerts.c.well.is_(False))
            connection.execute(recovered.values(well=True, due_at=now, tries=0))

    def due(self) -> list[Alert]:
        """What has to be told, taken by this worker: another tells it only when this one has not by `RETRY_AFTER`.

        Not what was not seen any more when somebody last looked: it may be over before it was told.
        """
        now = seconds_to_micros(self._clock())
        is_so = or_(alerts.c.well, alerts.c.seen_at > now - seconds_to_micros(2 * LOOK_EVERY))
        mine = update(alerts).where(alerts.c.due_at <= now, alerts.c.tries < TRIES, is_so)
        values = {"due_at": now + seconds_to_micros(RETRY_AFTER), "tries": alerts.c.tries + 1}
        taken = mine.values(values).returning(alerts.c.slug, alerts.c.text, alerts.c.well)
        with self._database.write() as connection:
            return [Alert(**row) for row in connection.execute(taken).mappings()]

    def mark_sent(self, told: Sequence[Alert]) -> None:
        slugs = [alert.slug for alert in told]
        with self._database.write() as connection:
            # Only what is still as it was told: what has changed meanwhile is due again.
            for well in (True, False):
                same = alerts.c.slug.in_([alert.slug for alert in told if alert.well is well]), alerts.c.well.is_(well)
                connection.execute(update(alerts).where(*same).values(due_at=None))
            connection.execute(delete(alerts).where(alerts.c.slug.in_(slugs), alerts.c.well, alerts.c.due_at.is_(None)))

    def all_well(self) -> bool:
        with self._database.read() as connection:
            return connection.execute(select(alerts.c.slug).where(alerts.c.well.is_(False)).limit(1)).first() is None
