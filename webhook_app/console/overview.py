"""The overview, the console's first page: is it working?"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flask import url_for

from webhook_app.ops.status import Finding, Severity, findings
from webhook_app.outbox import Database, State
from webhook_app.outbox.counters import CHARTED, Count, Counted, activity_since, counted
from webhook_app.outbox.queries import count_by_state
from webhook_app.outbox.reconciliations import Reconciliation, Reconciliations
from webhook_app.outbox.status import status
from webhook_app.providers import Provider
from webhook_app.providers.registry import Closed, open_names

#: What the chart can show: its name, how far back, and the width of a step.
RANGES: Mapping[str, tuple[str, timedelta, timedelta]] = {
    "24h": ("24 hours", timedelta(hours=24), timedelta(minutes=10)),
    "7d": ("7 days", timedelta(days=7), timedelta(hours=1)),
    "30d": ("30 days", timedelta(days=30), timedelta(hours=6)),
}

#: What became of a provider's last webhook, in words.
WORDS = {
    Count.ACCEPTED: "new changes",
    Count.DUPLICATES: "changes known already",
    Count.IGNORED: "events without a consent change",
    Count.QUARANTINED: "events that were not understood",
    Count.UNKNOWN_TYPES: "of an unknown type",
    Count.UNAUTHENTICATED: "not authenticated",
    Count.REFUSED: "refused",
}
BAD = frozenset({Count.QUARANTINED, Count.UNKNOWN_TYPES, Count.UNAUTHENTICATED, Count.REFUSED})
#: So long an unknown type stands on the first page after it came last.
UNKNOWN_FOR = timedelta(days=7)
#: Counts of one webhook are taken within this.
_TOGETHER = timedelta(milliseconds=50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """What an ESP has called with."""

    last_at: datetime | None = None
    #: What the last webhook held, or why it was refused.
    last_with: tuple[str, ...] = ()
    is_bad: bool = False
    last_change_at: datetime | None = None
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartRow:
    """A row of the chart."""

    began_at: datetime
    received: int
    delivered: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, as the first page says it."""

    sentence: str
    mend: str
    #: Where it is mended; empty where that is not in the console.
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    #: Why unsubscribes do not reach Dynamic Yield; empty while they do.
    broken: tuple[Problem, ...]
    #: What a person should look at, though all goes on.
    attention: tuple[Problem, ...]
    counts: Mapping[State, int]
    oldest_waiting: datetime | None
    workers_alive: int
    steps: tuple[ChartRow, ...]
    calls: Mapping[str, Calls]
    #: How the last comparison with each ESP's own suppression lists ended.
    reconciliations: tuple[Reconciliation, ...]

    @property
    def received(self) -> int:
        return sum(step.received for step in self.steps)

    @property
    def delivered(self) -> int:
        return sum(step.delivered for step in self.steps)

    @property
    def failed(self) -> int:
        return sum(step.failed for step in self.steps)


def look(
    database: Database,
    providers: Iterable[Provider | Closed],
    *,
    sections: Collection[str],
    range_name: str,
    now: datetime,
) -> Overview:
    """Raises `OutboxUnavailable`."""
    open_esps = open_names(providers)
    verdict = findings(database, open_esps=open_esps, sections=sections, clock=now.timestamp)
    current = status(database, sections=sections)
    reconciliations = Reconciliations(database).all()
    found = counted(database)
    return Overview(
        broken=tuple(_line(one) for one in verdict if one.severity is Severity.CRITICAL),
        attention=(
            *(_line(one) for one in verdict if one.severity is not Severity.CRITICAL),
            *_unknown_types(found, now - UNKNOWN_FOR),
        ),
        counts=count_by_state(database, (State.PENDING, State.DEAD, State.QUARANTINED)),
        oldest_waiting=current.oldest_waiting,
        workers_alive=current.workers_alive,
        steps=tuple(_steps(database, range_name, now)),
        calls=calls(found),
        reconciliations=tuple(reconciliations),
    )


def _line(finding: Finding) -> Problem:
    said = f"{finding.sentence}: {finding.detail}" if finding.detail else finding.sentence
    return Problem(sentence=said, mend=finding.mend, address=_mended_at(finding.slug))


def _mended_at(slug: str) -> str:
    """The page on which a person can do something about a finding."""
    kind, _, name = slug.partition(":")
    match kind:
        case "paused" | "failing" | "near_deadline" | "too_old" | "not_configured":
            return url_for("list_events", state=State.PENDING.value, sort="received", order="asc")
        case "dead":
            return url_for("list_events", state=State.DEAD.value)
        case "quarantined":
            return url_for("quarantine")
        case "all_closed":
            return url_for("esps")
        case "silent" | "unauthenticated" | "drift" | "not_compared":
            return url_for("esp", name=name.partition("/")[0])
        case _:
            return ""


def _unknown_types(found: Iterable[Counted], since: datetime) -> Iterable[Problem]:
    for one in found:
        if one.name == Count.UNKNOWN_TYPES and one.last_at >= since:
            number = f"{one.value:,} event{'s' if one.value > 1 else ''}"
            yield Problem(
                sentence=f"{one.provider} has sent {number} of the unknown type {one.label}",
                mend="see the quarantine",
                address=url_for("quarantine"),
            )


def _steps(database: Database, range_name: str, now: datetime) -> Iterable[ChartRow]:
    _, length, width = RANGES[range_name]
    began = _floor(now - length, width) + width
    series = activity_since(database, began, width)
    while began <= now:
        found = {name: series[name].get(began, 0) for name in CHARTED}
        yield ChartRow(
            began_at=began,
            received=found[Count.ACCEPTED],
            delivered=found[Count.DELIVERED],
            failed=found[Count.FAILED],
        )
        began += width


def _floor(moment: datetime, width: timedelta) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return moment - (moment - epoch) % width


def calls(found: Iterable[Counted]) -> dict[str, Calls]:
    """By the provider's name."""
    of_provider: dict[str, list[Counted]] = {}
    for one in found:
        if one.provider:
            of_provider.setdefault(one.provider, []).append(one)
    return {provider: _calls_of(counters) for provider, counters in of_provider.items()}


def _calls_of(found: list[Counted]) -> Calls:
    webhooks = next((one for one in found if one.name == Count.WEBHOOKS), None)
    if webhooks is None:
        return Calls()
    last = [one for one in found if one.name in WORDS and one.last_at >= webhooks.last_at - _TOGETHER]
    accepted = next((one for one in found if one.name == Count.ACCEPTED), None)
    return Calls(
        last_at=webhooks.last_at,
        last_with=tuple(WORDS[Count(one.name)] + (f": {one.label}" if one.label else "") for one in last),
        is_bad=any(one.name in BAD for one in last),
        last_change_at=accepted.last_at if accepted else None,
        total=webhooks.value,
    )
