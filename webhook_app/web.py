"""Flask as this product sets it up: numbered requests, JSON by orjson, one form for every error."""

import random
import re
import time
from collections.abc import Mapping
from typing import Any

import flask
import orjson
import structlog
from flask.json.provider import JSONProvider
from werkzeug.exceptions import HTTPException

from webhook_app.webhook_result import WebhookResult

log = structlog.get_logger()

_SLASHES = re.compile("/{2,}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


class Request(flask.Request):
    """Numbered and timed; a doubled slash in its path counts once."""

    #: What became of it, where it is a webhook: log line and metrics are made of that.
    webhook: WebhookResult | None = None

    def __init__(self, environ: dict[str, Any], *arguments: Any, **options: Any) -> None:
        # `https://host/` and `/webhooks/…` put together by hand. Flask would redirect, and no ESP follows a redirect.
        if "//" in (path := environ.get("PATH_INFO", "")):
            environ["PATH_INFO"] = _SLASHES.sub("/", path)
        super().__init__(environ, *arguments, **options)
        #: On the clock of `time.perf_counter`.
        self.began = time.perf_counter()
        given = environ.get("HTTP_X_REQUEST_ID")
        #: The sender's own, or one of ours. Nobody's secret: it need not be hard to guess.
        self.id = given if given and _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def to_json(obj: Any) -> bytes:
    """The one form in which this product answers with JSON: keys in order, a line's end behind it."""
    return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


class OrjsonProvider(JSONProvider):
    """https://flask.palletsprojects.com/en/stable/api/#flask.json.provider.JSONProvider"""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return to_json(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return orjson.loads(s)


def configure(app: flask.Flask) -> None:
    """Customize a Flask app in the ways that its documentation names."""
    app.request_class = Request
    app.json = OrjsonProvider(app)
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_unexpected_error)


def current() -> Request:
    """The request that is being served: itself, for each look through Flask's stand-in finds it anew.

    https://werkzeug.palletsprojects.com/en/stable/wrappers/#werkzeug.wrappers.Request (`populate_request`)
    """
    request: Request = flask.request.environ["werkzeug.request"]
    return request


def answer_http_error(error: HTTPException) -> flask.typing.ResponseReturnValue:
    """The error's own status and headers (`Allow`, `Retry-After` …), with its name as JSON."""
    if error.response is not None or error.code is None or error.code < 400:
        return error.get_response()
    headers = [(name, value) for name, value in error.get_headers() if name != "Content-Type"]
    return {"error": error.name.lower()}, error.code, headers


def answer_unexpected_error(error: Exception) -> flask.typing.ResponseReturnValue:
    log_unexpected_error(error)
    return {"error": "internal server error"}, 500


def log_unexpected_error(error: Exception) -> None:
    """Its type and its place, not its text: that may hold an address."""
    log.error("unexpected_error", request_id=current().id, exc_info=error)


def answer(
    fields: Mapping[str, Any] | None, status: int = 200, headers: Mapping[str, str] | None = None
) -> flask.Response:
    """What a program reads, as JSON; empty where there is nothing to say."""
    if fields is None:
        return flask.Response(status=status, headers=headers)
    return flask.Response(to_json(fields), status, headers, content_type="application/json")
