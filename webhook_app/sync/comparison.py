"""Comparing SendGrid's lists with the outbox: whoever is on them and was never heard of here is opted out, too.

Suppressions made by hand fire no webhook, and SendGrid gives up on a webhook after a day of outage. Its lists know of
both. They say when somebody was put on them: that is when the opt-out happened, so nothing newer is undone.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox import Database, Intake
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.lookup import Known, newest_changes
from webhook_app.outbox.reconciliations import Reconciled
from webhook_app.providers import explain
from webhook_app.providers.fields import Address, Timestamp
from webhook_app.sync.sendgrid_api import SendGridApi

PROVIDER = "sendgrid"


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
