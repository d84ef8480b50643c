"""Settling: the statements by which the ends of many attempts are written down at once."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Text,
    and_,
    bindparam,
    case,
    column,
    func,
    insert,
    make_url,
    or_,
    select,
    text,
    update,
)

from webhook_app.consent import Action
from webhook_app.outbox.tables import DOUBTS, LATE, attempts, consents
from webhook_app.outbox.times import seconds_to_micros

#: When a lost request of the opposite action might still undo what was told, it is told again after so long.
REPEAT_AFTER = 30.0  # seconds

#: So many of the first failed attempts to tell a section an event are kept, and as many of the last: an outage of three
#: days would fill the database. The last ones show that it goes on.
KEPT_ATTEMPTS = 10

#: What each attempt says, by its type. Times are in microseconds from now.
_TYPES: Mapping[str, Any] = {
    "person": LargeBinary(),
    "of_section": Text(),
    "token": Text(),
    "sent_version": BigInteger(),
    "sent_event": BigInteger(),
    "due_in": BigInteger(),
    "dead_in": BigInteger(),
    "failed_in": BigInteger(),
    "burnt": Integer(),
    "doubt": Integer(),
    "why": Text(),
    "started_in": BigInteger(),
    "duration": BigInteger(),
    "outcome": Text(),
    "status": Integer(),
    "trace": Text(),
    "warnings": Text(),
    "method": Text(),
    "url": Text(),
    "body": LargeBinary(),
}
_KEY = ("person", "of_section", "token", "sent_version")
_DELIVERED = (*_KEY, "trace")
_FAILED = (*_KEY, "due_in", "dead_in", "failed_in", "burnt", "doubt", "why")
_RECORD = {
    "event_id": "sent_event",
    "identity_hash": "person",
    "section": "of_section",
    "version": "sent_version",
    "started_at": "started_in",
    "duration": "duration",
    "outcome": "outcome",
    "status": "status",
    "message": "why",
    "trace_id": "trace",
    "warnings": "warnings",
    "method": "method",
    "url": "url",
    "body": "body",
}
#: What one attempt says, by the names above.
Row = dict[str, Any]
Batch = Callable[..., int]

#: Each person is looked up by itself: PostgreSQL's statistics know nothing of rows that came within the last minute,
#: and for a list of people it would read the whole table.
_LOCKED = (
    text(
        "SELECT held.version FROM unnest(CAST(:people AS bytea[])) AS given(person) CROSS JOIN LATERAL "
        "(SELECT version FROM consents WHERE identity_hash = given.person ORDER BY section FOR UPDATE) AS held"
    )
    .columns(column("version", BigInteger()))
    .cte("locked")
)
#: Engine → its driver, and how that writes parameters.
_DRIVERS: Mapping[str, Any] = {"sqlite": ("sqlite://", "named"), "postgresql": ("postgresql+psycopg://", "pyformat")}

#: What lies between the first and the last ones. Not by `ORDER BY … LIMIT`: PostgreSQL might look for an event's rows
#: in the order of all.
_FORGET_MIDDLE = text(
    "DELETE FROM attempts WHERE id IN (SELECT id FROM (SELECT id, outcome, row_number() OVER (ORDER BY id) AS place,"
    " count(*) OVER () AS total FROM attempts WHERE event_id = :sent_event AND section = :of_section) AS numbered"
    " WHERE place > :kept AND place <= total - :kept AND outcome <> 'delivered')"
).bindparams(kept=KEPT_ATTEMPTS)


class Settling:
    """The statements that write attempts down, for one engine.

    SQLite runs two for each attempt, PostgreSQL one for all, which saves messages.

    A version's last bit is the action: `in_doubt` has one bit for each.
    """

    def __init__(self, dialect: str, now: ColumnElement[int]) -> None:
        url, paramstyle = _DRIVERS[dialect]
        # By way of the URL: SQLAlchemy then loads this engine's dialect, and not the other's.
        driver: type[Any] = make_url(url).get_dialect()
        self._dialect = driver(paramstyle=paramstyle)
        self._now = now
        self._at_once = dialect == "postgresql"
        self._deliver = self._with_record(self._delivering(), _DELIVERED)
        self._fail = self._with_record(self._failing(), _FAILED)
        self._stray = self._batch(self._straying(), _KEY)

    def deliver(self, connection: Connection, rows: Sequence[Row], *, locking: Sequence[bytes]) -> int:
        """Write attempts down that were delivered; how many of the rows were still held under their lease.

        Before, on PostgreSQL, the rows of all people in `locking` are locked, in that order. It is the one in which an
        intake takes them: two that took the same people in two orders would wait for each other in a ring.
        """
        return self._deliver(connection, rows, locking)

    def fail(self, connection: Connection, rows: Sequence[Row], *, locking: Sequence[bytes]) -> int:
        """Write attempts down that failed; the rest as of `deliver`. Of many the first and the last ones are kept."""
        held = self._fail(connection, rows, locking)
        # Those that burn no try are not counted: of a paused section one is tried now and then.
        often = [row for row in rows if row["tries"] >= KEPT_ATTEMPTS or not row["burnt"]]
        if often:
            some = [{name: row[name] for name in ("sent_event", "of_section")} for row in often]
            connection.execute(_FORGET_MIDDLE, some)
        return held

    def lock(self, connection: Connection, people: Iterable[bytes]) -> None:
        """Lock the rows of people in the order in which an intake takes them."""
        if self._at_once:
            connection.execute(select(func.count()).select_from(_LOCKED), {"people": sorted(people)})

    def stray(self, connection: Connection, row: Row) -> None:
        """Our lease ran out, and what we sent may have come after what another worker has sent."""
        self._stray(connection, [row])

    def _with_record(self, statement: Any, names: Iterable[str]) -> Callable[[Connection, Sequence[Row], Any], int]:
        every = dict.fromkeys([*names, *_RECORD.values()])
        if self._at_once:
            recorded = self._recording().cte("recorded")
            # The condition is asked once, before the first row is touched.
            locked = select(func.count()).select_from(_LOCKED).scalar_subquery()
            run = self._batch(statement.where(locked >= 0).add_cte(recorded), every)
            return lambda connection, rows, people: run(connection, rows, people=people)
        update, record = self._batch(statement, names), self._batch(self._recording(), every)

        def run_both(connection: Connection, rows: Sequence[Row], people: Any) -> int:
            record(connection, rows)
            return update(connection, rows)

        return run_both

    def _batch(self, statement: Any, names: Iterable[str]) -> Batch:
        """Runs a statement for many rows, which must name all of these; returns how many rows it has changed."""
        # As text: SQLAlchemy would put the parameters of each row together anew, which costs more than the row.
        compiled = statement.compile(dialect=self._dialect)
        # Arrays in binary form: as text each of their elements would be escaped, bytes twice.
        as_text = re.sub(r"\)s::(\w+)\[\]", r")b::\1[]", str(compiled))

        def run(connection: Connection, rows: Sequence[Row], **more: Any) -> int:
            if not rows:
                return 0
            # The time among them, where a clock tells it, is that of now.
            constants = compiled.params
            given: Any
            if self._at_once:
                given = constants | {name: [row[name] for row in rows] for name in names} | more
            else:
                given = [constants | row for row in rows]
            return connection.exec_driver_sql(as_text, given).rowcount

        return run

    def _given(self, names: Iterable[str]) -> Any:
        """What a statement calls what an attempt says: bound values, or the columns of arrays."""
        if not self._at_once:
            return {name: bindparam(name, type_=_TYPES[name]) for name in names}
        arrays = func.unnest(*(bindparam(name, type_=ARRAY(_TYPES[name])) for name in names))
        return arrays.table_valued(*(column(name, _TYPES[name]) for name in names), name="given").render_derived().c

    def _delivering(self) -> Any:
        now = self._now
        given = self._given(_DELIVERED)
        version = given["sent_version"]
        # Somebody changed their mind while they were being told the version before.
        moved_on = consents.c.version > version
        opposite_in_doubt = consents.c.in_doubt.op("&")(2 - version % 2) != 0
        return (
            update(consents)
            .where(*_is_held(given))
            .values(
                lease=None,
                told_version=version,
                told_action=case((version % 2 == 1, Action.OPT_OUT.value), else_=Action.OPT_IN.value),
                told_at=now,
                told_trace=given["trace"],
                due_at=case((moved_on, now), (opposite_in_doubt, now + seconds_to_micros(REPEAT_AFTER))),
                # What was late on purpose is told.
                in_doubt=consents.c.in_doubt.op("&")(case((moved_on, DOUBTS), else_=1 + version % 2)),
                retrying_since=None,
                dead_at=None,
                error=None,
            )
        )

    def _failing(self) -> Any:
        now = self._now
        given = self._given(_FAILED)
        # What failed was another version: the newer one has tries of its own.
        moved_on = consents.c.version > given["sent_version"]
        # And how long a pause of the section lasts makes no change older.
        begins_anew = or_(moved_on, given["burnt"] == 0)
        first_failure = func.coalesce(consents.c.retrying_since, now + given["failed_in"])
        return (
            update(consents)
            .where(*_is_held(given))
            .values(
                lease=None,
                due_at=case((moved_on, now), else_=now + given["due_in"]),
                in_doubt=consents.c.in_doubt.op("&")(DOUBTS | LATE).op("|")(given["doubt"]),
                tries=consents.c.tries + case((moved_on, 0), else_=given["burnt"]),
                retrying_since=case((begins_anew, None), else_=first_failure),
                dead_at=case((moved_on, None), else_=now + given["dead_in"]),
                error=case((moved_on, consents.c.error), else_=given["why"]),
            )
        )

    def _straying(self) -> Any:
        now = self._now
        given = self._given(_KEY)
        version = given["sent_version"]
        told_otherwise = and_(consents.c.due_at.is_(None), consents.c.told_version % 2 != version % 2)
        return (
            update(consents)
            .where(consents.c.identity_hash == given["person"], consents.c.section == given["of_section"])
            .values(
                in_doubt=consents.c.in_doubt.op("|")(1 + version % 2),
                due_at=case((told_otherwise, now), else_=consents.c.due_at),
            )
        )

    def _recording(self) -> Any:
        now = self._now
        given = self._given(_RECORD.values())
        values = {name: given[said] for name, said in _RECORD.items()}
        values["started_at"] = now + given["started_in"]
        if not self._at_once:
            return insert(attempts).values(values)
        return insert(attempts).from_select(list(values), select(*values.values()))


def _is_held(given: Any) -> tuple[ColumnElement[bool], ...]:
    return (
        consents.c.identity_hash == given["person"],
        consents.c.section == given["of_section"],
        consents.c.lease == given["token"],
    )
