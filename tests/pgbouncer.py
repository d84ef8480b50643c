"""A real PgBouncer for the tests, in transaction mode. Run as a program it installs one, where that can be done."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from tests import debian, postgres
from tests.processes import free_port, wait_until

MISSING = "no PgBouncer found: `apt-get install pgbouncer`"


def find() -> str | None:
    """The path of the program, None where there is none."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


def install() -> None:
    if not find():
        debian.install("pgbouncer", missing=MISSING)


@contextmanager
def pooler(server: postgres.Server, *, mode: str = "transaction", sessions: int = 10) -> Iterator[str]:
    """The URL of a PgBouncer in front of the server, with so many sessions for each database; any name is let in."""
    program = find()
    if program is None:
        pytest.fail(MISSING, pytrace=False)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        settings = Path(folder) / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={server.directory} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {mode}\ndefault_pool_size = {sessions}\nmax_client_conn = 500\n"
        )
        if server.user:
            for one in (folder, settings):
                shutil.chown(one, server.user)
        process = subprocess.Popen(
            [program, "-q", settings],
            user=server.user,
            cwd="/",
            stderr=subprocess.DEVNULL,
            preexec_fn=postgres.die_with_parent,
        )
        url = f"postgresql://anybody@127.0.0.1:{port}/postgres"
        try:
            wait_until(lambda: _answers(url), "PgBouncer answers")
            yield url
        finally:
            process.kill()
            process.wait()


def through(pooler_url: str, database_url: str) -> str:
    """The URL of a database of the server, by way of its pooler."""
    return pooler_url.replace("/postgres", f"/{make_url(database_url).database}")


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


if __name__ == "__main__":
    install()
