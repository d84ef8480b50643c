"""The outbox at a glance: what waits, since when, and who works."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from webhook_app.outbox.database import Database
from webhook_app.outbox.tables import DEFAULT_SECTION, State, attempts, consents, events, workers
from webhook_app.outbox.times import Time, maybe_from_micros, seconds_to_micros

WORKER_SILENCE = 30.0  # seconds after which a worker that has not reported is dead
LAST_ATTEMPTS = 20
ATTEMPT_FORGOTTEN = 900.0  # seconds after which an attempt says nothing about how things are


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    #: When the oldest change that still waits was received.
    oldest_waiting: datetime | None
    workers_alive: int
    #: Why workers send nothing, each reason once; with the section's name where it is not the default one.
    paused: tuple[str, ...]
    #: How many attempts there were lately, at most `LAST_ATTEMPTS`, and how many did not end in a delivery.
    last_attempts: int
    last_failed: int


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
    lately = attempts.c.started_at >= now - seconds_to_micros(ATTEMPT_FORGOTTEN)
    newest = select(attempts.c.outcome, lately.label("lately")).order_by(attempts.c.id.desc()).limit(LAST_ATTEMPTS)
    with database.read() as connection:
        received_at = connection.execute(oldest).scalar()
        reported = [json.loads(pauses or "{}") for pauses in connection.execute(alive).scalars()]
        outcomes = [row.outcome for row in connection.execute(newest) if row.lately]
    return Status(
        oldest_waiting=maybe_from_micros(received_at),
        workers_alive=len(reported),
        paused=tuple(sorted({_named(section, why) for one in reported for section, (why, _) in one.items()})),
        last_attempts=len(outcomes),
        last_failed=sum(outcome != State.DELIVERED for outcome in outcomes),
    )


def _named(section: str, reason: str) -> str:
    return reason if section == DEFAULT_SECTION else f"section {section}: {reason}"
