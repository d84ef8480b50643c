"""Retention: pruning once a day, whichever worker comes first, a batch at a time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, or_, update

from webhook_app.outbox.database import Database
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.tables import installation
from webhook_app.outbox.times import duration_to_micros, seconds_to_micros

EVERY = timedelta(days=1)
#: Whoever prunes has the turn for so long, and again for so long after each half of it; then another may.
TURN = timedelta(minutes=10)

_due_at = installation.c.prune_due_at


class Retention:
    """The daily pruning, in steps that a worker takes between its other work.

    Raises `OutboxUnavailable`. `clock` gives seconds since 1970.

    When it is due next is kept in the database: a worker that is restarted every few hours prunes all the same, and
    two do not do it together.
    """

    def __init__(
        self, database: Database, maintenance: Maintenance, *, keep: timedelta, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._maintenance = maintenance
        self._keep = keep
        self._clock = clock
        #: Until when it is our turn, in microseconds; None while it is not.
        self._turn: int | None = None

    def step(self) -> bool:
        """Prune one batch if it is our turn; whether there may be more to do right now."""
        now = self._clock()
        if not self._have_turn(seconds_to_micros(now)):
            return False
        if self._maintenance.prune_some(datetime.fromtimestamp(now, UTC) - self._keep):
            return True
        self._hand_on(self._is_ours(), now, EVERY)
        self._turn = None
        return False

    def _have_turn(self, now: int) -> bool:
        if self._turn is None:
            is_free = or_(_due_at.is_(None), _due_at <= now)
        elif self._turn - now > duration_to_micros(TURN) / 2:
            return True
        else:
            is_free = self._is_ours()
        self._turn = self._hand_on(is_free, now / 1_000_000, TURN)
        return self._turn is not None

    def _is_ours(self) -> ColumnElement[bool]:
        return _due_at == self._turn

    def _hand_on(self, condition: ColumnElement[bool], now: float, later: timedelta) -> int | None:
        """Move the due time; None where somebody else was faster."""
        due_at = seconds_to_micros(now + later.total_seconds())
        with self._database.write() as connection:
            moved = connection.execute(update(installation).where(condition).values(prune_due_at=due_at)).rowcount
        return due_at if moved else None
