"""`flask reconcile sendgrid`: whoever is on SendGrid's lists and was never heard of here is opted out, too.

Suppressions made by hand fire no webhook, and SendGrid gives up on a webhook after a day of outage. Its lists know of
both. They say when somebody was put on them: that is when the opt-out happened, so nothing newer is undone.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import structlog
from flask import current_app
from flask.cli import AppGroup, with_appcontext
from marshmallow import EXCLUDE, Schema, ValidationError, fields

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox import Database, Intake, OutboxUnavailable, schema
from webhook_app.outbox.hashing import Hasher, load_hasher
from webhook_app.outbox.lookup import Known, newest_changes
from webhook_app.outbox.reconciliations import Reconciled, Reconciliation, Reconciliations
from webhook_app.providers import explain
from webhook_app.providers.fields import Address, Timestamp
from webhook_app.sendgrid_api import SendGridApi, SendGridError
from webhook_app.settings import Duration, Settings

PROVIDER = "sendgrid"

LEASE = 600.0  # seconds; longer than any one page takes, with every wait for SendGrid's rate limit
LOOK_EVERY = 15.0  # seconds between two looks at whether a comparison is due
RETRY_AFTER = 900.0  # seconds until the next try when one has failed
#: A scheduled comparison begins so long before the last one, for what SendGrid may have shown late.
OVERLAP = timedelta(days=1)
#: And reads everything so often, for what came or went while pages were turned.
COMPLETE_EVERY = timedelta(days=7)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionList:
    """One of SendGrid's lists."""

    title: str
    path: str
    #: Why a change says it happened.
    reason: str
    #: The key of the time somebody was put on it.
    time_key: str = "created"
    #: Whether SendGrid picks a time by itself; else we do.
    takes_start_time: bool = True


#: Event as `SENDGRID_EVENTS` names it → the list that it puts people on. `dropped` is about people on these lists.
LISTS = {
    "unsubscribe": SuppressionList(
        title="Global Unsubscribes", path="/v3/suppression/unsubscribes", reason="global_unsubscribes"
    ),
    "group_unsubscribe": SuppressionList(
        title="Group Unsubscribes",
        path="/v3/asm/suppressions",
        reason="group_unsubscribes",
        time_key="created_at",
        takes_start_time=False,
    ),
    "spamreport": SuppressionList(title="Spam Reports", path="/v3/suppression/spam_reports", reason="spam_reports"),
    "bounce": SuppressionList(title="Bounces", path="/v3/suppression/bounces", reason="bounces"),
}


class Entry(Schema):
    """One entry of a list, whichever."""

    class Meta:
        unknown = EXCLUDE

    email = Address(required=True)
    created = Timestamp(required=True)
    group_id = fields.Integer(load_default=None)


_ENTRY = Entry()


class Stopped(BaseException):
    """The worker has to end. No error, so that nobody who handles errors takes it for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Compares lists with the outbox, page by page. `on_page` is called after each; what it raises ends it."""

    api: SendGridApi
    lists: tuple[SuppressionList, ...]
    #: The unsubscribe groups that count; empty: all.
    group_ids: frozenset[int]
    database: Database
    intake: Intake
    hasher: Hasher
    #: False: only count what is missing.
    adds: bool = True
    on_page: Callable[[SuppressionList, Reconciled], None] = lambda _list, _result: None

    def run(self, since: datetime | None) -> Reconciled:
        """Only of entries from `since` on, if it is given. Raises `SendGridError` and `OutboxUnavailable`."""
        result = Reconciled()
        for one in self.lists:
            query = {"start_time": int(since.timestamp())} if since and one.takes_start_time else {}
            for page in self.api.pages(one.path, **query):
                result = self._page(one, page, since, result)
                self.on_page(one, result)
        return result

    def _page(self, one: SuppressionList, page: list[Any], since: datetime | None, result: Reconciled) -> Reconciled:
        changes: dict[str, tuple[ConsentChange, bytes]] = {}
        quarantined: list[tuple[str, bytes]] = []
        checked = 0
        for raw in page:
            kept = json.dumps({"list": one.path, "entry": raw}).encode()
            try:
                change = self._change(one, raw)
            except ValidationError as error:
                checked += 1
                quarantined.append((f"on SendGrid's list {one.title}: {explain(error)}", kept))
                continue
            if change is None or (since and change.occurred_at and change.occurred_at < since):
                continue
            checked += 1
            # Somebody may stand in several groups: the last time counts.
            other = changes.get(change.identity.key)
            if other is None or _time(other[0]) < _time(change):
                changes[change.identity.key] = change, kept
        known = newest_changes(self.database, self.hasher, (change.identity for change, _ in changes.values()))
        missing, outranked = [], 0
        for key, (change, kept) in changes.items():
            match _verdict(known.get(key), _time(change)):
                case "missing":
                    missing.append((change, kept))
                case "outranked":
                    outranked += 1
        drift = self._add(missing, quarantined) if self.adds else len(missing)
        return Reconciled(
            checked=result.checked + checked,
            drift=result.drift + drift,
            outranked=result.outranked + outranked,
            unreadable=result.unreadable + len(quarantined),
        )

    def _change(self, one: SuppressionList, raw: Any) -> ConsentChange | None:
        if not isinstance(raw, dict):
            raise ValidationError("is not a JSON object", "entry")
        entry = _ENTRY.load({**raw, "created": raw.get(one.time_key)})
        if self.group_ids and entry["group_id"] is not None and entry["group_id"] not in self.group_ids:
            return None
        return ConsentChange(
            action=Action.OPT_OUT,
            identity=Identity(kind=IdentityKind.EMAIL, value=entry["email"]),
            reason=one.reason,
            occurred_at=entry["created"],
        )

    def _add(self, missing: list[tuple[ConsentChange, bytes]], quarantined: list[tuple[str, bytes]]) -> int:
        return self.intake.add(PROVIDER, changes=missing, quarantined=quarantined).accepted


def _verdict(known: Known | None, created: datetime) -> str:
    """What an entry of that time means for a person of whom this is known."""
    if known is None:
        return "missing"
    if known.covers_opt_out(created):
        return "known"
    # In a tie the opt-out wins.
    return "outranked" if known.action is Action.OPT_IN and known.occurred_at > created else "missing"


def _time(change: ConsentChange) -> datetime:
    return change.occurred_at or datetime.min.replace(tzinfo=UTC)


class Reconciler:
    """Compares when it is due, and writes down what came of it."""

    def __init__(self, settings: Settings, database: Database, api: SendGridApi) -> None:
        self._settings = settings
        self._database = database
        self._api = api
        self._records = Reconciliations(database)
        self._lists = tuple(LISTS[event] for event in settings.sendgrid_events if event in LISTS)

    def when_due(self, check: Callable[[], None]) -> None:
        """What the worker does now and then. `check` raises `Stopped` when the worker has to end."""
        last = self._records.last(PROVIDER)
        token = self._records.begin(PROVIDER, lease=LEASE, only_if_due=True)
        if token is None:
            return
        since = _since(last)
        try:
            result = self._run(token, since, on_page=lambda _list, _result: check())
        except SendGridError as error:
            log.error("reconciliation_failed", provider=PROVIDER, reason=error.reason, message=str(error))
            return
        log.info(
            "reconciled",
            provider=PROVIDER,
            since=since and since.isoformat(),
            checked=result.checked,
            drift=result.drift,
            outranked=result.outranked,
            unreadable=result.unreadable,
        )

    def now(self, since: datetime | None, on_page: Callable[[SuppressionList, Reconciled], None]) -> Reconciled:
        """Compare at once. Raises `SendGridError` where that fails, or somebody else does it just now."""
        token = self._records.begin(PROVIDER, lease=LEASE, only_if_due=False)
        if token is None:
            raise SendGridError("under_way", "a worker compares just now; try again in some minutes")
        return self._run(token, since, on_page)

    def count(self, since: datetime | None, on_page: Callable[[SuppressionList, Reconciled], None]) -> Reconciled:
        """Only count what is missing, and change nothing."""
        return replace(self._comparison(on_page), adds=False).run(since)

    def _run(
        self, token: str, since: datetime | None, on_page: Callable[[SuppressionList, Reconciled], None]
    ) -> Reconciled:
        def page_done(one: SuppressionList, result: Reconciled) -> None:
            self._records.renew(token, lease=LEASE)
            on_page(one, result)

        every = self._settings.reconcile_every
        try:
            result = self._comparison(page_done).run(since)
        except SendGridError as error:
            self._records.fail(token, str(error), due_in=min(every or RETRY_AFTER, RETRY_AFTER))
            raise
        except BaseException as error:
            # The worker ends, or a person has had enough: somebody else may go on at once.
            with suppress(OutboxUnavailable):
                self._records.fail(token, f"broken off ({type(error).__name__})", due_in=0)
            raise
        self._records.finish(token, result, complete=since is None, due_in=every)
        return result

    def _comparison(self, on_page: Callable[[SuppressionList, Reconciled], None]) -> Comparison:
        return Comparison(
            api=self._api,
            lists=self._lists,
            group_ids=frozenset(self._settings.sendgrid_group_ids),
            database=self._database,
            intake=Intake(self._database),
            hasher=load_hasher(self._database),
            on_page=on_page,
        )


def _since(last: Reconciliation | None) -> datetime | None:
    """Where a scheduled comparison begins; None: with everything."""
    if last is None or last.covered_until is None or last.complete_at is None:
        return None
    if datetime.now(UTC) - last.complete_at > COMPLETE_EVERY:
        return None
    return last.covered_until - OVERLAP


@contextmanager
def scheduled(settings: Settings, database: Database) -> Iterator[None]:
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
        reconciler = Reconciler(settings, database, SendGridApi.from_settings(settings, sleep=sleep))
        with suppress(Stopped):
            while True:
                try:
                    reconciler.when_due(check)
                except OutboxUnavailable as error:
                    log.warning("outbox_unavailable", reason=str(error))
                except Exception as error:
                    # A bug of ours must not end the schedule. The error's text may hold an address.
                    log.error("reconciliation_failed", provider=PROVIDER, error=type(error).__name__)
                sleep(LOOK_EVERY)

    thread = threading.Thread(target=look, name="reconcile", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        # A page that is under way may take its time; the lease runs out by itself.
        thread.join(timeout=5)


reconcile = AppGroup("reconcile", help="Compare with an ESP's own lists, and add what is missing.")


@reconcile.command("sendgrid")
@click.option("--since", help="Only entries from then on: a time, or 2d, 12h.  [default: all]")
@click.option("--subuser", help="The subuser whose lists are meant.  [default: SENDGRID_SUBUSER]")
@click.option("--dry-run", is_flag=True, help="Only count what is missing.")
@with_appcontext
def reconcile_sendgrid(since: str | None, subuser: str | None, dry_run: bool) -> None:
    """Opt out whoever is on SendGrid's suppression lists and was never heard of here.

    Reads the lists that belong to SENDGRID_EVENTS, and of unsubscribe groups those in SENDGRID_GROUP_IDS. Safe to run
    at any time, and twice.
    """
    settings: Settings = current_app.extensions["settings"]
    database: Database = current_app.extensions["database"]
    try:
        if problem := schema.problem(database):
            raise click.ClickException(problem)
        api = SendGridApi.from_settings(settings, **({"subuser": subuser} if subuser else {}))
        reconciler = Reconciler(settings, database, api)
        compare = reconciler.count if dry_run else reconciler.now
        result = compare(_moment(since), _say_progress)
    except SendGridError as error:
        raise click.ClickException(str(error)) from None
    except OutboxUnavailable as error:
        raise click.ClickException(f"the database cannot be used: {error}") from None
    click.echo(
        f"{result.checked:,} entr{'y' if result.checked == 1 else 'ies'} checked: {result.drift:,} "
        + ("are missing here." if dry_run else "were missing here, and are on their way now.")
    )
    if result.outranked:
        click.echo(f"{result.outranked:,} left alone: the person has opted in since.")
    if result.unreadable:
        click.echo(f"{result.unreadable:,} could not be read; see the quarantine.")


def _say_progress(one: SuppressionList, result: Reconciled) -> None:
    click.echo(f"{one.title}: {result.checked:,} entries so far, {result.drift:,} missing", err=True)


def _moment(given: str | None) -> datetime | None:
    if given is None:
        return None
    with suppress(ValidationError):
        return datetime.fromtimestamp(time.time() - (Duration().deserialize(given) or 0.0), UTC)
    try:
        return Timestamp().deserialize(given)
    except ValidationError:
        raise click.BadParameter(
            f"{given} is neither a time like 2026-01-05 nor a span like 2d", param_hint="--since"
        ) from None
