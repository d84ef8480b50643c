"""What a process that serves does with requests: webhooks, probes, metrics, and a log line for each.

Commands and the worker load none of it.
"""

import os
import time
from functools import partial

import structlog
from flask import Flask, Response

from webhook_app import receiver, web
from webhook_app.ops import description, health, metrics
from webhook_app.outbox import Intake
from webhook_app.outbox.counters import Counters
from webhook_app.outbox.recent import RecentWebhooks
from webhook_app.platforms import PLATFORMS, platform
from webhook_app.providers import Provider
from webhook_app.providers.registry import open_names

log = structlog.get_logger()


def add(app: Flask, recent: RecentWebhooks) -> None:
    """Add every route but the console's."""
    database, providers, sections = (app.extensions[name] for name in ("database", "providers", "sections"))
    web.configure(app)
    intake = Intake(database, sections=app.extensions["conditions"])
    app.register_blueprint(receiver.blueprint(providers, intake, app.extensions["settings"]))
    open_esps = open_names(providers.entries.values())
    app.register_blueprint(health.blueprint(database, open_esps, sections=sections))
    app.register_blueprint(metrics.blueprint(database, open_esps, sections=sections))
    app.register_blueprint(description.blueprint())
    app.after_request(partial(_record, app.extensions["counters"], recent))


def log_set_up(app: Flask) -> None:
    """Say which ESPs are open, and what may not be meant as it is set."""
    entries = app.extensions["providers"].entries.values()
    if (known := platform(os.environ)) and app.extensions["settings"].database_url.startswith("sqlite"):
        log.warning("sqlite_on_a_platform", platform=PLATFORMS[known][0], hint="is its file on a disk that lasts?")
    for given, ours in app.extensions["near_misses"]().items():
        log.warning("unknown_setting", given=given, did_you_mean=ours)
    for entry in entries:
        # An entry of the catalogue has none: its payloads prove what it says.
        for hint in entry.hints if isinstance(entry, Provider) else ():
            log.warning("provider_hint", provider=entry.name, hint=hint)
    for hint in app.extensions["section_hints"]():
        log.warning("section_hint", hint=hint)
    log.info(
        "providers",
        open=open_names(entries),
        closed={entry.name: f"set {entry.opened_by}" for entry in entries if not entry.scheme},
    )


def _record(counters: Counters, recent: RecentWebhooks, response: Response) -> Response:
    """One log line for each request; of a webhook its metrics, and its place among the recent ones."""
    request = web.current()
    seconds = time.perf_counter() - request.began
    response.headers["X-Request-ID"] = request.id
    rule = request.url_rule
    webhook = request.webhook
    log.info(
        "request",
        request_id=request.id,
        method=request.method,
        # The route's pattern, not the path: the path may hold a secret.
        route=rule and rule.rule,
        status=response.status_code,
        **(webhook.log_fields() if webhook else {}),
        duration_ms=round(seconds * 1000, 1),
    )
    if webhook and request.method == "POST":
        metrics.count_webhook(counters, webhook, seconds)
    if webhook:
        recent.add(
            webhook.provider,
            method=request.method,
            status=webhook.status,
            counts=webhook.counts,
            reason=webhook.reason,
            note=webhook.note,
            caller=request.remote_addr or "",
            body=webhook.body,
        )
        counters.start()
    return response
