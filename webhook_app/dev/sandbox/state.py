"""The sandbox's state: what arrived, what became of it, and what goes wrong next."""

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from webhook_app.dev.sandbox.faults import FAULTS
from webhook_app.dev.sandbox.rules import CHANNEL_PATH, EVENTS_PATH, channel, event
from webhook_app.dev.sandbox.wire import WireRequest


def _event_refusal(status: int, message: str) -> tuple[int, Any]:
    return status, {"message": message, "type": "validation_error"}


def _channel_refusal(_status: int, message: str) -> tuple[int, Any]:
    return 400, {"error": {"message": message, "type": "E019"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImitatedApi:
    """One of Dynamic Yield's APIs: where it is, what it takes, and how it says yes and no."""

    path: re.Pattern[str]
    json_headers: tuple[str, ...]
    #: Body → what is wrong with it.
    problems: Callable[[Any], list[str]]
    taken: tuple[int, Any]
    refusal: Callable[[int, str], tuple[int, Any]]


APIS = (
    ImitatedApi(
        path=re.compile(re.escape(EVENTS_PATH)),
        json_headers=("content-type",),
        problems=event,
        taken=(204, None),
        refusal=_event_refusal,
    ),
    ImitatedApi(
        path=CHANNEL_PATH,
        json_headers=("content-type", "accept"),
        problems=channel,
        taken=(202, {"error": None}),
        refusal=_channel_refusal,
    ),
)


@dataclass(slots=True)
class Arrival:
    """One request as it arrived, and what became of it."""

    number: int
    at: float
    request: WireRequest
    #: `taken`, `refused`, or the kind of the fault.
    became: str = "hanging"
    #: None where no answer was sent.
    status: int | None = None

    def shown(self) -> dict[str, Any]:
        try:
            body = orjson.loads(self.request.body)
        except orjson.JSONDecodeError:
            body = self.request.body.decode(errors="replace")
        # The key is a secret also where it opens nothing.
        headers = {name: value for name, value in self.request.headers.items() if name != "dy-api-key"}
        return {
            "number": self.number,
            "at": self.at,
            "method": self.request.method,
            "path": self.request.path,
            "headers": headers,
            "body": body,
            "became": self.became,
            "status": self.status,
        }


@dataclass(slots=True)
class Fault:
    kind: str
    #: How many requests it is for; None: all that come.
    times: int | None = 1
    #: Only for requests whose body holds this text: a firewall that dislikes an address.
    only: str = ""
    options: dict[str, Any] = field(default_factory=dict)


class Sandbox:
    """The state of one stand-in: what arrived and what goes wrong next. `keep` bounds the log in memory."""

    def __init__(self, api_key: str | None = None, *, log_file: Path | None = None, keep: int = 100_000) -> None:
        self.url = ""
        self.latency = 0.0  # seconds
        self.arrivals: deque[Arrival] = deque(maxlen=keep)
        self.counts = {"arrived": 0, "taken": 0, "refused": 0, "faults": 0}
        self._api_key = api_key
        self._effects: deque[Arrival] = deque(maxlen=keep)
        self._faults: deque[Fault] = deque()
        self._log: BinaryIO | None = log_file.open("ab", buffering=0) if log_file else None

    @property
    def received(self) -> list[dict[str, Any]]:
        """Every request to Dynamic Yield's paths, newest last, whatever became of it."""
        return [arrival.shown() for arrival in list(self.arrivals)]

    @property
    def taken(self) -> list[dict[str, Any]]:
        """The bodies that took effect, in that order: the last one about a person is what Dynamic Yield acts by."""
        return [arrival.shown()["body"] for arrival in list(self._effects)]

    def fault(self, kind: str, *, times: int | None = 1, only: str = "", **options: Any) -> None:
        """Let the next `times` requests (whose body holds the text `only`) end in this fault.

        Raises `ValueError` for a kind that does not exist.
        """
        if kind not in FAULTS:
            raise ValueError(f"kind must be one of: {', '.join(FAULTS)}")
        if times is not None and not (isinstance(times, int) and times > 0):
            raise ValueError("times must be a whole number above 0, or null")
        if not isinstance(options.get("status", 500), int):
            raise ValueError("status must be a whole number")
        self._faults.append(Fault(kind, times, only, options))

    def heal(self) -> None:
        self._faults.clear()

    @property
    def faults(self) -> list[dict[str, Any]]:
        return [
            {"kind": fault.kind, "times": fault.times} | ({"only": fault.only} if fault.only else {}) | fault.options
            for fault in list(self._faults)
        ]

    def forget(self) -> None:
        self.arrivals.clear()
        self._effects.clear()
        self.counts = dict.fromkeys(self.counts, 0)

    def close(self) -> None:
        if self._log:
            self._log.close()

    def arrive(self, request: WireRequest) -> Arrival:
        self.counts["arrived"] += 1
        arrival = Arrival(self.counts["arrived"], time.time(), request)
        self.arrivals.append(arrival)
        return arrival

    def take_effect(self, arrival: Arrival) -> None:
        """From now on, Dynamic Yield would act by this request."""
        self._effects.append(arrival)

    def settle(self, arrival: Arrival, became: str, status: int | None) -> None:
        arrival.became, arrival.status = became, status
        if became in ("taken", "warnings"):
            self.take_effect(arrival)
        self.counts[became if became in self.counts else "faults"] += 1
        if self._log:
            self._log.write(orjson.dumps(arrival.shown(), option=orjson.OPT_APPEND_NEWLINE))

    def next_fault(self, request: WireRequest) -> Fault | None:
        fault = next((fault for fault in self._faults if fault.only.encode() in request.body), None)
        if fault and fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self._faults.remove(fault)
        return fault

    def judge(self, request: WireRequest) -> tuple[int, Any]:
        """Status and body of the answer that Dynamic Yield's documentation promises; None for no body."""
        api = next((api for api in APIS if api.path.fullmatch(request.path)), None)
        if api is None:
            return 404, {"message": "no such path", "type": "not_found"}
        if request.method != "POST":
            return 405, {"message": "POST only", "type": "method_not_allowed"}
        given = request.headers.get("dy-api-key")
        if not given or (self._api_key is not None and given != self._api_key):
            return 401, {"error": "401"}
        for name in api.json_headers:
            if request.headers.get(name, "").partition(";")[0].strip() != "application/json":
                return api.refusal(400, f"{name} must be application/json")
        try:
            problems = api.problems(orjson.loads(request.body))
        except orjson.JSONDecodeError:
            return api.refusal(400, "the body is not JSON")
        return api.refusal(422, "; ".join(problems)) if problems else api.taken
