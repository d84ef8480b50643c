"""A claim costs the same however much history a person has; retention knows when it is due.

On PostgreSQL the indexes are built while the app goes on reading and writing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_EMPTIABLE = "raw IS NOT NULL AND state IN ('delivered', 'superseded', 'discarded', 'test')"


def upgrade() -> None:
    op.add_column("installation", sa.Column("prune_due_at", sa.BigInteger))
    if op.get_bind().dialect.name == "sqlite":
        _replace_indexes(concurrently=False)
        return
    # Every change is updated twice within seconds. By default PostgreSQL would clean up after a fifth of the table.
    op.execute("ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)")
    with op.get_context().autocommit_block():
        # Waits for transactions that are under way, and nobody waits for it.
        _replace_indexes(concurrently=True)


def _replace_indexes(*, concurrently: bool) -> None:
    # Dropped first: a run that was cut off leaves an index behind that is not valid.
    for name in ("events_person", "events_waiting", "events_leased", "events_retention"):
        op.drop_index(name, "events", if_exists=True, postgresql_concurrently=concurrently)
    op.create_index(
        "events_person", "events", ["identity_hash", "state", "version", "id"], postgresql_concurrently=concurrently
    )
    op.create_index(
        "events_retention",
        "events",
        ["settled_at"],
        sqlite_where=sa.text(_EMPTIABLE),
        postgresql_where=sa.text(_EMPTIABLE),
        postgresql_concurrently=concurrently,
    )
    op.create_index(
        "events_waiting",
        "events",
        ["due_at", "id"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
        postgresql_concurrently=concurrently,
    )
    op.create_index(
        "events_leased",
        "events",
        ["due_at"],
        sqlite_where=sa.text("lease IS NOT NULL"),
        postgresql_where=sa.text("lease IS NOT NULL"),
        postgresql_concurrently=concurrently,
    )
    # Last: until here the app needed the old ones.
    for name in ("events_identity", "events_due"):
        op.drop_index(name, "events", if_exists=True, postgresql_concurrently=concurrently)
