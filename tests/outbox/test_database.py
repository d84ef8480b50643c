"""The tables, on both engines."""

import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from webhook_app.outbox import Database, open_database, schema
from webhook_app.outbox.indexes import described


def test_the_migrations_make_the_tables_that_the_code_describes(database: Database) -> None:
    # Alembic compares without heeding for which engine an index is.
    only_for_sqlite = set() if database.dialect == "sqlite" else {"events_person_waiting"}
    with database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_object": lambda item, *_: item.name not in only_for_sqlite}
        )
        assert compare_metadata(context, described) == []


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    schema.upgrade(database)
    assert schema.problem(database) is None


def test_an_empty_database_says_how_to_make_its_tables(database_url: str) -> None:
    database = open_database(database_url)
    problem = schema.problem(database)
    database.close()
    assert problem is not None
    assert "flask db upgrade" in str(problem)


def test_a_process_that_comes_and_goes_takes_no_log_away_from_one_that_stays(sqlite_url: str) -> None:
    """SQLite's locks belong to the process and go with the first descriptor of the file that it closes. Without them,
    the next process to leave thinks that it is the last one, and removes the write-ahead log that is still in use."""
    visit = (
        "import sys; from webhook_app.outbox import open_database; from webhook_app.outbox.hashing import load_hasher; "
        "database = open_database(sys.argv[1]); load_hasher(database); database.close()"
    )
    ours = open_database(sqlite_url)
    schema.upgrade(ours)
    schema.problem(ours)
    log = Path(sqlite_url.removeprefix("sqlite:///") + "-wal")
    before = log.stat().st_ino
    subprocess.run([sys.executable, "-c", visit, sqlite_url], check=True)
    assert log.stat().st_ino == before
    ours.close()


def test_nobody_else_on_the_machine_can_read_the_file(sqlite_url: str) -> None:
    ours = open_database(sqlite_url)
    schema.upgrade(ours)
    ours.close()
    assert Path(sqlite_url.removeprefix("sqlite:///")).stat().st_mode & 0o077 == 0


def test_migrations_are_numbered_in_the_order_in_which_they_build_on_each_other() -> None:
    """`schema` goes by the files' names, so that no process has to load Alembic to know what is the newest."""
    script = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert schema.newest() == script.get_current_head()
    for migration in script.walk_revisions():
        assert Path(migration.path).name.startswith(f"{migration.revision}_")


def test_a_process_that_only_serves_does_not_load_alembic(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/outbox.db")
    schema.upgrade(database)
    database.close()
    program = (
        "import sys\n"
        "from webhook_app import build_app\n"
        "from webhook_app.outbox import schema\n"
        f"app = build_app({{'DATABASE_URL': 'sqlite:///{tmp_path}/outbox.db'}})\n"
        "schema.upgrade(app.extensions['database'])\n"
        "app.test_client().get('/readyz')\n"
        "sys.exit('alembic' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
