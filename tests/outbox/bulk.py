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


def fill(database: Database, rows: int, *, people: int) -> None:
    """Add so many finished changes of so many people to an empty outbox."""
    values = {"rows": rows, "people": people, "end": int(START)}
    with database.alter() as connection:
        if database.dialect == "sqlite":
            numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)"
            connection.execute(text(f"INSERT INTO events ({_COLUMNS}) {numbers} {_SQLITE} FROM numbers"), values)
            return
        source = f"{_POSTGRESQL} FROM generate_series(1, CAST(:rows AS bigint)) AS n"
        connection.execute(text(f"INSERT INTO events ({_COLUMNS}) {source}"), values)
        connection.execute(text("SELECT setval('events_id_seq', :rows)"), {"rows": rows})
        connection.commit()
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE events"))
