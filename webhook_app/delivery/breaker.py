"""The circuit breaker of a section: when nothing is sent, and which changes are to blame for a refusal themselves.

Pure: no threads, no clock. Times are seconds of any clock that never goes back; changes are known by their numbers.
"""

import dataclasses
import math
from enum import StrEnum

from webhook_app.delivery import Answer, Outcome
from webhook_app.outbox.pauses import PauseCause

PROBE_EVERY = 30.0  # seconds between two tries while the set-up is wrong
#: So long a single refusal is no pause yet: another change may be taken at once.
DOUBT = 1.0  # seconds
#: A pause that Dynamic Yield asks for (`Retry-After`) is nobody's business unless it is longer.
BRIEF = 60.0  # seconds
#: So often a change is refused while others are taken until it is given up.
BLAME_LIMIT = 6
#: Changes that are remembered for having been refused; the oldest are forgotten.
REMEMBERED = 1000


class BreakerState(StrEnum):
    #: Everything is sent.
    CLOSED = "closed"
    #: Nothing is sent until a moment.
    OPEN = "open"
    #: One change is tried; its answer decides.
    HALF_OPEN = "half_open"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    reason: str
    cause: PauseCause
    until: float
    #: It ends by itself before anybody would have looked at it.
    is_brief: bool = False


class CircuitBreaker:
    """Judges every answer of a section.

    One refusal that blames the set-up proves little: a firewall on the way may dislike an address. So another change
    is tried at once, then less and less often; and a change that is refused while others are taken is to blame itself.
    """

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self._reason = ""
        self._until = -math.inf
        #: Whether the pause is because of a wrong set-up; else Dynamic Yield asked for it.
        self._is_misconfigured = False
        #: Whether all that it asked for was short.
        self._is_brief = True
        self._in_doubt_since = math.inf
        #: Refusals since the last delivery.
        self._refusals = 0
        #: The change that is tried while half open, once there is one.
        self._probe: int | None = None
        #: When the newest of the attempts that ended in a delivery began.
        self._delivered = -math.inf
        #: Change → when it was last refused, and how often that was its own fault.
        self._refused: dict[int, tuple[float, int]] = {}

    def limit(self, now: float) -> int | None:
        """How many changes may be claimed: None for any number. What is claimed as the one must be told to `probe`."""
        if self.state is BreakerState.OPEN and now >= self._until:
            self.state, self._probe = BreakerState.HALF_OPEN, None
        if self.state is BreakerState.CLOSED:
            return None
        return 1 if self.state is BreakerState.HALF_OPEN and self._probe is None else 0

    def probe(self, change: int) -> None:
        """This is the change that is tried."""
        self._probe = change

    def may_begin(self, change: int) -> bool:
        return self.state is BreakerState.CLOSED or (self.state is BreakerState.HALF_OPEN and self._probe == change)

    def handed_back(self, change: int) -> None:
        """It was claimed, and is not sent after all."""
        if self._probe == change:
            self._probe = None

    def pause(self, now: float) -> Pause | None:
        """Why nothing is sent, None while it is."""
        if self.state is BreakerState.CLOSED:
            return None
        if self._is_misconfigured:
            is_paused = self._refusals > 1 or now - self._in_doubt_since >= DOUBT
        else:
            is_paused = now < self._until
        if not is_paused:
            return None
        cause = PauseCause.MISCONFIGURED if self._is_misconfigured else PauseCause.ASKED_TO_WAIT
        is_brief = self._is_brief and not self._is_misconfigured
        return Pause(reason=self._reason, cause=cause, until=self._until, is_brief=is_brief)

    def judge(self, change: int, answer: Answer, *, began: float, now: float) -> Answer:
        """What the answer to an attempt means for this change, after what it means for the section."""
        match answer.outcome:
            case Outcome.MISCONFIGURED:
                return self._judge_refusal(change, answer, began, now)
            case Outcome.RETRY:
                self._judge_failure(change, answer, now)
            case Outcome.DELIVERED:
                self._refused.pop(change, None)
                self._delivered = max(self._delivered, began)
                if self._is_misconfigured or self._probe == change:
                    self._close()
            case Outcome.REFUSED:
                self._refused.pop(change, None)
                # Whoever refuses this change has looked at it, so the key is good.
                if self._probe == change:
                    self._close()
        return answer

    def _judge_refusal(self, change: int, answer: Answer, began: float, now: float) -> Answer:
        last, blamed = self._refused.pop(change, (math.inf, 0))
        # Others were taken while this one was under way, or since it was last refused.
        others_pass = self._delivered >= min(began, last)
        blamed += others_pass
        self._refused[change] = now, blamed
        if len(self._refused) > REMEMBERED:
            del self._refused[next(iter(self._refused))]
        if not blamed:
            self._refusals += 1
            self._in_doubt_since = min(now, self._in_doubt_since)
            self._open(answer.message, now + self._delay(), misconfigured=True)
            return answer
        if self._probe == change:
            # It proves nothing; the next one is another.
            self._open(self._reason, now, misconfigured=self._is_misconfigured)
        if blamed < BLAME_LIMIT:
            return dataclasses.replace(answer, outcome=Outcome.RETRY)
        del self._refused[change]
        message = f"refused {blamed} times while others were taken: {answer.message}"
        return dataclasses.replace(answer, outcome=Outcome.REFUSED, message=message)

    def _judge_failure(self, change: int, answer: Answer, now: float) -> None:
        if answer.retry_after:
            until = now + answer.retry_after
            until = until if self.state is BreakerState.CLOSED else max(until, self._until)
            self._is_brief = self._is_brief and until - now <= BRIEF
            reason = f"Dynamic Yield asked to be left alone: {answer.message}"
            self._open(reason, until, misconfigured=self._is_misconfigured)
        elif self._probe == change:
            if self._is_misconfigured:
                # Neither refused nor taken: the set-up may be as wrong as before.
                self._open(self._reason, now + PROBE_EVERY, misconfigured=True)
            else:
                self._close()

    def _delay(self) -> float:
        """Seconds until the next try: none at first, then 1, 2, 4 … up to `PROBE_EVERY`."""
        return min(PROBE_EVERY, 2.0 ** min(self._refusals - 2, 30)) if self._refusals > 1 else 0.0

    def _open(self, reason: str, until: float, *, misconfigured: bool) -> None:
        self.state, self._probe = BreakerState.OPEN, None
        self._reason, self._until, self._is_misconfigured = reason, until, misconfigured

    def _close(self) -> None:
        self.state, self._probe = BreakerState.CLOSED, None
        self._reason, self._until, self._is_misconfigured, self._is_brief = "", -math.inf, False, True
        self._refusals, self._in_doubt_since = 0, math.inf
