"""Migrating a database that is in use, on both engines."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
import pytest
from alembic.script import ScriptDirectory

from tests.outbox.bulk import fill
from tests.outbox.world import change, rows, send_all
from webhook_app.outbox import Database, Intake, OutboxUnavailable, Queue, open_database, schema
from webhook_app.outbox.engines import postgresql

MILLION = 1_000_000


@contextmanager
def receiving(database: Database) -> Iterator[list[float]]:
    """An app that goes on receiving, as ESPs do: what is answered 503 is sent again. Yields what each took."""
    durations: list[float] = []
    over = threading.Event()
    intake = Intake(database)
    # The version before this one: it knows these tables, and does not ask for more.
    intake._knows_tables = True
    intake.add("sendgrid", changes=[(change("first@example.com"), b"{}")])

    def receive() -> None:
        for number in count():
            began = time.monotonic()
            while True:
                try:
                    added = intake.add("sendgrid", changes=[(change(f"live{number}@example.com"), b"{}")])
                    break
                except OutboxUnavailable:
                    time.sleep(0.05)
            assert added.accepted + added.duplicates == 1
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
@pytest.mark.timeout(300)
def test_a_million_rows_are_migrated_while_changes_come_in_and_none_is_lost(database_url: str) -> None:
    database, rival = open_database(database_url), open_database(database_url)
    schema.upgrade(database, "0001")
    fill(database, MILLION, people=5000)
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
    assert len(send_all(Queue(database))) == 1 + len(durations)
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
        connection.execute("CREATE INDEX events_person ON events (provider)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'events_person'::regclass")
    schema.upgrade(database)
    with psycopg.connect(url) as connection:
        definition = connection.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'events_person'").fetchone()
    assert definition is not None
    assert "(identity_hash, state, version, id)" in definition[0]
    assert rows(database) == []
    database.close()


def _version(database: Database) -> str:
    with database.read() as connection:
        return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())
