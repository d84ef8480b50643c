"""How long it took until opt-outs were taken, as sums. They begin with this version."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "promptness",
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("bucket", sa.SmallInteger, primary_key=True),
        sa.Column("taken", sa.BigInteger, nullable=False),
        sa.Column("worst", sa.BigInteger, nullable=False),
    )
