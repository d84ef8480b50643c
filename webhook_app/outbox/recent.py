"""Recent webhooks of each ESP, to be looked at: what came, and what became of it.

No promise, but an aid: whoever connects an ESP sees its calls here, those that were ignored or refused among them. They
are kept in memory for a few seconds and written by the thread that writes statistics, never on a request's way.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from webhook_app.outbox.database import Database, OutboxUnavailable
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.tables import recent_webhooks
from webhook_app.outbox.times import from_micros, seconds_to_micros

#: Webhooks of each ESP.
KEPT = 50
#: Of a body only its beginning is kept; ten typical events fit in.
MAX_BODY = 16 * 1024  # bytes
#: A body holds addresses: after so long only what became of it is left.
KEEP_BODIES = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentWebhook:
    """One webhook and what became of it."""

    provider: str
    received_at: datetime
    method: str
    status: int
    #: What became of its events; None where none were read.
    counts: Mapping[str, int] | None
    #: Why it was refused: a slug. Empty where it was not.
    reason: str
    #: How the URL was verified or a subscription confirmed.
    note: str
    #: Keyed hash of the network address it came from, as hex.
    caller: str
    #: The beginning of the body, where it was authentic and is not older than `KEEP_BODIES`.
    body: bytes | None = field(repr=False)
    #: Of the whole body, in bytes.
    body_size: int | None


class RecentWebhooks:
    """Takes webhooks from any thread, and writes the last of each ESP down when told to.

    `clock` gives seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        #: Provider → what is not written down yet. More than are kept would be written for nothing.
        self._new: dict[str, deque[dict[str, Any]]] = {}

    def add(
        self,
        provider: str,
        *,
        method: str,
        status: int,
        counts: Mapping[str, int] | None = None,
        reason: str = "",
        note: str = "",
        caller: str = "",
        body: bytes | None = None,
    ) -> None:
        """`body` only where it was authentic: a stranger's is nobody's business, and could be anything."""
        row = {
            "provider": provider,
            "received_at": seconds_to_micros(self._clock()),
            "method": method,
            "status": status,
            "counts": counts,
            # What follows the colon is a sentence, which may name hosts.
            "reason": reason.partition(":")[0],
            "note": note,
            "caller": caller,
            "body": None if body is None else body[:MAX_BODY],
            "body_size": None if body is None else len(body),
        }
        with self._lock:
            if provider not in self._new:
                self._new[provider] = deque(maxlen=KEPT)
            self._new[provider].append(row)

    def flush(self) -> None:
        """Write down what came since the last time. Raises `OutboxUnavailable`; it is tried again then."""
        with self._lock:
            new, self._new = self._new, {}
        if not new:
            return
        try:
            self._write(new)
        except OutboxUnavailable:
            with self._lock:
                for provider, rows in new.items():
                    self._new[provider] = deque([*rows, *self._new.get(provider, ())], maxlen=KEPT)
            raise

    def _write(self, new: Mapping[str, deque[dict[str, Any]]]) -> None:
        hasher = load_hasher(self._database)
        came = sorted((row for rows in new.values() for row in rows), key=lambda row: row["received_at"])
        rows = [
            row | {"caller": hasher.caller(row["caller"]), "counts": row["counts"] and json.dumps(dict(row["counts"]))}
            for row in came
        ]
        with self._database.write() as connection:
            connection.execute(insert(recent_webhooks), rows)
            # In order: two processes that trim the same two ESPs in different orders would wait for each other.
            for provider in sorted(new):
                of_it = recent_webhooks.c.provider == provider
                newest = select(recent_webhooks.c.id).where(of_it).order_by(recent_webhooks.c.id.desc())
                first_too_many = newest.offset(KEPT).limit(1).scalar_subquery()
                connection.execute(delete(recent_webhooks).where(of_it, recent_webhooks.c.id <= first_too_many))


def recent(database: Database, provider: str = "", *, limit: int = KEPT) -> list[RecentWebhook]:
    """The last webhooks, of one ESP or of all, newest first. Raises `OutboxUnavailable`."""
    query = select(recent_webhooks).order_by(recent_webhooks.c.id.desc()).limit(limit)
    if provider:
        query = query.where(recent_webhooks.c.provider == provider)
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [
        RecentWebhook(
            provider=row.provider,
            received_at=from_micros(row.received_at),
            method=row.method,
            status=row.status,
            counts=None if row.counts is None else json.loads(row.counts),
            reason=row.reason,
            note=row.note,
            caller=row.caller.hex(),
            body=None if row.body is None else bytes(row.body),
            body_size=row.body_size,
        )
        for row in rows
    ]


def forget_bodies(connection: Connection, now: float) -> None:
    """Empty what is older than `KEEP_BODIES`. `now` is seconds since 1970."""
    stale = seconds_to_micros(now - KEEP_BODIES.total_seconds())
    old = recent_webhooks.c.body.is_not(None) & (recent_webhooks.c.received_at < stale)
    connection.execute(update(recent_webhooks).where(old).values(body=None))
