"""The ESP webhook receiver: unsubscribes at the ESP reach Dynamic Yield."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
import structlog
from flask import Flask, Response, redirect
from flask.cli import run_command
from flask.typing import ResponseReturnValue
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from webhook_app import cli, receiver, web
from webhook_app.delivery.sections import build_sections, conditions
from webhook_app.ops import description, health, logs, metrics
from webhook_app.outbox import Database, Intake, open_database
from webhook_app.outbox.counters import FLUSH_EVERY, Counters
from webhook_app.outbox.recent import RecentWebhooks
from webhook_app.providers.registry import build_providers, open_names
from webhook_app.providers.registry import variables as provider_variables
from webhook_app.settings import PLATFORMS, ConfigurationError, Settings, near_misses, platform

log = structlog.get_logger()


def create_app() -> Flask:
    """The application, as gunicorn and `flask` start it. A mistake in the settings ends the process in clear lines."""
    typed = click.get_current_context(silent=True)
    # What a command prints may be a CSV file or JSON for a script: its log lines stand beside it.
    logs.configure(sys.stderr if typed else sys.stdout)
    if typed:
        from webhook_app.cli.env_file import database_url_problem, web_concurrency_problem

        if problem := database_url_problem() or web_concurrency_problem():
            sys.exit(f"Cannot start: {problem}")
        _join_make_run()
    try:
        app = build_app(os.environ, with_console=not typed or typed.command is run_command)
    except ConfigurationError as error:
        sys.exit(f"Cannot start, please mend:\n{error}")
    # Not in `build_app`: tests write statistics down when they want them.
    app.extensions["counters"].every = FLUSH_EVERY
    if not typed:
        _log_open_providers(app)
    return app


def _join_make_run() -> None:
    """In a second terminal, mean what `make run` runs in this folder. It holds a lock on this file while it lives."""
    if platform(os.environ) or not Path("instance/run.json").exists():
        return
    # Only now: nothing of `dev` is loaded where `make run` has never been.
    from webhook_app.dev import marker

    running = marker.find()
    if running and marker.STARTED_BY_RUN not in os.environ:
        sys.stderr.write(f"{running.describe(os.environ)}\n")
        os.environ |= running.environment(os.environ)


def build_app(environ: Mapping[str, str], *, with_console: bool = True) -> Flask:
    """Read the settings and wire the rooms. Raises `ConfigurationError`.

    The worker and a command serve no pages, and start sooner without the console.
    """
    settings = Settings.from_environment(environ)
    problems: list[str] = []
    with _collecting(problems):
        database = _open_database(settings)
    with _collecting(problems):
        providers = build_providers(settings, environ)
    with _collecting(problems):
        sections = build_sections(settings, environ)
    if problems:
        raise ConfigurationError(problems)

    app = Flask(__name__, static_folder=None)
    web.configure(app)
    app.extensions["settings"] = settings
    app.extensions["database"] = database
    app.extensions["providers"] = providers
    app.extensions["sections"] = sections
    app.extensions["conditions"] = routed = conditions(sections)
    app.extensions["near_misses"] = near_misses(environ, provider_variables(providers.values()))
    recent = RecentWebhooks(database)
    app.extensions["counters"] = counters = Counters(database, also=recent.flush)
    app.register_blueprint(receiver.blueprint(providers, Intake(database, sections=routed), settings))
    open_esps = open_names(providers.values())
    app.register_blueprint(health.blueprint(database, open_esps, sections=sections))
    app.register_blueprint(metrics.blueprint(database, open_esps, sections=sections))
    app.register_blueprint(description.blueprint())
    if with_console and (settings.console_password or settings.console_users):
        _mount_console(app)
    cli.register(app)
    app.after_request(partial(_record, counters, recent))
    return app


def _mount_console(app: Flask) -> None:
    # Only now: nothing of it is loaded where nobody could log in.
    from webhook_app.console import PREFIX, create_console

    console = create_console(
        settings=app.extensions["settings"],
        database=app.extensions["database"],
        providers=app.extensions["providers"],
        sections=app.extensions["sections"],
    )
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {PREFIX: console})  # type: ignore[method-assign] # as documented

    @app.get("/")
    def root() -> ResponseReturnValue:
        return redirect(f"{PREFIX}/")


@contextmanager
def _collecting(problems: list[str]) -> Iterator[None]:
    """Go on after a mistake, so that a person hears of all of them at once."""
    try:
        yield
    except ConfigurationError as error:
        problems += error.problems


def _open_database(settings: Settings) -> Database:
    try:
        return open_database(settings.database_url)
    except ValueError as error:
        raise ConfigurationError([f"DATABASE_URL {error}"]) from None


def _log_open_providers(app: Flask) -> None:
    providers = app.extensions["providers"].values()
    if (known := platform(os.environ)) and app.extensions["settings"].database_url.startswith("sqlite"):
        log.warning("sqlite_on_a_platform", platform=PLATFORMS[known][0], hint="is its file on a disk that lasts?")
    for given, ours in app.extensions["near_misses"].items():
        log.warning("unknown_setting", given=given, did_you_mean=ours)
    for provider in providers:
        for hint in provider.hints:
            log.warning("provider_hint", provider=provider.name, hint=hint)
    log.info(
        "providers",
        open=open_names(providers),
        closed={provider.name: f"set {provider.opened_by}" for provider in providers if not provider.scheme},
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
