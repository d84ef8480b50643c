"""Who may be meant in what was not understood. What is in quarantine already is found by reading it again."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "mentions",
        sa.Column("identity_hash", sa.LargeBinary, primary_key=True),
        sa.Column("event_id", sa.BigInteger, primary_key=True),
        sqlite_with_rowid=False,
    )
