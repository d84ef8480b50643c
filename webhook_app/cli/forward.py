"""`flask forward`: the worker."""

import hmac
import os
import signal
import sys
import time
from datetime import timedelta
from functools import partial
from types import FrameType

import click
import structlog
from flask import current_app
from flask.cli import with_appcontext

from webhook_app.cli import shared
from webhook_app.cli.alerting import alerting
from webhook_app.delivery.sections import Section
from webhook_app.delivery.worker import Worker
from webhook_app.ops import logs
from webhook_app.ops.metrics import count_attempt
from webhook_app.outbox import Database, OutboxUnavailable, Queue, schema
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.journal import Journal
from webhook_app.outbox.retention import Retention
from webhook_app.settings import variables
from webhook_app.sync.reconciling import scheduled

log = structlog.get_logger()

SCHEMA_WAIT = 60.0  # seconds a worker waits for the release phase to migrate


@click.command
@with_appcontext
def forward() -> None:
    """Send what the outbox holds to Dynamic Yield, until told to stop (the worker)."""
    # It prints no result: its log lines are what a platform collects.
    logs.configure(sys.stdout)
    settings, database = shared.settings(), shared.database()
    sections: dict[str, Section] = current_app.extensions["sections"]
    if not all(section.api_key for section in sections.values()):
        raise click.ClickException("EVENTS_API_KEY is not set: copy a server-side API key from Dynamic Yield")
    _await_schema(database)
    _record_settings(database)
    worker = Worker(
        Queue(database),
        sections.values(),
        connect=lambda section: section.client(settings.egress).send,
        concurrency=settings.worker_concurrency,
        observe=partial(count_attempt, current_app.extensions["counters"]),
        tidy=Retention(database, shared.maintenance(), keep=timedelta(days=settings.retention_days)).step,
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with scheduled(settings, database, current_app.extensions["conditions"]), alerting(check_urls=True):
        finished = worker.run()
    if not finished:
        # What hangs in the system's resolver would keep the process until the platform kills it.
        current_app.extensions["counters"].flush()
        os._exit(0)


def _await_schema(database: Database) -> None:
    """The worker may start before the release phase, or before the web process has made the SQLite file."""
    if why := database.setup_problem():
        raise click.ClickException(f"Cannot start: {why}")
    deadline = time.monotonic() + SCHEMA_WAIT
    while True:
        try:
            problem = schema.problem(database)
            if problem is None:
                return
            why = str(problem)
        except OutboxUnavailable as error:
            why = f"the database cannot be used: {error}"
        if time.monotonic() > deadline:
            raise click.ClickException(why)
        time.sleep(0.5)


def _record_settings(database: Database) -> None:
    """Write into the journal which settings have changed since a worker last started: their names, never a value."""
    key, journal = load_hasher(database).key, Journal(database)
    values = {name: os.environ.get(name, "").strip() for name in variables()}
    now = {
        name: hmac.digest(key, f"{name}={value}".encode(), "sha256").hex()[:16]
        for name, value in values.items()
        if value
    }
    last = journal.last("settings")
    before = last.details["fingerprints"] if last else {}
    changed = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
    if changed:
        journal.record("worker", "settings", changed=changed, fingerprints=now)
