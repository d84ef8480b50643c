"""Reconciliation by schedule or by command: when the ESPs' own lists are compared; never twice at a time."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from webhook_app.outbox import Database, Intake, OutboxUnavailable
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.reconciliations import Compared, Reconciled, Reconciliation, Reconciliations
from webhook_app.outbox.routing import RoutingCondition
from webhook_app.settings import Settings
from webhook_app.sync.api import ApiError
from webhook_app.sync.comparison import Comparison
from webhook_app.sync.sources import SOURCES, Source, SuppressionList, configured

LEASE = 1800.0  # seconds; longer than any one page takes, with every try, and every wait for a rate limit
LOOK_EVERY = 15.0  # seconds between two looks at whether a comparison is due
RETRY_AFTER = 900.0  # seconds until the next try when one has failed
#: A scheduled comparison begins so long before the last one, for what the ESP may have shown late.
OVERLAP = timedelta(days=1)
#: And reads everything so often, for what came or went while pages were turned.
COMPLETE_EVERY = timedelta(days=7)

log = structlog.get_logger()


class Stopped(BaseException):
    """The worker has to end. No error, so that nobody who handles errors takes it for one."""


class Reconciler:
    """Compares an ESP's lists with the outbox, when that is due or at once, and writes down what came of it."""

    def __init__(
        self,
        source: Source,
        database: Database,
        *,
        every: float,
        sections: Mapping[str, RoutingCondition] | None = None,
    ) -> None:
        """`every` so many seconds it is due; 0 where nobody has said so."""
        self._source = source
        self._database = database
        self._every = every
        self._sections = sections
        self._records = Reconciliations(database)

    def compare_if_due(self, check: Callable[[], None]) -> None:
        """As the worker does now and then. `check` raises `Stopped` when the worker has to end."""
        what = self._what()
        last = self._records.last(what)
        token = self._records.begin(what, lease=LEASE, only_if_due=True)
        if token is None:
            return
        since = _since(last, what)
        try:
            result = self._run(what, token, since, on_page=lambda _list, _result: check())
        except ApiError as error:
            log.error("reconciliation_failed", provider=what.key, reason=error.reason, message=str(error))
            return
        log.info(
            "reconciled",
            provider=what.key,
            since=since and since.isoformat(),
            checked=result.checked,
            drift=result.drift,
            outranked=result.outranked,
            unreadable=result.unreadable,
            no_section=result.no_section,
        )

    def compare(self, since: datetime | None, on_page: Callable[[SuppressionList, Reconciled], None]) -> Reconciled:
        """Compare at once. Raises `ApiError` where that fails, or somebody else does it just now."""
        what = self._what()
        token = self._records.begin(what, lease=LEASE, only_if_due=False)
        if token is None:
            raise ApiError("under_way", "a worker compares just now; try again in some minutes")
        return self._run(what, token, since, on_page)

    def count_missing(
        self, since: datetime | None, on_page: Callable[[SuppressionList, Reconciled], None]
    ) -> Reconciled:
        """Only count what is missing, and change nothing."""
        return replace(self._comparison(on_page), adds=False).run(since)

    def _run(
        self,
        what: Compared,
        token: str,
        since: datetime | None,
        on_page: Callable[[SuppressionList, Reconciled], None],
    ) -> Reconciled:
        def page_done(one: SuppressionList, result: Reconciled) -> None:
            self._records.renew(token, lease=LEASE)
            on_page(one, result)

        every = self._every
        try:
            result = self._comparison(page_done).run(since)
        except ApiError as error:
            self._records.fail(token, str(error), due_in=min(every or RETRY_AFTER, RETRY_AFTER))
            raise
        except BaseException as error:
            # The worker ends, or a person has had enough: somebody else may go on at once.
            with suppress(OutboxUnavailable):
                self._records.fail(token, f"broken off ({type(error).__name__})", due_in=0)
            raise
        self._records.finish(token, result, scope=what.scope, since=since, due_in=every)
        return result

    def _what(self) -> Compared:
        """The lists as they are configured now: with another key, region, list or group, nothing was read yet."""
        source = self._source
        scope = load_hasher(self._database).body(json.dumps([source.api.base, *source.scope]).encode()).hex()
        return Compared(provider=source.provider, account=source.account, scope=scope)

    def _comparison(self, on_page: Callable[[SuppressionList, Reconciled], None]) -> Comparison:
        return Comparison(
            source=self._source,
            database=self._database,
            intake=Intake(self._database, sections=self._sections),
            hasher=load_hasher(self._database),
            sections=self._sections or {},
            on_page=on_page,
        )


def _since(last: Reconciliation | None, what: Compared) -> datetime | None:
    """Where a scheduled comparison begins; None: with everything."""
    if last is None or last.scope != what.scope or last.covered_until is None or last.complete_at is None:
        return None
    if datetime.now(UTC) - last.complete_at > COMPLETE_EVERY:
        return None
    return last.covered_until - OVERLAP


@contextmanager
def scheduled(
    settings: Settings, database: Database, sections: Mapping[str, RoutingCondition] | None = None
) -> Iterator[None]:
    """Compare now and then while the block lasts, if `RECONCILE_EVERY` says so: in a thread beside the work."""
    if not settings.reconcile_every:
        yield
        return
    stopping = threading.Event()

    def check() -> None:
        if stopping.is_set():
            raise Stopped

    def sleep(seconds: float) -> None:
        stopping.wait(seconds)
        check()

    def look() -> None:
        reconcilers = dict(_reconcilers(settings, database, sections, sleep))
        with suppress(Stopped):
            while True:
                for provider, reconciler in reconcilers.items():
                    try:
                        reconciler.compare_if_due(check)
                    except OutboxUnavailable as error:
                        log.warning("outbox_unavailable", reason=str(error))
                    except Exception as error:
                        # A bug of ours must not end the schedule.
                        log.error("reconciliation_failed", provider=provider, exc_info=error)
                sleep(LOOK_EVERY)

    thread = threading.Thread(target=look, name="reconcile", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        # A page that is under way may take its time; the lease runs out by itself.
        thread.join(timeout=5)


def _reconcilers(
    settings: Settings,
    database: Database,
    sections: Mapping[str, RoutingCondition] | None,
    sleep: Callable[[float], object],
) -> Iterator[tuple[str, Reconciler]]:
    """One for every ESP that has a key; a key that cannot be used is said once."""
    for provider in configured(settings):
        try:
            source = SOURCES[provider](settings, sleep=sleep)
        except ApiError as error:
            log.error("reconciliation_failed", provider=provider, reason=error.reason, message=str(error))
        else:
            yield provider, Reconciler(source, database, every=settings.reconcile_every, sections=sections)
