"""Records of reconciliations: when each ESP's own lists were compared last, and what came of it.

One row an account is the schedule, the lock and the result: however many workers look, one of them compares.
"""

import time
import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, case, or_, select, true, update

from webhook_app.outbox.database import Database
from webhook_app.outbox.tables import reconciliations
from webhook_app.outbox.times import from_micros, maybe_from_micros, seconds_to_micros, to_micros
from webhook_app.outbox.upsert import insert_or_ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What one comparison has found."""

    #: Entries on the ESP's lists.
    checked: int = 0
    #: Opt-outs that the outbox had never seen; they are in it now.
    drift: int = 0
    #: Entries that a later opt-in of the same person outranks: left alone.
    outranked: int = 0
    #: Entries that make no sense; they are in the quarantine.
    unreadable: int = 0
    #: Opt-outs that concern no section: left alone. Not kept in the record.
    no_section: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What is compared: the lists of one account."""

    provider: str
    #: The subuser, where the ESP has such a thing; empty is the account of the key.
    account: str = ""
    #: Which lists, read with which key: another text means that nothing of them has been read yet.
    scope: str

    @property
    def key(self) -> str:
        return f"{self.provider}/{self.account}" if self.account else self.provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The last comparison with one account of an ESP."""

    #: The provider; of a subuser `provider/subuser`.
    name: str
    #: Of what `covered_until` and `complete_at` speak; see `Compared`.
    scope: str
    #: When it shall be compared next; while somebody does, when another may take over.
    due_at: datetime
    started_at: datetime | None
    #: None while it goes on.
    finished_at: datetime | None
    #: Why the last one did not come to its end, empty if it did.
    error: str
    #: Of the last one that came to its end.
    result: Reconciled
    #: Everything on the lists up to then is known here. None before the first good comparison.
    covered_until: datetime | None
    #: When the lists were last read from their beginning.
    complete_at: datetime | None
    #: What was missing in all comparisons so far.
    drift_total: int


class Reconciliations:
    """The records of reconciliations, an account each. Raises `OutboxUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = insert_or_ignore(database.dialect, reconciliations, "provider")

    def all(self) -> list[Reconciliation]:
        """Of every account that was ever compared."""
        with self._database.read() as connection:
            rows = connection.execute(select(reconciliations).order_by(reconciliations.c.provider)).all()
        return [
            Reconciliation(
                name=row.provider,
                scope=row.scope or "",
                due_at=from_micros(row.due_at),
                started_at=maybe_from_micros(row.started_at),
                finished_at=maybe_from_micros(row.finished_at),
                error=row.error or "",
                result=Reconciled(
                    checked=row.checked or 0,
                    drift=row.drift or 0,
                    outranked=row.outranked or 0,
                    unreadable=row.unreadable or 0,
                ),
                covered_until=maybe_from_micros(row.covered_until),
                complete_at=maybe_from_micros(row.complete_at),
                drift_total=row.drift_total,
            )
            for row in rows
        ]

    def last(self, what: Compared) -> Reconciliation | None:
        return next((one for one in self.all() if one.name == what.key), None)

    def begin(self, what: Compared, *, lease: float, only_if_due: bool) -> str | None:
        """A token for who may compare now, for `lease` seconds; None where it is not due, or somebody else does."""
        now, token = _now(), uuid.uuid4().hex
        due = reconciliations.c.due_at <= now
        with self._database.write() as connection:
            connection.execute(self._insert, {"provider": what.key, "due_at": now, "drift_total": 0})
            # Of two workers that look at once, the second finds a due time that lies ahead.
            taken = connection.execute(
                update(reconciliations)
                .where(
                    reconciliations.c.provider == what.key,
                    due if only_if_due else or_(due, reconciliations.c.lease.is_(None)),
                )
                .values(lease=token, due_at=now + seconds_to_micros(lease), started_at=now, finished_at=None)
            ).rowcount
        return token if taken else None

    def renew(self, token: str, *, lease: float) -> None:
        self._update(token, due_at=_now() + seconds_to_micros(lease))

    def finish(self, token: str, result: Reconciled, *, scope: str, since: datetime | None, due_in: float) -> None:
        """It came to its end; the next one is due in so many seconds, at once where this one left a gap.

        Covered is what was read without a gap: everything, or from a time on that was covered before.
        """
        row = reconciliations.c
        goes_on = and_(row.scope == scope, row.covered_until >= to_micros(since)) if since else true()
        self._update(
            token,
            lease=None,
            due_at=case((goes_on, _now() + seconds_to_micros(due_in)), else_=_now()),
            finished_at=_now(),
            error=None,
            scope=case((goes_on, scope), else_=row.scope),
            covered_until=case((goes_on, row.started_at), else_=row.covered_until),
            complete_at=row.complete_at if since else row.started_at,
            checked=result.checked,
            drift=result.drift,
            outranked=result.outranked,
            unreadable=result.unreadable,
            drift_total=row.drift_total + result.drift,
        )

    def fail(self, token: str, error: str, *, due_in: float) -> None:
        """It did not come to its end. What it has added stays; the next one looks at all of it again."""
        self._update(token, lease=None, due_at=_now() + seconds_to_micros(due_in), finished_at=_now(), error=error)

    def _update(self, token: str, **values: object) -> None:
        with self._database.write() as connection:
            # Nobody updated: the lease ran out, and another worker compares. Its result will stand.
            connection.execute(update(reconciliations).where(reconciliations.c.lease == token).values(**values))


def _now() -> int:
    return seconds_to_micros(time.time())
