"""The ESP webhook receiver: unsubscribes at the ESP reach Dynamic Yield."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
from flask import Flask, redirect
from flask.typing import ResponseReturnValue
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from webhook_app import cli
from webhook_app.delivery import section_conditions
from webhook_app.delivery.sections import build_sections
from webhook_app.ops import logs
from webhook_app.outbox import Database, open_database
from webhook_app.outbox.counters import FLUSH_EVERY, Counters
from webhook_app.outbox.recent import RecentWebhooks
from webhook_app.platforms import platform
from webhook_app.providers.registry import build_providers, open_names
from webhook_app.providers.registry import variables as provider_variables
from webhook_app.settings import ConfigurationError, Settings, near_misses


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
        # Of a command of ours the group is asked; `flask run`, `routes` and `shell` ask for the application themselves.
        app = build_app(os.environ, serves=not typed or not isinstance(typed.command, click.Group))
    except ConfigurationError as error:
        sys.exit(f"Cannot start, please mend:\n{error}")
    # Not in `build_app`: tests write statistics down when they want them.
    app.extensions["counters"].every = FLUSH_EVERY
    if not typed:
        from webhook_app import serving

        serving.log_set_up(app)
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


def build_app(environ: Mapping[str, str], *, serves: bool = True) -> Flask:
    """Read the settings and wire the rooms. Raises `ConfigurationError`.

    The worker and a command serve no requests, and start sooner without what is needed for that.
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
    app.extensions["settings"] = settings
    app.extensions["database"] = database
    app.extensions["providers"] = providers
    app.extensions["sections"] = sections
    app.extensions["conditions"] = section_conditions.conditions(sections)
    app.extensions["section_hints"] = partial(
        section_conditions.hints, sections, open_names(providers.entries.values()), list(providers)
    )
    # To be called: it compares every variable with all of ours.
    app.extensions["near_misses"] = partial(near_misses, environ, provider_variables(providers.entries.values()))
    recent = RecentWebhooks(database)
    app.extensions["counters"] = Counters(database, also=recent.flush)
    if serves:
        # Only now, and before the fork.
        from webhook_app import serving

        serving.add(app, recent)
        if settings.console_password or settings.console_users:
            _mount_console(app)
    cli.register(app)
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
