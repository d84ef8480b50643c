"""The client of an ESP's API: waits where it is asked to, tries again what may pass, and never for ever."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import requests
import structlog
from requests.auth import AuthBase
from werkzeug.http import parse_date

from webhook_app.egress import DIRECT

TIMEOUT = (5.0, 60.0)  # seconds: to connect, between two pieces of an answer
LONGEST_ANSWER = 120.0  # seconds
LARGEST_ANSWER = 128 << 20  # bytes; a list that comes whole has a hundred for each person
PIECE = 1 << 16  # bytes
TRIES = 5
BACKOFF = 1.0  # seconds before the second try; doubled for each further one
#: Seconds. The windows of ESPs' rate limits last a minute; a longer wish is a wrong clock, theirs or ours.
LONGEST_WAIT = 90.0

log = structlog.get_logger()


class ApiError(Exception):
    """An ESP's API did not do what it was asked to. The text is for a person, `reason` for logs."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Headers(AuthBase):
    """An API key in a header."""

    def __init__(self, **headers: str) -> None:
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


@dataclass(slots=True, kw_only=True)
class Api:
    """One account at an ESP. `sleep` waits so many seconds; what it raises ends the call."""

    #: How the ESP is called, and the variable that holds its key.
    title: str
    variable: str
    #: Scheme, host and port; never from an answer.
    base: str
    auth: AuthBase = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Beginning of a path → what a key has to be allowed, as the ESP's page calls it.
    permissions: Mapping[str, str] = field(default_factory=dict)
    #: Seconds between two requests, where the ESP wants that.
    pause: float = 0.0
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.time
    session: requests.Session = field(default_factory=DIRECT.session, repr=False)

    def get(self, path: str, **query: Any) -> Any:
        return self.ask("GET", path, query=query)

    def ask(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, json: Any = None, form: Any = None
    ) -> Any:
        """The answer's JSON, None where it is empty. Raises `ApiError`."""
        for attempt in range(1, TRIES + 1):
            try:
                # A redirect would carry the key to another host.
                with self.session.request(
                    method,
                    self.base + path,
                    params=query,
                    json=json,
                    data=form,
                    auth=self.auth,
                    headers={"User-Agent": "esp-webhook-receiver", "Accept": "application/json", **self.headers},
                    timeout=TIMEOUT,
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    content = self._content(response)
            except requests.RequestException as error:
                wait, problem = self._backoff(attempt), f"cannot be reached ({type(error).__name__})"
                may_have_happened = not isinstance(error, requests.ConnectTimeout)
            else:
                if response.status_code < 300:
                    self._slow_down(response)
                    return self._parsed(content, path)
                if response.status_code != 429 and response.status_code < 500:
                    raise self.refusal(response.status_code, content, path)
                wait, problem = self._wait_after(response, attempt), f"answers {response.status_code}"
                may_have_happened = response.status_code != 429
            # A second webhook would deliver everything twice; the person looks, and runs the command again.
            if attempt == TRIES or (method == "POST" and may_have_happened):
                break
            log.info("esp_api_busy", esp=self.title, problem=problem, wait_seconds=round(wait, 1))
            self.sleep(wait)
        raise ApiError("unavailable", f"{self.title}'s API {problem}: try again later ({self.base}{path})")

    def refusal(self, status: int, content: bytes, path: str) -> ApiError:
        """Why it was refused. An ESP that says it better than by the status may have a method of its own."""
        needed = next((needed for start, needed in self.permissions.items() if path.startswith(start)), "")
        match status:
            case 401 | 403:
                needs = f"; it needs: {needed}" if needed else ""
                return ApiError(
                    "key_refused",
                    f"{self.title} refuses {self.variable} at {self.base} with {status}: is it whole, alive, of this "
                    f"region and of the right account?{needs}",
                )
            case 404:
                return ApiError(
                    "not_found",
                    f"{self.title} knows no {path} in the account of {self.variable}: is it of another account?",
                )
        return ApiError("refused", f"{self.title} refused {path} with {status}")

    def unexpected(self, what: str) -> ApiError:
        return ApiError("unexpected_answer", f"{self.title}'s answer {what}")

    def _content(self, response: requests.Response) -> bytes:
        content, deadline = bytearray(), time.monotonic() + LONGEST_ANSWER
        for piece in response.iter_content(PIECE):
            content += piece
            if len(content) > LARGEST_ANSWER or time.monotonic() > deadline:
                raise self.unexpected("does not end")
        return bytes(content)

    def _parsed(self, content: bytes, path: str) -> Any:
        if not content:
            return None
        try:
            return orjson.loads(content)
        except ValueError:
            raise ApiError(
                "unexpected_answer",
                f"what answers at {self.base}{path} is not {self.title}'s API: is there a proxy?",
            ) from None

    def _backoff(self, attempt: int) -> float:
        return BACKOFF * 2.0 ** (attempt - 1)

    def _wait_after(self, response: requests.Response, attempt: int) -> float:
        if response.status_code not in (429, 503):
            return self._backoff(attempt)
        # A time that has passed comes from a clock that goes wrong: go on slowly then.
        return min(max(self._wished(response), self._backoff(attempt)), LONGEST_WAIT)

    def _wished(self, response: requests.Response) -> float:
        """How long it wants us to wait, in seconds, by whichever header it says it."""
        after, reset = response.headers.get("Retry-After", ""), response.headers.get("X-RateLimit-Reset", "")
        try:
            if after.isdecimal():
                return float(after)
            if moment := parse_date(after):
                return moment.timestamp() - self.clock()
            return float(reset) - self.clock() if reset else 0.0
        except (ValueError, OverflowError):
            return 0.0

    def _slow_down(self, response: requests.Response) -> None:
        """The last request of a window was answered: wait for the next window instead of running into a 429."""
        seconds = self.pause
        if response.headers.get("X-RateLimit-Remaining") == "0":
            seconds = max(seconds, self._wished(response))
        if seconds > 0:
            self.sleep(min(seconds, LONGEST_WAIT))
