"""Helpers of the outbox's tests: a change, an ending, a look at the rows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox import Claimed, Database, Intake, Queue, Settlement, State
from webhook_app.outbox.queries import Event, Filter, stream
from webhook_app.outbox.states import event_statuses
from webhook_app.outbox.tables import attempts, consents, events


@dataclass(frozen=True)
class ConcernedBy:
    """The condition of a section: what a test says of the raw event."""

    holds: Callable[[bytes], bool]

    def concerns(self, raw: bytes, provider: str, action: Action, kind: IdentityKind) -> bool:
        return self.holds(raw)

    def near_match(self, raw: bytes, provider: str, action: Action, kind: IdentityKind) -> str:
        return ""


def concerned_by_word(**words: str) -> dict[str, ConcernedBy]:
    """Sections, each concerned by what holds its word."""
    return {name: ConcernedBy(lambda raw, word=word: word.encode() in raw) for name, word in words.items()}  # type: ignore[misc]


START = 1_750_000_000.0  # seconds since 1970; any moment that is over does


@dataclass
class Clock:
    """Stands still until it is told to go."""

    now: float = START

    def __call__(self) -> float:
        return self.now

    def go(self, seconds: float) -> None:
        self.now += seconds

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)


def change(
    email: str = "jane@example.com", *, ago: float = 60.0, action: Action = Action.OPT_OUT, **more: Any
) -> ConsentChange:
    """A change of so many seconds before the clock's start."""
    plain = ConsentChange(
        action=action,
        identity=Identity(kind=IdentityKind.EMAIL, value=email),
        reason="unsubscribe" if action is Action.OPT_OUT else "group_resubscribe",
        occurred_at=datetime.fromtimestamp(START, UTC) - timedelta(seconds=ago),
    )
    return replace(plain, **more)


def add(intake: Intake, *changes: ConsentChange) -> None:
    intake.add("sendgrid", changes=[(one, b"{}") for one in changes])


def ending(claimed: Claimed, state: State = State.DELIVERED, **more: Any) -> Settlement:
    outcome = {State.DELIVERED: "delivered", State.DEAD: "refused"}.get(state, "retry")
    plain = Settlement(claimed=claimed, state=state, started_at=START, duration=0.01, outcome=outcome)
    return replace(plain, **more)


def send_all(queue: Queue) -> list[Claimed]:
    """Deliver all that is due, as a worker for which nothing goes wrong; returns it in the order of sending."""
    sent = []
    while batch := queue.claim(100):
        queue.settle([ending(claimed) for claimed in batch])
        sent += batch
    return sent


def rows(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(events).order_by(events.c.id)).all())


def register(database: Database) -> list[Any]:
    """The rows of the register, in the order of the events that they want."""
    with database.read() as connection:
        return list(connection.execute(select(consents).order_by(consents.c.event_id, consents.c.section)).all())


def seen(database: Database) -> list[Event]:
    """Each event with what became of it, as a person sees it."""
    return [event for batch in stream(database, Filter()) for event in batch]


def states(database: Database) -> list[str]:
    """What became of each event."""
    with database.read() as connection:
        found = connection.execute(select(events).order_by(events.c.id)).all()
        return [status.state for status in event_statuses(connection, found)]


def give_all_up(database: Database, error: str = "refused") -> None:
    """Whatever waits is dead, as if it had failed for too long."""
    with database.write() as connection:
        waiting = update(consents).where(consents.c.due_at.is_not(None))
        connection.execute(waiting.values(due_at=None, lease=None, dead_at=1, error=error))


def outcomes(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(attempts.c.outcome).order_by(attempts.c.id)).scalars())


def addresses(claimed: Iterable[Claimed]) -> list[str]:
    return [one.change.identity.value for one in claimed if one.change]
