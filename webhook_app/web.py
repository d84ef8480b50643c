"""Flask, as this product uses it: every request has an id, and nothing is done that no request of ours needs."""

import random
import re
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import flask
import orjson
from flask.ctx import RequestContext
from flask.globals import request_ctx
from flask.sessions import NullSession, SessionInterface
from werkzeug.datastructures import Headers
from werkzeug.routing import MapAdapter, Rule

_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


class Request(flask.Request):
    """Numbered and timed. Whoever learns something of it that the log and the metrics should know writes it down."""

    def __init__(self, environ: dict[str, Any], *arguments: Any, **options: Any) -> None:
        super().__init__(environ, *arguments, **options)
        #: On the clock of `time.perf_counter`.
        self.began = time.perf_counter()
        given = environ.get("HTTP_X_REQUEST_ID")
        #: The sender's own, or one of ours. Nobody's secret: it need not be hard to guess.
        self.id = given if given and _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        #: Of a webhook: `provider`, what became of its events, and `reason` where it was refused.
        self.told: dict[str, Any] = {}


def current() -> Request:
    """The request that is being served, itself and not Flask's stand-in, which looks it up anew at each use."""
    request: Request = flask.request._get_current_object()  # type: ignore[attr-defined]
    return request


class Answer(flask.Response):
    """A short answer that goes nowhere else: nothing in its headers is left to be worked out."""

    def get_wsgi_headers(self, environ: dict[str, Any]) -> Headers:
        return self.headers


def answer(fields: Mapping[str, Any]) -> flask.Response:
    """What a program reads, as JSON."""
    return Answer(
        orjson.dumps(fields, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE), content_type="application/json"
    )


class NoSessions(SessionInterface):
    """Every request has one and the same empty session, which nothing can be written to."""

    nobody = NullSession()

    def open_session(self, app: flask.Flask, request: flask.Request) -> NullSession:
        return self.nobody


class Context(RequestContext):
    """Of a request. Where its path leads is looked up once for each path without a variable part."""

    app: "Application"

    def match_request(self) -> None:
        request = self.request
        place = request.method, request.path
        if (rule := self.app.fixed_places.get(place)) is not None:
            request.url_rule, request.view_args = rule, {}
            return
        super().match_request()
        if request.url_rule is not None and not request.url_rule.arguments:
            self.app.fixed_places[place] = request.url_rule


class Application(flask.Flask):
    """Leaves out what Flask does for each request and this product never asks for."""

    request_class = Request
    session_interface = NoSessions()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        #: Method and path → rule; no more of them than there are rules without a variable part.
        self.fixed_places: dict[tuple[str, str], Rule] = {}

    def request_context(self, environ: dict[str, Any]) -> Context:
        return Context(self, environ)

    def full_dispatch_request(self) -> flask.Response:
        """The view, and the app's own finishing touch. The console, which has hooks and sessions, takes Flask's way."""
        context = request_ctx._get_current_object()  # type: ignore[attr-defined] # itself, as in `current`
        if context._session is not NoSessions.nobody or context.request.endpoint in self._hooked:
            return super().full_dispatch_request()
        try:
            said = self.dispatch_request()
        except Exception as error:
            said = self.handle_user_exception(error)
        response = self.make_response(said)
        for finish in (*context._after_request_functions, *reversed(self.after_request_funcs[None])):
            response = finish(response)
        return response

    @cached_property
    def _hooked(self) -> frozenset[str | None]:
        """The endpoints that have more around them than the app's finishing touch."""
        hooked = self.url_value_preprocessors.keys() | self.before_request_funcs.keys()
        hooked |= self.after_request_funcs.keys() - {None}
        if None in hooked:
            return frozenset({*self.view_functions, None})
        return frozenset(
            endpoint for endpoint in self.view_functions for name in hooked if endpoint.startswith(f"{name}.")
        )

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        if self.teardown_request_funcs:
            super().do_teardown_request(exc)

    def do_teardown_appcontext(self, exc: BaseException | None = None) -> None:
        if self.teardown_appcontext_funcs:
            super().do_teardown_appcontext(exc)

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """One map of URLs for every host, instead of a look at which host is meant."""
        if request is None:
            return None
        environ = request.environ
        return MapAdapter(
            self.url_map,
            server_name=environ.get("HTTP_HOST", ""),
            script_name=request.root_path,
            subdomain="",
            url_scheme=request.scheme,
            path_info=request.path,
            default_method=request.method,
            query_args=environ.get("QUERY_STRING", ""),
        )

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """No view and no hook of ours is a coroutine."""
        return func
