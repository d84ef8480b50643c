"""`flask webhooks`: the last calls of each ESP, and what became of them."""

import click
from flask.cli import with_appcontext

from webhook_app.cli.shared import as_json, check_name_of_provider, database, print_json, report_database_errors
from webhook_app.outbox.recent import KEPT, RecentWebhook, recent


@click.command
@click.argument("provider", default="")
@click.option("--limit", type=click.IntRange(1), default=KEPT, show_default=True, help="How many, newest first.")
@as_json
@with_appcontext
@report_database_errors
def webhooks(provider: str, limit: int, as_json: bool) -> None:
    """Show the last webhooks of PROVIDER, or of all: accepted, ignored and refused ones, newest first.

    --json also shows the beginning of the body, which holds addresses, where the caller was authentic.
    """
    if provider:
        check_name_of_provider(provider)
    found = recent(database(), provider, limit=limit)
    for webhook in found:
        if as_json:
            print_json(_plain(webhook))
        else:
            click.echo(_line(webhook))
    if not found and not as_json:
        click.echo("No webhook came lately. One that has just come shows up within five seconds.")


def _line(webhook: RecentWebhook) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in (webhook.counts or {}).items() if number)
    what = webhook.reason or webhook.note or counts or "nothing in it"
    when = webhook.received_at.isoformat(sep=" ", timespec="seconds")
    return f"{when}  {webhook.provider}  {webhook.method} {webhook.status}  {what}  (from {webhook.caller[:8]})"


def _plain(webhook: RecentWebhook) -> dict[str, object]:
    return {
        "received_at": webhook.received_at,
        "provider": webhook.provider,
        "method": webhook.method,
        "status": webhook.status,
        "counts": webhook.counts,
        "reason": webhook.reason,
        "note": webhook.note,
        "caller": webhook.caller,
        "body": None if webhook.body is None else webhook.body.decode(errors="replace"),
        "body_size": webhook.body_size,
    }
