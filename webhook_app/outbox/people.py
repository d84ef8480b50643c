"""People: what is known of one, who is opted out, and how to forget somebody.

Raises `OutboxUnavailable` where the database cannot be used.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, or_, select, update

from webhook_app.consent import Action, IdentityKind
from webhook_app.outbox.batches import in_batches
from webhook_app.outbox.database import Database
from webhook_app.outbox.hashing import Hasher, load_hasher
from webhook_app.outbox.mentions import as_sent, is_mentioned
from webhook_app.outbox.queries import PAGE, Attempt, Event, Filter, attempt_of, hashes_of, stream
from webhook_app.outbox.states import is_being_sent
from webhook_app.outbox.tables import State, attempts, consents, events, mentions, recent_webhooks, set_aside
from webhook_app.outbox.times import from_micros, maybe_from_micros

BATCH = 1000  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What one section must know of a person, and what it was told."""

    section: str
    pseudonym: str
    wanted: Action
    #: When the person said so, and the event that says it.
    since: datetime
    event: int
    told: Action | None
    told_at: datetime | None
    #: Of the request that told it.
    told_trace: str
    #: When it is told next; None where there is nothing to tell.
    due_at: datetime | None
    being_told: bool
    failed_tries: int
    given_up_at: datetime | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    consents: list[Consent]
    #: Oldest first.
    events: list[Event]
    attempts: list[tuple[int, Attempt]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptedOut:
    """One line of the suppression list. Without an identity once retention has emptied it."""

    section: str
    kind: IdentityKind
    identity: str | None = field(repr=False)
    since: datetime
    told_at: datetime | None


def show_person(database: Database, person: str) -> Person | None:
    """By address, external or push id or pseudonym; None for somebody who was never heard of."""
    hashes = hashes_of(database, person)
    found = [event for batch in stream(database, Filter(), events.c.identity_hash.in_(hashes)) for event in batch]
    being_told = is_being_sent(database.dialect).label("being_told")
    with database.read() as connection:
        rows = connection.execute(
            select(consents, being_told).where(consents.c.identity_hash.in_(hashes)).order_by(consents.c.section)
        ).all()
        numbers = select(events.c.id).where(events.c.identity_hash.in_(hashes))
        tried = connection.execute(
            select(attempts).where(attempts.c.event_id.in_(numbers)).order_by(attempts.c.id)
        ).all()
    if not rows and not found:
        return None
    return Person(
        consents=[_consent(row) for row in rows],
        events=found,
        attempts=[(row.event_id, attempt_of(row)) for row in tried],
    )


def quarantined_mentions(database: Database, person: str) -> list[Event]:
    """Events in quarantine in which the person's address stands, newest first, at most a page."""
    return _mentioning(database, person, Filter(state=State.QUARANTINED))


def set_aside_mentions(database: Database, person: str) -> list[Event]:
    """The same, with those that have left the quarantine: they still hold the address."""
    return _mentioning(database, person, Filter())


def _mentioning(database: Database, person: str, which: Filter) -> list[Event]:
    mentioned = select(mentions.c.event_id).where(mentions.c.identity_hash.in_(hashes_of(database, person)))
    some = and_(events.c.id.in_(mentioned), events.c.identity_hash.is_(None))
    return [event for batch in stream(database, which, some) for event in batch][::-1][:PAGE]


def opted_out(database: Database) -> Iterator[list[OptedOut]]:
    """Everybody whose newest wish is to get no messages, in batches."""
    opt_outs = (
        select(consents, events.c.identity_kind, events.c.identity_value)
        .join_from(consents, events, events.c.id == consents.c.event_id)
        .where(consents.c.action == Action.OPT_OUT.value)
    )
    for rows in in_batches(database, opt_outs, consents.c.identity_hash, consents.c.section, size=BATCH):
        yield [
            OptedOut(
                section=row.section,
                kind=IdentityKind(row.identity_kind),
                identity=row.identity_value,
                since=from_micros(row.version // 2),
                told_at=maybe_from_micros(row.told_at),
            )
            for row in rows
        ]


def is_unfinished(person: Person) -> bool:
    """Whether Dynamic Yield does not know yet what the person wants."""
    return any(one.due_at or one.given_up_at for one in person.consents)


def erase_person(database: Database, person: str) -> int:
    """Forget all that is known of somebody; returns how many events that were.

    What was not understood and holds their address goes too, whatever became of it, and what is shown of the last
    webhooks.
    """
    hashes, hasher = hashes_of(database, person), load_hasher(database)
    read_before = _mentioned_in_raw(database, hashes, hasher)
    with database.write() as connection:
        # And what came in meanwhile.
        noted = select(mentions.c.event_id).where(mentions.c.identity_hash.in_(hashes))
        still_there = select(events.c.id).where(events.c.id.in_(noted), events.c.raw.is_not(None))
        about = {*read_before, *connection.execute(still_there).scalars()}
        mine = or_(events.c.identity_hash.in_(hashes), events.c.id.in_(about))
        _empty_bodies(connection, hashes, hasher)
        connection.execute(delete(attempts).where(attempts.c.event_id.in_(select(events.c.id).where(mine))))
        erased_or_mentioned = or_(mentions.c.identity_hash.in_(hashes), mentions.c.event_id.in_(about))
        connection.execute(delete(mentions).where(erased_or_mentioned))
        connection.execute(delete(consents).where(consents.c.identity_hash.in_(hashes)))
        return int(connection.execute(delete(events).where(mine)).rowcount)


def _mentioned_in_raw(database: Database, hashes: Sequence[bytes], hasher: Hasher) -> list[int]:
    """What was not understood and holds the person's address, by the raw events themselves, a batch at a time.

    Not of every address in them a mention is kept, and nobody who stores has to wait meanwhile. By whole addresses: a
    part of a text may be a part of somebody else's, and an id that of a time.
    """
    of_nobody = select(events.c.id, events.c.raw).where(
        set_aside(), events.c.identity_hash.is_(None), events.c.raw.is_not(None)
    )
    batches = in_batches(database, of_nobody, events.c.id, size=BATCH)
    return [row.id for rows in batches for row in rows if is_mentioned(hashes, row.raw, hasher)]


def _empty_bodies(connection: Connection, hashes: Sequence[bytes], hasher: Hasher) -> None:
    """Of the last webhooks, those that hold the person's address or, as whole words, their ids.

    One too many costs nobody anything: these are only there to be looked at.
    """
    of_ids = select(events.c.identity_value).where(
        events.c.identity_hash.in_(hashes),
        events.c.identity_kind != IdentityKind.EMAIL.value,
        events.c.identity_value.is_not(None),
    )
    ids = [
        re.compile(rb"(?<![\w-])%s(?![\w-])" % re.escape(value.encode()))
        for value in connection.execute(of_ids.distinct()).scalars()
    ]
    bodies = select(recent_webhooks.c.id, recent_webhooks.c.body).where(recent_webhooks.c.body.is_not(None))
    theirs = [
        row.id
        for row in connection.execute(bodies)
        if is_mentioned(hashes, row.body, hasher)
        or any(pattern.search(text) for pattern in ids for text in as_sent(row.body))
    ]
    connection.execute(update(recent_webhooks).where(recent_webhooks.c.id.in_(theirs)).values(body=None))


def _consent(row: Any) -> Consent:
    return Consent(
        section=row.section,
        pseudonym=bytes(row.identity_hash).hex(),
        wanted=Action(row.action),
        since=from_micros(row.version // 2),
        event=row.event_id,
        told=None if row.told_action is None else Action(row.told_action),
        told_at=maybe_from_micros(row.told_at),
        told_trace=row.told_trace or "",
        due_at=maybe_from_micros(row.due_at),
        being_told=bool(row.being_told),
        failed_tries=row.tries,
        given_up_at=maybe_from_micros(row.dead_at),
        error=row.error or "",
    )
