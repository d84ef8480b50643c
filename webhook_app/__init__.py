"""The ESP webhook receiver: unsubscribes at the ESP reach Dynamic Yield."""

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
from flask import Flask, Response, redirect
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from webhook_app import cli, openapi, receiver, web
from webhook_app.console import PREFIX, create_console
from webhook_app.delivery.registry import build as build_form
from webhook_app.ops import health, logs, metrics
from webhook_app.outbox import Database, Intake, open_database
from webhook_app.outbox.counters import FLUSH_EVERY, Counters
from webhook_app.providers.registry import build as build_providers
from webhook_app.settings import ConfigurationError, Settings, near_misses

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = structlog.get_logger()


def create_app() -> Flask:
    """The application, as gunicorn and `flask` start it. A mistake in the settings ends the process in clear lines."""
    logs.configure()
    try:
        app = build_app(os.environ)
    except ConfigurationError as error:
        sys.exit(f"Cannot start, please mend:\n{error}")
    # Not in `build_app`: tests write statistics down when they want them.
    app.extensions["counters"].every = FLUSH_EVERY
    if "FLASK_RUN_FROM_CLI" not in os.environ:
        _say_what_is_open(app)
    return app


def build_app(environ: Mapping[str, str]) -> Flask:
    """Read the settings and wire the rooms. Raises `ConfigurationError`."""
    settings = Settings.from_environment(environ)
    problems: list[str] = []
    with _collecting(problems):
        database = _open_database(settings)
    with _collecting(problems):
        providers = build_providers(settings, environ)
    with _collecting(problems):
        form = build_form(settings)
    if problems:
        raise ConfigurationError(problems)

    app = web.Application(__name__, static_folder=None)
    app.extensions["settings"] = settings
    app.extensions["database"] = database
    app.extensions["providers"] = providers
    app.extensions["form"] = form
    app.extensions["counters"] = counters = Counters(database)
    app.register_blueprint(receiver.blueprint(providers, Intake(database), settings))
    app.register_blueprint(health.blueprint(database))
    app.register_blueprint(metrics.blueprint(database))
    app.register_blueprint(openapi.blueprint(providers, settings))
    _mount_console(app, create_console(settings=settings, database=database, providers=providers, form=form))
    cli.register(app)
    app.after_request(partial(_finish, counters))
    app.register_error_handler(HTTPException, _explain)
    app.register_error_handler(Exception, _confess)
    return app


def _mount_console(app: Flask, console: "WSGIApplication | None") -> None:
    if console is None:
        return
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


def _say_what_is_open(app: Flask) -> None:
    providers = app.extensions["providers"].values()
    openers = (name for provider in providers for name in re.findall(r"\w*[A-Z]\w*", provider.opened_by))
    for given, ours in near_misses(os.environ, openers).items():
        log.warning("unknown_setting", given=given, did_you_mean=ours)
    log.info(
        "providers",
        open=[provider.name for provider in providers if provider.scheme],
        closed={provider.name: f"set {provider.opened_by}" for provider in providers if not provider.scheme},
    )


def _finish(counters: Counters, response: Response) -> Response:
    request = web.current()
    seconds = time.perf_counter() - request.began
    response.headers["X-Request-ID"] = request.id
    rule = request.url_rule
    log.info(
        "request",
        request_id=request.id,
        method=request.method,
        # The route's pattern, not the path: the path may hold a secret.
        route=rule and rule.rule,
        status=response.status_code,
        **request.told,
        duration_ms=round(seconds * 1000, 1),
    )
    if request.told and request.method == "POST":
        metrics.count_webhook(counters, request.told, response.status_code, seconds)
    return response


def _explain(error: HTTPException) -> tuple[Response, int]:
    return web.answer({"error": error.name.lower()}), error.code or 500


def _confess(error: Exception) -> tuple[Response, int]:
    # The type and the place, not the text: it may hold an address.
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else None
    log.error("unexpected_error", request_id=web.current().id, error=type(error).__name__, place=place)
    return web.answer({"error": "internal server error"}), 500
