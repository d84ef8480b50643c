"""The intake: stores what a webhook said, before it is answered."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Insert, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from webhook_app.consent import ConsentChange
from webhook_app.outbox import schema
from webhook_app.outbox.database import LOCK_TIMEOUT, Database, OutboxUnavailable
from webhook_app.outbox.group_commit import GroupCommit
from webhook_app.outbox.hashing import Hasher, load_hasher
from webhook_app.outbox.inserts import insert_events
from webhook_app.outbox.mentions import Mention, mentions_in, note
from webhook_app.outbox.routing import Condition, rows_of
from webhook_app.outbox.rows import NewRow
from webhook_app.outbox.tables import State, one_time_tokens
from webhook_app.outbox.times import SERVER_TIME, seconds_to_micros


class TokenReused(Exception):
    """A one-time token came again with another body: a signature that does not cover the body is replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of the events of one webhook."""

    accepted: int
    duplicates: int
    quarantined: int
    #: What a test button made up: stored, and nobody's change.
    tests: int = 0
    #: Changes that concern no section: not stored.
    no_section: int = 0


@dataclass(slots=True, eq=False)
class _Webhook:
    rows: list[NewRow]
    token: dict[str, Any] | None
    mentions: list[Mention]


class Intake:
    """Raises `OutboxUnavailable` where the database cannot be used; nothing of a webhook is stored then.

    `sections` are the conditions of the configured ones by name; without any, all is for the default section. `clock`
    gives seconds since 1970, for tests.
    """

    def __init__(
        self,
        database: Database,
        *,
        sections: Mapping[str, Condition] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._database = database
        self._sections = sections or {}
        self._clock = clock or time.time
        self._due_at = due_when_stored(database, clock)
        self._knows_tables = False
        self._hasher: Hasher | None = None
        self._commit: GroupCommit[_Webhook, Added | TokenReused] = GroupCommit(self._store, timeout=2 * LOCK_TIMEOUT)
        # What it returns says whether the token was new; the count of rows is not known on every engine.
        new_token = insert_or_ignore(database.dialect, one_time_tokens, "token_hash")
        self._insert_token = new_token.returning(one_time_tokens.c.token_hash)

    def add(
        self,
        provider: str,
        *,
        changes: Iterable[tuple[ConsentChange, bytes]] = (),
        quarantined: Iterable[tuple[str, bytes]] = (),
        one_time_token: bytes | None = None,
        body: bytes = b"",
    ) -> Added:
        """Store what one webhook said; on disk when this returns. Changes and reasons come with their raw event.

        A `one_time_token` is good for one `body` only: raises `TokenReused` for another. The same body again is an
        ESP's retry, and its events are duplicates. What a test button made up is stored and not counted.
        """
        hasher = self._hasher or self._begin()
        now = seconds_to_micros(self._clock())
        rows, no_section = rows_of(provider, changes, quarantined, sections=self._sections, hasher=hasher, now=now)
        token = None
        if one_time_token is not None:
            token_hash, body_hash = hasher.token(provider, one_time_token), hasher.body(body)
            token = {"token_hash": token_hash, "body_hash": body_hash, "seen_at": now}
        if not rows and token is None:
            return Added(accepted=0, duplicates=0, quarantined=0, no_section=no_section)
        try:
            added = self._commit(_Webhook(rows, token, mentions_in(rows, hasher)))
        except TimeoutError:
            raise OutboxUnavailable("the database is too slow") from None
        except OutboxUnavailable:
            # It may be another one when it comes back, with a key of its own.
            self._hasher = None
            raise
        if isinstance(added, TokenReused):
            raise added
        return replace(added, no_section=no_section) if no_section else added

    def _begin(self) -> Hasher:
        # Once: who serves already goes on while the next release migrates, for a migration never breaks the version
        # before it. Who starts on tables that it does not know must not write to them.
        if not self._knows_tables and (problem := schema.problem(self._database)):
            raise OutboxUnavailable(problem)
        self._knows_tables = True
        self._hasher = load_hasher(self._database)
        return self._hasher

    def _store(self, webhooks: list[_Webhook]) -> list[Added | TokenReused]:
        signed = [(webhook, webhook.token) for webhook in webhooks if webhook.token is not None]
        with self._database.write() if signed else self._database.write_at_once() as connection:
            reused = self._with_reused_tokens(connection, signed)
            good = [webhook for webhook in webhooks if webhook not in reused]
            were_new = iter(
                insert_events(connection, [row for webhook in good for row in webhook.rows], due_at=self._due_at)
            )
            note(connection, [mention for webhook in good for mention in webhook.mentions])
        return [TokenReused() if webhook in reused else _added(webhook.rows, were_new) for webhook in webhooks]

    def _with_reused_tokens(
        self, connection: Connection, signed: list[tuple[_Webhook, dict[str, Any]]]
    ) -> set[_Webhook]:
        # In order: two processes that hold one token each, and wait for the other's, would wait for ever.
        signed.sort(key=lambda pair: pair[1]["token_hash"])
        return {webhook for webhook, token in signed if not self._is_good_for_body(connection, token)}

    def _is_good_for_body(self, connection: Connection, token: dict[str, Any]) -> bool:
        if connection.execute(self._insert_token, token).first():
            return True
        first = select(one_time_tokens.c.body_hash).where(one_time_tokens.c.token_hash == token["token_hash"])
        return bool(connection.execute(first).scalar_one() == token["body_hash"])


def _added(rows: list[NewRow], were_new: Iterator[bool]) -> Added:
    """Count what became of a webhook's rows; takes one answer for each."""
    accepted = duplicates = quarantined = tests = 0
    for row, was_new in zip(rows, were_new, strict=False):
        if row.state == State.TEST:
            tests += 1
        elif not was_new:
            duplicates += 1
        elif row.state == State.QUARANTINED:
            quarantined += 1
        else:
            accepted += 1
    return Added(accepted=accepted, duplicates=duplicates, quarantined=quarantined, tests=tests)


def due_when_stored(database: Database, clock: Callable[[], float] | None) -> str:
    """When a new change is due: by the server's clock where there is one, for it is the one that workers claim by."""
    return SERVER_TIME if clock is None and database.dialect == "postgresql" else "received_at"


def insert_or_ignore(dialect: str, table: Table, key: str) -> Insert:
    """Never look and then insert: a rival with the same event may come in between."""
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=[key])
    return postgresql.insert(table).on_conflict_do_nothing(index_elements=[key])
