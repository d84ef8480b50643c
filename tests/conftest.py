"""What many tests share: keys, databases of both engines, the app."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from sqlalchemy import make_url

from tests import postgres
from tests.signing import SendGridSigner
from webhook_app import build_app
from webhook_app.outbox import Database, open_database, schema
from webhook_app.outbox.tables import metadata

# A shell starts what runs in the background with these ignored, and whatever the tests start would ignore them, too.
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL)

pytest_plugins = ["tests.summary"]


# Before xdist looks for the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A mistake should be told soon: what is quick runs first.

    With several test processes (`-n 2 --dist loadgroup`), the slow tests of a module stay together in one of them: they
    share a product, whose start costs more than most of them.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    for item in items:
        if item.get_closest_marker("slow"):
            engine = next((engine for engine in ("sqlite", "postgresql") if engine in item.name), "")
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{engine}"))


@pytest.fixture(scope="session")
def sendgrid_signer() -> SendGridSigner:
    return SendGridSigner()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A server of the tests' own, which a test may stop and start."""
    with postgres.server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """`TEST_DATABASE_URL`, else a server of the tests' own."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        return given
    server: postgres.Server = request.getfixturevalue("postgres_server")
    return server.url


@pytest.fixture
def new_postgres_database(postgres_url: str) -> Iterator[Callable[[], str]]:
    """Makes an empty database at each call, and returns its URL."""
    made = []

    def make() -> str:
        made.append(postgres.create_database(postgres_url))
        return made[-1]

    yield make
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for url in made:
            connection.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_databases_to_reuse() -> list[str]:
    """URLs of databases with our tables and nothing in them: making one takes longer than most tests."""
    return []


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, or one with our tables where the test asks for `database` as well.

    Every test that asks for it runs on both engines.
    """
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/outbox.db"
    elif "database" not in request.fixturenames:
        yield request.getfixturevalue("new_postgres_database")()
    else:
        to_reuse: list[str] = request.getfixturevalue("postgres_databases_to_reuse")
        url = to_reuse.pop() if to_reuse else postgres.create_database(request.getfixturevalue("postgres_url"))
        yield url
        if _emptied(url):
            to_reuse.append(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with our tables."""
    database = open_database(database_url)
    schema.upgrade(database)
    yield database
    database.close()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/outbox.db"


@pytest.fixture
def make_app(sqlite_url: str, sendgrid_signer: SendGridSigner) -> Iterator[Callable[..., Flask]]:
    """Builds the app on SQLite with SendGrid open; keyword arguments are further environment variables."""
    apps = []

    def make(**environ: str) -> Flask:
        defaults = {"DATABASE_URL": sqlite_url, "SENDGRID_VERIFICATION_KEYS": sendgrid_signer.public_key}
        app = build_app(defaults | environ)
        schema.upgrade(app.extensions["database"])
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions["database"].close()


def _emptied(url: str) -> bool:
    """Leave only what the migrations made; False where that does not work, after a test that broke the tables."""
    emptied = [table.name for table in metadata.sorted_tables if table.name != "installation"]
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '5s'")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute(f"TRUNCATE {', '.join(emptied)} RESTART IDENTITY")
            connection.execute("UPDATE installation SET prune_due_at = NULL")
    except psycopg.Error:
        return False
    return True
