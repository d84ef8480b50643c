"""The version without a register, as far as the tables see of it: what its processes write while the next starts."""

from dataclasses import dataclass, field

from sqlalchemy import bindparam, text

from tests.outbox.world import START
from webhook_app.consent import ConsentChange
from webhook_app.outbox import Database
from webhook_app.outbox.hashing import Hasher, load_hasher
from webhook_app.outbox.rows import row_of_change

NOW = int(START * 1_000_000)
_COLUMNS = (
    "dedupe_key, provider, state, received_at, raw, action, identity_kind, identity_hash, identity_value, reason,"
    " occurred_at, version, due_at"
)
_STORE = text(
    f"INSERT INTO events ({_COLUMNS}) VALUES (:{_COLUMNS.replace(', ', ', :')})"  # noqa: S608 (our own names only)
    " ON CONFLICT (dedupe_key) DO NOTHING"
)
_DUE = text("SELECT id FROM events WHERE due_at <= :now AND lease IS NULL ORDER BY due_at, id LIMIT :limit")
_LEASE = text("UPDATE events SET lease = 'theirs' || id, due_at = :until WHERE id IN :ids").bindparams(
    bindparam("ids", expanding=True)
)
_SETTLE = text("UPDATE events SET state = :state, due_at = NULL, lease = NULL, settled_at = :now WHERE id = :id")
_AGAIN = text("UPDATE events SET lease = NULL, due_at = :now WHERE id = :id")
_ATTEMPT = text("INSERT INTO attempts (event_id, started_at, duration, outcome) VALUES (:id, :now, 1, 'delivered')")


@dataclass
class VersionBefore:
    database: Database
    _hasher: Hasher = field(init=False)

    def __post_init__(self) -> None:
        self._hasher = load_hasher(self.database)

    def store(self, *changes: ConsentChange) -> int:
        """How many were new."""
        stored = 0
        with self.database.write() as connection:
            for change in changes:
                row = row_of_change("sendgrid", change, b"{}", self._hasher, NOW)
                values = {name: getattr(row, name, None) for name in _COLUMNS.split(", ")} | {"due_at": NOW}
                stored += connection.execute(_STORE, values).rowcount
        return stored

    def claim(self, limit: int, *, until: int = NOW + 20_000_000) -> list[int]:
        with self.database.write() as connection:
            ids = list(connection.execute(_DUE, {"now": NOW, "limit": limit}).scalars())
            connection.execute(_LEASE, {"ids": ids, "until": until})
        return ids

    def deliver(self, number: int) -> None:
        self._settle(number, state="delivered")
        with self.database.write() as connection:
            connection.execute(_ATTEMPT, {"now": NOW, "id": number})

    def give_up(self, number: int) -> None:
        self._settle(number, state="dead")

    def discard(self, number: int) -> None:
        self._settle(number, state="discarded")

    def fail(self, number: int) -> None:
        with self.database.write() as connection:
            connection.execute(_AGAIN, {"now": NOW, "id": number})

    def _settle(self, number: int, *, state: str) -> None:
        with self.database.write() as connection:
            connection.execute(_SETTLE, {"now": NOW, "id": number, "state": state})
