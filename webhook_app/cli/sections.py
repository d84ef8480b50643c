"""`flask sections …`: what a section that was added later has missed, and what one that is gone has left behind."""

import sys

import click
from flask import current_app
from flask.cli import AppGroup

from webhook_app.cli.shared import database, record, report_database_errors
from webhook_app.delivery.sections import Section
from webhook_app.outbox.dropping import drop, size_of_section
from webhook_app.outbox.filling import fill
from webhook_app.outbox.queries import newest_number

sections = AppGroup("sections", help="The sections of Dynamic Yield that events go to.")


@sections.command("fill")
@click.argument("name")
@report_database_errors
def fill_section(name: str) -> None:
    """Tell the section NAME what the log knows of everybody, newest wish first. Safe to run again."""
    known: dict[str, Section] = current_app.extensions["sections"]
    if name not in known:
        raise click.ClickException(f"there is no section {name}; there are: {', '.join(sorted(known))}")
    record("sections fill", section=name)
    concerned = failed = 0
    with click.progressbar(length=newest_number(database()), label=f"Filling {name}", file=sys.stderr) as bar:
        for batch in fill(database(), name, known[name]):
            concerned, failed = concerned + batch.concerned, failed + batch.failed
            bar.update(batch.seen)
    click.echo(f"{concerned} events concern section {name}")
    if failed:
        click.echo(f"{failed} events are left out: the condition of the section fails on them", err=True)


@sections.command("drop")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@report_database_errors
def drop_section(name: str, yes: bool) -> None:
    """Forget what the section NAME wants and was told. It must not be configured any more; the events stay."""
    if name in current_app.extensions["sections"]:
        raise click.ClickException(f"section {name} is configured: take it out of the settings first")
    kept = size_of_section(database(), name)
    if not kept.people:
        raise click.ClickException(f"nothing is kept for a section {name}")
    if not yes:
        click.confirm(
            f"forget {kept.people:,} people of section {name}? {kept.waiting:,} of them wait and will not be told",
            abort=True,
            err=True,
        )
    record("sections drop", section=name)
    dropped = 0
    with click.progressbar(length=kept.people, label=f"Dropping {name}", file=sys.stderr) as bar:
        for people in drop(database(), name):
            dropped += people
            bar.update(people)
    click.echo(f"{dropped:,} people of section {name} were dropped")
