"""Mentions in the quarantine: keyed hashes of the address-like texts in an event that was not understood.

So a person is found in the quarantine too, and no address stands on the disk but in the event itself.
"""

import re
from collections.abc import Iterable, Sequence
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

_LIKE_ADDRESS = re.compile(rb"[^\s\"'<>()\[\]{},;:&=\\]{1,256}@[^\s\"'<>()\[\]{},;:&=\\@]{1,256}")

#: The hash, and the dedupe key of the event.
Mention = dict[str, bytes]


def mentions_in(rows: Iterable[NewRow], hasher: Hasher) -> list[Mention]:
    """Whom the quarantined ones of these rows mention."""
    found = (
        {"mentioned": hasher.identity(Identity(kind=IdentityKind.EMAIL, value=text)), "key": row.dedupe_key}
        for row in rows
        if row.state == State.QUARANTINED
        for text in _addresses(row.raw)
    )
    return list(islice(found, MOST))


def _addresses(raw: bytes) -> set[str]:
    # Also as a form writes them.
    texts = {raw, unquote_to_bytes(raw)}
    found = (match for text in texts for match in _LIKE_ADDRESS.findall(text))
    return {match.decode(errors="replace").strip(".") for match in islice(found, MOST_OF_EVENT)}


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
