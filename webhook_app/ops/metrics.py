"""`GET /metrics`: what Prometheus reads. No address, id or secret is ever a label.

All numbers come from the database, where every process adds to them: whichever gunicorn worker or machine is asked
answers for the whole service, deliveries of the workers included, which serve no HTTP themselves. They lag by a few
seconds, and outlive restarts.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import product

from flask import Blueprint, Response, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from webhook_app.delivery import Answer, Outcome
from webhook_app.outbox import Database, OutboxUnavailable, Settlement, State
from webhook_app.outbox.counters import LABELS, SUM, Count, Counted, Counters, Counting, Timing, counted
from webhook_app.outbox.queries import count_by_state
from webhook_app.outbox.reconciliations import Reconciliations
from webhook_app.outbox.status import status
from webhook_app.outbox.tables import DEFAULT_SECTION
from webhook_app.webhook_result import WebhookResult

PREFIX = "esp_webhooks_"

#: Why a webhook was answered 404: the provider exists and has no secret.
CLOSED = "closed"
#: What a person should be told of soon, as long as there is any of it.
COUNTED_STATES = (State.PENDING, State.DEAD, State.QUARANTINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDescription:
    """A metric as it is served and as it stands in the docs."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


#: Counter → its name, and what its labels are.
COUNTERS: Mapping[Count, MetricDescription] = {
    Count.WEBHOOKS: MetricDescription(
        name="webhooks_total",
        kind="counter",
        labels=("provider",),
        meaning="webhooks that came in, whatever became of them",
    ),
    Count.ACCEPTED: MetricDescription(
        name="accepted_total", kind="counter", labels=("provider",), meaning="changes stored, to be forwarded"
    ),
    Count.DUPLICATES: MetricDescription(
        name="duplicates_total", kind="counter", labels=("provider",), meaning="changes that were known already"
    ),
    Count.IGNORED: MetricDescription(
        name="ignored_total",
        kind="counter",
        labels=("provider",),
        meaning="events that say nothing about consent, opt-ins that are not forwarded, test events",
    ),
    Count.QUARANTINED: MetricDescription(
        name="quarantined_total", kind="counter", labels=("provider",), meaning="events that were not understood"
    ),
    Count.UNKNOWN_TYPES: MetricDescription(
        name="unknown_types_total",
        kind="counter",
        labels=("provider", "type"),
        meaning="quarantined events of a type that the provider's entry does not know: a new event of the ESP?",
    ),
    Count.UNAUTHENTICATED: MetricDescription(
        name="unauthenticated_total",
        kind="counter",
        labels=("provider", "reason"),
        meaning="webhooks answered 401, and why",
    ),
    Count.REFUSED: MetricDescription(
        name="refused_total",
        kind="counter",
        labels=("provider", "reason"),
        meaning="webhooks answered 4xx or 5xx for another reason: `closed`, `too_large`, `outbox_unavailable` …",
    ),
    Count.ATTEMPTS: MetricDescription(
        name="delivery_attempts_total",
        kind="counter",
        labels=("provider", "outcome"),
        meaning="attempts to tell Dynamic Yield: `delivered`, `retry`, `refused`, `misconfigured`",
    ),
    Count.DELIVERED: MetricDescription(
        name="delivered_total", kind="counter", labels=("provider",), meaning="changes that Dynamic Yield has taken"
    ),
    Count.FAILED: MetricDescription(
        name="failed_attempts_total",
        kind="counter",
        labels=("provider", "reason"),
        meaning="attempts that did not end in a delivery, by what came instead: `http_503`, `timeout` …",
    ),
}

TIMINGS: Mapping[Timing, MetricDescription] = {
    Timing.RECEIVE: MetricDescription(
        name="receive_seconds", kind="histogram", meaning="from the first byte of a webhook to its answer"
    ),
    Timing.DELIVERY: MetricDescription(
        name="commit_to_delivered_seconds",
        kind="histogram",
        meaning="from the commit of a change to Dynamic Yield's having taken it",
    ),
}

DATABASE_UP = MetricDescription(
    name="database_up", kind="gauge", meaning="1 while the database can be used; 0, and no other metric, while not"
)
CHANGES = MetricDescription(
    name="changes",
    kind="gauge",
    labels=("state",),
    meaning="changes that wait (`pending`), were given up (`dead`) or not understood (`quarantined`); at most 100,000",
)
OLDEST = MetricDescription(
    name="oldest_waiting_seconds", kind="gauge", meaning="age of the oldest waiting change; 0 when none waits"
)
PAUSED = MetricDescription(
    name="paused",
    kind="gauge",
    labels=("section",),
    meaning="1 while workers send nothing there because of Dynamic Yield's answers",
)
WORKERS = MetricDescription(name="workers_alive", kind="gauge", meaning="workers heard of in the last 30 seconds")

GAUGES = (DATABASE_UP, CHANGES, OLDEST, PAUSED, WORKERS)

DRIFT = MetricDescription(
    name="drift_total",
    kind="counter",
    labels=("provider",),
    meaning="opt-outs that only the ESP's own suppression lists knew of, found by comparing",
)
RECONCILED = MetricDescription(
    name="reconciled_timestamp_seconds",
    kind="gauge",
    labels=("provider",),
    meaning="up to when everything on the ESP's suppression lists is known here, as Unix time",
)


def described() -> tuple[MetricDescription, ...]:
    """Every metric, for the docs."""
    return (*COUNTERS.values(), *TIMINGS.values(), *GAUGES, DRIFT, RECONCILED)


#: Labels that stand at 0 before they are first counted, for each open provider. A counter that begins at 1 has no
#: increase, and so raises no alert.
FROM_THE_START: Mapping[Count, tuple[str, ...]] = {
    **{name: ("",) for name, described in COUNTERS.items() if described.labels == ("provider",)},
    Count.UNAUTHENTICATED: (
        *("signature_invalid", "signature_missing", "timestamp_stale", "token_wrong", "token_missing"),
        *("credentials_wrong", "credentials_missing", "url_secret_wrong", "url_secret_missing"),
    ),
    Count.REFUSED: (CLOSED, "too_large", "body_broken", "outbox_unavailable", "http_500"),
    Count.ATTEMPTS: tuple(Outcome),
    Count.FAILED: ("timeout", "http_429", "http_500", "http_503"),
}


def blueprint(
    database: Database,
    open_providers: Iterable[str] = (),
    *,
    sections: Iterable[str] = (DEFAULT_SECTION,),
    clock: Callable[[], float] = time.time,
) -> Blueprint:
    collector = _Collector(database, tuple(open_providers), tuple(sections), clock)
    metrics = Blueprint("metrics", __name__)

    @metrics.get("/metrics")
    def scrape() -> Response:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)

    return metrics


class _Collector(Collector):
    def __init__(
        self, database: Database, providers: tuple[str, ...], sections: tuple[str, ...], clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._providers = providers
        self._sections = sections
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        try:
            found = counted(self._database)
            gauges = [*self._gauges(), *self._reconciliations()]
        except OutboxUnavailable:
            # Still an answer: a scrape that fails looks like a process that is down.
            yield _gauge(DATABASE_UP, 0)
            return
        yield _gauge(DATABASE_UP, 1)
        yield from gauges
        for name, described in COUNTERS.items():
            values = dict.fromkeys(product(self._providers, FROM_THE_START.get(name, ())), 0)
            values |= {(one.provider, one.label): one.value for one in found if one.name == name}
            yield _counter(described, values)
        for timing, described in TIMINGS.items():
            yield _histogram(timing, described, [one for one in found if one.name == timing])

    def _gauges(self) -> Iterable[Metric]:
        now = self._clock()
        current = status(self._database, sections=self._sections)
        waited = datetime.fromtimestamp(now, UTC) - current.oldest_waiting if current.oldest_waiting else None
        changes = GaugeMetricFamily(PREFIX + CHANGES.name, CHANGES.meaning, labels=CHANGES.labels)
        for state, number in count_by_state(self._database, COUNTED_STATES).items():
            changes.add_metric([state], number)
        yield changes
        yield _gauge(OLDEST, max(waited.total_seconds(), 0) if waited else 0)
        paused = GaugeMetricFamily(PREFIX + PAUSED.name, PAUSED.meaning, labels=PAUSED.labels)
        pausing = {pause.section for pause in current.paused}
        for section in sorted({*self._sections, *pausing}):
            paused.add_metric([section], section in pausing)
        yield paused
        yield _gauge(WORKERS, current.workers_alive)

    def _reconciliations(self) -> Iterable[Metric]:
        drift = CounterMetricFamily(PREFIX + DRIFT.name, DRIFT.meaning, labels=DRIFT.labels)
        reconciled = GaugeMetricFamily(PREFIX + RECONCILED.name, RECONCILED.meaning, labels=RECONCILED.labels)
        for one in Reconciliations(self._database).all():
            drift.add_metric([one.name], one.drift_total)
            if one.covered_until:
                reconciled.add_metric([one.name], one.covered_until.timestamp())
        yield drift
        yield reconciled


def count_webhook(counters: Counters, result: WebhookResult, seconds: float) -> None:
    """Count one webhook by its answer, the reason of its refusal and what became of its events."""
    # What follows the colon of a reason is a sentence, and differs each time.
    slug = result.reason.partition(":")[0]
    numbers = tuple([(result.counts or {}).get(count, 0) for count in _EVENTS])
    counts = _counts(result.provider, result.status, slug, numbers)
    unknown = result.unknown_types.items()
    counts += tuple([(Count.UNKNOWN_TYPES, result.provider, name, number) for name, number in unknown])
    counters.add(counts, Timing.RECEIVE, seconds)


_EVENTS = (Count.ACCEPTED, Count.DUPLICATES, Count.IGNORED, Count.QUARANTINED)


@lru_cache
def _counts(provider: str, status_code: int, reason: str, events: tuple[int, ...]) -> tuple[Counting, ...]:
    counts: list[Counting] = [(Count.WEBHOOKS, provider, "", 1)]
    counts += [(count, provider, "", by) for count, by in zip(_EVENTS, events, strict=True) if by]
    if status_code == 401:
        counts.append((Count.UNAUTHENTICATED, provider, reason, 1))
    elif status_code >= 400:
        closed_or_broken = CLOSED if status_code == 404 else f"http_{status_code}"
        counts.append((Count.REFUSED, provider, reason or closed_or_broken, 1))
    return tuple(counts)


def count_attempt(counters: Counters, settlement: Settlement, answer: Answer) -> None:
    """Count one attempt of a worker."""
    provider = settlement.claimed.provider
    attempt = (Count.ATTEMPTS, provider, settlement.outcome, 1)
    if answer.outcome is Outcome.DELIVERED and not settlement.claimed.is_timed:
        counters.add((attempt, (Count.DELIVERED, provider, "", 1)))
    elif answer.outcome is Outcome.DELIVERED:
        ended_at = settlement.started_at + settlement.duration
        took = ended_at - settlement.claimed.received_at.timestamp()
        counters.add((attempt, (Count.DELIVERED, provider, "", 1)), Timing.DELIVERY, took)
    else:
        counters.add((attempt, (Count.FAILED, provider, answer.reason or answer.outcome, 1)))


def _gauge(described: MetricDescription, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + described.name, described.meaning, value=value)


def _counter(described: MetricDescription, values: Mapping[tuple[str, str], int]) -> CounterMetricFamily:
    """`values` by provider and label."""
    family = CounterMetricFamily(PREFIX + described.name, described.meaning, labels=described.labels)
    for labels, value in values.items():
        family.add_metric(labels[: len(described.labels)], value)
    return family


def _histogram(timing: Timing, described: MetricDescription, found: list[Counted]) -> HistogramMetricFamily:
    values = {one.label: one.value for one in found}
    total, buckets = 0, []
    for bound in LABELS[timing]:
        total += values.get(bound, 0)
        buckets.append((bound, float(total)))
    seconds = values.get(SUM, 0) / 1_000_000
    return HistogramMetricFamily(PREFIX + described.name, described.meaning, buckets=buckets, sum_value=seconds)
