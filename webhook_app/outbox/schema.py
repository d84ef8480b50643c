"""Making and checking the tables. Migrations go forward only.

Alembic is loaded where tables are changed and nowhere else: it takes 10 MB of each process that has it.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect

from webhook_app.outbox.database import Database, NoDatabase, OutboxUnavailable
from webhook_app.outbox.tables import metadata

_MIGRATIONS = Path(__file__).parent / "migrations"

#: Seconds for which a change of the tables is tried again when busy tables were in its way.
PATIENCE = 60.0
#: The SQLSTATE of a lock that was waited for in vain: servers say it in words of their own language.
LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaProblem:
    """What is wrong with the tables, for a person."""

    sentence: str
    #: What to do about it.
    mend: str

    def __str__(self) -> str:
        return f"{self.sentence}: {self.mend}"


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the tables up to date, or make them; safe to run twice, and at the same time, and while the app runs.

    Two releases at once wait for each other: the first migrates, the second finds nothing to do.

    Raises `OutboxUnavailable`.
    """
    with suppress(OutboxUnavailable):
        if revision == "head" and problem(database) is None:
            return

    from alembic import command
    from alembic.config import Config

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with database.alter() as connection:
                config = Config()
                config.set_main_option("script_location", str(_MIGRATIONS))
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
                return
        except OutboxUnavailable as error:
            # What was done so far stays done, and the next try goes on from there.
            if error.sqlstate != LOCK_NOT_AVAILABLE or time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def problem(database: Database) -> SchemaProblem | None:
    """What is wrong with the tables; None while they are as this version needs them.

    Raises `OutboxUnavailable`.
    """
    wanted = newest()
    missing: list[str] = []
    try:
        with database.read() as connection:
            found = _revision(connection)
            missing = _missing(connection)
    except NoDatabase:
        found = None
    if found == wanted and missing:
        return SchemaProblem(sentence=f"the database lacks {', '.join(missing)}", mend="restore a backup")
    if found == wanted:
        return None
    if found is None or found in _revisions():
        behind = f"the database schema is behind ({found or 'no tables'}, needed: {wanted})"
        return SchemaProblem(sentence=behind, mend="run `flask db upgrade`")
    newer = f"the database schema ({found}) is newer than this version of the app ({wanted})"
    return SchemaProblem(sentence=newer, mend="deploy the newer version")


_COLUMNS = {
    "sqlite": "SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c",
    "postgresql": "SELECT table_name, column_name FROM information_schema.columns "
    "WHERE table_schema = current_schema()",
}


def _missing(connection: Connection) -> list[str]:
    """What somebody has taken away by hand: tables, and columns like `events.kind`."""
    # Not by SQLAlchemy's inspector: on PostgreSQL it asks for defaults as well, and waits for whoever has locked a
    # table.
    there: dict[str, set[str]] = {}
    for table, column in connection.exec_driver_sql(_COLUMNS[connection.dialect.name]):
        there.setdefault(table, set()).add(column)
    gone = [f"the table {name}" for name in metadata.tables if name not in there]
    gone += [
        f"the column {one}"
        for name, table in metadata.tables.items()
        for one in table.columns
        if name in there and one.name not in there[name]
    ]
    return sorted(gone)


def newest() -> str:
    return _revisions()[-1]


@cache
def _revisions() -> list[str]:
    """Every revision, oldest first: they are numbered, and a file's name begins with its number."""
    return sorted(path.stem.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _revision(connection: Connection) -> str | None:
    """Where the tables are; None while there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return revision
