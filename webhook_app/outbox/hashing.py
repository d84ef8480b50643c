"""Keyed hashes of people and events: they find a person again, and tell nobody who it is."""

import hmac
import os
from dataclasses import dataclass, field

from sqlalchemy import select

from webhook_app.consent import ConsentChange, Identity
from webhook_app.outbox.database import Database
from webhook_app.outbox.tables import installation
from webhook_app.outbox.times import to_micros

#: Of SHA-256's 32 bytes: two people among 10^9 share a hash with a chance of 10^-21.
HASH_BYTES = 16

_SECONDS = 1_000_000
_NO_TIME = b"\0\0\0\0"


@dataclass(frozen=True, slots=True)
class Hasher:
    """HMAC-SHA256 under the installation's key."""

    key: bytes = field(repr=False)
    #: Has taken in the key: a copy of it costs half of beginning anew.
    _keyed: hmac.HMAC = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keyed", hmac.new(self.key, digestmod="sha256"))

    def identity(self, identity: Identity) -> bytes:
        return self._hash("identity", identity.key)

    def change(self, provider: str, change: ConsentChange, *, sections: str | None = None) -> bytes:
        """The natural key: provider, what happened, to whom, when, by which message, and for which sections.

        `sections` are as the row has them: of two groups or lists that are left with one click, and so at one moment,
        each may be another section's.

        The ESP's event id is no part of it where there is a time: retries with a new id are seen. Without a time
        the id must do, and without either the event is always new: two equal opt-outs cost nothing, while one that
        was taken for the repetition of an older one, from before an opt-in, would be lost.

        The time stands in front, so that the index grows at its end instead of everywhere.
        """
        what = (provider, change.reason, change.action, change.identity.key, *((sections,) if sections else ()))
        if change.occurred_at is not None:
            micros = to_micros(change.occurred_at)
            seconds = min(max(micros // _SECONDS, 0), 2**32 - 1)
            return seconds.to_bytes(4) + self._hash("change", *what, str(micros), change.message_id)
        if change.event_id:
            return _NO_TIME + self._hash("event", *what, change.event_id)
        return _NO_TIME + os.urandom(HASH_BYTES)

    def raw(self, provider: str, raw: bytes) -> bytes:
        """The key of what could not be understood: its bytes."""
        return _NO_TIME + self._digest(b"raw\0" + provider.encode() + b"\0" + raw)[:HASH_BYTES]

    def caller(self, address: str) -> bytes:
        """Tells one network address from another, and nobody which it is."""
        return self._digest(b"caller\0" + address.encode())[:HASH_BYTES]

    def token(self, provider: str, token: bytes) -> bytes:
        return self._digest(b"token\0" + provider.encode() + b"\0" + token)

    def body(self, body: bytes) -> bytes:
        return self._digest(b"body\0" + body)

    def _hash(self, *parts: str) -> bytes:
        # No part can hold NUL, so no two lists of parts are joined into the same text.
        return self._digest("\0".join(parts).encode())[:HASH_BYTES]

    def _digest(self, message: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(message)
        return keyed.digest()


def load_hasher(database: Database) -> Hasher:
    """Raises `OutboxUnavailable`."""
    with database.read() as connection:
        return Hasher(connection.execute(select(installation.c.hash_key)).scalar_one())
