"""Maintenance, by hand and by the day: replay, discard, prune."""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, or_, select, update

from webhook_app.outbox.database import Database
from webhook_app.outbox.queries import first_since
from webhook_app.outbox.recent import forget_bodies
from webhook_app.outbox.register import want, want_another
from webhook_app.outbox.states import is_of_somebody_unfinished, is_unfinished, told_since
from webhook_app.outbox.tables import (
    State,
    attempts,
    consents,
    counts,
    events,
    key_once_set_aside,
    one_time_tokens,
    workers,
)
from webhook_app.outbox.times import Time, due_when_stored, seconds_to_micros, to_micros

#: Rows changed in one commit: few enough that nobody who stores or claims meanwhile notices (some 10 ms).
BATCH = 500

#: What can be sent again or, where it waits, at once: if nothing newer of the same person counts.
REPLAYABLE = (State.PENDING, State.DEAD, State.DELIVERED, State.DISCARDED)

#: What somebody may still decide about. What is finished has been decided.
DISCARDABLE = (State.PENDING, State.DEAD, State.QUARANTINED)

#: A one-time token is remembered for so long at least: as long as its signature might be accepted again.
TOKEN_LIFETIME = timedelta(days=30)
#: A worker that has been silent for so long is no news any more.
WORKER_FORGOTTEN = timedelta(days=1)

_has_address = events.c.identity_value.is_not(None)
#: Which events can be sent again, as far as they say themselves; and which can be given up.
CAN_REPLAY = and_(or_(counts(), events.c.state == State.DISCARDED), _has_address)
CAN_DISCARD = or_(events.c.state == State.QUARANTINED, and_(counts(), is_unfinished))


class Maintenance:
    """Replaying, discarding and pruning stored events.

    Raises `OutboxUnavailable` where the database cannot be used; what was changed until then stays changed.

    Every verb works in batches, however many rows are meant. `clock` gives seconds since 1970, for tests.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] | None = None,
        *,
        token_lifetime: timedelta = TOKEN_LIFETIME,
    ) -> None:
        self._database = database
        self._time = Time(database, clock)
        self._due_at = due_when_stored(database, clock)
        self._token_lifetime = token_lifetime
        #: Up to which event retention has looked in this round.
        self._pruned = 0

    def replay(self, numbers: Collection[int]) -> int:
        """Send these changes again, as if they had just come, or now if they wait; returns how many will be.

        Left alone: what was made up, what has lost its address, what is being sent just now, and what
        is older than the newest change of the same person.
        """
        total = 0
        for ids in self._chosen(numbers, CAN_REPLAY):
            with self._database.write() as connection:
                self._count_again(connection, ids)
                connection.execute(_in_order(select(consents.c.version).where(_row_of(ids))))
                again = (
                    update(consents)
                    .where(_row_of(ids), self._nobody_sends())
                    .values(due_at=self._time.now, lease=None, tries=0, retrying_since=None, dead_at=None, error=None)
                    .returning(consents.c.event_id)
                )
                total += len(set(connection.execute(again).scalars()))
                self._database.announce(connection)
        return total

    def discard(self, numbers: Collection[int]) -> int:
        """Decide that these changes shall not be sent; returns how many. What is being sent just now is left alone.

        The newest of the person's other changes counts again.
        """
        total = 0
        new_key = key_once_set_aside(self._database.dialect)
        aside = {"state": State.DISCARDED, "settled_at": self._time.now, "dedupe_key": new_key}
        for ids in self._chosen(numbers, CAN_DISCARD):
            with self._database.write() as connection:
                # Locked: from here on no worker takes them.
                held = select(consents, self._nobody_sends().label("is_free")).where(_row_of(ids))
                rows = connection.execute(_in_order(held)).mappings().all()
                busy = {row["event_id"] for row in rows if not row["is_free"]}
                # Told, and only to be told again: that can be called off, but it has happened.
                told = {row["event_id"] for row in rows} - busy
                told -= {row["event_id"] for row in rows if row["told_version"] != row["version"]}
                mine = and_(events.c.id.in_(set(ids) - busy - told), CAN_DISCARD)
                discarded = update(events).where(mine).values(aside).returning(events.c.id)
                done = told | set(connection.execute(discarded).scalars())
                for row in rows:
                    if row["event_id"] in done:
                        want_another(connection, row, self._time.now)
                total += len(done)
        return total

    def prune(
        self, before: datetime, *, batch: int = BATCH, progress: Callable[[int], object] = lambda _total: None
    ) -> int:
        """Empty the address, the raw event and what was sent of whatever came before then and is finished; returns
        how many events.

        The keyed hashes stay as the proof of what was done. Dead and quarantined changes keep everything: they are
        not finished, Dynamic Yield does not know of them, and without the address nobody could mend that. They lose
        it once they are replayed or discarded. `progress` is told after each batch how many events that were so far.
        """
        total = 0
        while done := self.prune_some(before, batch=batch):
            total += done
            progress(total)
        return total

    def prune_some(self, before: datetime, *, batch: int = BATCH) -> int:
        """One batch of `prune`; 0 when nothing is left to empty."""
        since = to_micros(before)
        with self._database.read() as connection:
            ended = func.coalesce(events.c.settled_at, events.c.received_at) < since
            old = and_(events.c.raw.is_not(None), ended, _is_finished(since))
            some = select(events.c.id).where(
                events.c.id > self._pruned, events.c.id < first_since(connection, since), old
            )
            ids = connection.execute(some.order_by(events.c.id).limit(batch)).scalars().all()
        with self._database.write() as connection:
            if not ids:
                self._pruned = 0
                self._forget(connection)
                return 0
            # A replay may have taken one of them meanwhile: it must keep its address.
            mine = and_(events.c.id.in_(ids), _is_finished(since))
            empty = update(events).where(mine).values(identity_value=None, visitor=None, raw=None)
            done = connection.execute(empty.returning(events.c.id)).scalars().all()
            connection.execute(update(attempts).where(attempts.c.event_id.in_(done)).values(body=None))
            self._pruned = ids[-1]
            return len(done)

    def _forget(self, connection: Connection) -> None:
        """Remove what nobody asks for any more."""
        now = self._time.now
        stale = now - seconds_to_micros(self._token_lifetime.total_seconds())
        silent = now - seconds_to_micros(WORKER_FORGOTTEN.total_seconds())
        connection.execute(delete(one_time_tokens).where(one_time_tokens.c.seen_at < stale))
        connection.execute(delete(workers).where(workers.c.seen_at < silent))
        forget_bodies(connection, self._time.micros() / 1_000_000)

    def _nobody_sends(self) -> ColumnElement[bool]:
        return or_(consents.c.lease.is_(None), consents.c.due_at <= self._time.now)

    def _count_again(self, connection: Connection, ids: list[int]) -> None:
        """What was discarded counts again, and is wanted where nothing newer is."""
        back = (
            update(events)
            .where(events.c.id.in_(ids), events.c.state == State.DISCARDED, CAN_REPLAY, events.c.version.is_not(None))
            .values(state=State.PENDING, settled_at=None, error=None)
            .returning(events.c.id)
        )
        numbers = list(connection.execute(back).scalars())
        if numbers:
            want(connection, numbers, due_at=self._due_at)

    def _chosen(self, numbers: Collection[int], allowed: ColumnElement[bool]) -> Iterator[list[int]]:
        """Those that are allowed, a batch at a time: so many as a statement takes."""
        meant = sorted(numbers)
        for start in range(0, len(meant), BATCH):
            some = select(events.c.id).where(events.c.id.in_(meant[start : start + BATCH]), allowed)
            with self._database.read() as connection:
                ids = list(connection.execute(some.order_by(events.c.id)).scalars())
            if ids:
                yield ids


def _is_finished(since: int) -> ColumnElement[bool]:
    """Nothing is left to do about an event or its person, and Dynamic Yield was not told of it since."""
    return and_(events.c.state != State.QUARANTINED, ~is_of_somebody_unfinished, ~told_since(since))


def _in_order(rows: Select[Any]) -> Select[Any]:
    """Locked in the order in which an intake takes them, or the two would wait for each other for ever."""
    return rows.order_by(consents.c.identity_hash, consents.c.section).with_for_update()


def _row_of(ids: list[int]) -> ColumnElement[bool]:
    """Whether a row of the register wants one of these events; found by the person."""
    people = select(events.c.identity_hash).where(events.c.id.in_(ids))
    return and_(consents.c.identity_hash.in_(people), consents.c.event_id.in_(ids))
