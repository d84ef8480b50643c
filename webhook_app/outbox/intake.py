"""The intake: stores what a webhook said, before it is answered."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, select

from webhook_app.consent import ConsentChange
from webhook_app.outbox import schema
from webhook_app.outbox.database import LOCK_TIMEOUT, Database, OutboxUnavailable
from webhook_app.outbox.group_commit import GroupCommit
from webhook_app.outbox.hashing import Hasher, load_hasher
from webhook_app.outbox.inserts import TIME_OF_STORING, insert_events
from webhook_app.outbox.mentions import Mention, mentions_in, note
from webhook_app.outbox.routing import RoutingCondition, rows_of
from webhook_app.outbox.rows import NewRow
from webhook_app.outbox.tables import State, one_time_tokens
from webhook_app.outbox.times import SERVER_TIME, due_when_stored, seconds_to_micros
from webhook_app.outbox.upsert import insert_or_ignore


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


class TranslatedWebhook(Protocol):
    """What a webhook said: changes and reasons for the quarantine, each with its raw event."""

    @property
    def changes(self) -> Iterable[tuple[ConsentChange, bytes]]: ...
    @property
    def quarantined(self) -> Iterable[tuple[str, bytes]]: ...


Translated = TypeVar("Translated", bound=TranslatedWebhook)

#: Bytes. Smaller webhooks are read by the thread that commits them, one after the other. No small one has to wait for a
#: larger one to be read.
READ_TOGETHER = 16 * 1024
#: How many larger ones are read and stored at a time. The others wait as the bytes that they are, for a batch takes ten
#: times as much once it is read; and always in the same threads, for memory that a thread has used is seldom of use to
#: another. Two: while one waits for the disk, the other is read. More would share the interpreter's one lock.
LARGE_AT_ONCE = 2
#: Seconds that a larger one waits for its turn, which is as long as a commit may take.
LARGE_WAIT = 2 * LOCK_TIMEOUT
#: Seconds after which a commit that is under way does not get anywhere.
STUCK_AFTER = 0.5


@dataclass(frozen=True, slots=True)
class _Lists:
    changes: Iterable[tuple[ConsentChange, bytes]]
    quarantined: Iterable[tuple[str, bytes]]


@dataclass(slots=True, eq=False)
class _Webhook:
    """A webhook on its way into the log."""

    provider: str
    read: Callable[[], TranslatedWebhook]
    hasher: Hasher
    token: dict[str, Any] | None
    #: None until it is read.
    rows: list[NewRow] | None = None
    mentions: Sequence[Mention] = ()
    no_section: int = 0
    #: Why nothing of it is stored.
    error: Exception | None = None


class Intake:
    """The intake: stores what a webhook said.

    Raises `OutboxUnavailable` where the database cannot be used; nothing of a webhook is stored then.

    `sections` are the conditions of the configured ones by name; without any, all is for the default section. `clock`
    gives seconds since 1970, for tests.
    """

    def __init__(
        self,
        database: Database,
        *,
        sections: Mapping[str, RoutingCondition] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._database = database
        self._sections = sections or {}
        self._clock = clock or time.time
        self._due_at = due_when_stored(database, clock)
        self._knows_tables = False
        self._hasher: Hasher | None = None
        #: Since when something is being stored, on the monotonic clock; and whether that went wrong the last time.
        self._writing_since: float | None = None
        self._failed = False
        self._commit: GroupCommit[_Webhook, Added | Exception] = GroupCommit(self._store, timeout=2 * LOCK_TIMEOUT)
        self._large = ThreadPoolExecutor(LARGE_AT_ONCE, thread_name_prefix="large-webhooks")
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
        said = _Lists(changes, quarantined)
        webhook = self._webhook(provider, lambda: said, one_time_token, body)
        self._make_rows(webhook)
        return self._added(webhook)

    def read_and_add(
        self, provider: str, read: Callable[[], Translated], *, one_time_token: bytes | None, body: bytes
    ) -> tuple[Translated, Added]:
        """The same for a webhook that `read` has yet to make sense of; returns what it said as well.

        The thread that commits for many reads for them, too: a processor does the same thing many times in a row
        faster than in turns with everything else. Large ones wait for one of a few threads of their own. What `read`
        raises is raised here, and costs the others nothing.
        """
        said: list[Translated] = []

        def remember() -> Translated:
            said.append(read())
            return said[0]

        webhook = self._webhook(provider, remember, one_time_token, body)
        if len(body) > READ_TOGETHER:
            added = self._large_one_added(webhook)
        else:
            if self._is_stuck():
                self._make_rows(webhook)
            added = self._added(webhook)
        return said[0], added

    def _webhook(
        self, provider: str, read: Callable[[], TranslatedWebhook], one_time_token: bytes | None, body: bytes
    ) -> _Webhook:
        hasher = self._hasher or self._begin()
        token = None
        if one_time_token is not None:
            token_hash, body_hash = hasher.token(provider, one_time_token), hasher.body(body)
            token = {"token_hash": token_hash, "body_hash": body_hash, "seen_at": seconds_to_micros(self._clock())}
        return _Webhook(provider, read, hasher, token)

    def _make_rows(self, webhook: _Webhook) -> None:
        """Read it, unless that was done."""
        if webhook.rows is not None:
            return
        said = webhook.read()
        now = TIME_OF_STORING if self._due_at == SERVER_TIME else seconds_to_micros(self._clock())
        webhook.rows, webhook.no_section = rows_of(
            webhook.provider, said.changes, said.quarantined, sections=self._sections, hasher=webhook.hasher, now=now
        )
        webhook.mentions = mentions_in(webhook.rows, webhook.hasher)

    def _large_one_added(self, webhook: _Webhook) -> Added:
        turn = self._large.submit(self._read_and_added, webhook)
        wait([turn], timeout=LARGE_WAIT)
        # What has begun is waited for: storing has a time limit of its own.
        if turn.cancel():
            raise OutboxUnavailable("too many large webhooks at once")
        return turn.result()

    def _read_and_added(self, webhook: _Webhook) -> Added:
        self._make_rows(webhook)
        return self._added(webhook)

    def _is_stuck(self) -> bool:
        """Whether the database does not take anything just now. What has nothing to be stored need not wait for it."""
        since = self._writing_since
        return self._failed or (since is not None and time.monotonic() - since > STUCK_AFTER)

    def _added(self, webhook: _Webhook) -> Added:
        if webhook.rows == [] and webhook.token is None:
            return _count(webhook, iter(()))
        try:
            result = self._commit(webhook)
        except TimeoutError:
            raise OutboxUnavailable("the database is too slow") from None
        if isinstance(result, Added):
            return result
        if isinstance(result, OutboxUnavailable):
            # It may be another one when it comes back, with a key of its own.
            self._hasher = None
        raise result

    def _begin(self) -> Hasher:
        # Once: who serves already goes on while the next release migrates, for a migration never breaks the version
        # before it. Who starts on tables that it does not know must not write to them.
        if not self._knows_tables and (problem := schema.problem(self._database)):
            raise OutboxUnavailable(str(problem))
        self._knows_tables = True
        self._hasher = load_hasher(self._database)
        return self._hasher

    def _store(self, webhooks: list[_Webhook]) -> list[Added | Exception]:
        for webhook in webhooks:
            try:
                self._make_rows(webhook)
            except Exception as error:
                # Its own thread tells of it.
                webhook.error = error
        to_store = [webhook for webhook in webhooks if not webhook.error and (webhook.rows or webhook.token)]
        were_new: Iterator[bool] = iter(())
        if to_store:
            self._writing_since, self._failed = time.monotonic(), True
            try:
                were_new = iter(self._write(to_store))
                self._failed = False
            except OutboxUnavailable as error:
                for webhook in to_store:
                    webhook.error = error
            finally:
                self._writing_since = None
        return [webhook.error or _count(webhook, were_new) for webhook in webhooks]

    def _write(self, webhooks: list[_Webhook]) -> list[bool]:
        """For each row of each of them whether it is new; none of those whose token was used before is stored."""
        signed = [(webhook, webhook.token) for webhook in webhooks if webhook.token is not None]
        with self._database.write() if signed else self._database.write_at_once() as connection:
            self._refuse_reused_tokens(connection, signed)
            good = [webhook for webhook in webhooks if not webhook.error]
            rows = [row for webhook in good for row in webhook.rows or ()]
            were_new = insert_events(connection, rows, due_at=self._due_at)
            note(connection, [mention for webhook in good for mention in webhook.mentions])
        return were_new

    def _refuse_reused_tokens(self, connection: Connection, signed: list[tuple[_Webhook, dict[str, Any]]]) -> None:
        # In order: two processes that hold one token each, and wait for the other's, would wait for ever.
        for webhook, token in sorted(signed, key=lambda pair: pair[1]["token_hash"]):
            if not self._is_good_for_body(connection, token):
                webhook.error = TokenReused()

    def _is_good_for_body(self, connection: Connection, token: dict[str, Any]) -> bool:
        if connection.execute(self._insert_token, token).first():
            return True
        first = select(one_time_tokens.c.body_hash).where(one_time_tokens.c.token_hash == token["token_hash"])
        return bool(connection.execute(first).scalar_one() == token["body_hash"])


def _count(webhook: _Webhook, were_new: Iterator[bool]) -> Added:
    """Count what became of a webhook's rows; takes one answer for each."""
    accepted = duplicates = quarantined = tests = 0
    for row, was_new in zip(webhook.rows or (), were_new, strict=False):
        if row.state == State.TEST:
            tests += 1
        elif not was_new:
            duplicates += 1
        elif row.state == State.QUARANTINED:
            quarantined += 1
        else:
            accepted += 1
    return Added(
        accepted=accepted,
        duplicates=duplicates,
        quarantined=quarantined,
        tests=tests,
        no_section=webhook.no_section,
    )
