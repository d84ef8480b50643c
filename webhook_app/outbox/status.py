"""The outbox at a glance: what waits, since when, and who works."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, and_, func, select

from webhook_app.outbox.database import Database
from webhook_app.outbox.pauses import ReportedPause, parse_pauses
from webhook_app.outbox.states import is_configured
from webhook_app.outbox.tables import DEFAULT_SECTION, LATE, State, attempts, consents, events, workers
from webhook_app.outbox.times import Time, maybe_from_micros, seconds_to_micros

WORKER_SILENCE = 30.0  # seconds after which a worker that has not reported is dead
LAST_ATTEMPTS = 20
#: So many of all sections' attempts are looked through for the last ones of each.
LOOKED_THROUGH = 1000
#: So many of those who wait are looked through for the oldest that counts; behind a longer backfill it is not known.
WAITING_LOOKED_THROUGH = 10_000
ATTEMPT_FORGOTTEN = 900.0  # seconds after which an attempt says nothing about how things are


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    #: When the oldest change was received that still waits for a section that is configured. Not what was told before,
    #: nor what is told late on purpose.
    oldest_waiting: datetime | None
    #: Whether any waits for a section that is configured.
    is_waiting: bool
    workers_alive: int
    #: Where workers send nothing, and why; of several workers that say the same, once.
    paused: tuple[ReportedPause, ...]
    #: Section → whether each of its attempts of lately ended in a delivery, the last `LAST_ATTEMPTS` at most.
    lately: Mapping[str, list[bool]]
    #: Section that is not configured → how many people wait for it. Nobody tells them.
    unconfigured: Mapping[str, int] = field(default_factory=dict)


def status(
    database: Database, clock: Callable[[], float] | None = None, *, sections: Collection[str] | None = None
) -> Status:
    """Costs the same however many rows there are.

    `sections` are those that are, None for any; `clock` gives seconds since 1970, for tests.

    Raises `OutboxUnavailable`.
    """
    now = Time(database, clock).now
    waits = and_(consents.c.due_at.is_not(None), is_configured(sections))
    is_first_told = and_(
        consents.c.in_doubt.op("&")(LATE) == 0, func.coalesce(consents.c.told_version, -1) != consents.c.version
    )
    first = (
        select(consents.c.event_id, is_first_told.label("counts"))
        .where(waits)
        .order_by(consents.c.event_id)
        .limit(WAITING_LOOKED_THROUGH)
        .subquery()
    )
    # In the order of the index, and with the row of the log: one that is gone has nothing to tell.
    oldest = (
        select(events.c.received_at)
        .join_from(first, events, events.c.id == first.c.event_id)
        .where(first.c.counts)
        .order_by(first.c.event_id)
        .limit(1)
    )
    # In order as well, or PostgreSQL might read the whole table.
    waiting = select(consents.c.event_id).where(waits).order_by(consents.c.event_id).limit(1)
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
        is_waiting = received_at is not None or connection.execute(waiting).first() is not None
        reported = [parse_pauses(text) for text in connection.execute(alive).scalars()]
        for row in connection.execute(newest):
            of_section = lately.setdefault(row.section, [])
            if row.is_recent and len(of_section) < LAST_ATTEMPTS:
                of_section.append(row.outcome == State.DELIVERED)
        unconfigured = {} if sections is None else _unconfigured(connection, sections)
    return Status(
        oldest_waiting=maybe_from_micros(received_at),
        is_waiting=is_waiting,
        workers_alive=len(reported),
        paused=tuple(sorted({pause for of_worker in reported for pause in of_worker})),
        lately=lately,
        unconfigured=unconfigured,
    )


def _unconfigured(connection: Connection, sections: Collection[str]) -> dict[str, int]:
    """Who waits for other sections than these. From name to name by the index: what waits for these is not counted."""
    found: dict[str, int] = {}
    waits = consents.c.due_at.is_not(None)
    names = select(consents.c.section).where(waits).order_by(consents.c.section).limit(1)
    name: str | None = ""
    while name := connection.execute(names.where(consents.c.section > name)).scalar():
        if name not in sections:
            theirs = select(func.count()).select_from(consents).where(waits, consents.c.section == name)
            found[name] = connection.execute(theirs).scalar_one()
    return found
