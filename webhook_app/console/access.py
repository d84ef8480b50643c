"""Who may see the console: a password, by a login page or HTTP Basic; guesses are limited, forms cannot be forged."""

import hmac
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Request, request, session
from flask.sessions import NullSession, SecureCookieSessionInterface, SessionMixin
from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import and_, case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import BadRequest, TooManyRequests, Unauthorized

from webhook_app.auth import matches_any
from webhook_app.outbox import Database, OutboxUnavailable
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.tables import login_failures
from webhook_app.outbox.times import seconds_to_micros
from webhook_app.web import NoSessions

PREFIX = "/console"
SESSION_LIFETIME = timedelta(hours=12)

WINDOW = 15 * 60  # seconds
#: Wrong passwords within a window after which no further one is looked at.
FAILURES_PER_CALLER = 10
FAILURES_OF_ALL = 100
_ALL = "all"


class Sessions(SecureCookieSessionInterface):
    """Signed cookies of the console; no other route opens a session.

    The key is `SECRET_KEY`, or else one that every web process finds in the database. The password is part of it, so
    changing the password logs everybody out. It is never the password alone: the login page gives a signed cookie to
    anybody, and whoever had one could try out passwords on it at home.
    """

    def __init__(self, database: Database, *, secret_key: str, password: str) -> None:
        self._database = database
        self._secret_key = secret_key.encode()
        self._password = password.encode()
        self._derived = b""

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        if not self._derived:
            key = self._secret_key or load_hasher(self._database).key
            self._derived = hmac.digest(key, b"console session\0" + self._password, "sha256")
        return URLSafeTimedSerializer(
            self._derived,
            salt=self.salt,
            serializer=self.serializer,
            signer_kwargs={"key_derivation": self.key_derivation, "digest_method": self.digest_method},
        )

    def open_session(self, app: Flask, request: Request) -> Any:
        if not request.path.startswith(f"{PREFIX}/"):
            return NoSessions.nobody
        try:
            return super().open_session(app, request)
        except OutboxUnavailable:
            return None  # the console's first look at the database will say so, in words

    def save_session(self, app: Flask, session: SessionMixin, response: Any) -> None:
        if request.path.startswith(f"{PREFIX}/"):
            super().save_session(app, session, response)

    def get_cookie_name(self, app: Flask) -> str:
        return "console"

    def get_cookie_path(self, app: Flask) -> str:
        return PREFIX

    def get_cookie_samesite(self, app: Flask) -> str:
        # Not Strict: a link from a chat to an event should open it, and forms carry a token of their own.
        return "Lax"

    def get_cookie_secure(self, app: Flask) -> bool:
        # Behind a router that ends TLS the header says so. Whoever forges it only keeps a cookie from themselves.
        return request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"


class LoginGuard:
    """Counts wrong passwords in the database, so that the limit holds for all web processes together.

    Guesses that are under way at the same moment may all be looked at: the limit is exceeded by as many as there are
    threads, once a window. `clock` gives seconds since 1970.
    """

    def __init__(self, database: Database, password: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._password = password.encode()
        self._clock = clock

    def _is_blocked(self) -> bool:
        known = or_(
            and_(login_failures.c.caller == self._caller(), login_failures.c.failures >= FAILURES_PER_CALLER),
            and_(login_failures.c.caller == _ALL, login_failures.c.failures >= FAILURES_OF_ALL),
        )
        with self._database.read() as connection:
            query = select(login_failures.c.caller).where(known, login_failures.c.began_at > self._window_began())
            return connection.execute(query).first() is not None

    def accepts(self, given: str) -> bool:
        """Whether it is the password; a wrong one is counted.

        Raises `TooManyRequests`, whatever the password, after too many wrong ones, and `OutboxUnavailable`.
        """
        if self._is_blocked():
            raise TooManyRequests(f"Too many wrong passwords. Try again in {WINDOW // 60} minutes.", retry_after=WINDOW)
        if matches_any(given.encode("utf-8", "replace"), [self._password]):
            return True
        began = self._window_began()
        over = login_failures.c.began_at <= began
        row = {"began_at": seconds_to_micros(self._clock()), "failures": 1}
        insert: Any = sqlite.insert if self._database.dialect == "sqlite" else postgresql.insert
        # One statement: two guesses at once count as two.
        count = insert(login_failures).on_conflict_do_update(
            index_elements=["caller"],
            set_={
                "began_at": case((over, row["began_at"]), else_=login_failures.c.began_at),
                "failures": case((over, 1), else_=login_failures.c.failures + 1),
            },
        )
        with self._database.write() as connection:
            # Always in this order: on PostgreSQL two failures at once would deadlock otherwise.
            for caller in (_ALL, self._caller()):
                connection.execute(count, row | {"caller": caller})
            connection.execute(delete(login_failures).where(over, login_failures.c.caller != _ALL))
        return False

    def _caller(self) -> str:
        """A keyed hash of the network address. The last hop's word counts: a router in front of us wrote it.

        Without one the caller may write the header as they like, and meets the limit of all callers together.
        """
        address = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip() or request.remote_addr or ""
        key = load_hasher(self._database).key
        return hmac.digest(key, b"caller\0" + address.encode("utf-8", "replace"), "sha256").hex()

    def _window_began(self) -> int:
        return seconds_to_micros(self._clock() - WINDOW)


def require_session() -> None:
    """Raises `OutboxUnavailable` where the key of the sessions could not be read."""
    if isinstance(session._get_current_object(), NullSession):  # type: ignore[attr-defined] # werkzeug's LocalProxy
        raise OutboxUnavailable("the key of the sessions could not be read")


def may_enter(guard: LoginGuard) -> bool:
    """By the session, or by HTTP Basic with any user name.

    Raises `Unauthorized` for a wrong password, `TooManyRequests` after too many of them.
    """
    if session.get("in"):
        return True
    basic = request.authorization
    if basic is None or basic.type != "basic":
        return False
    if not guard.accepts(basic.password or ""):
        raise Unauthorized("That is not the password.", www_authenticate=WWWAuthenticate("basic", {"realm": "console"}))
    return True


def login_address(wanted: Request) -> str:
    """Where to log in, and then go on to what was wanted."""
    path = wanted.full_path.removesuffix("?")
    if wanted.method != "GET" or path == f"{PREFIX}/":
        return f"{PREFIX}/login"
    return f"{PREFIX}/login?{urlencode({'next': path})}"


class Forged(BadRequest):
    description = "This form is not from here, or from before you logged in. Go back, load the page again, and retry."


def csrf_token() -> str:
    """The session's token: a form that does not bring it was made by somebody else."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    token: str = session["csrf"]
    return token


def check_form() -> None:
    """Raises `Forged`, also for HTTP Basic: browsers add that to a forged form by themselves."""
    expected = session.get("csrf", "")
    given = request.form.get("csrf", "")
    if not expected or not matches_any(given.encode("utf-8", "replace"), [expected.encode()]):
        raise Forged


def log_in() -> None:
    # A new token: whoever knew the one from before the login must not know this one.
    session.clear()
    session["in"] = True
    session.permanent = True


def is_local(path: str) -> bool:
    """Whether a path to go to after the login stays within the console; `//evil.example` would not."""
    return path.startswith(f"{PREFIX}/") and "\\" not in path and "//" not in path and path.isprintable()
