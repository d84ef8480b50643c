"""`flask simulate` and `flask sandbox`: both ends, to try the receiver out between them."""

import os
import sys
import time
import uuid
from urllib.parse import urlsplit

import click
import requests
from flask.cli import with_appcontext

from webhook_app.cli import shared
from webhook_app.dev.simulation import CannotSimulate, simulate
from webhook_app.egress import DIRECT
from webhook_app.ops import logs
from webhook_app.setting_fields import is_loopback


@click.command
@click.option("--port", default=8010, show_default=True, help="Where it listens, on this machine only.")
@click.option("--api-key", default=None, help="The only key it accepts.  [default: any]")
def sandbox(port: int, api_key: str | None) -> None:
    """Stand in for Dynamic Yield on this machine: strict, and fails when ordered to."""
    logs.configure(sys.stdout)
    # Only now: the receiver and the worker, which load the commands too, have no use for it.
    from webhook_app.dev import sandbox as stand_in

    stand_in.serve("127.0.0.1", port, api_key=api_key)


@click.command("simulate")
@click.argument("provider")
@click.option("--url", help="Where the receiver is, like an ngrok address.  [default: this machine]")
@click.option("--count", default=3, show_default=True, type=click.IntRange(1, 1000), help="How many people.")
@click.option("--email", help="Their address; a number is put before the @ when there are several.")
@with_appcontext
def simulate_webhook(provider: str, url: str | None, count: int, email: str | None) -> None:
    """Send a realistic, correctly signed webhook of PROVIDER."""
    base = (url or f"http://127.0.0.1:{shared.settings().port}").rstrip("/")
    target = f"{base}/webhooks/{provider}"
    try:
        webhooks = simulate(provider, os.environ, emails=_addresses(email, count), now=time.time(), url=target)
    except CannotSimulate as error:
        raise click.ClickException(str(error)) from None
    session = (DIRECT if is_loopback(urlsplit(base).hostname or "") else shared.settings().egress).session()
    for webhook in webhooks:
        try:
            answer = session.request(
                webhook.method, target + webhook.path_suffix, data=webhook.body, headers=webhook.headers, timeout=30
            )
        except requests.RequestException as error:
            raise click.ClickException(
                f"nobody answers at {base} ({type(error).__name__}): is `make run` running?"
            ) from None
        click.echo(f"{target} answered {answer.status_code}: {answer.text.strip()}")
        if not answer.ok:
            raise click.ClickException(
                f"the webhook was not taken; see the log line {answer.headers.get('X-Request-ID')}"
            )


def _addresses(email: str | None, count: int) -> list[str]:
    if email and count == 1:
        return [email]
    local, _, domain = (email or f"person-{uuid.uuid4().hex[:6]}@example.com").rpartition("@")
    return [f"{local}-{number}@{domain}" for number in range(1, count + 1)]
