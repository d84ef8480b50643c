"""What a person sees, under `/console/`; there is none without `CONSOLE_PASSWORD`."""

from collections.abc import Mapping
from datetime import UTC, datetime

from flask import Blueprint, Flask, Response, abort, redirect, render_template, request, session
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from webhook_app.console import access, formatting, pages
from webhook_app.delivery import WireForm
from webhook_app.outbox import Database, OutboxUnavailable, State
from webhook_app.providers import Provider
from webhook_app.settings import Settings

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
MAX_FORM = 64 * 1024  # bytes
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def install(
    app: Flask, *, settings: Settings, database: Database, providers: Mapping[str, Provider], form: WireForm
) -> None:
    """Put the console into the app, if there is a password for it."""
    if not settings.console_password:
        return
    app.session_interface = access.Sessions(
        database, secret_key=settings.secret_key, password=settings.console_password
    )
    app.permanent_session_lifetime = access.SESSION_LIFETIME
    console = Blueprint(
        "console", __name__, url_prefix=access.PREFIX, template_folder="templates", static_folder="static"
    )
    _keep_out(console, access.LoginGuard(database, settings.console_password))
    pages.add(console, pages.Shown(settings=settings, database=database, providers=providers, form=form))
    _say_what_went_wrong(console)
    formatting.add(console)
    app.register_blueprint(console)

    @app.get("/")
    def root() -> ResponseReturnValue:
        return redirect(f"{access.PREFIX}/")


def _keep_out(console: Blueprint, guard: access.LoginGuard) -> None:
    """Everything but the login page and the style sheets needs the password; every form needs its token."""

    @console.before_request
    def admit() -> ResponseReturnValue | None:
        if request.endpoint == "console.static":
            return None
        # Forms here are small. Without a limit, a stranger's upload would be written to disk to look for the token.
        request.max_content_length = MAX_FORM
        access.require_session()
        if request.endpoint != "console.login" and not access.may_enter(guard):
            return redirect(access.login_address(request), code=303)
        if request.method == "POST":
            access.check_form()
        return None

    @console.after_request
    def protect(response: Response) -> Response:
        response.headers.update(HEADERS)
        if request.endpoint != "console.static":
            response.headers["Cache-Control"] = "no-store"
        return response

    @console.route("/login", methods=["GET", "POST"])
    def login() -> ResponseReturnValue:
        wanted = request.values.get("next", "")
        goal = wanted if access.is_local(wanted) else f"{access.PREFIX}/"
        if session.get("in"):
            return redirect(goal, code=303)
        problem = ""
        if request.method == "POST":
            if guard.accepts(request.form.get("password", "")):
                access.log_in()
                return redirect(goal, code=303)
            problem = "That is not the password."
        return render_template("console/login.html", problem=problem, next=wanted), 403 if problem else 200

    @console.post("/logout")
    def logout() -> ResponseReturnValue:
        session.clear()
        return redirect(f"{access.PREFIX}/login", code=303)


def _say_what_went_wrong(console: Blueprint) -> None:
    @console.route("/<path:rest>", methods=["GET", "POST"])
    def nothing_here(rest: str) -> ResponseReturnValue:
        abort(404)

    @console.errorhandler(HTTPException)
    def explain(error: HTTPException) -> Response:
        response = Response(render_template("console/error.html", error=error), status=error.code)
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                response.headers[name] = value
        return response

    @console.errorhandler(OutboxUnavailable)
    def cannot_look(error: OutboxUnavailable) -> ResponseReturnValue:
        return render_template("console/error.html", unavailable=str(error)), 503

    @console.context_processor
    def helpers() -> dict[str, object]:
        return {
            "csrf_token": access.csrf_token,
            "logged_in": "in" in session,
            "now": datetime.now(UTC),
            "State": State,
            "told": session.pop("told", None) if "told" in session else None,
        }
