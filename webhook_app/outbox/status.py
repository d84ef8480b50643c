"""The outbox at a glance: what waits, since when, and who works."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from webhook_app.outbox.database import Database
from webhook_app.outbox.tables import DEFAULT_SECTION, State, attempts, consents, events, workers
from webhook_app.outbox.times import Time, maybe_from_micros, seconds_to_micros

WORKER_SILENCE = 30.0  # seconds after which a worker that has not reported is dead
LAST_ATTEMPTS = 20
#: So many of all sections' attempts are looked through for the last ones of each.
LOOKED_THROUGH = 1000
ATTEMPT_FORGOTTEN = 900.0  # seconds after which an attempt says nothing about how things are


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    #: When the oldest change that still waits was received.
    oldest_waiting: datetime | None
    workers_alive: int
    #: Where workers send nothing, and why: sections and reasons, each pair once.
    paused: tuple[tuple[str, str], ...]
    #: Section → whether each of its attempts of lately ended in a delivery, the last `LAST_ATTEMPTS` at most.
    lately: Mapping[str, list[bool]]


def status(database: Database, clock: Callable[[], float] | None = None) -> Status:
    """Costs the same however many rows there are. `clock` gives seconds since 1970, for tests.

    Raises `OutboxUnavailable`.
    """
    now = Time(database, clock).now
    # In the order of the index, and with the row of the log: one that is gone has nothing to tell.
    oldest = (
        select(events.c.received_at)
        .join_from(consents, events, events.c.id == consents.c.event_id)
        .where(consents.c.due_at.is_not(None))
        .order_by(consents.c.event_id)
        .limit(1)
    )
    alive = select(workers.c.pauses).where(workers.c.seen_at >= now - seconds_to_micros(WORKER_SILENCE))
    is_recent = attempts.c.started_at >= now - seconds_to_micros(ATTEMPT_FORGOTTEN)
    section = func.coalesce(attempts.c.section, DEFAULT_SECTION).label("section")
    newest = (
        select(section, attempts.c.outcome, is_recent.label("is_recent"))
        .order_by(attempts.c.id.desc())
        .limit(LOOKED_THROUGH)
    )
    lately: dict[str, list[bool]] = {}
    with database.read() as connection:
        received_at = connection.execute(oldest).scalar()
        reported = [json.loads(pauses or "{}") for pauses in connection.execute(alive).scalars()]
        for row in connection.execute(newest):
            of_section = lately.setdefault(row.section, [])
            if row.is_recent and len(of_section) < LAST_ATTEMPTS:
                of_section.append(row.outcome == State.DELIVERED)
    return Status(
        oldest_waiting=maybe_from_micros(received_at),
        workers_alive=len(reported),
        paused=tuple(sorted({(section, why) for one in reported for section, (why, _) in one.items()})),
        lately=lately,
    )
