"""Redelivery: what a person may order: send again, read again, give up. Any number of changes, a batch at a time."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from sqlalchemy import ColumnElement, or_

from webhook_app.auth import WebhookRequest
from webhook_app.outbox import Database, queries
from webhook_app.outbox.maintenance import CAN_DISCARD, CAN_REPLAY, Maintenance
from webhook_app.outbox.quarantine import CAN_READ_AGAIN, Quarantine
from webhook_app.outbox.queries import Event, Filter
from webhook_app.outbox.routing import RoutingCondition
from webhook_app.providers import Provider, Reading, read
from webhook_app.providers.kept import is_row_or_entry, kept


class Verb(StrEnum):
    #: Send it to Dynamic Yield again; what was not understood is read again first.
    REPLAY = "replay"
    #: Never send it.
    DISCARD = "discard"


#: Which changes a verb can do something about.
ABLE: Mapping[Verb, ColumnElement[bool]] = {
    Verb.REPLAY: or_(CAN_REPLAY, CAN_READ_AGAIN),
    Verb.DISCARD: CAN_DISCARD,
}


@dataclass(frozen=True, slots=True)
class Progress:
    #: How many changes were looked at, and about how many something was done.
    seen: int
    done: int
    #: The number of the last change that was looked at.
    last: int


class Redelivery:
    """Replaying and discarding: one change, or all that a filter finds.

    Raises `OutboxUnavailable` where the database cannot be used; what was done until then stays done.
    """

    def __init__(
        self,
        database: Database,
        providers: Mapping[str, Provider],
        *,
        forward_opt_ins: bool,
        sections: Mapping[str, RoutingCondition] | None = None,
    ) -> None:
        self._database = database
        self._sections = sections
        self._providers = providers
        self._forward_opt_ins = forward_opt_ins

    def count(self, verb: Verb, which: Filter) -> int:
        """About how many changes the verb will do something."""
        return queries.count(self._database, which, ABLE[verb])

    def run(self, verb: Verb, which: Filter, *, after: int = 0, up_to: int = 2**63 - 1) -> Iterator[Progress]:
        """Do it for all of them, oldest first, and tell after each batch.

        Begins behind the change with the number `after`, ends with `up_to`: an order that is interrupted can go on, and
        never reaches what came in after it was given.
        """
        for batch in queries.stream(self._database, which, ABLE[verb], after=after, up_to=up_to):
            yield Progress(len(batch), self._do(verb, batch), batch[-1].id)

    def one(self, verb: Verb, event: Event) -> bool:
        """Do it for one change; whether something was done."""
        return self._do(verb, [event]) == 1

    def _do(self, verb: Verb, batch: list[Event]) -> int:
        maintenance = Maintenance(self._database)
        if verb is Verb.DISCARD:
            return maintenance.discard([event.id for event in batch])
        not_understood = [event.id for event in batch if event.action is None]
        understood = [event.id for event in batch if event.action is not None]
        return sum(map(self._read_again, not_understood)) + maintenance.replay(understood)

    def _read_again(self, number: int) -> bool:
        details = queries.show(self._database, number)
        if details is None or details.raw is None:
            return False
        if is_row_or_entry(details.raw):
            # Its provider would make nothing of it, and an opt-out that counts would be lost. It stays with its reason:
            # the next import of the file reads its row, the next comparison its entry.
            return False
        quarantine = Quarantine(self._database, sections=self._sections)
        provider = self._providers.get(details.event.provider)
        if provider is None:
            quarantine.keep(number, f"there is no provider {details.event.provider} any more")
            return False
        reading = _read(provider, details.raw, forward_opt_ins=self._forward_opt_ins)
        if not reading.changes and reading.quarantined:
            quarantine.keep(number, reading.quarantined[0][0])
            return False
        changes = [
            # Where the ESP does not say when it happened, it happened when we first heard of it.
            (dataclasses.replace(change, occurred_at=change.occurred_at or details.event.received_at), raw)
            for change, raw in reading.changes
        ]
        return quarantine.release(number, provider.name, changes=changes, quarantined=reading.quarantined)


def _read(provider: Provider, stored: bytes, *, forward_opt_ins: bool) -> Reading:
    """What is kept is either a whole body or one event of it; which of the two, only the attempt tells."""
    raw, query = kept(stored)
    request = WebhookRequest(body=raw, query=query)
    again = partial(read, request=request, forward_opt_ins=forward_opt_ins, damaged_too=True)
    whole = again(provider)
    if whole.changes:
        return whole
    try:
        event = json.loads(raw)
    except (ValueError, RecursionError):
        return whole
    single = again(dataclasses.replace(provider, events=lambda _: [event]))
    # While either way of reading it fails, it stays where a person sees it.
    return whole if whole.quarantined and not single.changes else single
