"""The verdict: does the whole service work? One list of findings for `/status`, `flask check` and the console.

What a finding says to everybody (`sentence`, `mend`) holds no host name, no address and no word of a driver or of
Dynamic Yield; those stand in `detail`, for people who may see them.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from webhook_app.outbox import Database, OutboxUnavailable, State, schema
from webhook_app.outbox.queries import count_by_state
from webhook_app.outbox.status import Status, status

#: Somebody should look when an opt-out has waited for so long.
TOO_OLD = timedelta(minutes=15)
#: Fewer attempts prove nothing: a single time-out is mended by its retry.
FEWEST_ATTEMPTS = 3
#: Of the last attempts; more than that and the destination is failing.
FAILING_SHARE = 0.5


class Severity(StrEnum):
    #: Nothing, or hardly anything, reaches Dynamic Yield.
    CRITICAL = "critical"
    #: Some people's unsubscribes will not reach Dynamic Yield unless somebody acts.
    ERROR = "error"
    #: All goes on, and a person should look.
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    #: Stays the same from version to version, for monitors.
    slug: str
    severity: Severity
    sentence: str
    #: What to do about it, and where.
    mend: str
    #: What the database's driver or Dynamic Yield said; never for strangers.
    detail: str = field(default="", repr=False)

    def text(self, *, with_detail: bool = False) -> str:
        """One line for a person."""
        said = f"{self.sentence}: {self.detail}" if with_detail and self.detail else self.sentence
        return f"{said} ({self.mend})"


def findings(database: Database, *, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Everything that is wrong, the worst first; empty when all works. `clock` gives seconds since 1970."""
    if unready := not_ready(database):
        return unready
    now = clock()
    try:
        current = status(database, now)
        counts = count_by_state(database, (State.DEAD, State.QUARANTINED))
    except OutboxUnavailable as error:
        return [_database_unavailable(error)]
    return [*_of_delivery(current, now), *_of_events(counts)]


def not_ready(database: Database) -> list[Finding]:
    """Why this process can take no webhooks: the database, or its schema. Nothing else counts."""
    try:
        problem = schema.problem(database)
    except OutboxUnavailable as error:
        return [_database_unavailable(error)]
    if problem is None:
        return []
    sentence, _, mend = problem.partition(": ")
    return [Finding(slug="schema", severity=Severity.CRITICAL, sentence=sentence, mend=mend)]


def _database_unavailable(error: OutboxUnavailable) -> Finding:
    return Finding(
        slug="database",
        severity=Severity.CRITICAL,
        sentence="the database cannot be used",
        mend="is it up, is its disk full, is DATABASE_URL right? The log and `flask check` say more",
        detail=str(error),
    )


def _of_delivery(current: Status, now: float) -> Iterator[Finding]:
    if not current.workers_alive:
        yield Finding(
            slug="no_worker",
            severity=Severity.CRITICAL,
            sentence="no live worker: nothing is forwarded",
            mend="start `flask forward` (on Heroku: `heroku ps:scale worker=1`)",
        )
    for reason in current.paused:
        yield Finding(
            slug="paused",
            severity=Severity.CRITICAL,
            sentence="the destination is paused because of Dynamic Yield's answers",
            mend="the console and `flask check` have the reason; look at EVENTS_API_KEY and EVENTS_API_REGION",
            detail=reason,
        )
    if current.oldest_waiting is None:
        return  # all that was taken has been delivered or given up: failures of before are over
    failed, attempts = current.last_failed, current.last_attempts
    if not current.paused and attempts >= FEWEST_ATTEMPTS and failed > FAILING_SHARE * attempts:
        yield Finding(
            slug="failing",
            severity=Severity.CRITICAL,
            sentence=f"Dynamic Yield fails: {failed} of the last {attempts} attempts did not end in a delivery",
            mend="changes are tried again for 72 hours; the console shows what was answered",
        )
    waited = datetime.fromtimestamp(now, UTC) - current.oldest_waiting
    if waited > TOO_OLD:
        yield Finding(
            slug="too_old",
            severity=Severity.CRITICAL,
            sentence=f"the oldest waiting change was received {waited // timedelta(minutes=1)} minutes ago",
            mend="see “Changes wait for too long” in docs/operating.md",
        )


def _of_events(counts: Mapping[State, int]) -> Iterator[Finding]:
    if dead := counts[State.DEAD]:
        were = "change was" if dead == 1 else "changes were"
        yield Finding(
            slug="dead",
            severity=Severity.ERROR,
            sentence=f"{dead:,} {were} given up: Dynamic Yield has refused, or was away too long",
            mend="console → Events → state “dead”: mend the cause, then replay (or `flask events replay --state dead`)",
        )
    if quarantined := counts[State.QUARANTINED]:
        were = "event was" if quarantined == 1 else "events were"
        yield Finding(
            slug="quarantined",
            severity=Severity.WARNING,
            sentence=f"{quarantined:,} {were} not understood",
            mend="console → Quarantine: mend the mapping and try again, or discard",
        )
