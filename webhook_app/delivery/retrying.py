"""The retry policy: what an answer makes of a change: done, dead, or tried again, and when."""

import random
from datetime import UTC, datetime, timedelta

from webhook_app.delivery import Answer, Outcome
from webhook_app.delivery.breaker import PROBE_EVERY
from webhook_app.outbox import Claimed, Sent, Settlement, State

BACKOFF_BASE = 2.0  # seconds; the first retry comes within this
BACKOFF_CAP = 600.0  # seconds
GIVE_UP_AFTER = timedelta(hours=72)
#: Nor is a change given up that has failed less often: while the worker is off or the section paused, none is tried.
#: That is once an hour, as seldom as Dynamic Yield may ask for; left to the backoff it takes some five hours.
FEWEST_TRIES = 72


def backoff(attempts: int, rng: random.Random) -> float:
    """Seconds until the next try after so many failed ones: exponential, full jitter, capped."""
    return rng.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempts, 30)))


def decide(
    claimed: Claimed,
    answer: Answer,
    *,
    sent: Sent | None = None,
    started_at: float,
    duration: float,
    rng: random.Random,
) -> Settlement:
    """Times are seconds since 1970."""
    state, due_at, message = State.PENDING, None, answer.message
    ended_at = started_at + duration
    match answer.outcome:
        case Outcome.DELIVERED:
            state = State.DELIVERED
        case Outcome.REFUSED:
            state = State.DEAD
        case Outcome.MISCONFIGURED:
            # Not at once: another change shall be the next to be tried.
            due_at = ended_at + PROBE_EVERY
        case Outcome.RETRY:
            ended = datetime.fromtimestamp(ended_at, UTC)
            is_old = ended - (claimed.retrying_since or ended) >= GIVE_UP_AFTER
            if is_old and claimed.attempts >= FEWEST_TRIES:
                state = State.DEAD
                message = f"given up after {GIVE_UP_AFTER // timedelta(hours=1)} hours of trying: {message}"
            else:
                due_at = ended_at + max(backoff(claimed.attempts, rng), answer.retry_after or 0)
    return Settlement(
        claimed=claimed,
        state=state,
        due_at=due_at,
        counts=answer.outcome is not Outcome.MISCONFIGURED,
        started_at=started_at,
        duration=duration,
        outcome=answer.outcome,
        status=answer.status,
        message=message,
        trace_id=answer.trace_id,
        warnings=answer.warnings,
        lost=answer.lost,
        sent=sent,
    )
