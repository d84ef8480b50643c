"""The outbox: events, their attempts, and what stands beside them."""

import os

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _create_events()
    _create_indexes_of_events()
    _create_attempts()
    _create_the_rest()


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", _Id, primary_key=True),
        sa.Column("dedupe_key", sa.LargeBinary, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("action", sa.Text),
        sa.Column("identity_kind", sa.Text),
        sa.Column("identity_hash", sa.LargeBinary),
        sa.Column("identity_value", sa.Text),
        sa.Column("visitor", sa.Text),
        sa.Column("push_channel", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("esp_event_id", sa.Text),
        sa.Column("esp_message_id", sa.Text),
        sa.Column("occurred_at", sa.BigInteger),
        sa.Column("version", sa.BigInteger),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("lease", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("retrying_since", sa.BigInteger),
        sa.Column("settled_at", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.Column("raw", sa.LargeBinary),
    )


def _create_indexes_of_events() -> None:
    op.create_index("events_dedupe_key", "events", ["dedupe_key"], unique=True)
    op.create_index(
        "events_due",
        "events",
        ["due_at", "id"],
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("events_identity", "events", ["identity_hash", "version", "id"])
    op.create_index(
        "events_in_flight",
        "events",
        ["identity_hash"],
        unique=True,
        sqlite_where=sa.text("lease IS NOT NULL"),
        postgresql_where=sa.text("lease IS NOT NULL"),
    )
    op.create_index("events_state", "events", ["state", "id"])
    op.create_index(
        "events_retention",
        "events",
        ["settled_at"],
        sqlite_where=sa.text("raw IS NOT NULL AND settled_at IS NOT NULL"),
        postgresql_where=sa.text("raw IS NOT NULL AND settled_at IS NOT NULL"),
    )


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", _Id, primary_key=True),
        sa.Column("event_id", sa.BigInteger, sa.ForeignKey("events.id"), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("duration", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("status", sa.SmallInteger),
        sa.Column("message", sa.Text),
        sa.Column("trace_id", sa.Text),
        sa.Column("warnings", sa.Text),
    )
    op.create_index("attempts_event", "attempts", ["event_id"])


def _create_the_rest() -> None:
    op.create_table(
        "one_time_tokens",
        sa.Column("token_hash", sa.LargeBinary, primary_key=True),
        sa.Column("body_hash", sa.LargeBinary, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("paused_reason", sa.Text),
        sa.Column("paused_until", sa.BigInteger),
    )
    installation = op.create_table(
        "installation",
        sa.Column("id", sa.SmallInteger, primary_key=True),
        sa.Column("hash_key", sa.LargeBinary, nullable=False),
    )
    op.bulk_insert(installation, [{"id": 1, "hash_key": os.urandom(32)}])
