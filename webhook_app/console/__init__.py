"""The console: what a person sees, under `/console/`. There is none without `CONSOLE_PASSWORD` or `CONSOLE_USERS`.

It is a Flask app of its own: its sessions, its CSRF protection and its headers touch no webhook.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from flask import Flask, Response, abort, g, redirect, render_template, request, session
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.middleware.proxy_fix import ProxyFix

from webhook_app.console import access, formatting, pages
from webhook_app.console.page_context import PageContext
from webhook_app.delivery.section_conditions import conditions
from webhook_app.delivery.sections import Section
from webhook_app.outbox import Database, OutboxUnavailable, State
from webhook_app.outbox.settling import KEPT_ATTEMPTS
from webhook_app.providers.registry import Providers
from webhook_app.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = structlog.get_logger()

#: Where the receiver's app mounts it.
PREFIX = "/console"

#: Nothing from elsewhere, no inline script or style, in nobody's frame, no form that leads away.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
CONFIG = {
    # Forms here are small. Without a limit, a stranger's upload would be written to disk to look for the token.
    "MAX_CONTENT_LENGTH": 64 * 1024,  # bytes
    "PERMANENT_SESSION_LIFETIME": access.SESSION_LIFETIME,
    "SESSION_COOKIE_NAME": "console",
    "SESSION_COOKIE_PATH": PREFIX,
    # Not Strict: a link from a chat to an event should open it, and forms carry a token of their own.
    "SESSION_COOKIE_SAMESITE": "Lax",
    "WTF_CSRF_FIELD_NAME": "csrf",
    # As long as the session: a page that stood open over lunch still works.
    "WTF_CSRF_TIME_LIMIT": None,
    # It looks at the Referer, which our own policy keeps browsers from sending. The token is enough.
    "WTF_CSRF_SSL_STRICT": False,
}


def create_console(
    *,
    settings: Settings,
    database: Database,
    providers: Providers,
    sections: Mapping[str, Section],
) -> "WSGIApplication":
    """The console as a WSGI application to mount at `PREFIX`."""
    context = PageContext(
        settings=settings,
        database=database,
        providers=providers,
        # By which a change is shown that was not sent yet.
        form=next(iter(sections.values())).form,
        destinations=tuple(section.base for section in sections.values()),
        sections=tuple(sections),
        conditions=conditions(sections),
    )
    console = Flask(__name__)
    console.config |= CONFIG
    console.session_interface = access.Sessions()
    _log_requests(console)
    CSRFProtect(console)
    _admit_only_who_logged_in(console, access.LoginGuard(database, settings))
    pages.add(console, context)
    _add_error_pages(console)
    formatting.add(console)
    # Behind a router that ends TLS, its headers tell the scheme and the caller. Whoever forges them only keeps a cookie
    # from themselves, and meets the login's limit for all callers together.
    return ProxyFix(_with_secret_key(console, settings, database), x_for=1, x_proto=1)


def _with_secret_key(console: Flask, settings: Settings, database: Database) -> "WSGIApplication":
    """Set the key of the sessions when the first request comes: it may stand in the database, which may be down."""

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not console.secret_key:
            try:
                console.secret_key = access.session_key(settings, database)
            except OutboxUnavailable:
                with console.app_context():
                    page = Response("The database cannot be used now. Try again in a moment.\n", 503, HEADERS)
                return page(environ, start_response)
        return console.wsgi_app(environ, start_response)

    return application


def _log_requests(console: Flask) -> None:
    @console.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @console.after_request
    def log_request(response: Response) -> Response:
        # The route's pattern, not the path: that may hold what a person looked for.
        route = PREFIX + request.url_rule.rule if request.url_rule else None
        duration = round((time.perf_counter() - g.began) * 1000, 1)
        log.info("request", method=request.method, route=route, status=response.status_code, duration_ms=duration)
        return response


def _admit_only_who_logged_in(console: Flask, guard: access.LoginGuard) -> None:
    """Everything but the login page and the style sheets needs a login."""

    @console.before_request
    def admit() -> ResponseReturnValue | None:
        if request.endpoint in ("static", "login") or access.is_logged_in(guard):
            return None
        return redirect(access.login_address(), code=303)

    @console.after_request
    def protect(response: Response) -> Response:
        response.headers.update(HEADERS)
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return response

    @console.route("/login", methods=["GET", "POST"])
    def login() -> ResponseReturnValue:
        wanted = request.values.get("next", "")
        goal = wanted if access.is_local(wanted) else f"{PREFIX}/"
        if "user" in session:
            return redirect(goal, code=303)
        problem = ""
        if request.method == "POST":
            user = guard.user(request.form.get("name", ""), request.form.get("password", ""))
            if user is not None:
                access.log_in(user)
                return redirect(goal, code=303)
            problem = access.WRONG
        page = render_template("login.html", problem=problem, next=wanted, asks_for_name=guard.asks_for_name)
        return page, 403 if problem else 200

    @console.post("/logout")
    def logout() -> ResponseReturnValue:
        session.clear()
        return redirect(f"{PREFIX}/login", code=303)


def _add_error_pages(console: Flask) -> None:
    @console.route("/<path:rest>", methods=["GET", "POST"])
    def nothing_here(rest: str) -> ResponseReturnValue:
        abort(404)

    @console.errorhandler(CSRFError)
    def forged(_error: CSRFError) -> ResponseReturnValue:
        return http_error(access.Forged())

    @console.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = Response(render_template("error.html", error=error), status=error.code)
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                response.headers[name] = value
        return response

    @console.errorhandler(Exception)
    def unexpected_error(error: Exception) -> ResponseReturnValue:
        log.error("unexpected_error", exc_info=error)
        return http_error(InternalServerError())

    @console.errorhandler(OutboxUnavailable)
    def outbox_unavailable(error: OutboxUnavailable) -> ResponseReturnValue:
        return render_template("error.html", unavailable=str(error)), 503

    @console.context_processor
    def helpers() -> dict[str, object]:
        return {
            "user": session.get("user"),
            "now": datetime.now(UTC),
            "State": State,
            "KEPT_ATTEMPTS": KEPT_ATTEMPTS,
            "notice": session.pop("notice", None) if "notice" in session else None,
        }
