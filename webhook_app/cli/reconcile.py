"""`flask reconcile`: whoever an ESP's own lists know of and was never heard of here is opted out, too."""

from datetime import datetime

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from webhook_app.cli import shared
from webhook_app.outbox import schema
from webhook_app.outbox.reconciliations import Reconciled
from webhook_app.sync.api import ApiError
from webhook_app.sync.reconciling import Reconciler
from webhook_app.sync.sources import SOURCES, SuppressionList

reconcile = AppGroup("reconcile", help="Compare with an ESP's own lists, and add what is missing.")

_since = click.option(
    "--since", type=shared.PointInTime(), help="Only entries from then on: 2026-01-31, 30d, 48h.  [default: all]"
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only count what is missing.")


@reconcile.command("sendgrid")
@_since
@click.option("--subuser", default="", help="The subuser whose lists are meant.  [default: SENDGRID_SUBUSER]")
@_dry_run
@with_appcontext
@shared.report_database_errors
def reconcile_sendgrid(since: datetime | None, subuser: str, dry_run: bool) -> None:
    """Opt out whoever is on SendGrid's suppression lists and was never heard of here.

    Reads the lists that belong to SENDGRID_EVENTS, and of unsubscribe groups those in SENDGRID_GROUP_IDS. Safe to run
    at any time, and twice.
    """
    _reconcile("sendgrid", since, dry_run=dry_run, account=subuser)


def _command(provider: str) -> click.Command:
    @_since
    @_dry_run
    @with_appcontext
    @shared.report_database_errors
    def command(since: datetime | None, dry_run: bool) -> None:
        _reconcile(provider, since, dry_run=dry_run)

    about = "Opt out whoever is on the ESP's own lists and was never heard of here. Safe to run at any time, and twice."
    return click.command(provider, help=about)(command)


for _provider in SOURCES.keys() - {"sendgrid"}:
    reconcile.add_command(_command(_provider))


def _reconcile(provider: str, since: datetime | None, *, dry_run: bool, **more: str) -> None:
    settings, database = shared.settings(), shared.database()
    try:
        if problem := schema.problem(database):
            raise click.ClickException(str(problem))
        reconciler = Reconciler(
            SOURCES[provider](settings, **more),
            database,
            every=settings.reconcile_every,
            sections=current_app.extensions["conditions"],
        )
        compare = reconciler.count_missing if dry_run else reconciler.compare
        result = compare(since, _say_progress)
    except ApiError as error:
        raise click.ClickException(str(error)) from None
    click.echo(
        f"{result.checked:,} entr{'y' if result.checked == 1 else 'ies'} checked: {result.drift:,} "
        + ("are missing here." if dry_run else "were missing here, and are on their way now.")
    )
    if result.outranked:
        click.echo(f"{result.outranked:,} left alone: the person has opted in since.")
    if result.no_section:
        click.echo(
            f"{result.no_section:,} left alone: they concern no section of Dynamic Yield (SECTION_WHEN, SECTIONS_FILE)."
        )
    if result.unreadable:
        click.echo(f"{result.unreadable:,} could not be read; see the quarantine.")


def _say_progress(one: SuppressionList, result: Reconciled) -> None:
    click.echo(f"{one.title}: {result.checked:,} entries so far, {result.drift:,} missing", err=True)
