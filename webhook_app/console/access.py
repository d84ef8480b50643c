"""Who may see the console: by a login page or HTTP Basic; guesses are limited."""

import hmac
import time
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlencode

from flask import Flask, g, request, session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import BadRequest, TooManyRequests, Unauthorized

from webhook_app.auth import matches_any
from webhook_app.outbox import Database
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.login_failures import WINDOW, LoginFailures
from webhook_app.settings import Settings

SESSION_LIFETIME = timedelta(hours=12)

WRONG = "That is not the password."


class Sessions(SecureCookieSessionInterface):
    """Flask's signed cookies, secure wherever the request was."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def session_key(settings: Settings, database: Database) -> bytes:
    """The key that signs the sessions: `SECRET_KEY`, or else one that every web process finds in the database.

    The passwords are part of it, so that changing one logs everybody out. They are never all of it: the login page
    gives a signed cookie to anybody, and whoever had one could try out passwords on it at home.

    Raises `OutboxUnavailable`.
    """
    key = settings.secret_key.encode() or load_hasher(database).key
    passwords = [settings.console_password.encode(), *settings.console_users]
    return hmac.digest(key, b"console session\0" + b"\0".join(passwords), "sha256")


class LoginGuard:
    """Checks names and passwords, and none at all after too many wrong ones. `clock` gives seconds since 1970."""

    def __init__(self, database: Database, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._failures = LoginFailures(database, clock=clock)
        self._password = settings.console_password.encode()
        self._users = settings.console_users

    @property
    def asks_for_name(self) -> bool:
        return bool(self._users)

    def user(self, name: str, password: str) -> str | None:
        """Whose name and password these are: empty for `CONSOLE_PASSWORD`, which is nobody's own.

        None, and counted, where they are nobody's. Raises `TooManyRequests`, whatever the password, after too many
        wrong ones, and `OutboxUnavailable`.
        """
        caller = request.remote_addr or ""
        if self._failures.is_blocked(caller):
            raise TooManyRequests(f"Too many wrong passwords. Try again in {WINDOW // 60} minutes.", retry_after=WINDOW)
        if matches_any(f"{name}:{password}".encode("utf-8", "replace"), self._users):
            return name
        if self._password and matches_any(password.encode("utf-8", "replace"), [self._password]):
            return ""
        self._failures.count(caller)
        return None


def is_logged_in(guard: LoginGuard) -> bool:
    """By the session, or by HTTP Basic.

    Raises `Unauthorized` for a wrong password, `TooManyRequests` after too many of them.
    """
    if "user" in session:
        return True
    basic = request.authorization
    if basic is None or basic.type != "basic":
        return False
    user = guard.user(basic.username or "", basic.password or "")
    if user is None:
        raise Unauthorized(WRONG, www_authenticate=WWWAuthenticate("basic", {"realm": "console"}))
    g.console_user = user
    return True


def user() -> str:
    """Who is logged in, for the journal.

    Only a name that was proven: with `CONSOLE_PASSWORD`, HTTP Basic may come with anybody's.
    """
    name: str = session.get("user") or g.get("console_user", "")
    return f"console ({name})" if name else "console"


def login_address() -> str:
    """Where to log in, and then go on to what was wanted."""
    home, path = f"{request.script_root}/", request.script_root + request.full_path.removesuffix("?")
    if request.method != "GET" or path == home:
        return f"{home}login"
    return f"{home}login?{urlencode({'next': path})}"


class Forged(BadRequest):
    description = "This form is not from here, or from before you logged in. Go back, load the page again, and retry."


def log_in(user: str) -> None:
    # With a new CSRF token: whoever knew the one from before the login must not know this one.
    session.clear()
    session["user"] = user
    session.permanent = True


def is_local(path: str) -> bool:
    """Whether a path to go to after the login stays within the console; `//evil.example` would not."""
    inside = path.startswith(f"{request.script_root}/")
    return inside and "\\" not in path and "//" not in path and path.isprintable()
