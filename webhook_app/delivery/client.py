"""The one way to Dynamic Yield: an attempt ends in time whatever the other side does, and always in an `Answer`."""

import http.client
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import requests

from webhook_app.delivery import Answer, Call, Outcome, answers, punctual
from webhook_app.delivery.punctual import PunctualAdapter, TooLong

#: Bytes. Dynamic Yield's answers are under one KiB; what is longer is somebody else's.
BODY_LIMIT = 64 * 1024
#: Seconds. Load balancers hang up after 60, and some gateways forget a silent connection without telling us.
IDLE_LIMIT = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. A read timeout alone ends no attempt: a byte every nine seconds would keep it alive for ever."""

    connect: float = 5.0
    #: Between two pieces of an answer.
    read: float = 10.0
    #: From the first step to the last byte.
    total: float = 15.0


class Client:
    """Sends calls to Dynamic Yield, each thread over its own kept-alive connection.

    `base` is scheme and host; `ca_file` replaces the usual certificate authorities.
    """

    def __init__(
        self,
        base: str,
        api_key: str,
        *,
        timeouts: Timeouts = Timeouts(),
        ca_file: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._base = base.rstrip("/")
        self._api_key = api_key
        self._timeouts = timeouts
        self._ca_file = ca_file
        self._now = now
        self._of_thread = threading.local()
        self._lanes: list[_Lane] = []

    @property
    def encrypted(self) -> bool:
        return self._base.startswith("https:")

    def send(self, call: Call) -> Answer:
        """Make one attempt. Never raises: what went wrong is an answer, too."""
        try:
            return self._attempt(call)
        except Exception as error:
            return _failure(error)

    def close(self) -> None:
        """Close the connections of all threads. Threads that still send open new ones."""
        for lane in self._lanes:
            lane.adapter.close()

    def _attempt(self, call: Call) -> Answer:
        lane, now = self._lane(), time.monotonic()
        punctual.begin(self._timeouts.total)
        if now - lane.used_at > IDLE_LIMIT:
            lane.adapter.close()
        lane.used_at = now
        response = lane.adapter.send(
            lane.prepare(call),
            # The body is read below, up to a limit.
            stream=True,
            timeout=(self._timeouts.connect, self._timeouts.read),
            verify=self._ca_file or True,
        )
        try:
            body = _read_body(response)
        finally:
            # Goes back to the pool if it was read to its end, else the connection is closed.
            response.close()
        private = (*call.private, self._api_key)
        return answers.read(response.status_code, response.headers, body, private=private, now=self._now())

    def _lane(self) -> "_Lane":
        lane: _Lane | None = getattr(self._of_thread, "lane", None)
        if lane is None:
            lane = self._of_thread.lane = _Lane(base=self._base, headers=self._headers())
            self._lanes.append(lane)
        return lane

    def _headers(self) -> dict[str, str]:
        return {
            "DY-API-Key": self._api_key,
            "Content-Type": "application/json",
            "Accept": "application/json",
            # A compressed answer could be small on the wire and huge in memory.
            "Accept-Encoding": "identity",
            "User-Agent": "esp-webhook-receiver",
        }


@dataclass(slots=True, kw_only=True)
class _Lane:
    """What a thread keeps between its calls: the connection, and a prepared request for each path.

    An adapter without a session around it: no cookies, no redirects, no proxies or `.netrc` from the environment.
    """

    base: str
    headers: dict[str, str]
    adapter: PunctualAdapter = field(default_factory=PunctualAdapter)
    #: On the monotonic clock.
    used_at: float = -math.inf
    prepared: dict[tuple[str, str], requests.PreparedRequest] = field(default_factory=dict)

    def prepare(self, call: Call) -> requests.PreparedRequest:
        # Preparing takes a third of a call's time, and only the body differs from call to call.
        request = self.prepared.get((call.method, call.path))
        if request is None:
            request = requests.Request(call.method, self.base + call.path, headers=self.headers).prepare()
            self.prepared[call.method, call.path] = request
        request.body = call.body
        request.headers["Content-Length"] = str(len(call.body))
        return request


def _read_body(response: requests.Response) -> bytes | None:
    """The body, or None where it breaks off, takes too long or is too long: the status is known all the same."""
    try:
        body: bytes = response.raw.read(BODY_LIMIT + 1, decode_content=True)
    except Exception:
        return None
    return body if len(body) <= BODY_LIMIT else None


#: What went wrong instead of an answer → slug and sentence. The first row that fits any cause counts.
FAILURES: tuple[tuple[type[BaseException], str, str], ...] = (
    (TooLong, "answer_too_long", "the answer is longer than anything Dynamic Yield sends"),
    (socket.gaierror, "dns", "the host name was not found"),
    (ssl.SSLCertVerificationError, "tls", "the host's certificate is not valid for it"),
    (ssl.SSLError, "tls", "no TLS connection came about"),
    (TimeoutError, "timeout", "no answer in time"),
    (ConnectionRefusedError, "connection_refused", "nothing listens at the host"),
    (ConnectionError, "connection_lost", "the connection broke off"),
    (http.client.IncompleteRead, "connection_lost", "the connection broke off"),
    (http.client.HTTPException, "not_http", "the answer is not HTTP"),
    (OSError, "network", "the host cannot be reached"),
)


def _failure(error: Exception) -> Answer:
    # Only our own words: an exception's text may hold the URL, the headers or a part of the answer.
    causes = list(_causes(error))
    # What requests raises is an OSError too, and says less than what lies beneath.
    telling = [cause for cause in causes if not isinstance(cause, requests.RequestException)]
    for kind, reason, message in FAILURES:
        if any(isinstance(cause, kind) for cause in telling):
            return Answer(outcome=Outcome.RETRY, reason=reason, message=message)
    names = " < ".join(type(cause).__name__ for cause in causes)
    return Answer(outcome=Outcome.RETRY, reason="unexpected", message=f"could not be sent: {names}")


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
