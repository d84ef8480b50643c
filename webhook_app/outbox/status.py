"""How the outbox is doing, at a glance."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from webhook_app.outbox.database import Database
from webhook_app.outbox.tables import State, attempts, events, workers
from webhook_app.outbox.times import from_micros, seconds_to_micros

WORKER_SILENCE = 30.0  # seconds after which a worker that has not reported is dead
LAST_ATTEMPTS = 20
ATTEMPT_FORGOTTEN = 900.0  # seconds after which an attempt says nothing about how things are


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    #: When the oldest change that still waits was received.
    oldest_waiting: datetime | None
    workers_alive: int
    #: Why workers send nothing, each reason once.
    paused: tuple[str, ...]
    #: How many attempts there were lately, at most `LAST_ATTEMPTS`, and how many did not end in a delivery.
    last_attempts: int
    last_failed: int


def status(database: Database, now: float) -> Status:
    """`now` is seconds since 1970. Costs the same however many rows there are. Raises `OutboxUnavailable`."""
    heard_of = seconds_to_micros(now - WORKER_SILENCE)
    oldest = select(events.c.received_at).where(events.c.state == State.PENDING).order_by(events.c.id).limit(1)
    alive = select(workers.c.paused_reason).where(workers.c.seen_at >= heard_of)
    lately = attempts.c.started_at >= seconds_to_micros(now - ATTEMPT_FORGOTTEN)
    newest = select(attempts.c.outcome, lately.label("lately")).order_by(attempts.c.id.desc()).limit(LAST_ATTEMPTS)
    with database.read() as connection:
        received_at = connection.execute(oldest).scalar()
        reasons = connection.execute(alive).scalars().all()
        outcomes = [row.outcome for row in connection.execute(newest) if row.lately]
    return Status(
        oldest_waiting=None if received_at is None else from_micros(received_at),
        workers_alive=len(reasons),
        paused=tuple(sorted({reason for reason in reasons if reason})),
        last_attempts=len(outcomes),
        last_failed=sum(outcome != State.DELIVERED for outcome in outcomes),
    )
