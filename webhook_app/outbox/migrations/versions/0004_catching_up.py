"""How far each imported file has come, and how the last comparison with an ESP's lists ended."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "imports",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("as_of", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.Column("duplicates", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
    )
    op.create_table(
        "reconciliations",
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("lease", sa.Text),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.Column("covered_until", sa.BigInteger),
        sa.Column("complete_at", sa.BigInteger),
        sa.Column("checked", sa.BigInteger),
        sa.Column("drift", sa.BigInteger),
        sa.Column("outranked", sa.BigInteger),
        sa.Column("unreadable", sa.BigInteger),
        sa.Column("drift_total", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )
