"""`flask sections …`: what a section that was added later has missed."""

import sys

import click
from flask import current_app
from flask.cli import AppGroup

from webhook_app.cli.shared import database, record, report_database_errors
from webhook_app.outbox.filling import fill, number_of_events

sections = AppGroup("sections", help="The sections of Dynamic Yield that events go to.")


@sections.command("fill")
@click.argument("name")
@report_database_errors
def fill_section(name: str) -> None:
    """Tell the section NAME what the log knows of everybody, newest wish first. Safe to run again."""
    known = current_app.extensions["sections"]
    if name not in known:
        raise click.ClickException(f"there is no section {name}; there are: {', '.join(sorted(known))}")
    condition = current_app.extensions.get("conditions", {}).get(name, lambda *_: True)
    record("sections fill", section=name)
    concerned = failed = 0
    with click.progressbar(length=number_of_events(database()), label=f"Filling {name}", file=sys.stderr) as bar:
        for batch in fill(database(), name, condition):
            concerned, failed = concerned + batch.concerned, failed + batch.failed
            bar.update(batch.seen)
    click.echo(f"{concerned} events concern section {name}")
    if failed:
        click.echo(f"{failed} events are left out: the condition of the section fails on them", err=True)
