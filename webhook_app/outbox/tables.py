"""What is on disk. The migrations make these tables; a test keeps the two alike.

Times are whole microseconds since 1970 in UTC: one form for both engines, ordered, never ambiguous.
"""

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Dialect,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    bindparam,
    case,
    func,
    literal_column,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine


class State(StrEnum):
    #: Waiting to be sent, being sent, or waiting for the next try.
    PENDING = "pending"
    #: Dynamic Yield has taken it.
    DELIVERED = "delivered"
    #: Refused for good, or given up after too many tries. Can be replayed.
    DEAD = "dead"
    #: The same person changed their mind later; sending this one would undo that.
    SUPERSEDED = "superseded"
    #: Authentic, but not understood. Holds the raw event and the reason.
    QUARANTINED = "quarantined"
    #: Somebody decided that it shall not be sent. Can be replayed.
    DISCARDED = "discarded"
    #: Made up by an ESP's test button: shown, never sent.
    TEST = "test"


#: Nothing is left to do about these, and retention empties them.
FINISHED = (State.DELIVERED, State.SUPERSEDED, State.DISCARDED, State.TEST)


#: As the indexes' conditions have them.
_FINISHED = ", ".join(f"'{state}'" for state in FINISHED)


metadata = MetaData()

#: SQLite counts rows by itself only for a primary key of the type INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True),
    #: Keyed hash of the natural key; whatever an ESP sends twice has the same.
    Column("dedupe_key", LargeBinary, nullable=False),
    Column("provider", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("action", Text),
    Column("identity_kind", Text),
    #: Keyed hash of the identity: finds a person after the address is gone.
    Column("identity_hash", LargeBinary),
    #: The address or id itself; emptied by retention.
    Column("identity_value", Text),
    #: Dynamic Yield's ids of the visitor, as JSON; emptied by retention.
    Column("visitor", Text),
    Column("push_channel", Text),
    #: The ESP's word for what happened.
    Column("reason", Text),
    Column("esp_event_id", Text),
    Column("esp_message_id", Text),
    Column("occurred_at", BigInteger),
    #: Which of a person's changes is the newer: the time, and in a tie the opt-out.
    Column("version", BigInteger),
    Column("received_at", BigInteger, nullable=False),
    #: When it may be claimed; while it is claimed, when the lease runs out. NULL unless pending.
    Column("due_at", BigInteger),
    #: Who claimed it: a new token for each claim. NULL unless pending and claimed.
    Column("lease", Text),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    #: When the first attempt failed.
    Column("retrying_since", BigInteger),
    Column("settled_at", BigInteger),
    #: Why it is quarantined or dead, or why the last attempt failed.
    Column("error", Text),
    #: The event as the ESP sent it; emptied by retention.
    Column("raw", LargeBinary),
    # Nothing is stored twice, whoever races: insert-or-ignore leans on this.
    Index("events_dedupe_key", "dedupe_key", unique=True),
    # Claiming costs the same however many finished rows there are.
    Index(
        "events_waiting",
        "due_at",
        "id",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    # Is there a newer change of this person? SQLite has an index of what has ended and one of what waits: a new change
    # goes into the one that is as small as the queue, not into one as large as all of history.
    Index("events_person", "identity_hash", "state", "version", "id", sqlite_where=text("due_at IS NULL")),
    Index(
        "events_person_waiting", "identity_hash", "state", "version", "id", sqlite_where=text("due_at IS NOT NULL")
    ).ddl_if(dialect="sqlite"),
    # Whose worker has died?
    Index(
        "events_leased",
        "due_at",
        sqlite_where=text("lease IS NOT NULL"),
        postgresql_where=text("lease IS NOT NULL"),
    ),
    # No two changes of one person are in flight together, whatever the claim does.
    Index(
        "events_in_flight",
        "identity_hash",
        unique=True,
        sqlite_where=text("lease IS NOT NULL"),
        postgresql_where=text("lease IS NOT NULL"),
    ),
    # The console's lists, and counting what is pending, dead or quarantined.
    Index("events_state", "state", "id"),
    # What retention still has to empty.
    Index(
        "events_retention",
        "settled_at",
        sqlite_where=text(f"raw IS NOT NULL AND state IN ({_FINISHED})"),
        postgresql_where=text(f"raw IS NOT NULL AND state IN ({_FINISHED})"),
    ),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("event_id", BigInteger, ForeignKey("events.id"), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    #: Microseconds.
    Column("duration", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    #: HTTP status; NULL where no answer came.
    Column("status", SmallInteger),
    Column("message", Text),
    #: What Dynamic Yield's support asks for.
    Column("trace_id", Text),
    #: A JSON list.
    Column("warnings", Text),
    Index("attempts_event", "event_id"),
)

#: Tokens that a scheme signs instead of the body: each is good for one body only.
one_time_tokens = Table(
    "one_time_tokens",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("body_hash", LargeBinary, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    #: Why it sends nothing for now, and until when.
    Column("paused_reason", Text),
    Column("paused_until", BigInteger),
)

#: One row, made by the first migration.
installation = Table(
    "installation",
    metadata,
    Column("id", SmallInteger, primary_key=True),
    #: The key of every keyed hash. It stays with the data: a hash is worth something as long as its key is the same.
    Column("hash_key", LargeBinary, nullable=False),
    #: When a worker shall prune next; while one does, when another may take over.
    Column("prune_due_at", BigInteger),
)

#: What has happened how often, ever; see `counters`. Histograms are rows too: a row a bucket.
counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    #: A reason slug, an outcome or the upper bound of a histogram's bucket; empty where there is nothing to tell apart.
    Column("label", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
    #: When it last went up.
    Column("last_at", BigInteger, nullable=False),
)

#: The same for each few minutes of the last weeks: the console's chart.
activity = Table(
    "activity",
    metadata,
    #: When the stretch of time began.
    Column("began_at", BigInteger, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

#: Wrong passwords at the console, counted for all web processes together.
login_failures = Table(
    "login_failures",
    metadata,
    #: Keyed hash of the network address, or `all`.
    Column("caller", Text, primary_key=True),
    Column("began_at", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
)

#: What people were told to be wrong, or are about to be told; see `ops/alerts.py`.
alerts = Table(
    "alerts",
    metadata,
    #: Of the finding.
    Column("slug", Text, primary_key=True),
    Column("text", Text, nullable=False),
    #: When it was last wrong.
    Column("seen_at", BigInteger, nullable=False),
    #: It is over, and that is still to be told.
    Column("well", Boolean, nullable=False),
    #: When it is to be told; NULL once it was.
    Column("due_at", BigInteger),
    Column("tries", Integer, nullable=False),
)

#: Who did what; see `journal`.
journal = Table(
    "journal",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    #: A JSON object.
    Column("details", Text, nullable=False),
    #: The hash of the entry before.
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    # A chain and not a tree: of two who add at once, one adds nothing and tries again.
    Index("journal_previous", "previous", unique=True),
)

#: Files that were imported, or are being imported; see `imports`.
imports = Table(
    "imports",
    metadata,
    #: Hash of the file's content and of how it is read.
    Column("id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    #: What rows without a time count as.
    Column("as_of", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    #: Rows of the file that are on disk, and what became of them.
    Column("rows", BigInteger, nullable=False),
    Column("accepted", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
)

#: The last comparison with each ESP's own suppression lists; see `reconciliations`.
reconciliations = Table(
    "reconciliations",
    metadata,
    #: Whose lists: `provider`, or `provider/subuser`.
    Column("provider", Text, primary_key=True),
    #: Which lists, read with which key. NULL: written by a version that did not know it, so nothing is covered.
    Column("scope", Text),
    #: When somebody shall compare next; while somebody does, when another may take over.
    Column("due_at", BigInteger, nullable=False),
    #: Who compares just now: a new token for each run.
    Column("lease", Text),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    #: Why the last run did not come to its end; NULL where it did.
    Column("error", Text),
    #: Up to when everything on the lists is known here: where the last good run began.
    Column("covered_until", BigInteger),
    #: Where the last good run began that read the lists from their beginning.
    Column("complete_at", BigInteger),
    #: Of the last good run: entries on the lists, those that were missing here, and those left alone for a reason.
    Column("checked", BigInteger),
    Column("drift", BigInteger),
    Column("outranked", BigInteger),
    Column("unreadable", BigInteger),
    #: What was missing in all runs so far.
    Column("drift_total", BigInteger, nullable=False, server_default=text("0")),
)


#: The last webhooks of each ESP; see `recent`.
recent_webhooks = Table(
    "recent_webhooks",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("method", Text, nullable=False),
    Column("status", SmallInteger, nullable=False),
    #: What became of its events, as JSON; NULL where none were read.
    Column("counts", Text),
    Column("reason", Text, nullable=False),
    Column("note", Text, nullable=False),
    #: Keyed hash of the network address it came from.
    Column("caller", LargeBinary, nullable=False),
    #: The beginning of the body, where it was authentic; emptied after a week.
    Column("body", LargeBinary),
    Column("body_size", Integer),
    Index("recent_webhooks_provider", "provider", "id"),
)


def in_states(states: Iterable[State], table: FromClause = events) -> ColumnElement[bool]:
    """Whether a row is in one of these states.

    Written out instead of bound: a partial index is used only where the statement itself says what the index holds.
    """
    written: list[ColumnElement[str]] = [literal_column(f"'{state}'") for state in states]
    column: ColumnElement[str] = table.c.state
    return column == written[0] if len(written) == 1 else column.in_(written)


def key_once_set_aside(dialect: str) -> ColumnElement[bytes]:
    """The dedupe key of an event that is set aside now.

    Of a quarantined one nothing but its bytes is known. The same bytes may come again a week later and mean a new
    unsubscribe, so from now on the old row has a key that nothing else has.
    """
    mine: ColumnElement[bytes] = events.c.dedupe_key
    nobodys = func.randomblob(20) if dialect == "sqlite" else func.uuid_send(func.gen_random_uuid())
    return case((events.c.state == State.QUARANTINED, nobodys), else_=mine)


def is_about(people: Iterable[bytes]) -> ColumnElement[bool]:
    """Whether an event is about one of these people, by their keyed hashes.

    Asked for in two parts, as SQLite has two indexes of people.
    """
    one = events.alias("about")
    of_them = select(one.c.id).where(one.c.identity_hash.in_(list(people)))
    return events.c.id.in_(union_all(of_them.where(one.c.due_at.is_(None)), of_them.where(one.c.due_at.is_not(None))))


class _Numbers(TypeDecorator[list[int]]):
    """A list of row numbers as one value, so that a statement is the same whatever their number."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(postgresql.ARRAY(BigInteger) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: list[int] | None, dialect: Dialect) -> Any:
        return value if dialect.name == "postgresql" else json.dumps(value)


class _IsListed(FunctionElement[bool]):
    inherit_cache = True
    type = Boolean()

    def self_group(self, against: Any = None) -> "_IsListed":
        # For SQLite, "= 1" would be added, and no index used.
        return self


@compiles(_IsListed, "postgresql")
def _(element: _IsListed, compiler: Any, **kw: Any) -> str:
    column, numbers = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} = ANY ({numbers})"


@compiles(_IsListed, "sqlite")
def _(element: _IsListed, compiler: Any, **kw: Any) -> str:
    column, numbers = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({numbers}))"  # noqa: S608 (our own names only)


def is_one_of(name: str) -> ColumnElement[bool]:
    """Whether an event's number is in the list that is bound to `name`."""
    return _IsListed(events.c.id, bindparam(name, type_=_Numbers))
