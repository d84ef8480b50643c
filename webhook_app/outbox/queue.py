"""The queue: claiming people under a lease, and settling what they were told."""

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Connection,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    tuple_,
    update,
)

from webhook_app.outbox import promptness
from webhook_app.outbox.database import Database
from webhook_app.outbox.handover import take_over
from webhook_app.outbox.pauses import ReportedPause, dump_pauses
from webhook_app.outbox.promptness import Taken
from webhook_app.outbox.rows import EVENT_COLUMNS, PERSON_COLUMNS, Claimed, Sent, claimed_of_rows
from webhook_app.outbox.settling import Settling
from webhook_app.outbox.tables import (
    DEFAULT_SECTION,
    DOUBT_OF_OVERTAKEN,
    DOUBTS,
    LATE,
    State,
    attempts,
    consents,
    events,
    workers,
)
from webhook_app.outbox.times import Time, seconds_to_micros, to_micros

LEASE = 20.0  # seconds for which a claimed person belongs to their worker, unless it is renewed
#: Longer than anybody is left waiting for the next try. Who is due later was stored before a clock was set back.
LONGEST_WAIT = 2 * 3600.0  # seconds

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How one attempt ended, and what that makes of the person's row. Times are seconds since 1970."""

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
    #: The answer got lost: Dynamic Yield may have the request all the same, and take it late.
    lost: bool = False
    #: The request as it left; None where none did.
    sent: Sent | None = None


class Queue:
    """The worker's side. Raises `OutboxUnavailable` where the database cannot be used; nothing is half done then.

    Leases and due times are by the clock of the database's server, where there is one; `clock` gives seconds since
    1970 instead, for tests.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] | None = None) -> None:
        self._database = database
        self._time = Time(database, clock)
        self._taken_over = False
        now = self._time.now
        due = (
            select(consents.c.identity_hash, consents.c.section)
            .where(consents.c.section == bindparam("of_section"), consents.c.due_at <= now)
            .order_by(consents.c.due_at)
            .limit(bindparam("limit"))
            # From here on they are ours. Whom an intake or a person holds just now is left for the next claim.
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        # A lease that has run out: its worker may have been killed after it had sent what a newer change overtook.
        in_doubt = consents.c.in_doubt.op("&")(DOUBTS | LATE).op("|")(consents.c.in_doubt.op("/")(DOUBT_OF_OVERTAKEN))
        self._claim = (
            update(consents)
            .where(_key_in(select(due)))
            .values(lease=bindparam("token"), due_at=now + bindparam("lease_for"), in_doubt=in_doubt)
            .returning(*(consents.c[name] for name in PERSON_COLUMNS))
        )
        self._call_back = (
            update(consents)
            .where(
                consents.c.section == bindparam("of_section"),
                consents.c.due_at > now + seconds_to_micros(LONGEST_WAIT),
                consents.c.lease.is_(None),
            )
            .values(due_at=now)
        )
        # A lease that has run out is not renewed, even if nobody has taken over yet: somebody may be about to.
        self._renew = (
            update(consents)
            .where(_key_in(_held(consents.c.due_at > now)))
            .values(due_at=now + bindparam("lease_for"))
            .returning(consents.c.identity_hash)
        )
        self._release = (
            update(consents)
            .where(_key_in(_held()))
            .values(due_at=now, lease=None, in_doubt=consents.c.in_doubt.op("&")(DOUBTS | LATE))
        )
        self._events = _events_numbered(database.dialect)
        self._settling = Settling(database.dialect, now)

    def claim(self, limit: int, *, section: str = DEFAULT_SECTION, lease: float = LEASE) -> list[Claimed]:
        """Up to `limit` people who have something to be told, longest due first, each leased for `lease` seconds."""
        self._taken_over = self._taken_over or take_over(self._database, self._time)
        if not self._taken_over:
            return []
        values = {
            "of_section": section,
            "limit": limit,
            "token": uuid.uuid4().hex,
            "lease_for": seconds_to_micros(lease),
        }
        with self._database.write() as connection:
            self._database.prepare_claim(connection)
            people = connection.execute(self._claim, values).mappings().all()
            if not people and connection.execute(self._call_back, {"of_section": section}).rowcount:
                people = connection.execute(self._claim, values).mappings().all()
            if not people:
                return []
            numbers = [person["event_id"] for person in people]
            found = {event["id"]: event for event in connection.execute(self._events, {"ids": numbers}).mappings()}
        claimed = [claimed_of_rows(person, found.get(person["event_id"])) for person in people]
        return sorted(claimed, key=lambda one: one.id)

    def renew(self, claimed: Iterable[Claimed], *, lease: float = LEASE) -> set[Claimed]:
        """Keep people whose telling is slow for another `lease` seconds; returns those that are still ours.

        The others' leases ran out. Somebody else may be sending: they must not be begun any more.
        """
        kept: set[Claimed] = set()
        by_claim = _by_claim(claimed)
        if by_claim:
            with self._database.write() as connection:
                self._settling.lock(connection, {person for _, people in by_claim for person in people})
                for values, people in by_claim:
                    values["lease_for"] = seconds_to_micros(lease)
                    kept.update(people[bytes(one)] for one in connection.execute(self._renew, values).scalars())
        return kept

    def release(self, claimed: Iterable[Claimed]) -> None:
        """Hand back people who were claimed and told nothing, as if nothing had happened."""
        by_claim = _by_claim(claimed)
        if by_claim:
            with self._database.write() as connection:
                self._settling.lock(connection, {person for _, people in by_claim for person in people})
                for values, _ in by_claim:
                    connection.execute(self._release, values)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Write down how attempts ended, all in one commit.

        Where a row is gone, or another worker's by now, that costs only this one settlement.
        """
        if not settlements:
            return
        # In order: two transactions that take the same people in two orders would wait for each other.
        in_order = sorted(settlements, key=lambda one: (one.claimed.pseudonym, one.claimed.section))
        rows = [(one.state is State.DELIVERED, self._values(one)) for one in in_order]
        delivered, failed = ([row for was, row in rows if was is kind] for kind in (True, False))
        people = sorted({row["person"] for _, row in rows})
        try:
            with self._database.write() as connection:
                held = self._settling.deliver(connection, delivered, locking=people)
                held += self._settling.fail(connection, failed, locking=people)
                if held < len(rows):
                    raise _NotAllOurs
                promptness.add(connection, _taken(in_order))
        except _NotAllOurs:
            with self._database.write() as connection:
                self._settling.lock(connection, people)
                settled = [one for one in in_order if self._settle_one(connection, one)]
                promptness.add(connection, _taken(settled))

    def _settle_one(self, connection: Connection, one: Settlement) -> bool:
        """Whether the row was still ours. It is locked already."""
        row, was_delivered = self._values(one), one.state is State.DELIVERED
        settle = self._settling.deliver if was_delivered else self._settling.fail
        if settle(connection, [row], locking=[]):
            return True
        # Nobody updated: our lease ran out, and what becomes of the person is another worker's business.
        mine = and_(consents.c.identity_hash == row["person"], consents.c.section == row["of_section"])
        if connection.execute(select(consents.c.version).where(mine)).first() is None:
            log.warning("settled_row_is_gone", event_id=one.claimed.id, section=one.claimed.section)
            connection.execute(_FORGET_ATTEMPT, {"person": row["person"], "event": one.claimed.id})
        elif was_delivered or one.lost:
            self._settling.stray(connection, row)
        return False

    def report(self, worker: str, *, pauses: Iterable[ReportedPause] = ()) -> None:
        """Say that a worker is alive, and where it sends nothing and why. A worker not heard of is dead."""
        now = self._time.now
        state = {"seen_at": now, "pauses": dump_pauses(pauses)}
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

    def _values(self, one: Settlement) -> dict[str, Any]:
        """What the statements say about this one."""
        claimed = one.claimed
        method, url, body = one.sent or (None, None, None)
        started_in = self._time.until(one.started_at)
        return {
            "person": bytes.fromhex(claimed.pseudonym),
            "of_section": claimed.section,
            "token": claimed.lease,
            "sent_version": claimed.version,
            "sent_event": claimed.id,
            "due_in": None if one.due_at is None else self._time.until(one.due_at),
            "dead_in": 0 if one.state is State.DEAD else None,
            "failed_in": started_in if one.counts else None,
            "tries": claimed.attempts,
            "burnt": int(one.counts),
            "doubt": 1 + claimed.version % 2 if one.lost else 0,
            "why": _text(one.message),
            "started_in": started_in,
            "duration": seconds_to_micros(one.duration),
            "outcome": str(one.outcome),
            "status": one.status,
            "trace": _text(one.trace_id),
            "warnings": json.dumps(one.warnings) if one.warnings else None,
            "method": method,
            "url": url,
            "body": body,
        }


def _taken(settlements: Iterable[Settlement]) -> Iterator[Taken]:
    """The opt-outs among them that Dynamic Yield has taken for the first time, and not late on purpose."""
    for one in settlements:
        claimed = one.claimed
        if one.state is State.DELIVERED and claimed.version % 2 and claimed.is_timed:
            yield Taken(
                provider=claimed.provider,
                occurred_at=claimed.version // 2,
                received_at=to_micros(claimed.received_at),
                taken_at=seconds_to_micros(one.started_at + one.duration),
            )


class _NotAllOurs(Exception):
    """Some of the rows of a settlement are gone, or another worker's by now."""


def _events_numbered(dialect: str) -> Any:
    """Events by their numbers, which are one parameter: to write out a hundred costs more than to look them up."""
    if dialect == "postgresql":
        is_wanted = events.c.id == func.any(bindparam("ids", type_=ARRAY(BigInteger())))
    else:
        numbers = func.json_each(bindparam("ids", type_=JSON())).table_valued("value").c.value
        is_wanted = events.c.id.in_(select(numbers))
    return select(*(events.c[name] for name in EVENT_COLUMNS)).where(is_wanted)


#: Of somebody who was erased while they were told: the attempt says whom, and no event leads retention to it any more.
_FORGET_ATTEMPT = delete(attempts).where(
    attempts.c.event_id == bindparam("event"),
    attempts.c.identity_hash == bindparam("person"),
    ~exists().where(events.c.id == attempts.c.event_id, events.c.identity_hash == attempts.c.identity_hash),
)


def _key_in(chosen: Any) -> Any:
    return tuple_(consents.c.identity_hash, consents.c.section).in_(chosen)


def _held(*more: Any) -> Any:
    """Those of a claim that are still held under it."""
    return select(consents.c.identity_hash, consents.c.section).where(
        consents.c.identity_hash.in_(bindparam("people", expanding=True)),
        consents.c.section == bindparam("of_section"),
        consents.c.lease == bindparam("token"),
        *more,
    )


#: For each claim what its statement says, and its people.
_ByClaim = list[tuple[dict[str, Any], dict[bytes, Claimed]]]


def _by_claim(claimed: Iterable[Claimed]) -> _ByClaim:
    """For each claim what its statement says, and its people: one statement does for all of them."""
    by_token: dict[str, dict[bytes, Claimed]] = {}
    for one in claimed:
        by_token.setdefault(one.lease, {})[bytes.fromhex(one.pseudonym)] = one
    return [
        ({"people": list(people), "of_section": next(iter(people.values())).section, "token": token}, people)
        for token, people in by_token.items()
    ]


def _text(value: str) -> str | None:
    """What an answer said, as every database can hold it."""
    return value.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}") or None
