"""The tables, as SQLAlchemy describes them; `indexes` beside them. The migrations make both; a test keeps them alike.

Times are whole microseconds since 1970 in UTC: one form for both engines, ordered, never ambiguous.
"""

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    and_,
    case,
    func,
    literal_column,
    text,
)


class State(StrEnum):
    """What became of an event; all but the last three are derived from the register and the attempts."""

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


#: What the log itself knows. In every other state an event counts, and the register says what becomes of it.
SET_ASIDE = (State.QUARANTINED, State.DISCARDED, State.TEST)

#: How the reason begins for which an entry of an ESP's own list is quarantined.
ON_LIST = "on {}'s list {}: "

#: The section where no others are configured.
DEFAULT_SECTION = "default"

#: In `in_doubt`: requests whose answer got lost, and which may still take effect; 1 an opt-in, 2 an opt-out.
DOUBTS = 3
#: What is wanted was known long before this section was to be told. How long it waited says nothing.
LATE = 4
#: What was being told when a newer change came, as `DOUBTS` times `DOUBT_OF_OVERTAKEN`: in doubt only once its lease
#: has run out, for then its worker may have been killed.
OVERTAKEN = 24
DOUBT_OF_OVERTAKEN = 8

metadata = MetaData()

#: SQLite counts rows by itself only for a primary key of the type INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


#: The log: what ESPs said, as it came and as it was read. It knows no delivery.
events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True),
    #: Keyed hash of the natural key; whatever an ESP sends twice has the same.
    Column("dedupe_key", LargeBinary, nullable=False),
    Column("provider", Text, nullable=False),
    #: `quarantined`, `discarded` or `test`; anything else means that it counts. New events that count say `pending`.
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
    #: The sections that it concerns, as a JSON list; NULL for the default one alone.
    Column("sections", Text),
    Column("received_at", BigInteger, nullable=False),
    #: When it was set aside.
    Column("settled_at", BigInteger),
    #: Why it is quarantined, or what it was read as later.
    Column("error", Text),
    #: The event as the ESP sent it; emptied by retention.
    Column("raw", LargeBinary),
    # Where versions without a register kept what became of an event. Nothing is written to these any more; what they
    # still hold is taken into the register, see `handover`. A later release drops them.
    Column("due_at", BigInteger),
    Column("lease", Text),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("retrying_since", BigInteger),
)

#: The register: what Dynamic Yield must know of a person, a row for each person and section.
consents = Table(
    "consents",
    metadata,
    # At most one row a person and section, and so never two of their changes in flight together.
    Column("identity_hash", LargeBinary, primary_key=True),
    Column("section", Text, primary_key=True),
    #: What is wanted: the newest change that counts, and the event it comes from.
    Column("version", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("event_id", BigInteger, nullable=False),
    #: What Dynamic Yield was last told, when, and by which request; NULL before the first time.
    Column("told_version", BigInteger),
    Column("told_action", Text),
    Column("told_at", BigInteger),
    Column("told_trace", Text),
    #: When it may be claimed; while it is claimed, when the lease runs out. NULL where there is nothing to tell.
    Column("due_at", BigInteger),
    #: Who claimed it: a new token for each claim.
    Column("lease", Text),
    #: Failed tries of what is wanted, and when the first of them was since the section paused.
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("retrying_since", BigInteger),
    #: When it was given up; NULL while it is not.
    Column("dead_at", BigInteger),
    #: Why it was given up, or why the last try failed.
    Column("error", Text),
    #: Bits: `DOUBTS`, `LATE` and `OVERTAKEN`.
    Column("in_doubt", SmallInteger, nullable=False, server_default=text("0")),
    # On SQLite WITHOUT ROWID.
)

#: Each request that was made. A row of the log or the register may go, what was sent stays.
attempts = Table(
    "attempts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("event_id", BigInteger, nullable=False),
    #: For whom and for which section; NULL in what a version without a register has written.
    Column("identity_hash", LargeBinary),
    Column("section", Text),
    Column("version", BigInteger),
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
    #: What was really sent, without the key; the body is emptied by retention. NULL where nothing was.
    Column("method", Text),
    Column("url", Text),
    Column("body", LargeBinary),
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
    #: Where it sends nothing for now, and why, as `dump_pauses` writes it. NULL where it pauses nowhere.
    Column("pauses", Text),
    # What versions without sections wrote instead. A later release drops them.
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

#: What people were told to be wrong, or are about to be told; see `alerts`.
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


#: How long it took until opt-outs were taken, a row for each day, ESP and bucket; see `promptness`.
promptness = Table(
    "promptness",
    metadata,
    #: Days since 1970.
    Column("day", Integer, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("bucket", SmallInteger, primary_key=True),
    Column("taken", BigInteger, nullable=False),
    #: Microseconds.
    Column("worst", BigInteger, nullable=False),
)

#: Who may be meant in a quarantined event; see `mentions`.
mentions = Table(
    "mentions",
    metadata,
    #: Keyed hash of an address-like text.
    Column("identity_hash", LargeBinary, primary_key=True),
    Column("event_id", BigInteger, primary_key=True),
    # On SQLite WITHOUT ROWID.
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
)


def set_aside() -> ColumnElement[bool]:
    """Whether an event of the log is in one of the states that the log itself knows.

    Written out: SQLite uses a partial index only where the statement itself says what the index holds.
    """
    return events.c.state.in_([literal_column(f"'{state}'") for state in SET_ASIDE])


def counts() -> ColumnElement[bool]:
    """Whether an event of the log counts: it is not set aside."""
    return ~set_aside()


def is_entry_of_list() -> ColumnElement[bool]:
    """Whether a quarantined event is an entry of an ESP's own list: the reason says so."""
    return func.coalesce(events.c.error, "").like(ON_LIST.format("%", "%") + "%")


def key_once_set_aside(dialect: str) -> ColumnElement[bytes]:
    """The dedupe key of an event that is set aside now.

    Of a quarantined one nothing but its bytes is known. The same bytes may come again a week later and mean a new
    unsubscribe, so from now on the old row has a key that nothing else has. Not so an entry of an ESP's list: it comes
    with every comparison, and is the same entry.
    """
    mine: ColumnElement[bytes] = events.c.dedupe_key
    nobodys = func.randomblob(20) if dialect == "sqlite" else func.uuid_send(func.gen_random_uuid())
    is_of_webhook = and_(events.c.state == State.QUARANTINED, ~is_entry_of_list())
    return case((is_of_webhook, nobodys), else_=mine)
