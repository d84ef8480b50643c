"""On SQLite a new change costs the same however much history there is: who waits has an index of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_COLUMNS = ["identity_hash", "state", "version", "id"]


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("events_person", "events")
        op.create_index("events_person", "events", _COLUMNS, sqlite_where=sa.text("due_at IS NULL"))
        op.create_index("events_person_waiting", "events", _COLUMNS, sqlite_where=sa.text("due_at IS NOT NULL"))
