"""Comparison of an ESP's own lists with the outbox: whoever is on them and was never heard of here is opted out, too.

Suppressions made by hand fire no webhook, and ESPs give up on a webhook after hours or a day of outage. Their lists
know of both. They say when somebody was put on them: that is when the opt-out happened, so nothing newer is undone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox import Database, Intake
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.lookup import NewestChange
from webhook_app.outbox.reconciliations import Reconciled
from webhook_app.outbox.routing import ConditionFailed, RoutingCondition, concerned
from webhook_app.outbox.tables import ON_LIST
from webhook_app.providers import explain
from webhook_app.providers.fields import Address, Text
from webhook_app.providers.kept import keep_entry
from webhook_app.sync.known_changes import known_changes, sections_of
from webhook_app.sync.sources import Source, SuppressionList
from webhook_app.sync.times import PastTime

#: Entries that are looked up and stored at once, however long a page is.
BATCH = 1000


class ListEntry(Schema):
    """One entry of a list, whichever."""

    class Meta:
        unknown = EXCLUDE

    email = Address(required=True)
    time = PastTime(required=True)
    reason = Text(load_default="")


_ENTRY = ListEntry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Compares lists with the outbox, page by page. `on_page` is called after each; what it raises ends it."""

    source: Source
    database: Database
    intake: Intake
    hasher: Hasher
    #: Those of the intake.
    sections: Mapping[str, RoutingCondition] = field(default_factory=dict)
    #: False: only count what is missing.
    adds: bool = True
    on_page: Callable[[SuppressionList, Reconciled], None] = lambda _list, _result: None

    def run(self, since: datetime | None) -> Reconciled:
        """Only of entries from `since` on, if it is given. Raises `ApiError` and `OutboxUnavailable`."""
        result = Reconciled()
        for one in self.source.lists():
            for page in self.source.pages(one, since):
                for start in range(0, len(page), BATCH):
                    result = self._page(one, page[start : start + BATCH], since, result)
                self.on_page(one, result)
        return result

    def _page(self, one: SuppressionList, page: list[Any], since: datetime | None, result: Reconciled) -> Reconciled:
        changes: dict[tuple[str, tuple[str, ...]], tuple[ConsentChange, bytes]] = {}
        quarantined: list[tuple[str, bytes]] = []
        checked = 0
        for raw in page:
            kept = keep_entry(one.path, raw)
            try:
                change = _change(one, raw)
            except ValidationError as error:
                checked += 1
                reason = ON_LIST.format(self.source.api.title, one.title) + explain(error)
                quarantined.append((reason, kept))
                continue
            if change is None or (since and change.occurred_at and change.occurred_at < since):
                continue
            checked += 1
            # Somebody may stand in several groups: the last time counts, for each section that has one of them.
            names = sections_of(self.sections, self.source.provider, change, kept)
            other = changes.get((change.identity.key, names))
            if other is None or _time(other[0]) < _time(change):
                changes[change.identity.key, names] = change, kept
        several = len(self.sections) > 1
        people = ((change.identity, names if several else ()) for (_, names), (change, _) in changes.items())
        known = known_changes(self.database, self.hasher, people)
        missing, outranked = [], 0
        for (change, kept), newest in zip(changes.values(), known, strict=True):
            verdicts = {_verdict(one, _time(change)) for one in newest}
            if "missing" in verdicts:
                missing.append((change, kept))
            elif "outranked" in verdicts:
                outranked += 1
        wanted, unclear = self._of_a_section(missing)
        quarantined += unclear
        drift = self._add(wanted, quarantined) if self.adds else len(wanted)
        return Reconciled(
            checked=result.checked + checked,
            drift=result.drift + drift,
            outranked=result.outranked + outranked,
            unreadable=result.unreadable + len(quarantined),
            no_section=result.no_section + len(missing) - len(wanted) - len(unclear),
        )

    def _of_a_section(
        self, missing: list[tuple[ConsentChange, bytes]]
    ) -> tuple[list[tuple[ConsentChange, bytes]], list[tuple[str, bytes]]]:
        """Those that concern one, and those of which a condition makes no sense, with the reason."""
        wanted, unclear = [], []
        for change, kept in missing:
            try:
                if concerned(self.sections, self.source.provider, change, kept):
                    wanted.append((change, kept))
            except ConditionFailed as error:
                unclear.append((str(error), kept))
        return wanted, unclear

    def _add(self, missing: list[tuple[ConsentChange, bytes]], quarantined: list[tuple[str, bytes]]) -> int:
        return self.intake.add(self.source.provider, changes=missing, quarantined=quarantined).accepted


def _change(one: SuppressionList, raw: Any) -> ConsentChange | None:
    """What an entry means; None for one that is no opt-out. Raises `ValidationError`."""
    if not isinstance(raw, dict):
        raise ValidationError("is not a JSON object", "entry")
    if one.known and not one.known.holds(raw):
        raise ValidationError("is of a kind that is not known", "entry")
    if one.where and not one.where.holds(raw):
        return None
    found = {
        "email": one.email.find(raw),
        "time": one.time.find(raw),
        "reason": (one.reason_at and one.reason_at.find(raw)) or "",
    }
    entry = _ENTRY.load(found)
    return ConsentChange(
        action=Action.OPT_OUT,
        identity=Identity(kind=IdentityKind.EMAIL, value=entry["email"]),
        reason=entry["reason"] or one.reason,
        occurred_at=entry["time"],
    )


def _verdict(known: NewestChange | None, created: datetime) -> str:
    """What an entry of that time means for a person of whom this is known."""
    if known is None:
        return "missing"
    if known.covers_opt_out(created):
        return "known"
    # In a tie the opt-out wins.
    return "outranked" if known.action is Action.OPT_IN and known.occurred_at > created else "missing"


def _time(change: ConsentChange) -> datetime:
    return change.occurred_at or datetime.min.replace(tzinfo=UTC)
