"""Looking after the outbox by hand and by the day: send again, give up for good, forget what is old."""

import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update

from webhook_app.outbox.database import Database
from webhook_app.outbox.recent import forget_bodies
from webhook_app.outbox.tables import FINISHED, State, events, in_states, key_once_set_aside, one_time_tokens, workers
from webhook_app.outbox.times import seconds_to_micros, to_micros

#: Rows changed in one commit: few enough that nobody who stores or claims meanwhile notices (some 10 ms).
BATCH = 500

#: What can be sent again. Waiting changes will be sent anyway, made-up ones never.
REPLAYABLE = (State.DEAD, State.DELIVERED, State.SUPERSEDED, State.DISCARDED)

#: What somebody may still decide about. What is finished has been decided.
DISCARDABLE = (State.PENDING, State.DEAD, State.QUARANTINED)

#: A one-time token is remembered for so long at least: as long as its signature might be accepted again.
TOKEN_LIFETIME = timedelta(days=30)
#: A worker that has been silent for so long is no news any more.
WORKER_FORGOTTEN = timedelta(days=1)

#: The rows that a person means: by number, or by a condition on `events`.
Selection = Collection[int] | ColumnElement[bool]

_has_address = events.c.identity_value.is_not(None)


class Maintenance:
    """Raises `OutboxUnavailable` where the database cannot be used; what was changed until then stays changed.

    Every verb works in batches, however many rows are meant. `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        *,
        token_lifetime: timedelta = TOKEN_LIFETIME,
    ) -> None:
        self._database = database
        self._clock = clock
        self._token_lifetime = token_lifetime

    def replay(self, selection: Selection) -> int:
        """Send these changes again, as if they had just come; returns how many will be.

        Left alone: what waits anyway, what was made up, and what has lost its address (see `emptied`). A change
        that is older than a delivered one of the same person is superseded again instead of sent.
        """
        allowed = and_(in_states(REPLAYABLE), _has_address)
        now = seconds_to_micros(self._clock())
        again = {
            "state": State.PENDING,
            "due_at": now,
            "attempts": 0,
            "retrying_since": None,
            "settled_at": None,
            "error": None,
        }
        return self._change(selection, allowed, again, announced=True)

    def emptied(self, selection: Selection) -> int:
        """How many of these changes can never be replayed, because retention has emptied them."""
        lost = and_(in_states(REPLAYABLE), ~_has_address)
        total = 0
        with self._database.read() as connection:
            for part in _parts(selection):
                total += connection.execute(select(func.count()).select_from(events).where(part, lost)).scalar_one()
        return total

    def discard(self, selection: Selection) -> int:
        """Decide that these changes shall not be sent; returns how many. What is being sent just now is left alone."""
        now = seconds_to_micros(self._clock())
        nobody_sends_it = or_(events.c.lease.is_(None), events.c.due_at <= now)
        allowed = and_(in_states(DISCARDABLE), nobody_sends_it)
        new_key = key_once_set_aside(self._database.dialect)
        never = {"state": State.DISCARDED, "lease": None, "due_at": None, "settled_at": now, "dedupe_key": new_key}
        return self._change(selection, allowed, never)

    def prune(self, before: datetime, *, batch: int = BATCH) -> int:
        """Empty the address and the raw event of whatever was finished before then; returns how many rows.

        The keyed hashes stay as the proof of what was done. Dead and quarantined changes keep everything: they are
        not finished, Dynamic Yield does not know of them, and without the address nobody could mend that. They lose
        it once they are replayed or discarded.
        """
        total = 0
        while done := self.prune_some(before, batch=batch):
            total += done
        return total

    def prune_some(self, before: datetime, *, batch: int = BATCH) -> int:
        """One batch of `prune`; 0 when nothing is left to empty."""
        old = and_(in_states(FINISHED), events.c.raw.is_not(None), events.c.settled_at < to_micros(before))
        some = select(events.c.id).where(old).order_by(events.c.settled_at).limit(batch)
        with self._database.write() as connection:
            ids = connection.execute(some).scalars().all()
            if not ids:
                self._forget(connection)
                return 0
            # A replay may have taken one of them meanwhile: it must keep its address.
            empty = update(events).where(events.c.id.in_(ids), old).values(identity_value=None, visitor=None, raw=None)
            connection.execute(empty)
            return len(ids)

    def _forget(self, connection: Any) -> None:
        """Remove what nobody asks for any more."""
        now = self._clock()
        stale = seconds_to_micros(now - self._token_lifetime.total_seconds())
        silent = seconds_to_micros(now - WORKER_FORGOTTEN.total_seconds())
        connection.execute(delete(one_time_tokens).where(one_time_tokens.c.seen_at < stale))
        connection.execute(delete(workers).where(workers.c.seen_at < silent))
        forget_bodies(connection, now)

    def _change(
        self, selection: Selection, allowed: ColumnElement[bool], values: dict[str, Any], *, announced: bool = False
    ) -> int:
        total = 0
        for ids in self._chosen(selection, allowed):
            # Asked again: a worker, or another person, may have changed one of them since it was chosen.
            change = update(events).where(events.c.id.in_(ids), allowed).values(values)
            with self._database.write() as connection:
                total += connection.execute(change).rowcount
                if announced:
                    self._database.announce(connection)
        return total

    def _chosen(self, selection: Selection, allowed: ColumnElement[bool]) -> Iterator[list[int]]:
        """The numbers of the rows that are meant and allowed, a batch at a time.

        Whatever is stored while this goes on is not meant.
        """
        with self._database.read() as connection:
            last = connection.execute(select(func.max(events.c.id))).scalar() or 0
        for part in _parts(selection):
            after = 0
            while True:
                some = select(events.c.id).where(part, allowed, events.c.id > after, events.c.id <= last)
                with self._database.read() as connection:
                    ids = list(connection.execute(some.order_by(events.c.id).limit(BATCH)).scalars())
                if not ids:
                    break
                yield ids
                after = ids[-1]


def _parts(selection: Selection) -> Iterator[ColumnElement[bool]]:
    """A condition as it is; numbers as conditions on so many of them that a statement takes them."""
    if isinstance(selection, ColumnElement):
        yield selection
        return
    ids = sorted(selection)
    for start in range(0, len(ids), BATCH):
        yield events.c.id.in_(ids[start : start + BATCH])
