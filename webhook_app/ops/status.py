"""The service's status: does it work as a whole? One list of findings for `/status`, `flask check` and the console.

What a finding says to everybody (`sentence`, `mend`) holds no host name, no address and no word of a driver or of
Dynamic Yield; those stand in `detail`, for people who may see them.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from webhook_app.outbox import Database, OutboxUnavailable, State, schema
from webhook_app.outbox.counters import Count, of_providers_since
from webhook_app.outbox.pauses import PauseCause, ReportedPause
from webhook_app.outbox.queries import count_by_state
from webhook_app.outbox.reconciliations import Reconciliations
from webhook_app.outbox.status import Status, status
from webhook_app.outbox.tables import DEFAULT_SECTION

#: Somebody should look when an opt-out has waited for so long.
TOO_OLD = timedelta(minutes=15)
#: Fewer attempts prove nothing: a single time-out is mended by its retry.
FEWEST_ATTEMPTS = 3
#: Of the last attempts; more than that and the destination is failing.
FAILING_SHARE = 0.5
#: Gmail and Yahoo expect an unsubscribe to hold within 48 hours; half of that is left to act in.
NEAR_DEADLINE = timedelta(hours=24)

#: How far back an ESP's rhythm is looked for, and in how many stretches of ten minutes it must have called to have one.
RHYTHM_OF = timedelta(days=14)
FEWEST_CALLS = 20
#: Silent for so many times the longest pause of before, and at least for so long: something is wrong.
SILENT_PAUSES = 2
SHORTEST_SILENCE = timedelta(hours=2)
#: An ESP whose key is wrong fails with every call; a stranger who tries something, now and then.
MANY_UNAUTHENTICATED = 5
UNAUTHENTICATED_WITHIN = timedelta(minutes=20)

#: A comparison that is scheduled begins within seconds of its time. One that is overdue for so long is nobody's any
#: more: a single `flask reconcile`, or a key that was taken away. Longer than a long weekend, so that somebody sees it.
NOBODY_COMPARES = timedelta(days=4)


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
    #: What to do about it.
    mend: str
    #: Where in the console that is done, as its menu says it; empty where it is not done there.
    console_place: str = ""
    #: What the database's driver or Dynamic Yield said; never for strangers.
    detail: str = field(default="", repr=False)

    @property
    def directions(self) -> str:
        """What to do and where, for somebody who is not in the console."""
        return f"console → {self.console_place}: {self.mend}" if self.console_place else self.mend

    def text(self, *, with_detail: bool = False) -> str:
        """One line for a person."""
        said = f"{self.sentence}: {self.detail}" if with_detail and self.detail else self.sentence
        return f"{said} ({self.directions})"


DATABASE = Finding(
    slug="database",
    severity=Severity.CRITICAL,
    sentence="the database cannot be used",
    mend="is it up, is its disk full, is DATABASE_URL right? The log and `flask check` say more",
)


def findings(
    database: Database,
    *,
    open_esps: Collection[str],
    sections: Collection[str] | None = None,
    clock: Callable[[], float] = time.time,
) -> list[Finding]:
    """Everything that is wrong, the worst first; empty when all works.

    `open_esps` are the names of the ESPs that have a secret, `sections` of those that are configured, None for any;
    `clock` gives seconds since 1970.
    """
    if unready := not_ready(database):
        return unready
    now = clock()
    try:
        current = status(database, sections=sections)
        counts = count_by_state(database, (State.DEAD, State.QUARANTINED))
        at = datetime.fromtimestamp(now, UTC)
        esps = [*_of_esps(database, open_esps, at), *_of_reconciliations(database, at)]
    except OutboxUnavailable as error:
        return [replace(DATABASE, detail=str(error))]
    return [*_of_delivery(current, now), *_of_sections(current), *_of_events(counts), *esps]


def not_ready(database: Database) -> list[Finding]:
    """Why this process can take no webhooks: the database, or its schema. Nothing else counts."""
    try:
        problem = schema.problem(database)
    except OutboxUnavailable as error:
        return [replace(DATABASE, detail=str(error))]
    if problem is None:
        return []
    return [Finding(slug="schema", severity=Severity.CRITICAL, sentence=problem.sentence, mend=problem.mend)]


def _in_sections(names: Collection[str]) -> str:
    """Nothing where there is but the one of the environment."""
    named = [name for name in names if name != DEFAULT_SECTION]
    return f" for section {', '.join(named)}" if named else ""


def _where_key_stands(sections: Collection[str]) -> str:
    return "EVENTS_API_KEY and EVENTS_API_REGION" if DEFAULT_SECTION in sections else "its table in SECTIONS_FILE"


def _mend_of_pauses(paused: Collection[ReportedPause]) -> str:
    wrong = [pause.section for pause in paused if pause.cause is PauseCause.MISCONFIGURED]
    mends = []
    if wrong:
        mends.append(f"the console and `flask check` have the reason; look at {_where_key_stands(wrong)}")
    if len(wrong) < len(paused):
        mends.append(
            "where it asked for the pause, it goes on by itself; if it asks again and again, set REQUESTS_PER_SECOND"
        )
    return "; ".join(mends)


def _of_delivery(current: Status, now: float) -> Iterator[Finding]:
    if not current.workers_alive:
        yield Finding(
            slug="no_worker",
            severity=Severity.CRITICAL,
            sentence="no live worker: nothing is forwarded",
            mend="start `flask forward` (on Heroku: `heroku ps:scale worker=1`)",
        )
    if current.paused:
        sections = dict.fromkeys(pause.section for pause in current.paused)
        yield Finding(
            slug="paused",
            severity=Severity.CRITICAL,
            sentence=f"the destination is paused{_in_sections(sections)} because of Dynamic Yield's answers",
            mend=_mend_of_pauses(current.paused),
            detail="; ".join(
                pause.reason if pause.section == DEFAULT_SECTION else f"section {pause.section}: {pause.reason}"
                for pause in current.paused
            ),
        )
    if not current.is_waiting:
        return  # all that was taken has been delivered or given up: failures of before are over
    paused = {pause.section for pause in current.paused}
    failing = {
        section: f"{lately.count(False)} of the last {len(lately)} attempts did not end in a delivery"
        for section, lately in sorted(current.lately.items())
        if section not in paused
        and len(lately) >= FEWEST_ATTEMPTS
        and lately.count(False) > FAILING_SHARE * len(lately)
    }
    if failing:
        yield Finding(
            slug="failing",
            severity=Severity.CRITICAL,
            sentence="; ".join(
                f"Dynamic Yield fails{_in_sections([section])}: {how}" for section, how in failing.items()
            ),
            mend="changes are tried again for 72 hours; the console shows what was answered",
        )
    if current.oldest_waiting is None:
        return
    waited = datetime.fromtimestamp(now, UTC) - current.oldest_waiting
    if waited > NEAR_DEADLINE:
        yield Finding(
            slug="near_deadline",
            severity=Severity.CRITICAL,
            sentence=f"an unsubscribe has waited for {waited // timedelta(hours=1)} hours; it shall hold within 48",
            mend="see “Changes wait for too long” in docs/operating.md; if it cannot be mended, stop the mailing",
        )
    if waited > TOO_OLD:
        yield Finding(
            slug="too_old",
            severity=Severity.CRITICAL,
            sentence=f"the oldest waiting change was received {waited // timedelta(minutes=1)} minutes ago",
            mend="see “Changes wait for too long” in docs/operating.md",
        )


def _of_sections(current: Status) -> Iterator[Finding]:
    for section, waiting in current.unconfigured.items():
        yield Finding(
            slug=f"not_configured:{section}",
            severity=Severity.ERROR,
            sentence=f"{waiting:,} {'person waits' if waiting == 1 else 'people wait'} for section {section}, "
            "which is not configured",
            mend=f"put it back, or `flask sections drop {section}`; "
            "after a rename first `flask sections fill` the new name",
        )


def _of_events(counts: Mapping[State, int]) -> Iterator[Finding]:
    if dead := counts[State.DEAD]:
        were = "change was" if dead == 1 else "changes were"
        yield Finding(
            slug="dead",
            severity=Severity.ERROR,
            sentence=f"{dead:,} {were} given up: Dynamic Yield has refused, or was away too long",
            mend="mend the cause, then replay (or `flask events replay --state dead`)",
            console_place="Events → state “dead”",
        )
    if quarantined := counts[State.QUARANTINED]:
        were = "event was" if quarantined == 1 else "events were"
        yield Finding(
            slug="quarantined",
            severity=Severity.WARNING,
            sentence=f"{quarantined:,} {were} not understood",
            mend="mend the mapping and try again, or discard",
            console_place="Quarantine",
        )


def _of_esps(database: Database, open_esps: Collection[str], now: datetime) -> Iterator[Finding]:
    if not open_esps:
        yield Finding(
            slug="all_closed",
            severity=Severity.ERROR,
            sentence="no ESP can call: every one of them is closed",
            mend="set the secret of one: `flask providers` lists the variables, docs/esps has a page for each",
        )
    for provider, calls in of_providers_since(database, Count.WEBHOOKS, now - RHYTHM_OF).items():
        if provider in open_esps and (silence := silent_for(list(calls), now)):
            yield Finding(
                slug=f"silent:{provider}",
                severity=Severity.WARNING,
                sentence=f"{provider} has not called for {_hours(silence)}, longer than ever in the last two weeks",
                mend="is its webhook still switched on at the ESP? See the ESP's page in docs/esps",
            )
    refused = of_providers_since(database, Count.UNAUTHENTICATED, now - UNAUTHENTICATED_WITHIN)
    for provider, times in refused.items():
        if (count := sum(times.values())) >= MANY_UNAUTHENTICATED:
            yield Finding(
                slug=f"unauthenticated:{provider}",
                # A warning only: a stranger must not be able to make `/status` say that nothing works.
                severity=Severity.WARNING,
                sentence=f"{count:,} webhooks for {provider} were not authenticated in the last 20 minutes",
                mend="compare the secret at the ESP with the one set here; the log's `reason` says what was wrong",
            )


def silent_for(calls: Sequence[datetime], now: datetime) -> timedelta | None:
    """How long an ESP has been silent, where that is longer than its own rhythm explains.

    `calls` are the stretches of time in which it called, oldest first.
    """
    if len(calls) < FEWEST_CALLS:
        return None
    longest = max(later - earlier for earlier, later in pairwise(calls))
    silence = now - calls[-1]
    return silence if silence > max(SILENT_PAUSES * longest, SHORTEST_SILENCE) else None


def _of_reconciliations(database: Database, now: datetime) -> Iterator[Finding]:
    for one in Reconciliations(database).all():
        if now - one.due_at > NOBODY_COMPARES:
            continue
        if one.error and one.finished_at:
            yield Finding(
                slug=f"not_compared:{one.name}",
                severity=Severity.WARNING,
                sentence=f"the last comparison with the suppression lists of {one.name} failed",
                mend="`flask reconcile` tries it again and says more",
                detail=one.error,
            )
        elif one.result.drift:
            yield Finding(
                slug=f"drift:{one.name}",
                severity=Severity.WARNING,
                sentence=f"{one.result.drift:,} entries on the suppression lists of {one.name} had not come by webhook",
                mend="they are taken now; a webhook that misses people is worth a look",
            )


def _hours(duration: timedelta) -> str:
    hours = duration // timedelta(hours=1)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours"
