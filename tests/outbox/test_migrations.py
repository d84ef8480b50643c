"""Migrating a database that is in use, on both engines."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
import pytest
from alembic.script import ScriptDirectory

from tests.outbox.before import VersionBefore
from tests.outbox.bulk import fill
from tests.outbox.world import Clock, add, addresses, change, register, rows, send_all, states
from webhook_app.consent import Action
from webhook_app.outbox import Database, Intake, OutboxUnavailable, Queue, State, open_database, schema
from webhook_app.outbox import database as database_port
from webhook_app.outbox.engines import postgresql

MILLION = 1_000_000


@contextmanager
def receiving(database: Database) -> Iterator[list[float]]:
    """An app that goes on receiving, as ESPs do: what is answered 503 is sent again. Yields what each took."""
    durations: list[float] = []
    over = threading.Event()
    before = VersionBefore(database)
    before.store(change("first@example.com"))

    def receive() -> None:
        for number in count():
            began = time.monotonic()
            while True:
                try:
                    before.store(change(f"live{number}@example.com"))
                    break
                except OutboxUnavailable:
                    time.sleep(0.05)
            durations.append(time.monotonic() - began)
            if over.is_set():
                return
            time.sleep(0.002)

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        yield durations
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(300)
def test_a_million_rows_are_migrated_while_changes_come_in_and_none_is_lost(database_url: str) -> None:
    database, rival = open_database(database_url), open_database(database_url)
    schema.upgrade(database, "0001")
    fill(database, MILLION, people=5000, register=False)
    with receiving(rival) as durations:
        time.sleep(0.2)
        assert _version(database) == "0001"
        schema.upgrade(database)
        assert _version(database) == schema.newest()
        time.sleep(0.2)
    longest = max(durations)
    print(f"{database.dialect}: {len(durations)} came in meanwhile, the slowest took {longest:.2f} s")  # noqa: T201
    with database.read() as connection:
        found = connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one()
    assert found == MILLION + 1 + len(durations)
    if database.dialect == "postgresql":
        # Nobody waited for an index to be built. SQLite has one writer, and that was the migration.
        assert longest < 2.0
    # What had waited, and nothing else: neither twice nor what was delivered before.
    assert len(send_all(Queue(database))) == 1 + len(durations)
    assert len(register(database)) == 5000 + 1 + len(durations)
    database.close()
    rival.close()


def test_migrations_only_go_forward() -> None:
    for script in ScriptDirectory(str(schema._MIGRATIONS)).walk_revisions():
        assert not hasattr(script.module, "downgrade"), script.revision


def test_two_releases_at_once_migrate_once(database_url: str) -> None:
    databases = [open_database(database_url) for _ in range(3)]
    threads = [threading.Thread(target=schema.upgrade, args=[one]) for one in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in databases:
        assert schema.problem(one) is None
        one.close()


def test_a_table_that_is_busy_is_not_waited_for_in_front_of_everybody(
    new_postgres_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long report holds a table that the migration needs for itself alone: whoever waits with it in hand makes all
    others queue behind."""
    monkeypatch.setattr(postgresql, "DDL_LOCK_TIMEOUT", 0.2)
    # As a server says it whose language is another one.
    monkeypatch.setattr(database_port, "summary", lambda _: "storniere Anfrage wegen Zeitüberschreitung der Sperre")
    url = new_postgres_database()
    database, rival = open_database(url), open_database(url)
    schema.upgrade(database, "0001")
    with psycopg.connect(url) as report, receiving(rival) as durations:
        report.execute("SELECT count(*) FROM installation")
        migrating = threading.Thread(target=schema.upgrade, args=[database])
        migrating.start()
        time.sleep(1.5)
        assert migrating.is_alive()
        report.rollback()
        migrating.join(30)
        assert not migrating.is_alive()
    assert max(durations) < 1.0
    assert schema.newest() == _version(database)
    database.close()
    rival.close()


def test_a_migration_that_was_cut_off_in_the_middle_goes_on_from_there(
    new_postgres_database: Callable[[], str],
) -> None:
    url = new_postgres_database()
    database = open_database(url)
    schema.upgrade(database, "0001")
    with psycopg.connect(url, autocommit=True) as connection:
        # What the second migration leaves behind when it is killed while it builds an index.
        connection.execute("CREATE INDEX events_waiting ON events (provider)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'events_waiting'::regclass")
    schema.upgrade(database)
    with psycopg.connect(url) as connection:
        definition = connection.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'events_waiting'").fetchone()
    assert definition is not None
    assert "(due_at, id)" in definition[0]
    assert rows(database) == []
    database.close()


def test_the_migration_to_the_register_goes_on_wherever_it_was_cut_off(
    new_postgres_database: Callable[[], str],
) -> None:
    """What it has committed before its indexes are built stays, and its version number is not written down yet."""
    url = new_postgres_database()
    database = open_database(url)
    schema.upgrade(database, "0009")
    VersionBefore(database).store(change())
    for _ in range(2):
        schema.upgrade(database, "0010")
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0009'")
    schema.upgrade(database)
    assert len(send_all(Queue(database))) == 1
    database.close()


# ---------------------------------------------------------------- into the register


@pytest.fixture
def before(database_url: str) -> Iterator[VersionBefore]:
    """A database of the version without a register, and that version at work on it."""
    database = open_database(database_url)
    schema.upgrade(database, "0009")
    yield VersionBefore(database)
    database.close()


def test_what_was_delivered_or_discarded_is_not_sent_and_what_waits_is_sent_once(before: VersionBefore) -> None:
    before.store(*(change(f"{name}@example.com") for name in ("delivered", "dead", "discarded", "waiting")))
    before.deliver(1)
    before.give_up(2)
    before.discard(3)
    schema.upgrade(before.database)
    queue = Queue(before.database, clock=Clock())
    assert addresses(send_all(queue)) == ["waiting@example.com"]
    assert send_all(queue) == []
    assert states(before.database) == [State.DELIVERED, State.DEAD, State.DISCARDED, State.DELIVERED]


def test_an_older_change_than_what_was_delivered_is_not_sent_after_the_migration(before: VersionBefore) -> None:
    before.store(change(ago=10), change("joe@example.com", ago=10), change("joe@example.com", ago=30))
    before.deliver(1)
    before.give_up(2)
    schema.upgrade(before.database)
    queue = Queue(before.database, clock=Clock())
    add(Intake(before.database, clock=Clock()), change(ago=20, action=Action.OPT_IN))
    assert send_all(queue) == []
    assert states(before.database) == [State.DELIVERED, State.DEAD, State.SUPERSEDED, State.SUPERSEDED]


def test_while_a_worker_of_the_version_before_is_sending_nobody_else_does(before: VersionBefore) -> None:
    """It may hold the older change of somebody whose newer one is in the register: that would be overtaken."""
    before.store(change(ago=20), change("joe@example.com"))
    before.claim(1)
    schema.upgrade(before.database)
    clock = Clock()
    queue = Queue(before.database, clock=clock)
    add(Intake(before.database, clock=clock), change(ago=10, action=Action.OPT_IN))
    assert queue.claim(10) == []
    before.deliver(1)
    assert addresses(send_all(queue)) == ["joe@example.com", "jane@example.com"]
    assert [row.told_version == row.version for row in register(before.database)] == [True, True]


@pytest.mark.parametrize("ending", ["fails", "dies"])
def test_what_a_worker_of_the_version_before_did_not_bring_to_an_end_is_taken_over(
    ending: str, before: VersionBefore
) -> None:
    before.store(change())
    before.claim(1)
    schema.upgrade(before.database)
    clock = Clock()
    if ending == "fails":
        before.fail(1)
    else:
        clock.go(21)
    assert len(send_all(Queue(before.database, clock=clock))) == 1
    assert states(before.database) == [State.DELIVERED]


def test_what_processes_of_the_version_before_do_after_the_migration_counts(before: VersionBefore) -> None:
    before.store(change("joe@example.com"))
    schema.upgrade(before.database)
    assert before.store(change("jane@example.com"), change("joe@example.com")) == 1
    # Its workers find nothing any more, or the change would be sent twice.
    assert before.claim(10, until=0) == [1]
    queue = Queue(before.database, clock=Clock())
    before.store(change("no@example.com"))
    before.discard(rows(before.database)[-1].id)
    assert sorted(addresses(send_all(queue))) == ["jane@example.com", "joe@example.com"]
    assert states(before.database)[-1] == State.DISCARDED


def _version(database: Database) -> str:
    with database.read() as connection:
        return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())
