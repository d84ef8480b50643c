"""`/healthz`: the process serves. `/readyz`: the whole service does its job, or why not."""

import time
from datetime import UTC, datetime, timedelta

from flask import Blueprint, Response

from webhook_app import web
from webhook_app.outbox import Database, OutboxUnavailable
from webhook_app.outbox.schema import problem
from webhook_app.outbox.status import status

#: Somebody should look when an opt-out has waited for so long.
TOO_OLD = timedelta(minutes=15)


def blueprint(database: Database) -> Blueprint:
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> Response:
        return web.answer({"status": "ok"})

    @health.get("/readyz")
    def readyz() -> tuple[Response, int]:
        reasons = why_not_ready(database)
        return web.answer({"status": "not ready" if reasons else "ready", "reasons": reasons}), 503 if reasons else 200

    return health


def why_not_ready(database: Database) -> list[str]:
    """A line for each thing that keeps unsubscribes from reaching Dynamic Yield; empty when none does."""
    try:
        if schema_problem := problem(database):
            return [schema_problem]
        now = status(database, time.time())
    except OutboxUnavailable as error:
        return [f"the database cannot be used: {error}"]
    reasons = []
    if not now.workers_alive:
        reasons.append("no live worker: start `flask forward` (on Heroku: `heroku ps:scale worker=1`)")
    if now.oldest_waiting and datetime.now(UTC) - now.oldest_waiting > TOO_OLD:
        reasons.append(f"the oldest waiting change was received at {now.oldest_waiting.isoformat(timespec='seconds')}")
    return reasons + [f"the destination is paused: {reason}" for reason in now.paused]
