"""`flask …`: running the worker, trying things out, looking after the outbox."""

import os
import signal
import time
import uuid
from datetime import timedelta
from functools import partial
from types import FrameType

import click
import requests
from dotenv import dotenv_values
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext

from webhook_app import memory
from webhook_app.catching_up.reconciling import scheduled
from webhook_app.commands.connect import connect
from webhook_app.commands.docs import docs
from webhook_app.commands.events import events
from webhook_app.commands.importing import import_file
from webhook_app.commands.overview import check, providers, prune
from webhook_app.commands.reconcile import reconcile
from webhook_app.commands.shared import database as _database
from webhook_app.commands.shared import settings as _settings
from webhook_app.commands.shared import upkeep
from webhook_app.destinations.client import Client
from webhook_app.destinations.pacer import Pacer
from webhook_app.forwarder import Forwarder
from webhook_app.metrics import count_attempt
from webhook_app.outbox import Database, OutboxUnavailable, Queue, schema
from webhook_app.outbox.retention import Retention
from webhook_app.simulation import CannotSimulate, simulate

SCHEMA_WAIT = 60.0  # seconds a worker waits for the release phase to migrate


def register(app: Flask) -> None:
    own = (forward, sandbox, simulate_webhook, db, events, providers, check, prune, docs)
    for command in (*own, connect, import_file, reconcile):
        app.cli.add_command(command)


@click.command
@with_appcontext
def forward() -> None:
    """Send what the outbox holds to Dynamic Yield, until told to stop (the worker)."""
    memory.use_few_heaps()
    settings, database = _settings(), _database()
    if not settings.events_api_key:
        raise click.ClickException("EVENTS_API_KEY is not set: copy a server-side API key from Dynamic Yield")
    _await_schema(database)
    forwarder = Forwarder(
        Queue(database),
        current_app.extensions["form"],
        Client(settings.events_api_base, settings.events_api_key).send,
        concurrency=settings.worker_concurrency,
        pace=Pacer(settings.requests_per_second).wait,
        observe=partial(count_attempt, current_app.extensions["tally"]),
        tidy=Retention(database, upkeep(), keep=timedelta(days=settings.retention_days)).step,
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        forwarder.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with scheduled(settings, database):
        forwarder.run()


def _await_schema(database: Database) -> None:
    """The worker may start before the release phase, or before the web process has made the SQLite file."""
    deadline = time.monotonic() + SCHEMA_WAIT
    while True:
        try:
            problem = schema.problem(database)
        except OutboxUnavailable as error:
            problem = f"the database cannot be used: {error}"
        if problem is None:
            return
        if time.monotonic() > deadline:
            raise click.ClickException(problem)
        time.sleep(0.5)


@click.command
@click.option("--port", default=8010, show_default=True, help="Where it listens, on this machine only.")
@click.option("--api-key", default=None, help="The only key it accepts.  [default: any]")
def sandbox(port: int, api_key: str | None) -> None:
    """Stand in for Dynamic Yield on this machine: strict, and fails when ordered to."""
    from webhook_app import sandbox as stand_in

    stand_in.serve("127.0.0.1", port, api_key=api_key)


@click.command("simulate")
@click.argument("provider")
@click.option("--url", help="Where the receiver is, like an ngrok address.  [default: this machine]")
@click.option("--count", default=3, show_default=True, type=click.IntRange(1, 1000), help="How many people.")
@click.option("--email", help="Their address; a number is put before the @ when there are several.")
@with_appcontext
def simulate_webhook(provider: str, url: str | None, count: int, email: str | None) -> None:
    """Send a realistic, correctly signed webhook of PROVIDER."""
    environ = {**_made_for_development(), **os.environ}
    base = (url or f"http://127.0.0.1:{_settings().port}").rstrip("/")
    target = f"{base}/webhooks/{provider}"
    try:
        webhooks = simulate(provider, environ, emails=_addresses(email, count), now=time.time(), url=target)
    except CannotSimulate as error:
        raise click.ClickException(str(error)) from None
    for webhook in webhooks:
        try:
            answer = requests.request(
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


def _made_for_development() -> dict[str, str]:
    """What `make run` has made up; nothing where it never ran."""
    return {name: value for name, value in dotenv_values("instance/dev.env").items() if value is not None}


db = AppGroup("db", help="The database's tables.")


@db.command("upgrade")
def upgrade() -> None:
    """Make the tables, or bring them up to date. Safe to run twice."""
    try:
        schema.upgrade(_database())
    except OutboxUnavailable as error:
        raise click.ClickException(f"the database cannot be used: {error}") from None
    click.echo("The database is up to date.")
