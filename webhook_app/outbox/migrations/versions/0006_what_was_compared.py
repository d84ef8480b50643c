"""Which lists a comparison has covered: what an older version wrote down may have been about another subuser's."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("reconciliations", sa.Column("scope", sa.Text))
