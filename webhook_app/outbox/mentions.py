"""Mentions in the quarantine: keyed hashes of the address-like texts in an event that was not understood.

So a person is found in the quarantine too, and no address stands on the disk but in the event itself.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from urllib.parse import unquote_to_bytes

from sqlalchemy import Connection, text

from webhook_app.consent import Identity, IdentityKind
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.rows import NewRow
from webhook_app.outbox.tables import State

#: Of one event, and of all of a webhook: a hostile body may hold nothing but addresses.
MOST_OF_EVENT = 50
MOST = 1000

#: An apostrophe inside belongs to it: o'brien is not brien. It begins where a word begins, so that each is tried once:
#: from each of its bytes, two megabytes without a space would take seconds, in which nothing else goes on.
_LIKE_ADDRESS = re.compile(
    rb"(?<![^\s\"<>()\[\]{},;:&=\\])'*+"
    rb"([^\s\"'<>()\[\]{},;:&=\\][^\s\"<>()\[\]{},;:&=\\]{0,255}@[^\s\"'<>()\[\]{},;:&=\\@]{1,256})"
)

#: The hash, and the dedupe key of the event.
Mention = dict[str, bytes]


def mentions_in(rows: Iterable[NewRow], hasher: Hasher) -> list[Mention]:
    """Whom the quarantined ones of these rows mention."""
    found = (
        {"mentioned": _hash(text, hasher), "key": row.dedupe_key}
        for row in rows
        if row.state == State.QUARANTINED
        for text in _addresses(row.raw)
    )
    return list(islice(found, MOST))


def is_mentioned(hashes: Collection[bytes], raw: bytes, hasher: Hasher) -> bool:
    """Whether one of the address-like texts, whole, has one of these hashes."""
    return any(_hash(text, hasher) in hashes for text in set(_like_addresses(raw)))


def _addresses(raw: bytes) -> set[str]:
    return set(islice(_like_addresses(raw), MOST_OF_EVENT))


def _like_addresses(raw: bytes) -> Iterator[str]:
    for written in as_sent(raw):
        for match in _LIKE_ADDRESS.finditer(written):
            yield match[1].decode(errors="replace").strip(".")


def as_sent(raw: bytes) -> set[bytes]:
    """As it is, and as a form is read."""
    return {raw, unquote_to_bytes(raw)}


def _hash(text: str, hasher: Hasher) -> bytes:
    return hasher.identity(Identity(kind=IdentityKind.EMAIL, value=text))


#: A dedupe key is an event's own, so one that came before is not noted twice.
_NOTE = text(
    "INSERT INTO mentions (identity_hash, event_id) SELECT :mentioned, id FROM events WHERE dedupe_key = :key "
    "ON CONFLICT DO NOTHING"
)


def note(connection: Connection, found: Sequence[Mention]) -> None:
    """Write them down, in the transaction that has stored the events."""
    if found:
        # In order: two webhooks that mention the same people wait for each other in one direction, never in a ring.
        connection.execute(_NOTE, sorted(found, key=lambda one: (one["mentioned"], one["key"])))
