"""The whole product on real processes: web, workers, a database, and a Dynamic Yield stand-in with a log of its own.

The database is asked in plain SQL over connections of our own: nothing here trusts the code under test.
"""

import itertools
import json
import os
import resource
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import requests

from tests import summary
from tests.processes import (
    PATIENCE,
    ROOT,
    Program,
    checkout,
    environment,
    family,
    find,
    free_port,
    kill,
    running,
    wait_for_http,
    wait_until,
)
from tests.signing import SendGridSigner
from webhook_app.dev import sandbox
from webhook_app.dev.sandbox import Sandbox

API_KEY = "server-side-key"

Event = dict[str, Any]

#: What became of each event, in words of our own: from the log, the register and the attempts.
STATES = """
    SELECT events.identity_value, CASE
        WHEN events.state IN ('quarantined', 'discarded', 'test') THEN events.state
        WHEN max(consents.dead_at) IS NOT NULL THEN 'dead'
        WHEN max(consents.due_at) IS NOT NULL THEN 'pending'
        WHEN EXISTS (SELECT 1 FROM attempts WHERE event_id = events.id AND outcome = 'delivered') THEN 'delivered'
        ELSE 'superseded' END
    FROM events LEFT JOIN consents ON consents.event_id = events.id
    WHERE events.identity_value IS NOT NULL AND (events.occurred_at = ? OR ? = 0)
    GROUP BY events.id, events.identity_value, events.state
"""
LEASED = "SELECT identity_value FROM events JOIN consents ON event_id = events.id WHERE consents.lease IS NOT NULL"


def opt_out(email: str, **more: Any) -> Event:
    """An unsubscribe as SendGrid reports it."""
    return {"email": email, "event": "unsubscribe", "timestamp": int(time.time()), "sg_message_id": "m1"} | more


def people(count: int, name: str) -> list[str]:
    """So many addresses that no other test uses."""
    return [f"{name}-{number}@example.com" for number in range(count)]


@dataclass
class Load:
    """What the ESP has sent so far."""

    name: str
    #: Whose opt-outs were answered with 200.
    taken: list[str] = field(default_factory=list)
    #: All that was answered on the way; 0 is no answer.
    answers: Counter[int] = field(default_factory=Counter)


@dataclass
class Product:
    """Started by `running_product`; every process can be killed and started again."""

    folder: Path
    database_url: str
    signer: SendGridSigner
    dynamic_yield: Sandbox
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    web: Program | None = None
    workers: list[Program] = field(default_factory=list)
    #: Each worker has a log of its own: what another said there would be taken for its word.
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _stack: ExitStack = field(default_factory=ExitStack)
    _local: threading.local = field(default_factory=threading.local)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def webhook_url(self) -> str:
        return f"{self.url}/webhooks/sendgrid"

    @property
    def env(self) -> dict[str, str]:
        defaults = {
            "DATABASE_URL": self.database_url,
            "PORT": str(self.port),
            "EVENTS_API_URL": self.dynamic_yield.url,
            "EVENTS_API_KEY": API_KEY,
            "SENDGRID_VERIFICATION_KEYS": self.signer.public_key,
            "FORWARD_OPT_INS": "true",
        }
        return environment(**(defaults | self.settings))

    # ------------------------------------------------------------ processes

    def migrate(self) -> None:
        """The release phase."""
        assert self._program(["flask", "db", "upgrade"], "release").process.wait(timeout=PATIENCE) == 0

    def start_web(self) -> Program:
        self.web = self._program(["gunicorn"], "web")
        wait_for_http(f"{self.url}/healthz")
        return self.web

    def start_worker(self, *, clock_ahead: float = 0.0) -> Program:
        """One more worker, whose clock may be wrong by some seconds."""
        skew = {"PYTHONPATH": str(ROOT / "tests" / "skewed_clock"), "CLOCK_AHEAD": str(clock_ahead)}
        worker = self._program(["flask", "forward"], f"worker-{next(self._numbers)}", **(skew if clock_ahead else {}))
        self.workers.append(worker)
        return worker

    def start_workers(self, number: int) -> None:
        """Have so many workers running, whatever ran before."""
        self.workers = [worker for worker in self.workers if worker.process.poll() is None]
        while len(self.workers) > number:
            assert self.workers.pop().stop() == 0
        while len(self.workers) < number:
            self.start_worker()
        for worker in self.workers:
            worker.wait_for('"worker_started"')

    def kill_web(self) -> None:
        """`kill -9` of gunicorn and all its children at once."""
        assert self.web
        self._kill(self.web)

    def kill_worker(self, number: int = 0) -> None:
        self._kill(self.workers.pop(number))

    @contextmanager
    def web_that_cannot_log(self) -> Iterator[Callable[[list[Event]], "Future[requests.Response]"]]:
        """A web process whose standard output nobody reads: it stops for good at the first line that it logs.

        Gives a function that posts in the background.
        """
        reading, writing = os.pipe()
        process = subprocess.Popen([find("gunicorn")], cwd=self.folder, env=self.env, stdout=writing, stderr=writing)
        self.web = Program(process, self.folder / "web.log")
        try:
            wait_for_http(f"{self.url}/healthz")
            _fill(writing)
            with ThreadPoolExecutor(1) as background:
                yield lambda events: background.submit(self.post, events)
        finally:
            self.web.stop(signal.SIGKILL)
            os.close(reading)
            os.close(writing)

    def web_process(self) -> int:
        """The process id of the one that answers: gunicorn's child."""
        assert self.web
        (pid,) = family(self.web.process.pid)
        return pid

    def logs(self) -> dict[str, str]:
        """Name of the log → all that was ever printed into it."""
        return {path.name: path.read_text(errors="replace") for path in self.folder.glob("*.log")}

    def _program(self, command: list[str], log: str, **more: str) -> Program:
        command = [find(command[0]), *command[1:]]
        return self._stack.enter_context(running(command, cwd=self.folder, env=self.env | more, log=f"{log}.log"))

    @staticmethod
    def _kill(program: Program) -> None:
        for pid in [program.process.pid, *family(program.process.pid)]:
            kill(pid)
            summary.count(summary.KILLED)
        program.process.wait(timeout=PATIENCE)

    # ------------------------------------------------------------ what the ESP does

    def post(self, events: list[Event] | bytes, *, timeout: float = 60.0) -> requests.Response:
        """Send one signed webhook, once."""
        body = events if isinstance(events, bytes) else json.dumps(events).encode()
        summary.count(summary.SENT, 1 if isinstance(events, bytes) else len(events))
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = False
            self._stack.callback(session.close)
        answer: requests.Response = session.post(
            self.webhook_url, data=body, headers=self.signer.headers(body), timeout=timeout
        )
        if answer.ok:
            summary.count(summary.RECOGNISED, answer.json()["duplicates"])
        return answer

    def deliver(self, events: list[Event], answers: Counter[int] | None = None) -> None:
        """Send one webhook as an ESP does, again until it is taken. `answers` counts what came back; 0 is no answer.

        Fails at once for what no ESP would send again, and for a 500: that is our mistake, not our database's.
        """
        answers = Counter() if answers is None else answers
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            try:
                status = self.post(events).status_code
            except requests.RequestException:
                status = 0
            answers[status] += 1
            if status == 200:
                return
            assert status in (0, 503), f"answered {status}"
            assert time.monotonic() < deadline, f"never taken: {answers}"
            time.sleep(0.1)

    def deliver_all(self, webhooks: Iterable[list[Event]], *, threads: int = 4) -> None:
        """Deliver many webhooks from several threads."""
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self.deliver, webhooks))

    @contextmanager
    def under_load(self, name: str, *, threads: int = 4, size: int = 5) -> Iterator["Load"]:
        """Webhooks about new people keep coming for as long as the block lasts; at its end all of them are taken."""
        load = Load(name)
        over = threading.Event()
        numbers = itertools.count()

        def keep_sending() -> None:
            # At least once, and a breath between two: a test needs work to be going on, not all that is possible.
            while not load.taken or not over.wait(0.02):
                addresses = [f"{name}-{next(numbers)}@example.com" for _ in range(size)]
                self.deliver([opt_out(address) for address in addresses], load.answers)
                load.taken += addresses

        with ThreadPoolExecutor(threads) as pool:
            senders = [pool.submit(keep_sending) for _ in range(threads)]
            try:
                yield load
            finally:
                over.set()
            for sender in senders:
                sender.result()

    # ------------------------------------------------------------ what Dynamic Yield saw

    def told(self, addresses: Iterable[str]) -> dict[str, list[str]]:
        """What Dynamic Yield has taken about each of these people, oldest first: `optout` or `optin`."""
        history: dict[str, list[str]] = {address: [] for address in addresses}
        for body in self.dynamic_yield.taken:
            properties = body["events"][0]["properties"]
            if properties["plainTextEmail"] in history:
                history[properties["plainTextEmail"]].append(properties["dyType"].split("-")[1])
        return history

    def await_told(self, addresses: Iterable[str], *, within: float = PATIENCE) -> dict[str, list[str]]:
        """Wait until Dynamic Yield knows of each of these people, and count who is missing then."""
        addresses = list(addresses)
        deadline = time.monotonic() + within
        while True:
            told = self.told(addresses)
            missing = [address for address, changes in told.items() if not changes]
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        summary.count(summary.LOST, len(missing))
        assert not missing, f"{len(missing)} of {len(addresses)} acknowledged opt-outs never arrived: {missing[:3]}"
        return told

    def heal(self) -> None:
        self.dynamic_yield.heal()
        self.dynamic_yield.latency = 0.0

    # ------------------------------------------------------------ what is on disk

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a query, with `?` for each value."""
        if self.database_url.startswith("sqlite"):
            connection = sqlite3.connect(f"file:{self.sqlite_file}?mode=ro", uri=True, timeout=PATIENCE)
            try:
                return connection.execute(query, values).fetchall()
            finally:
                connection.close()
        with psycopg.connect(self.database_url, autocommit=True) as remote:
            return remote.execute(query.replace("?", "%s").encode(), values).fetchall()

    def take_rows_of(self, address: str) -> None:
        """Everything that the database knows of a person is gone from under whoever works with it.

        As after an erasure by hand, or with an older backup restored.
        """
        ((number, person),) = self.sql("SELECT id, identity_hash FROM events WHERE identity_value = ?", address)
        person = bytes(person)
        tables = {"attempts": ("event_id", number), "consents": ("identity_hash", person), "events": ("id", number)}
        for table, (column, value) in tables.items():
            if self._has(table):
                self._write(f"DELETE FROM {table} WHERE {column} = ?", value)  # noqa: S608 (our own names)

    def _has(self, table: str) -> bool:
        if self.database_url.startswith("sqlite"):
            return bool(self.sql("SELECT 1 FROM sqlite_master WHERE name = ?", table))
        return bool(self.sql("SELECT 1 FROM information_schema.tables WHERE table_name = ?", table))

    def _write(self, statement: str, *values: Any) -> None:
        if self.database_url.startswith("sqlite"):
            with closing(sqlite3.connect(self.sqlite_file, timeout=PATIENCE, isolation_level=None)) as connection:
                connection.execute(statement, values)
        else:
            with psycopg.connect(self.database_url, autocommit=True) as remote:
                remote.execute(statement.replace("?", "%s").encode(), values)

    @property
    def sqlite_file(self) -> Path:
        return Path(self.database_url.removeprefix("sqlite:///"))

    def states(self, addresses: Iterable[str], *, occurred_at: int = 0) -> Counter[str]:
        """How many events of these people are in which state; only those of one moment, in microseconds, if given."""
        wanted = set(addresses)
        return Counter(state for address, state in self.sql(STATES, occurred_at, occurred_at) if address in wanted)

    def await_nothing_waiting(self) -> None:
        waiting = "SELECT count(*) FROM consents WHERE due_at IS NOT NULL"
        wait_until(lambda: self.sql(waiting) == [(0,)], "the outbox is empty")


@contextmanager
def running_product(
    folder: Path, database_url: str, signer: SendGridSigner, *, workers: int = 1, settings: Mapping[str, str] = {}
) -> Iterator[Product]:
    """The product in `folder`, ready to take webhooks; `settings` are further environment variables."""
    with installed_product(folder, database_url, signer, settings=settings) as product:
        product.migrate()
        product.start_web()
        product.start_workers(workers)
        yield product


@contextmanager
def installed_product(
    folder: Path, database_url: str, signer: SendGridSigner, *, settings: Mapping[str, str] = {}
) -> Iterator[Product]:
    """The product in `folder`, of which nothing is started but the stand-in for Dynamic Yield."""
    with ExitStack() as stack:
        dynamic_yield = stack.enter_context(sandbox.running(api_key=API_KEY))
        product = Product(checkout(folder), database_url, signer, dynamic_yield, dict(settings))
        stack.enter_context(product._stack)
        try:
            yield product
        finally:
            summary.count(summary.FAULTS, dynamic_yield.counts["faults"])


def _fill(pipe: int) -> None:
    """Fill a pipe to its brim. Opened anew, so that only this end of it does not block."""
    with open(
        f"/proc/self/fd/{pipe}", "wb", buffering=0, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
    ) as end:
        for size in (4096, 1):
            while end.write(b"\n" * size):
                pass


@contextmanager
def disk_full(pid: int) -> Iterator[None]:
    """Files that this process writes cannot grow any more: as when the disk is full, without filling one."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
