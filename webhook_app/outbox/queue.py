"""Claiming changes, and settling what became of them."""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Executable, bindparam, delete, exists, func, insert, select, text, tuple_, update

from webhook_app.outbox.database import Database
from webhook_app.outbox.rows import Claimed, claimed_of_row
from webhook_app.outbox.tables import State, attempts, events, in_states, is_one_of, workers
from webhook_app.outbox.times import seconds_to_micros

LEASE = 20.0  # seconds for which a claimed change belongs to its worker, unless it is renewed

#: A change is never sent once a newer one of the same person is in one of these states: it would undo that one.
OUTRANKING = (State.PENDING, State.DELIVERED, State.DEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How one attempt ended, and what that makes of the change. Times are seconds since 1970."""

    claimed: Claimed
    #: `delivered`, `dead`, or `pending` for another try at `due_at`.
    state: State
    due_at: float | None = None
    #: False where the attempt says nothing about this change: it burns none of its tries.
    counts: bool = True
    started_at: float
    duration: float  # seconds
    outcome: str
    #: HTTP status; None where no answer came.
    status: int | None = None
    message: str = ""
    trace_id: str = ""
    warnings: Sequence[str] = ()


_other = events.alias("other")

_person_is_in_flight = exists().where(_other.c.identity_hash == events.c.identity_hash, _other.c.lease.is_not(None))

_is_outranked = exists().where(
    _other.c.identity_hash == events.c.identity_hash,
    in_states(OUTRANKING, _other),
    tuple_(_other.c.version, _other.c.id) > tuple_(events.c.version, events.c.id),
)

#: What dead workers held can be claimed again.
_RECLAIM: Mapping[str, Executable] = {
    "postgresql": update(events)
    .where(events.c.lease.is_not(None), events.c.due_at <= bindparam("now"))
    .values(lease=None),
    # SQLite must be told by which index: statistics from a moment when nothing was leased, which is usual, make it
    # look at all that waits.
    "sqlite": text(
        "UPDATE events INDEXED BY events_leased SET lease = NULL WHERE lease IS NOT NULL AND due_at <= :now"
    ),
}

#: Only what is pending is due at any time. Asked for by its state as well, it would be looked up by that, and sorted.
_DUE = (
    select(events.c.id)
    .where(events.c.due_at <= bindparam("now"), ~_person_is_in_flight)
    .order_by(events.c.due_at, events.c.id)
    .limit(bindparam("limit"))
    # From here on they are ours. What a replay or a discard holds just now is left for the next claim.
    .with_for_update(skip_locked=True)
)

#: Of two changes of one person that are due, one outranks the other: what is left is one of each person.
_supersede = (
    update(events)
    .where(is_one_of("ids"))
    .values(state=State.SUPERSEDED, due_at=None, settled_at=bindparam("now"))
    .returning(events.c.id)
)
_SUPERSEDE: Mapping[str, Sequence[Executable]] = {
    "postgresql": [_supersede.where(_is_outranked)],
    # By what waits, and by what has ended: two statements, as SQLite has two indexes of people.
    "sqlite": [
        _supersede.where(_is_outranked.where(_other.c.due_at.is_not(None))),
        _supersede.where(_is_outranked.where(_other.c.due_at.is_(None))),
    ],
}

_LEASE = (
    update(events)
    .where(is_one_of("ids"))
    .values(lease=bindparam("token"), due_at=bindparam("until"))
    .returning(*(column for column in events.c if column.name != "raw"))
)

#: A lease that has run out is not renewed, even if nobody has taken over yet: somebody may be about to.
_RENEW = (
    update(events)
    .where(is_one_of("ids"), events.c.lease == bindparam("token"), events.c.due_at > bindparam("now"))
    .values(due_at=bindparam("until"))
    .returning(events.c.id)
)

_RELEASE = (
    update(events)
    .where(is_one_of("ids"), events.c.lease == bindparam("token"))
    .values(due_at=bindparam("now"), lease=None)
)

# Nobody updated by these two: this worker's lease ran out and the change was taken from it. What becomes of the
# change is the other's business; ours is one attempt more.
_DELIVER = (
    update(events)
    .where(is_one_of("ids"), events.c.lease == bindparam("token"))
    .values(state=State.DELIVERED, lease=None, due_at=None, settled_at=bindparam("now"), error=None)
)
_FAIL = (
    update(events)
    .where(events.c.id == bindparam("event"), events.c.lease == bindparam("token"))
    .values(
        state=bindparam("new_state"),
        lease=None,
        due_at=bindparam("due"),
        attempts=events.c.attempts + bindparam("burnt"),
        retrying_since=func.coalesce(events.c.retrying_since, bindparam("failed_at")),
        settled_at=bindparam("settled"),
        error=bindparam("why"),
    )
)


class Queue:
    """Raises `OutboxUnavailable` where the database cannot be used; nothing is half done then.

    `clock` gives seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def claim(self, limit: int, *, lease: float = LEASE) -> list[Claimed]:
        """Up to `limit` due changes, oldest due first, no two of one person, each leased for `lease` seconds.

        What lost to a newer change of the same person is superseded on the way.
        """
        # More than once only where all that was due had lost to other changes. Each time in a transaction of its own:
        # somebody who changed their mind a million times must not lock out everybody else.
        while (claimed := self._claim_some(limit, lease)) is not None:
            if claimed:
                return claimed
        return []

    def _claim_some(self, limit: int, lease: float) -> list[Claimed] | None:
        """None where nothing is due; an empty list where all of it was superseded, and there may be more."""
        with self._database.write() as connection:
            self._database.lock_claims(connection)
            # Only now: while we waited for the lock, more has come due.
            now = seconds_to_micros(self._clock())
            token, until = uuid.uuid4().hex, now + seconds_to_micros(lease)
            connection.execute(_RECLAIM[self._database.dialect], {"now": now})
            ids = set(connection.execute(_DUE, {"now": now, "limit": limit}).scalars())
            if not ids:
                return None
            for supersede in _SUPERSEDE[self._database.dialect]:
                ids -= set(connection.execute(supersede, {"ids": list(ids), "now": now}).scalars())
            if not ids:
                return []
            rows = connection.execute(_LEASE, {"ids": list(ids), "token": token, "until": until}).mappings().all()
        return [claimed_of_row(row) for row in sorted(rows, key=itemgetter("id"))]

    def renew(self, claimed: Iterable[Claimed], *, lease: float = LEASE) -> set[Claimed]:
        """Keep changes whose sending is slow for another `lease` seconds; returns those that are still ours.

        The others' leases ran out. Somebody else may be sending them: they must not be begun any more.
        """
        now = seconds_to_micros(self._clock())
        until = now + seconds_to_micros(lease)
        kept: set[Claimed] = set()
        by_token = _by_token(claimed)
        if by_token:
            with self._database.write() as connection:
                for token, changes in by_token.items():
                    values = {"ids": list(changes), "token": token, "now": now, "until": until}
                    kept.update(changes[number] for number in connection.execute(_RENEW, values).scalars())
        return kept

    def release(self, claimed: Iterable[Claimed]) -> None:
        """Hand back changes that were claimed and not sent, as if nothing had happened."""
        now = seconds_to_micros(self._clock())
        by_token = _by_token(claimed)
        if by_token:
            with self._database.write() as connection:
                for token, changes in by_token.items():
                    connection.execute(_RELEASE, {"ids": list(changes), "token": token, "now": now})

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Write down how attempts ended, all in one commit."""
        if not settlements:
            return
        now = seconds_to_micros(self._clock())
        delivered = _by_token(one.claimed for one in settlements if one.state is State.DELIVERED)
        failed = [_failure(one, now) for one in settlements if one.state is not State.DELIVERED]
        with self._database.write() as connection:
            for token, changes in delivered.items():
                connection.execute(_DELIVER, {"ids": list(changes), "token": token, "now": now})
            if failed:
                connection.execute(_FAIL, failed)
            connection.execute(insert(attempts), [_attempt(settlement) for settlement in settlements])

    def report(self, worker: str, *, paused_reason: str | None = None, paused_until: float | None = None) -> None:
        """Say that a worker is alive, and why it sends nothing if it does not. A worker not heard of is dead."""
        now = seconds_to_micros(self._clock())
        state = {
            "seen_at": now,
            "paused_reason": paused_reason,
            "paused_until": None if paused_until is None else seconds_to_micros(paused_until),
        }
        with self._database.write() as connection:
            known = connection.execute(update(workers).where(workers.c.id == worker).values(state)).rowcount
            if not known:
                connection.execute(insert(workers).values(id=worker, started_at=now, **state))

    def sign_off(self, worker: str) -> None:
        """The worker has ended in good order."""
        with self._database.write() as connection:
            connection.execute(delete(workers).where(workers.c.id == worker))

    def wait(self, timeout: float) -> None:
        """Return when something was stored, or after `timeout` seconds."""
        self._database.wait(timeout)


def _by_token(claimed: Iterable[Claimed]) -> dict[str, dict[int, Claimed]]:
    """Changes by the claim they came from, then by number: one statement does for all of a claim."""
    by_token: dict[str, dict[int, Claimed]] = {}
    for change in claimed:
        by_token.setdefault(change.lease, {})[change.id] = change
    return by_token


def _failure(settlement: Settlement, now: int) -> dict[str, Any]:
    return {
        "event": settlement.claimed.id,
        "token": settlement.claimed.lease,
        "new_state": settlement.state,
        "due": None if settlement.due_at is None else seconds_to_micros(settlement.due_at),
        "burnt": int(settlement.counts),
        "failed_at": seconds_to_micros(settlement.started_at) if settlement.counts else None,
        "settled": None if settlement.state is State.PENDING else now,
        "why": settlement.message,
    }


def _attempt(settlement: Settlement) -> dict[str, Any]:
    return {
        "event_id": settlement.claimed.id,
        "started_at": seconds_to_micros(settlement.started_at),
        "duration": seconds_to_micros(settlement.duration),
        "outcome": settlement.outcome,
        "status": settlement.status,
        "message": settlement.message or None,
        "trace_id": settlement.trace_id or None,
        "warnings": json.dumps(settlement.warnings) if settlement.warnings else None,
    }
