"""`flask report`: how long it took until Dynamic Yield had taken an unsubscribe."""

from datetime import datetime, timedelta

import click
from flask.cli import with_appcontext

from webhook_app.cli.shared import PointInTime, as_json, database, print_json, report_database_errors
from webhook_app.outbox import promptness


@click.command
@click.option(
    "--since",
    type=PointInTime(),
    help="Only what was taken since then: 2026-01-31, 30d, 48h. Whole days in UTC.",
)
@as_json
@with_appcontext
@report_database_errors
def report(since: datetime | None, as_json: bool) -> None:
    """Show for each month and ESP how long it took from an unsubscribe until Dynamic Yield had taken it.

    The time begins when the person acted, as the ESP says. Median and 95th percentile are at most 19 % too high.
    """
    lines = promptness.report(database(), since=since)
    if as_json:
        for line in lines:
            print_json(promptness.as_row(line))
        return
    if not lines:
        click.echo("Nothing was taken in this time.")
        return
    click.echo(
        f"{'month':8} {'ESP':16} {'taken':>9} {'median':>9} {'p95':>9} {'worst':>9} {'in 48 h':>8} {'caught up':>10}"
    )
    for line in lines:
        median, p95, worst = (_seconds(length) for length in (line.median, line.p95, line.worst))
        share = "—" if line.share is None else f"{line.share:.2%}"
        click.echo(
            f"{line.month:8} {line.provider:16} {line.taken:9,} {median:>9} {p95:>9} {worst:>9} {share:>8} "
            f"{line.caught_up:10,}"
        )


def _seconds(length: timedelta | None) -> str:
    return "—" if length is None else f"{length.total_seconds():,.1f} s"
