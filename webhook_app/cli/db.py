"""`flask db`: the database's tables."""

import click
from flask.cli import AppGroup

from webhook_app.cli import shared
from webhook_app.outbox import schema

db = AppGroup("db", help="The database's tables.")


@db.command("upgrade")
@shared.report_database_errors
def upgrade() -> None:
    """Make the tables, or bring them up to date. Safe to run twice."""
    schema.upgrade(shared.database())
    click.echo("The database is up to date.")
