"""The client for Dynamic Yield: an attempt ends in time whatever the other side does, and always in an `Answer`."""

import http.client
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import requests
import urllib3

from webhook_app.delivery import Answer, Call, Outcome, answers
from webhook_app.delivery.deadline import DeadlineThread, GuardedAdapter, TimedAttempt
from webhook_app.egress import DIRECT, Egress, refused_tunnel

#: Bytes. Dynamic Yield's answers are under one KiB; what is longer is somebody else's.
BODY_LIMIT = 64 * 1024
PIECE = 8 * 1024  # bytes read at once
#: Seconds. Load balancers hang up after 60, and some gateways forget a silent connection without telling us.
IDLE_LIMIT = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds."""

    #: To each address of the host, TLS included.
    connect: float = 5.0
    #: Between two pieces of an answer.
    read: float = 10.0
    #: From the first step to the last byte.
    total: float = 15.0


class Client:
    """Sends calls to Dynamic Yield, each thread over its own kept-alive connection. `base` is scheme and host.

    What is over after `timeouts.total` is cut off, whatever it is at, and nothing is sent after that. Only the
    system's resolver, and several addresses that do not answer, can keep the calling thread for longer.
    """

    def __init__(
        self,
        base: str,
        api_key: str,
        *,
        timeouts: Timeouts = Timeouts(),
        egress: Egress = DIRECT,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.timeouts = timeouts
        self._base = base.rstrip("/")
        self._api_key = api_key
        self._egress = egress
        self._now = now
        #: By method and path: only the body differs from call to call, and preparing takes a third of a call's time.
        self._prepared: dict[tuple[str, str], requests.PreparedRequest] = {}
        self._of_thread = threading.local()
        self._connections: list[_Connection] = []
        self._deadlines = DeadlineThread()

    @property
    def encrypted(self) -> bool:
        return self._base.startswith("https:")

    def send(self, call: Call) -> Answer:
        """Make one attempt. Never raises: what went wrong is an answer, too."""
        connection = self._connection()
        connection.attempt.begin(self.timeouts.total)
        try:
            return self._attempt(call, connection)
        except Exception as error:
            # Whatever a connection says that was cut off under it, that is why.
            error = TimeoutError() if connection.attempt.cut else error
            return _failure(error, was_open=not connection.attempt.is_connecting)
        finally:
            connection.attempt.end()

    def close(self) -> None:
        """Close the connections of all threads. Threads that still send open new ones."""
        self._deadlines.stop()
        for connection in self._connections:
            connection.adapter.close()

    def _attempt(self, call: Call, connection: "_Connection") -> Answer:
        limits = self.timeouts
        response = connection.fresh_adapter().send(
            self._prepare(call),
            # The body is read below, up to a limit.
            stream=True,
            timeout=urllib3.Timeout(  # type: ignore[arg-type] # documented, and not in the stubs
                connect=limits.connect, read=limits.read, total=limits.total
            ),
            verify=self._egress.verify,
            proxies=self._egress.proxies,
        )
        try:
            # The headers may look whole because they were cut off.
            connection.attempt.check()
            # Behind an interim answer (103, `http.client` takes it for the last) the real one follows. Unread, so that
            # the connection is closed: the next change on it would be told the answer to this one.
            body = None if response.status_code < 200 else _read_body(response, connection.attempt)
        finally:
            # Goes back to the pool if it was read to its end, else the connection is closed.
            response.close()
        private = (*call.private, self._api_key)
        return answers.read_answer(response.status_code, response.headers, body, private=private, now=self._now())

    def _connection(self) -> "_Connection":
        connection: _Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._of_thread.connection = _Connection()
            self._connections.append(connection)
            self._deadlines.watch(connection.attempt)
        return connection

    def _prepare(self, call: Call) -> requests.PreparedRequest:
        prepared = self._prepared.get((call.method, call.path))
        if prepared is None:
            request = requests.Request(call.method, self._base + call.path, headers=self._headers())
            prepared = self._prepared[call.method, call.path] = request.prepare()
        # Threads share what is prepared.
        prepared = prepared.copy()
        prepared.prepare_body(call.body, None)
        return prepared

    def _headers(self) -> dict[str, str]:
        return {
            "DY-API-Key": self._api_key,
            "Content-Type": "application/json",
            "Accept": "application/json",
            # A compressed answer could be small on the wire and huge in memory.
            "Accept-Encoding": "identity",
            "User-Agent": "esp-webhook-receiver",
        }


class _Connection:
    """What a thread keeps between its calls.

    An adapter without a session around it: no cookies, no `.netrc`, and no redirect is even looked at.
    """

    def __init__(self) -> None:
        self.attempt = TimedAttempt()
        self.adapter = GuardedAdapter(self.attempt)
        self._used_at = -math.inf

    def fresh_adapter(self) -> GuardedAdapter:
        now = time.monotonic()
        if now - self._used_at > IDLE_LIMIT:
            self.adapter.close()
        self._used_at = now
        return self.adapter


def _read_body(response: requests.Response, attempt: TimedAttempt) -> bytes | None:
    """The body, or None where it breaks off, takes too long or is too long: the status is known all the same."""
    body = b""
    try:
        while piece := response.raw.read1(PIECE, decode_content=True):
            body += piece
            if len(body) > BODY_LIMIT:
                return None
            attempt.check()
        attempt.check()
    except Exception:
        return None
    return body if body or _says_where_it_ends(response) else None


def _says_where_it_ends(response: requests.Response) -> bool:
    """False where an empty body may as well be a connection that broke off within the headers."""
    headers = response.headers
    framed = "Content-Length" in headers or "Transfer-Encoding" in headers
    return framed or response.status_code in (204, 304) or "close" in headers.get("Connection", "").lower()


#: What went wrong instead of an answer → slug and sentence. The first row that fits any cause counts.
FAILURES: tuple[tuple[type[BaseException], str, str], ...] = (
    (urllib3.exceptions.ProxyError, "proxy", "the proxy cannot be reached; look at EGRESS_PROXY"),
    (socket.gaierror, "dns", "the host name was not found"),
    (ssl.SSLCertVerificationError, "tls", "the host's certificate is not valid for it"),
    (ssl.SSLError, "tls", "TLS failed"),
    (TimeoutError, "timeout", "no answer in time"),
    (ConnectionRefusedError, "connection_refused", "nothing listens at the host"),
    (ConnectionError, "connection_lost", "the connection broke off"),
    (http.client.IncompleteRead, "connection_lost", "the connection broke off"),
    (http.client.HTTPException, "not_http", "the answer is not HTTP"),
    (urllib3.exceptions.InvalidHeader, "not_http", "the answer is not HTTP"),
    (OSError, "network", "the host cannot be reached"),
)

#: Causes that leave no doubt that nothing was sent.
NOT_SENT = (
    urllib3.exceptions.ProxyError,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
)


def _failure(error: Exception, *, was_open: bool) -> Answer:
    """`was_open`: whether the connection was, so that the request may have been sent."""
    # Only our own words: an exception's text may hold the URL, the headers or a part of the answer.
    causes = list(_causes(error))
    for cause in causes:
        if status := refused_tunnel(cause):
            return answers.of_proxy(status)
    # TLS may also fail while the answer is read.
    not_sent = NOT_SENT if was_open else (*NOT_SENT, urllib3.exceptions.SSLError)
    lost = not any(isinstance(cause, not_sent) for cause in causes)
    # What requests raises is an OSError too, and says less than what lies beneath.
    telling = [cause for cause in causes if not isinstance(cause, requests.RequestException)]
    for kind, reason, message in FAILURES:
        if any(isinstance(cause, kind) for cause in telling):
            return Answer(outcome=Outcome.RETRY, reason=reason, message=message, lost=lost)
    names = " < ".join(type(cause).__name__ for cause in causes)
    return Answer(outcome=Outcome.RETRY, reason="unexpected", message=f"could not be sent: {names}", lost=lost)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that lies beneath; requests and urllib3 wrap the real one up to three times."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        beneath = (cause.__cause__, cause.__context__, *cause.args)
        waiting += [one for one in beneath if isinstance(one, BaseException)]
