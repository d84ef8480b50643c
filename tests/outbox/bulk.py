"""Fills an outbox with history, as years of use would, within seconds."""

from sqlalchemy import text

from tests.outbox.world import START
from webhook_app.outbox import Database

#: One row a second, ending at the clock's start. Every hundredth change is dead; a person comes again and again.
_VALUES = """
    SELECT n, {key}, 'sendgrid', CASE WHEN n % 100 = 0 THEN 'dead' ELSE 'delivered' END, 'opt_out', 'email',
           {person}, 'u' || (n % :people) || '@example.com', 'unsubscribe',
           (:end - :rows + n) * 1000000, (:end - :rows + n) * 2000000 + 1,
           (:end - :rows + n) * 1000000, (:end - :rows + n) * 1000000, {raw}
"""
_COLUMNS = """
    id, dedupe_key, provider, state, action, identity_kind, identity_hash, identity_value, reason,
    occurred_at, version, received_at, settled_at, raw
"""
_SQLITE = _VALUES.format(
    key="CAST(printf('%020d', n) AS BLOB)",
    person="CAST(printf('%016d', (n % :people) * 7919 % 1000003) AS BLOB)",
    raw="CAST('{}' AS BLOB)",
)
_POSTGRESQL = _VALUES.format(
    key="lpad(n::text, 20, '0')::bytea",
    person="substr(sha256((n % :people)::text::bytea), 1, 16)",
    raw="'{}'::bytea",
)


#: Each person's newest change is told, or dead, for the newest has the largest number.
_REGISTER = """
    INSERT INTO consents
        (identity_hash, section, version, action, event_id, told_version, told_action, told_at, dead_at)
    SELECT identity_hash, 'default', version, action, id,
        CASE WHEN state = 'delivered' THEN version END, CASE WHEN state = 'delivered' THEN action END,
        CASE WHEN state = 'delivered' THEN settled_at END, CASE WHEN state = 'dead' THEN settled_at END
    FROM events WHERE id IN (SELECT max(id) FROM events GROUP BY identity_hash)
"""
_ATTEMPTS = """
    INSERT INTO attempts (event_id, started_at, duration, outcome)
    SELECT id, settled_at, 1000, CASE WHEN state = 'delivered' THEN 'delivered' ELSE 'refused' END FROM events
"""


def fill(database: Database, rows: int, *, people: int, register: bool = True) -> None:
    """Add so many finished changes of so many people to an empty outbox; or without register, as before it."""
    values = {"rows": rows, "people": people, "end": int(START)}
    with database.alter() as connection:
        if database.dialect == "sqlite":
            numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)"
            connection.execute(text(f"INSERT INTO events ({_COLUMNS}) {numbers} {_SQLITE} FROM numbers"), values)
        else:
            source = f"{_POSTGRESQL} FROM generate_series(1, CAST(:rows AS bigint)) AS n"
            connection.execute(text(f"INSERT INTO events ({_COLUMNS}) {source}"), values)
            connection.execute(text("SELECT setval('events_id_seq', :rows)"), {"rows": rows})
        if register:
            connection.execute(text(_REGISTER))
            connection.execute(text(_ATTEMPTS))
        if database.dialect == "postgresql":
            connection.commit()
            vacuum = text("VACUUM ANALYZE")
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(vacuum)
