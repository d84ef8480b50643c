"""A database that cannot be used: one clear line, a 503, never a stack trace; and it works again by itself."""

import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from sqlalchemy import make_url, text

from tests import postgres
from tests.outbox.world import change, rows
from tests.processes import checkout, environment, find, free_port, wait_for_http
from tests.processes import running as running_program
from tests.signing import SendGridSigner
from webhook_app import build_app
from webhook_app.dev.sandbox import running
from webhook_app.outbox import Database, Intake, OutboxUnavailable, Queue, open_database, schema
from webhook_app.outbox.engines import postgresql, sqlite
from webhook_app.settings import ConfigurationError, Settings

MakeApp = Callable[..., Flask]


def store(database: Database) -> int:
    return Intake(database).add("sendgrid", changes=[(change(), b"{}")]).accepted


def complaint(database: Database) -> str:
    """What storing says; it is one line without an address or a password."""
    with pytest.raises(OutboxUnavailable) as caught:
        store(database)
    line = str(caught.value)
    assert line
    assert "\n" not in line
    assert "jane@example.com" not in line
    assert "hunter2" not in line
    return line


@pytest.fixture
def ours(sqlite_url: str) -> Iterator[Database]:
    database = open_database(sqlite_url)
    schema.upgrade(database)
    yield database
    database.close()


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


# ---------------------------------------------------------------- which database


@pytest.mark.parametrize(
    ("url", "dialect"),
    [
        ("postgres://user:hunter2@host:5432/name", "postgresql"),  # as Heroku writes it
        ("postgresql://user:hunter2@host/name?sslmode=verify-full&sslrootcert=system", "postgresql"),
        ("sqlite:///instance/outbox.db", "sqlite"),
    ],
)
def test_the_url_says_which_engine(url: str, dialect: str) -> None:
    assert open_database(url).dialect == dialect


@pytest.mark.parametrize(
    "url",
    [
        "",
        "outbox.db",
        "mysql://host/name",
        "http://x",
        "'postgres://host/name'",
        "sqlite://",
        "sqlite://instance/outbox.db",
        "sqlite:///:memory:",
        "sqlite:////tmp/",
        "sqlite:///instance/outbox.db?timeout=5",
        "sqlite:///instance/outbox.db?pool_size=5",
        "postgres://user:hunter2@host",
        "postgres://user:hunter2@host/",
        "postgres://user:hunter2@host:port/name",
        "postgres://user:hunter2@host:99999/name",
        "postgres://user:hunter2@host/name postgres://user:hunter2@host2/name",
        "postgres://user:hunter2@host/name,postgres://user:hunter2@host2/name",
        "postgres://user:hun@ter2@host/name",  # libpq would call the host `ter2@host`
        "postgres://user:hun/ter2@host/name",  # and here the port `hun`
        "postgres://user:hunter2?a/b@host/name",
        "postgres://user:hunter2%zz@host/name",
        "postgres://user:hunter2@host:1,host2:2,host3:3/name?port=1,2",
    ],
)
def test_a_url_that_is_none_is_refused_with_the_cure(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///|postgres://") as refused:
        open_database(url)
    assert_tells_in_one_line(str(refused.value))


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("pool_size=5", "pool_size"),
        ("sslmod=require", "sslmod"),
        ("sslmode=requir", "sslmode"),
        ("sslmode=verify-full&sslrootcert=/no/such/ca.pem", "sslrootcert"),
        ("connect_timeout=soon", "connect_timeout"),
        ("keepalives_idle=1m", "keepalives_idle"),
        ("target_session_attrs=rw", "target_session_attrs"),
        ("channel_binding=maybe", "channel_binding"),
        ("host=one:5432&host=two:5432", "host"),
    ],
)
def test_an_option_that_the_driver_does_not_know_is_told_at_boot(option: str, named: str) -> None:
    """It was 503 or 500 at every webhook."""
    with pytest.raises(ConfigurationError, match=rf"DATABASE_URL .*\b{named}\b") as refused:
        build_app({"DATABASE_URL": f"postgres://user:hunter2@host/name?{option}"})
    (problem,) = refused.value.problems
    assert_tells_in_one_line(problem)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:hunter2@host:5432,host2:5433/name",
        "postgres://user:hunter2@[::1]:5432/name",
        "postgres://user%40server:hun%40ter2@host/name?sslmode=require&connect_timeout=3&keepalives=1",
        "postgresql+psycopg://user:hun#ter?2@host/name?options=-c%20search_path%3Dours",
        "postgresql:///name?host=/run/postgresql",
        "postgresql:///name?host=one,two&port=5432,5433&target_session_attrs=any",
    ],
)
def test_whatever_psql_takes_is_taken(url: str) -> None:
    open_database(url).close()


def assert_tells_in_one_line(message: str) -> None:
    """No part of the password stands in it, neither of one that libpq took for a host."""
    assert "\n" not in message
    assert "hun" not in message.lower()
    assert "ter2" not in message


def test_a_server_without_tls_is_refused_where_the_url_asks_for_it(postgres_url: str) -> None:
    port = free_port()
    database = open_database(f"postgresql://user:hunter2@127.0.0.1:{port}/name?sslmode=require")
    assert "refused" in complaint(database)
    database.close()


def test_on_heroku_sqlite_is_refused_and_how_to_add_postgresql_is_said() -> None:
    with pytest.raises(ConfigurationError, match="heroku addons:create heroku-postgresql"):
        Settings.from_environment({"DYNO": "web.1"})
    assert Settings.from_environment({"DYNO": "web.1", "DATABASE_URL": "postgres://h/n"}).database_url


# ---------------------------------------------------------------- SQLite


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"to whom it may concern " * 100)
    database = open_database(f"sqlite:///{path}")
    assert complaint(database) == "file is not a database"
    database.close()


def test_a_path_that_can_never_work_ends_web_and_worker_with_one_line(tmp_path: Path) -> None:
    """It was a traceback, again and again as the platform started it anew."""
    folder = checkout(tmp_path / "receiver", make=True)
    (tmp_path / "data").write_text("no folder")
    given = environment(DATABASE_URL=f"sqlite:///{tmp_path}/data/outbox.db", PORT=str(free_port()), EVENTS_API_KEY="k")
    for command in (["gunicorn"], ["flask", "forward"]):
        done = subprocess.run(
            [find(command[0]), *command[1:]],
            cwd=folder,
            env=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert f"Cannot start: DATABASE_URL: {tmp_path}/data/outbox.db: " in done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_a_folder_of_somebody_else_is_told_with_the_user_who_needs_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = sqlite.SQLite(f"sqlite:///{path}")
    assert database.setup_problem() is None
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert database.setup_problem() == (
        f"DATABASE_URL: {path}: Permission denied: give its folder to the user that runs this (uid {os.getuid()})"
    )


def test_a_locked_file_keeps_no_web_process_from_starting(ours: Database, path: Path, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "receiver", make=True)
    given = environment(DATABASE_URL=f"sqlite:///{path}", PORT=str(port := free_port()))
    with path.with_name(f"{path.name}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        path.unlink()
        with running_program([find("gunicorn")], cwd=folder, env=given) as gunicorn:
            wait_for_http(f"http://127.0.0.1:{port}/healthz")
            wait_for_http(f"http://127.0.0.1:{port}/readyz", status=503)
            assert "Traceback" not in gunicorn.output()


def test_a_full_disk_stores_nothing_by_halves_and_takes_it_when_there_is_room(ours: Database) -> None:
    with ours.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 10}")
    many = [(change(f"u{number}@example.com"), b"x" * 1000) for number in range(200)]
    with pytest.raises(OutboxUnavailable, match="full"):
        Intake(ours).add("sendgrid", changes=many)
    assert rows(ours) == []
    with ours.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert Intake(ours).add("sendgrid", changes=many).accepted == 200


def test_a_database_that_somebody_else_has_locked(ours: Database, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.2)
    impatient = open_database(f"sqlite:///{path}")
    rival = sqlite3.connect(path, isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    assert complaint(impatient) == "database is locked"
    rival.execute("ROLLBACK")
    assert store(impatient) == 1
    rival.close()
    impatient.close()


def test_a_file_that_may_only_be_read(ours: Database) -> None:
    with ours.write() as connection:
        # As root, the tests could write to any file.
        connection.exec_driver_sql("PRAGMA query_only = ON")
    assert "readonly" in complaint(ours)


def test_a_file_that_is_deleted_while_we_run_is_not_written_on(ours: Database, path: Path) -> None:
    """The bytes would go to a file without a name: acknowledged, and gone with the process."""
    assert store(ours) == 1
    for one in path.parent.glob(f"{path.name}*"):
        one.unlink()
    assert "flask db upgrade" in complaint(ours)
    schema.upgrade(ours)
    assert store(ours) == 1
    assert len(rows(ours)) == 1


def on_disk(path: Path, folder: Path) -> int:
    """How many events the files hold, as whoever starts after a `kill -9` of everybody finds them."""
    folder.mkdir()
    for one in (path, path.with_name(f"{path.name}-wal")):
        if one.exists():
            shutil.copy(one, folder / one.name)
    with closing(sqlite3.connect(folder / path.name)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


@pytest.mark.parametrize("ends", [["-wal"], ["-wal", "-shm"]])
def test_a_log_that_is_deleted_while_we_run_is_not_written_on_and_what_it_held_is_kept(
    ours: Database, path: Path, tmp_path: Path, ends: list[str]
) -> None:
    """Seen otherwise: what was answered with 200 before, and all that is answered since, is gone with the process."""
    assert store(ours) == 1
    for end in ends:
        path.with_name(path.name + end).unlink()
    assert Intake(ours).add("sendgrid", changes=[(change("second@example.com"), b"{}")]).accepted == 1
    assert on_disk(path, tmp_path / "found") == 2
    assert len(rows(ours)) == 2


def backup(path: Path) -> Path:
    copy = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def test_a_backup_that_takes_the_files_place_while_we_run_gets_no_pages_of_the_log_before(
    ours: Database, path: Path, tmp_path: Path
) -> None:
    """Seen otherwise: a database disk image that is malformed."""
    copy = backup(path)
    for number in range(50):
        assert Intake(ours).add("sendgrid", changes=[(change(f"u{number}@example.com"), b"x" * 1000)]).accepted == 1
    copy.replace(path)
    assert store(ours) == 1
    assert on_disk(path, tmp_path / "found") == 1
    assert len(rows(ours)) == 1


ANOTHER_PROCESS = """
import sys
from webhook_app.outbox import open_database
database = open_database(sys.argv[1])
for line in sys.stdin:
    with database.write() as connection:
        print(connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one(), flush=True)
"""


def test_a_backup_that_is_copied_over_the_file_while_web_and_worker_run_gets_no_pages_of_the_log_before(
    ours: Database, path: Path, tmp_path: Path
) -> None:
    copy = backup(path)
    command = [sys.executable, "-c", ANOTHER_PROCESS, f"sqlite:///{path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:

        def seen_by_the_other() -> int:
            assert other.stdin
            assert other.stdout
            other.stdin.write("\n")
            other.stdin.flush()
            return int(other.stdout.readline())

        assert Intake(ours).add("sendgrid", changes=[(change("lost@example.com"), b"{}")]).accepted == 1
        assert seen_by_the_other() == 1
        shutil.copyfile(copy, path)
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink()
        assert store(ours) == 1
        assert seen_by_the_other() == 1
        assert on_disk(path, tmp_path / "found") == 1


# ---------------------------------------------------------------- PostgreSQL


def test_a_server_that_is_down(postgres_url: str) -> None:
    database = open_database(f"postgres://user:hunter2@127.0.0.1:{free_port()}/name")
    assert "refused" in complaint(database)
    database.close()


def test_a_server_that_is_not_postgresql() -> None:
    with running() as box:
        database = open_database(box.url.replace("http://", "postgres://user:hunter2@") + "/name")
        complaint(database)
        database.close()


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "CONNECT_TIMEOUT", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = open_database(f"postgres://user:hunter2@127.0.0.1:{silent.getsockname()[1]}/name")
        began = time.monotonic()
        assert "timeout" in complaint(database)
        assert time.monotonic() - began < 5
        database.close()


def test_a_database_that_may_only_be_read(new_postgres_database: Callable[[], str]) -> None:
    url = new_postgres_database()
    database = open_database(url)
    schema.upgrade(database)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {make_url(url).database} SET default_transaction_read_only = on")
    database.close()
    assert "read-only" in complaint(database)
    database.close()


def test_a_lock_that_somebody_else_holds_for_too_long(
    new_postgres_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "LOCK_TIMEOUT", 0.3)
    monkeypatch.setattr(postgresql, "AT_ONCE_TIMEOUT", 0.3)
    url = new_postgres_database()
    database = open_database(url)
    schema.upgrade(database)
    with psycopg.connect(url) as rival:
        rival.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        assert "did not answer in time" in complaint(database)
        with pytest.raises(OutboxUnavailable, match="lock timeout"):
            Queue(database).claim(1)
        # Nobody stands in line behind the lock: the server was asked to cancel.
        waiting = rival.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
        assert waiting == (0,)
    assert store(database) == 1
    database.close()


def test_a_statement_that_takes_too_long(
    new_postgres_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "STATEMENT_TIMEOUT", 0.2)
    database = open_database(new_postgres_database())
    with pytest.raises(OutboxUnavailable, match="statement timeout"), database.read() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(5)")
    database.close()


@pytest.fixture
def own_server() -> Iterator[postgres.Server]:
    """A server that this test alone may kill."""
    with postgres.server() as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_same_database_works_again_by_itself_after_postgresql_was_restarted(
    how: signal.Signals, own_server: postgres.Server
) -> None:
    database = open_database(own_server.url)
    schema.upgrade(database)
    intake, queue = Intake(database), Queue(database)
    accepted = 0
    # As many connections as a busy web process has, all of which will be dead.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: rows(database), range(16)))
    queue.wait(0.0)
    accepted += intake.add("sendgrid", changes=[(change("before@example.com"), b"{}")]).accepted

    own_server.stop(how)
    with pytest.raises(OutboxUnavailable):
        intake.add("sendgrid", changes=[(change("meanwhile@example.com"), b"{}")])
    with pytest.raises(OutboxUnavailable):
        queue.wait(1.0)
        queue.wait(1.0)
    own_server.start()

    time.sleep(postgresql.PING_AFTER + 0.1)
    assert intake.add("sendgrid", changes=[(change("after@example.com"), b"{}")]).accepted == 1
    assert [row.identity_value for row in rows(database)] == ["before@example.com", "after@example.com"]
    assert len(queue.claim(10)) == 2
    # Listening goes on, too: the worker wakes long before its time is over.
    queue.wait(0.0)
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        waiting = pool.submit(queue.wait, 20.0)
        time.sleep(0.2)
        intake.add("sendgrid", changes=[(change("later@example.com"), b"{}")])
        waiting.result(30)
    assert time.monotonic() - began < 5
    database.close()


# ---------------------------------------------------------------- schema


@pytest.fixture
def newer(database: Database) -> Iterator[Callable[[], None]]:
    """Pretends that a later version has migrated the tables."""

    def set_version(version: str) -> None:
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})

    yield lambda: set_version("9999")
    set_version(schema.newest())


def test_tables_of_a_newer_version_are_not_written_to(database: Database, newer: Callable[[], None]) -> None:
    newer()
    assert "deploy the newer version" in complaint(database)


def test_tables_that_are_behind_are_not_written_to(database_url: str) -> None:
    database = open_database(database_url)
    schema.upgrade(database, "0001")
    assert "run `flask db upgrade`" in complaint(database)
    schema.upgrade(database)
    assert store(database) == 1
    database.close()


def test_a_table_or_a_column_that_somebody_took_away_is_named(database: Database) -> None:
    """Seen otherwise: `/readyz` says ready while every webhook is answered 503."""
    with database.alter() as connection:
        connection.execute(text("ALTER TABLE events RENAME COLUMN provider TO by"))
        connection.execute(text("ALTER TABLE attempts RENAME TO tries"))
        connection.commit()
    lacks = "the database lacks the column events.provider, the table attempts: restore a backup"
    assert str(schema.problem(database)) == lacks
    assert complaint(database)


def test_whoever_runs_already_goes_on_while_the_next_release_migrates(
    database: Database, newer: Callable[[], None]
) -> None:
    """Heroku migrates first and replaces the processes afterwards."""
    intake = Intake(database)
    intake.add("sendgrid", changes=[(change("jane@example.com"), b"{}")])
    newer()
    assert intake.add("sendgrid", changes=[(change("joe@example.com"), b"{}")]).accepted == 1


# ---------------------------------------------------------------- over HTTP


@pytest.mark.parametrize(
    "break_it",
    [
        lambda path: path.write_bytes(b"to whom it may concern " * 100),
        lambda path: [path.unlink(), path.mkdir()],
        lambda path: sqlite3.connect(path, isolation_level=None).execute("DROP TABLE events").connection.close(),
    ],
    ids=["no database", "a folder", "no tables"],
)
def test_the_esp_gets_a_503_and_the_log_one_line(
    break_it: Callable[[Path], object],
    make_app: MakeApp,
    sendgrid_signer: SendGridSigner,
    path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = make_app()
    client = app.test_client()
    app.extensions["database"].close()
    break_it(path)
    body = json.dumps([{"email": "jane@example.com", "event": "unsubscribe", "timestamp": 1760000000}]).encode()
    answer = client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    assert (answer.status_code, answer.json) == (503, {"error": "cannot store this now"})
    assert answer.headers["Retry-After"]
    ready = client.get("/readyz")
    assert ready.status_code == 503
    for said in (answer.text, ready.text, capsys.readouterr().out):
        assert "Traceback" not in said
        assert "jane" not in said
