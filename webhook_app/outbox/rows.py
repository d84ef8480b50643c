"""Rows: between the domain's values and what the tables keep of them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from webhook_app.consent import NO_VISITOR, Action, ConsentChange, Identity, IdentityKind, PushChannel, Visitor
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.tables import DEFAULT_SECTION, LATE, State
from webhook_app.outbox.times import from_micros, maybe_from_micros, to_micros

_TEST, _PENDING = str(State.TEST), str(State.PENDING)


class NewRow(NamedTuple):
    """What a new row says; the rest it gets later. The fields are the columns, in the order of the insert.

    Plain texts and numbers, no enums: a driver takes what it knows ten times faster than what it must look up.
    """

    dedupe_key: bytes
    provider: str
    state: str
    received_at: int
    raw: bytes
    action: str | None = None
    identity_kind: str | None = None
    identity_hash: bytes | None = None
    identity_value: str | None = None
    visitor: str | None = None
    push_channel: str | None = None
    reason: str | None = None
    esp_event_id: str | None = None
    esp_message_id: str | None = None
    occurred_at: int | None = None
    version: int | None = None
    sections: str | None = None
    settled_at: int | None = None
    error: str | None = None


class Sent(NamedTuple):
    """A request as it was really sent, without the key."""

    method: str
    url: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Claimed:
    """What one worker may tell Dynamic Yield about a person until its lease runs out."""

    #: The event's number.
    id: int
    section: str = DEFAULT_SECTION
    version: int = 0
    lease: str = field(repr=False)
    provider: str
    #: None for a row that cannot be read any more; `unreadable` says why.
    change: ConsentChange | None
    unreadable: str = ""
    #: The keyed hash of the identity, as hex.
    pseudonym: str
    #: How many attempts have failed.
    attempts: int
    received_at: datetime
    #: When the first of them failed.
    retrying_since: datetime | None
    #: Dynamic Yield has taken it before, and is told once more.
    is_told: bool = False
    #: The section is told of it long after it came, on purpose.
    is_late: bool = False

    @property
    def is_timed(self) -> bool:
        """Whether it says anything how long ago it came."""
        return not (self.is_told or self.is_late)


def row_of_change(
    provider: str, change: ConsentChange, raw: bytes, hasher: Hasher, now: int, *, sections: str | None = None
) -> NewRow:
    """`now` is the time of receipt, in microseconds; `sections` a JSON list of names, None for the default one."""
    # A time that has not come yet would win over every later change: it counts as now.
    occurred_at = now if change.occurred_at is None else min(to_micros(change.occurred_at), now)
    return NewRow(
        dedupe_key=hasher.change(provider, change, sections=sections),
        provider=provider,
        state=_TEST if change.is_test else _PENDING,
        received_at=now,
        raw=raw,
        action=str(change.action),
        identity_kind=str(change.identity.kind),
        identity_hash=hasher.identity(change.identity),
        identity_value=change.identity.value,
        visitor=_dump_visitor(change.visitor),
        push_channel=change.push_channel and str(change.push_channel),
        reason=change.reason,
        esp_event_id=change.event_id or None,
        esp_message_id=change.message_id or None,
        occurred_at=occurred_at,
        version=occurred_at * 2 + (change.action is Action.OPT_OUT),
        sections=sections,
        settled_at=now if change.is_test else None,
    )


def row_of_quarantined(provider: str, reason: str, raw: bytes, hasher: Hasher, now: int) -> NewRow:
    return NewRow(
        dedupe_key=hasher.raw(provider, raw),
        provider=provider,
        state=State.QUARANTINED.value,
        received_at=now,
        raw=raw,
        error=reason,
    )


#: Of the register and of the log: what `claimed_of_rows` reads.
PERSON_COLUMNS = (
    "identity_hash",
    "section",
    "version",
    "event_id",
    "lease",
    "tries",
    "retrying_since",
    "told_version",
    "in_doubt",
)
EVENT_COLUMNS = (
    "id",
    "provider",
    "state",
    "action",
    "identity_kind",
    "identity_value",
    "visitor",
    "push_channel",
    "reason",
    "esp_event_id",
    "esp_message_id",
    "occurred_at",
    "received_at",
)


def claimed_of_rows(person: Mapping[str, Any], event: Mapping[str, Any] | None) -> Claimed:
    """A claimed row of the register and the event of the log that it comes from; None where that is gone."""
    change, unreadable = None, ""
    try:
        if event is None:
            raise LookupError("the event is gone")
        change = change_of_row(event)
        # The last bit of a version. Where the two differ, the opposite of what is wanted would be sent.
        if (change.action is Action.OPT_OUT) != bool(person["version"] % 2):
            raise ValueError("the event says the opposite")
    except Exception as error:
        change = None
        # Whatever a damaged row holds, it must not stop its neighbours. The error's text may hold the address.
        unreadable = f"the stored change cannot be read: {type(error).__name__}"
    return Claimed(
        id=person["event_id"],
        section=person["section"],
        version=person["version"],
        lease=person["lease"],
        provider=event["provider"] if event else "",
        change=change,
        unreadable=unreadable,
        pseudonym=bytes(person["identity_hash"]).hex(),
        attempts=person["tries"],
        received_at=from_micros(event["received_at"] if event else person["version"] // 2),
        retrying_since=maybe_from_micros(person["retrying_since"]),
        is_told=person["told_version"] == person["version"],
        is_late=bool(person["in_doubt"] & LATE),
    )


def change_of_row(row: Mapping[str, Any]) -> ConsentChange:
    """Raises whatever comes of it where the row does not hold a change (any more)."""
    if row["identity_value"] is None:
        raise ValueError("emptied by retention")
    return ConsentChange(
        action=Action(row["action"]),
        identity=Identity(kind=IdentityKind(row["identity_kind"]), value=row["identity_value"]),
        reason=row["reason"],
        occurred_at=from_micros(row["occurred_at"]),
        event_id=row["esp_event_id"] or "",
        message_id=row["esp_message_id"] or "",
        visitor=NO_VISITOR if row["visitor"] is None else Visitor(**json.loads(row["visitor"])),
        push_channel=None if row["push_channel"] is None else PushChannel(row["push_channel"]),
        is_test=row["state"] == State.TEST,
    )


def _dump_visitor(visitor: Visitor) -> str | None:
    if visitor is NO_VISITOR:
        return None
    known = {name: value for name, value in asdict(visitor).items() if value}
    return json.dumps(known) if known else None
