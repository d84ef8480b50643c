"""The product as `make run` and Heroku start it, on either engine, in a folder of its own."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks.machine import MEASURED, OTHERS, family, pin
from benchmarks.webhooks import EMARSYS_TOKEN
from tests import postgres
from tests.processes import Program, checkout, environment, find, free_port, wait_for_http
from tests.signing import SendGridSigner

ENGINES = ("sqlite", "postgresql")
ROOT = Path(__file__).parent.parent


@dataclass
class Place:
    """A folder, a database and the settings: where the product's processes run."""

    engine: str
    folder: Path
    database_url: str
    signer: SendGridSigner = field(default_factory=SendGridSigner)
    #: PostgreSQL's first process; None where there is none.
    server: int | None = None

    @property
    def database_pids(self) -> list[int]:
        """PostgreSQL's processes of now; one that ends hands its CPU time on to nobody who is looked at."""
        return family(self.server) if self.server else []

    @property
    def env(self) -> dict[str, str]:
        return environment(
            DATABASE_URL=self.database_url,
            SENDGRID_VERIFICATION_KEYS=self.signer.public_key,
            EMARSYS_TOKENS=EMARSYS_TOKEN,
            EVENTS_API_KEY="benchmark",
            # As `make run`, the image and `app.json` have it.
            MALLOC_ARENA_MAX="2",
        )

    def upgrade(self) -> None:
        subprocess.run(
            [find("flask"), "db", "upgrade"], cwd=self.folder, env=self.env, check=True, stdout=subprocess.DEVNULL
        )


@contextmanager
def place(engine: str, *, on: set[int] = OTHERS) -> Iterator[Place]:
    """A fresh database with tables. PostgreSQL runs with its defaults: every commit waits for the disk."""
    with ExitStack() as stack:
        folder = checkout(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))))
        server = None
        if engine == "sqlite":
            url = f"sqlite:///{folder}/outbox.db"
        else:
            server = stack.enter_context(postgres.server(durable=True))
            assert server.process is not None  # told to mypy
            os.sched_setaffinity(server.process.pid, on)
            with psycopg.connect(server.url) as connection:
                for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                    assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)

            url = server.url
        made = Place(engine, folder, url, server=server.process.pid if server and server.process else None)
        made.upgrade()
        yield made


@contextmanager
def running(
    command: list[str], *, cwd: Path, env: dict[str, str], log: str, on: set[int] = MEASURED
) -> Iterator[Program]:
    path = cwd / f"{log}.log"
    with path.open("ab") as output:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=output, preexec_fn=pin(on))
    program = Program(process, path)
    try:
        yield program
    finally:
        program.stop()


@dataclass
class Served:
    """A web process that listens."""

    port: int
    program: Program

    @property
    def pids(self) -> list[int]:
        return family(self.program.process.pid)


@contextmanager
def gunicorn(
    folder: Path,
    env: dict[str, str],
    *,
    app: str | None = None,
    config: Path | None = None,
    name: str = "web",
    ready: str = "/healthz",
    on: set[int] = MEASURED,
) -> Iterator[Served]:
    """gunicorn with the repository's configuration, for the product or for another app."""
    port = free_port()
    command = [find("gunicorn"), "--bind", f"127.0.0.1:{port}"]
    if config:
        command += ["--config", str(config)]
    if app:
        command += ["--chdir", str(ROOT), app]
    with running(command, cwd=folder, env=env, log=name, on=on) as program:
        wait_for_http(f"http://127.0.0.1:{port}{ready}")
        yield Served(port, program)


@contextmanager
def sandbox(folder: Path) -> Iterator[Served]:
    port = free_port()
    command = [find("flask"), "sandbox", "--port", str(port)]
    with running(
        command, cwd=folder, env=environment(DATABASE_URL="sqlite:///unused.db"), log="sandbox", on=OTHERS
    ) as program:
        wait_for_http(f"http://127.0.0.1:{port}/")
        yield Served(port, program)


@contextmanager
def worker(where: Place, sandbox_port: int, *, name: str = "worker", on: set[int] = MEASURED) -> Iterator[Program]:
    env = where.env | {"EVENTS_API_URL": f"http://127.0.0.1:{sandbox_port}"}
    with running([find("flask"), "forward"], cwd=where.folder, env=env, log=name, on=on) as program:
        program.wait_for("worker_started")
        yield program
