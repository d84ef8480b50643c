"""SQLite: nothing to set up, for one machine."""

import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from webhook_app.outbox.database import LOCK_TIMEOUT, NoDatabase, OutboxUnavailable, unavailable

#: For each process that writes. With a million people, four times as much saved nothing that could be measured.
CACHE_KIB = 8 * 1024
CHECKPOINT_PAGES = 4000  # of 4 KiB
#: Seconds between two looks at whether another process has committed; 200 a second cost 1 % of a core.
POLL = 0.005
#: The same while something goes on, and for so many seconds after.
BUSY_POLL, BUSY_FOR = 0.002, 0.25


#: Device and inode.
FileIdentity = tuple[int, int]


class SQLite:
    """One file. All writers of a process share one connection: with one each, they would starve each other.

    Across processes a file lock does the same; SQLite's own waiting sleeps up to 100 ms between two tries.
    """

    dialect = "sqlite"

    def __init__(self, database_url: str) -> None:
        self.path = _file_of(database_url)
        #: SQLite's own names for the write-ahead log and its index.
        self._log_path, self._index_path = (self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))
        url = URL.create("sqlite+pysqlite", database=str(self.path))
        # FULL: a commit is on disk before we answer. WAL: readers and the one writer do not wait for each other; the
        # file remembers it, and only under the lock of a writer it is safe to ask for.
        # The register is written at random places: with the 2 MB that SQLite takes by default, each would be read anew.
        # A page that many commits change is copied into the file once, and not every 4 MB of them.
        pragmas = (
            "synchronous=FULL",
            "journal_mode=WAL",
            f"cache_size=-{CACHE_KIB}",
            f"wal_autocheckpoint={CHECKPOINT_PAGES}",
        )
        self._writer = _sqlite_engine(url, begin="BEGIN IMMEDIATE", pool_size=1, pragmas=pragmas)
        self._reader = _sqlite_engine(url, begin="BEGIN", pool_size=8)
        self._writing: Connection | None = None
        self._mutex = threading.Lock()
        self._lock_file: int | None = None
        #: Device and inode of the file that is open, and of its write-ahead log.
        self._opened: FileIdentity | None = None
        self._log_opened: FileIdentity | None = None
        #: Size and time of the last change of the file, as it was last seen with its log.
        self._seen_change: tuple[int, int] | None = None
        self._watch: Any = None
        self._seen_version = -1
        #: When another process was last seen to have committed, on the clock of `time.monotonic`.
        self._busy_at = 0.0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with unavailable(sqlite3.Error), self._one_writer():
            if not self._is_as_opened():
                self._follow_files()
            connection = self._for_writing()
            try:
                with connection.begin():
                    yield connection
            except BaseException:
                self._forget_writing()
                raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        if not self.path.exists():
            # A look at it makes none: `flask check` leaves nothing behind where the app has never run.
            raise NoDatabase("there is no database file yet: run `flask db upgrade`")
        with unavailable(sqlite3.Error):
            self._follow_files_of_others()
            with self._reader.begin() as connection:
                yield connection

    #: SQLite is a library: a transaction costs no messages.
    write_at_once = write

    #: One transaction from the first step to the last: SQLite takes back DDL, too.
    alter = write

    def prepare_claim(self, connection: Connection) -> None:
        """Nothing to do: there are no statistics that could mislead."""

    def announce(self, connection: Connection) -> None:
        """Nothing to do: whoever waits sees the commit itself."""

    def wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with unavailable(sqlite3.Error):
            self._follow_files_of_others()
            if self._watch is None:
                self._watch = self._reader.raw_connection()
            # The number changes whenever another connection has committed. What was committed between the
            # worker's last look for work and this call has changed it too, so nothing is slept through.
            cursor = self._watch.cursor()
            while True:
                (version,) = cursor.execute("PRAGMA data_version").fetchone()
                now = time.monotonic()
                if version != self._seen_version:
                    self._seen_version, self._busy_at = version, now
                    return
                if now >= deadline:
                    return
                time.sleep(BUSY_POLL if now - self._busy_at < BUSY_FOR else POLL)

    def close(self) -> None:
        self._forget_writing()
        self._forget_connections()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def setup_problem(self) -> str | None:
        """Why its path can never work, with the cure. None where it can: a lock or a full disk ends by itself."""
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            # Not opened: see `_create_private`.
            if not os.access(folder, os.W_OK) or (self.path.exists() and not os.access(self.path, os.R_OK | os.W_OK)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return None
            cure = "name a file in a folder that can be written to"
            if isinstance(error, PermissionError):
                cure = f"give its folder to the user that runs this (uid {os.getuid()})"
            return f"DATABASE_URL: {self.path}: {error.strerror}: {cure}"
        return None

    def _is_as_opened(self) -> bool:
        """Whether the file and its log are those that are open; makes the file if there is none.

        What we wrote into a deleted one would be acknowledged, and gone with the process.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            _create_private(self.path)
            found = self.path.stat()
        if self._opened is None:
            self._opened = found.st_dev, found.st_ino
        log = _identity(self._log_path)
        if self._opened != (found.st_dev, found.st_ino) or (self._log_opened and self._log_opened != log):
            return False
        # SQLite makes the log when it first reads the file, and it stays for as long as anybody has that open.
        self._log_opened = log
        self._seen_change = found.st_size, found.st_mtime_ns
        return True

    def _follow_files_of_others(self) -> None:
        if not self._is_as_opened():
            with self._one_writer():
                self._follow_files()

    def _follow_files(self) -> None:
        """Let go of a file, or a log, that was deleted or replaced. Nobody else writes meanwhile."""
        if self._is_as_opened():
            return  # another thread was first
        found, log = self.path.stat(), _identity(self._log_path)
        replaced = self._opened != (found.st_dev, found.st_ino)
        if replaced and log == self._log_opened:
            # The log of the file before: SQLite would write its pages into this one.
            self._log_path.unlink(missing_ok=True)
            self._index_path.unlink(missing_ok=True)
        elif not replaced and log is None and self._seen_change == (found.st_size, found.st_mtime_ns):
            # Only the log was deleted. What was acknowledged since the last checkpoint is still open here, and nowhere
            # else; where the file has changed as well, it may be a backup's, to which those pages do not belong.
            self._checkpoint()
        self._forget_writing()
        self._forget_connections()
        self._opened, self._log_opened = (found.st_dev, found.st_ino), None

    def _checkpoint(self) -> None:
        if self._writing is not None and (driver := self._writing.connection.driver_connection) is not None:
            with suppress(sqlite3.Error):
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _forget_connections(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._writer.dispose()
        self._reader.dispose()

    def _for_writing(self) -> Connection:
        """The one connection that writes, kept: to take it out of a pool and put it back costs as much as to use it."""
        if self._writing is None:
            self._writing = self._writer.connect()
        return self._writing

    def _forget_writing(self) -> None:
        """Whatever state it is in, the next one is a fresh one."""
        if self._writing is not None:
            self._writing.invalidate()
            self._writing.close()
            self._writing = None

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        deadline = time.monotonic() + LOCK_TIMEOUT
        if not self._mutex.acquire(timeout=LOCK_TIMEOUT):
            raise OutboxUnavailable("the database is locked")
        try:
            if self._lock_file is None:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock_file = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            while not _try_lock(self._lock_file):
                if time.monotonic() >= deadline:
                    raise OutboxUnavailable("the database is locked")
                time.sleep(0.0002)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        finally:
            self._mutex.release()


def _identity(path: Path) -> FileIdentity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _file_of(url: str) -> Path:
    """The file that a URL names. Raises `ValueError` with the cure."""
    example = "like sqlite:///instance/outbox.db"
    _, _, rest = url.partition(":")
    if not rest.startswith("///"):
        raise ValueError(f"must name a file after three slashes, {example}")
    name, question_mark, _ = rest.removeprefix("///").partition("?")
    if question_mark:
        raise ValueError(f"takes no options on SQLite: write it without '?' and what follows, {example}")
    if not name or name == ":memory:":
        raise ValueError(f"must name a file, {example}: memory is lost with the process")
    path = Path(name).absolute()
    if name.endswith("/") or path.is_dir():
        raise ValueError(f"names a folder: name a file in it, {example}")
    return path


def _sqlite_engine(url: URL, *, begin: str, pool_size: int, pragmas: Sequence[str] = ()) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=LOCK_TIMEOUT,
        connect_args={"timeout": LOCK_TIMEOUT, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 begins no transactions behind our back
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.connection.execute(begin)

    return engine


def _create_private(path: Path) -> None:
    """Make a file for us alone: it will hold addresses, and SQLite would let everybody on the machine read it.

    A file that exists is not opened: closing it again would drop every lock that SQLite holds on it in this process,
    and another process could then take away the write-ahead log that we still write to.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
