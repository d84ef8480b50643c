"""A register of people: what is wanted of each, and what Dynamic Yield was last told.

On PostgreSQL all of it is done while the version before goes on receiving and sending. Whatever that one still stores,
settles, replays or discards is put into the register by triggers; what waits when the next version starts, that version
takes over before it sends. Everything may be run again where it was cut off.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_SET_ASIDE = "state IN ('quarantined', 'discarded', 'test')"

_KEY = "ON CONFLICT (identity_hash, section) DO UPDATE SET"
_NEWEST = (
    "version = excluded.version, action = excluded.action, event_id = excluded.event_id,"
    " tries = 0, retrying_since = NULL"
)
#: Sent again by a person of the version before, it is the same change and due all the same.
_WANT = f"""
    INSERT INTO consents (identity_hash, section, version, action, event_id, due_at)
    VALUES (NEW.identity_hash, 'default', NEW.version, NEW.action, NEW.id, NEW.due_at)
    {_KEY} {_NEWEST}, dead_at = NULL, error = NULL,
        due_at = CASE WHEN consents.lease IS NULL THEN excluded.due_at ELSE consents.due_at END
    WHERE excluded.version > consents.version OR excluded.event_id = consents.event_id;
    UPDATE events SET due_at = NULL WHERE id = NEW.id;
"""  # noqa: S608 (our own names only)
_TOLD = "INSERT INTO consents (identity_hash, section, version, action, event_id, told_version, told_action, told_at)"
_UNLESS_NEWER = "CASE WHEN excluded.version >= consents.version THEN {} ELSE {} END"
_AND_IT_WAS_TOLD = f"""
    {_KEY}
        told_version = excluded.told_version, told_action = excluded.told_action, told_at = excluded.told_at,
        due_at = {_UNLESS_NEWER.format("NULL", "consents.due_at")},
        dead_at = {_UNLESS_NEWER.format("NULL", "consents.dead_at")},
        action = {_UNLESS_NEWER.format("excluded.action", "consents.action")},
        event_id = {_UNLESS_NEWER.format("excluded.event_id", "consents.event_id")},
        version = {_UNLESS_NEWER.format("excluded.version", "consents.version")}
    WHERE consents.told_version IS NULL OR excluded.told_version > consents.told_version
"""
_DEAD = "INSERT INTO consents (identity_hash, section, version, action, event_id, dead_at, error)"
_AND_IT_IS_DEAD = f"""
    {_KEY} {_NEWEST}, dead_at = excluded.dead_at, error = excluded.error, due_at = NULL
    WHERE excluded.version > consents.version OR excluded.event_id = consents.event_id
"""
_NEW = "NEW.identity_hash, 'default', NEW.version, NEW.action, NEW.id"

_IS_SOMEBODY = "NEW.identity_hash IS NOT NULL AND NEW.version IS NOT NULL"
_IS_WAITING = f"NEW.due_at IS NOT NULL AND NEW.lease IS NULL AND {_IS_SOMEBODY}"
#: What happens in the log → what is done about it: only what the version before does.
_TRIGGERS = {
    "old_stored": ("INSERT ON events", _IS_WAITING, _WANT),
    "old_due_again": ("UPDATE OF due_at ON events", _IS_WAITING, _WANT),
    "old_delivered": (
        "UPDATE OF state ON events",
        f"NEW.state = 'delivered' AND OLD.state = 'pending' AND {_IS_SOMEBODY}",
        f"{_TOLD} VALUES ({_NEW}, NEW.version, NEW.action, NEW.settled_at) {_AND_IT_WAS_TOLD};",
    ),
    "old_dead": (
        "UPDATE OF state ON events",
        f"NEW.state = 'dead' AND OLD.state = 'pending' AND {_IS_SOMEBODY}",
        f"{_DEAD} VALUES ({_NEW}, NEW.settled_at, NEW.error) {_AND_IT_IS_DEAD};",
    ),
    "old_discarded": (
        "UPDATE OF state ON events",
        f"NEW.state = 'discarded' AND OLD.state IN ('pending', 'dead') AND {_IS_SOMEBODY}",
        "UPDATE consents SET due_at = NULL, dead_at = NULL"
        " WHERE identity_hash = NEW.identity_hash AND event_id = NEW.id AND lease IS NULL;",
    ),
}

_NEWEST_OF_EACH = """
    SELECT identity_hash, 'default', version, action, id, {more} FROM (
        SELECT identity_hash, version, action, id, settled_at, error,
            row_number() OVER (PARTITION BY identity_hash ORDER BY version DESC, id DESC) AS place
        FROM events WHERE state = '{state}' AND identity_hash IS NOT NULL AND version IS NOT NULL
    ) AS newest WHERE place = 1 ORDER BY identity_hash
"""
#: What was told and what was given up, from all of history.
_HISTORY = (
    _TOLD + _NEWEST_OF_EACH.format(state="delivered", more="version, action, settled_at") + _AND_IT_WAS_TOLD,
    _DEAD + _NEWEST_OF_EACH.format(state="dead", more="settled_at, error") + _AND_IT_IS_DEAD,
)

_ATTEMPTS_ADD = (
    sa.Column("identity_hash", sa.LargeBinary),
    sa.Column("section", sa.Text),
    sa.Column("version", sa.BigInteger),
    sa.Column("method", sa.Text),
    sa.Column("url", sa.Text),
    sa.Column("body", sa.LargeBinary),
)


def upgrade() -> None:
    _create_register()
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    # SQLite knows no IF NOT EXISTS here, and takes back all of it where it was cut off.
    again = None if on_sqlite else True
    op.add_column("events", sa.Column("sections", sa.Text), if_not_exists=again)
    op.add_column("workers", sa.Column("pauses", sa.Text), if_not_exists=again)
    if on_sqlite:
        _rebuild_attempts()
        _create_triggers_on_sqlite()
        _fill_and_replace_indexes(concurrently=False)
        return
    for column in _ATTEMPTS_ADD:
        op.add_column("attempts", column, if_not_exists=True)
    op.execute("ALTER TABLE attempts DROP CONSTRAINT IF EXISTS attempts_event_id_fkey")
    # Each row is updated twice within seconds. By default PostgreSQL would clean up after a fifth of the table.
    op.execute(
        "ALTER TABLE consents SET (fillfactor = 80,"
        " autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)"
    )
    _create_triggers_on_postgresql()
    # Committed here, and the locks of the tables are free: from now on nobody waits for us.
    with op.get_context().autocommit_block():
        _fill_and_replace_indexes(concurrently=True)


def _create_register() -> None:
    op.create_table(
        "consents",
        sa.Column("identity_hash", sa.LargeBinary, primary_key=True),
        sa.Column("section", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("event_id", sa.BigInteger, nullable=False),
        sa.Column("told_version", sa.BigInteger),
        sa.Column("told_action", sa.Text),
        sa.Column("told_at", sa.BigInteger),
        sa.Column("told_trace", sa.Text),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("lease", sa.Text),
        sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("retrying_since", sa.BigInteger),
        sa.Column("dead_at", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.Column("in_doubt", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    for name, columns, where in (
        ("consents_due", ["section", "due_at"], "due_at IS NOT NULL"),
        ("consents_waiting", ["event_id"], "due_at IS NOT NULL"),
        ("consents_dead", ["event_id"], "dead_at IS NOT NULL"),
    ):
        op.create_index(
            name, "consents", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where), if_not_exists=True
        )


def _rebuild_attempts() -> None:
    """On SQLite a table is made anew to be rid of a foreign key."""
    op.rename_table("attempts", "attempts_before")
    op.drop_index("attempts_event")
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("event_id", sa.BigInteger, nullable=False),
        *_ATTEMPTS_ADD[:3],
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("duration", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("status", sa.SmallInteger),
        sa.Column("message", sa.Text),
        sa.Column("trace_id", sa.Text),
        sa.Column("warnings", sa.Text),
        *_ATTEMPTS_ADD[3:],
    )
    kept = "id, event_id, started_at, duration, outcome, status, message, trace_id, warnings"
    op.execute(f"INSERT INTO attempts ({kept}) SELECT {kept} FROM attempts_before")  # noqa: S608
    op.drop_table("attempts_before")
    op.create_index("attempts_event", "attempts", ["event_id"])


def _create_triggers_on_sqlite() -> None:
    for name, (when, condition, do) in _TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} AFTER {when} FOR EACH ROW WHEN {condition} BEGIN {do} END")


def _create_triggers_on_postgresql() -> None:
    for name, (when, condition, do) in _TRIGGERS.items():
        op.execute(
            f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {do} RETURN NULL; END $$"
        )
        op.execute(f"DROP TRIGGER IF EXISTS {name} ON events")
        op.execute(f"CREATE TRIGGER {name} AFTER {when} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {name}()")


def _fill_and_replace_indexes(*, concurrently: bool) -> None:
    for statement in _HISTORY:
        op.execute(statement)
    for name, columns, where in (
        ("events_of_person", ["identity_hash", "version"], None),
        ("events_set_aside", ["state", "id"], _SET_ASIDE),
        ("events_not_emptied", ["id"], "raw IS NOT NULL"),
    ):
        condition = None if where is None else sa.text(where)
        # Dropped first: a run that was cut off leaves an index behind that is not valid.
        op.drop_index(name, "events", if_exists=True, postgresql_concurrently=concurrently)
        op.create_index(
            name,
            "events",
            columns,
            sqlite_where=condition,
            postgresql_where=condition,
            postgresql_concurrently=concurrently,
        )
    # Last: until here the version before needed them.
    for name in ("events_person", "events_person_waiting", "events_state", "events_retention"):
        op.drop_index(name, "events", if_exists=True, postgresql_concurrently=concurrently)
