"""A PostgreSQL that fails over, hangs or stands behind a pooler: real servers, and nobody is restarted."""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest
import requests

from tests import pgbouncer, postgres, summary
from tests.forwarder import Forwarder, forwarder
from tests.outbox.bulk import fill
from tests.outbox.world import change, rows
from tests.processes import PATIENCE, find, wait_until
from tests.product import Product, opt_out, people, running_product
from tests.signing import SendGridSigner
from webhook_app.delivery.worker import LEASE
from webhook_app.outbox import Intake, OutboxUnavailable, Queue, open_database, schema

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: An ESP, and Heroku's router, give up after 30 s.
IN_TIME = 28.0  # seconds


@pytest.fixture
def own_server() -> Iterator[postgres.Server]:
    with postgres.server() as server:
        yield server


# ---------------------------------------------------------------- fail-over


@pytest.fixture
def pair(own_server: postgres.Server) -> Iterator[tuple[postgres.Server, postgres.Server]]:
    """A primary and its standby."""
    with postgres.server(standby_of=own_server) as standby:
        yield own_server, standby


def fail_over(primary: postgres.Server, standby: postgres.Server) -> None:
    """The standby becomes the primary. The old one lives on: it answers, and cannot write."""
    summary.count(summary.FAULTS)
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    with psycopg.connect(primary.url, autocommit=True) as connection:
        wait_until(lambda: _has_caught_up(connection), "the standby has all that was committed")
    standby.execute("SELECT pg_promote()")


def _has_caught_up(connection: psycopg.Connection[tuple[bool]]) -> bool:
    query = "SELECT bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication"
    return connection.execute(query).fetchone() == (True,)


@contextmanager
def one_name(primary: postgres.Server, standby: postgres.Server) -> Iterator[tuple[str, Callable[[], None]]]:
    """A host's name, and what makes it point to the other server."""
    with forwarder(primary.socket) as name:
        yield f"postgresql://postgres@127.0.0.1:{name.port}/postgres", lambda: setattr(name, "target", standby.socket)


@contextmanager
def two_hosts(primary: postgres.Server, standby: postgres.Server) -> Iterator[tuple[str, Callable[[], None]]]:
    """Both servers in one URL."""
    with forwarder(primary.socket) as one, forwarder(standby.socket) as two:
        yield f"postgresql://postgres@127.0.0.1:{one.port},127.0.0.1:{two.port}/postgres", lambda: None


Hosts = Callable[[postgres.Server, postgres.Server], AbstractContextManager[tuple[str, Callable[[], None]]]]


@pytest.mark.parametrize("hosts", [one_name, two_hosts])
def test_after_a_fail_over_writes_work_on_the_second_try(
    hosts: Hosts, pair: tuple[postgres.Server, postgres.Server]
) -> None:
    """Before, every connection stayed on the old primary, which answers each question and each ping."""
    primary, standby = pair
    with hosts(primary, standby) as (url, switch):
        database = open_database(url)
        schema.upgrade(database)
        intake, queue = Intake(database), Queue(database)
        queue.wait(0.0)
        with ThreadPoolExecutor(8) as pool:  # as many connections as a busy process has
            list(pool.map(lambda _: rows(database), range(16)))
        assert store(intake, "before@example.com") == 1

        fail_over(primary, standby)
        switch()
        with pytest.raises(OutboxUnavailable, match="read-only"):
            store(intake, "after@example.com")
        assert store(intake, "after@example.com") == 1
        assert [row.identity_value for row in rows(database)] == ["before@example.com", "after@example.com"]
        assert_is_woken(queue, intake)
        database.close()


def store(intake: Intake, address: str) -> int:
    return intake.add("sendgrid", changes=[(change(address), b"{}")]).accepted


def assert_is_woken(queue: Queue, intake: Intake) -> None:
    """The worker listens to the server that it writes to."""
    queue.wait(0.0)
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        waiting = pool.submit(queue.wait, 20.0)
        time.sleep(0.2)
        store(intake, "later@example.com")
        waiting.result(30)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("hosts", [one_name, two_hosts])
def test_a_fail_over_under_load_loses_nothing_and_needs_no_restart(
    hosts: Hosts, pair: tuple[postgres.Server, postgres.Server], tmp_path: Path, sendgrid_signer: SendGridSigner
) -> None:
    primary, standby = pair
    with (
        hosts(primary, standby) as (url, switch),
        running_product(tmp_path, url, sendgrid_signer, workers=2) as product,
    ):
        with product.under_load(hosts.__name__) as load:
            wait_until(lambda: len(load.taken) > 100, "it takes webhooks")
            fail_over(primary, standby)
            switch()
            taken = len(load.taken)
            wait_until(lambda: len(load.taken) > taken + 300, "it takes webhooks again")
        product.await_told(load.taken, within=LEASE + PATIENCE)
    print(f"{hosts.__name__}: {load.answers}")  # noqa: T201
    # 503 while there is no primary, and once for each connection to the old one at most.
    assert load.answers.keys() <= {200, 503}


# ---------------------------------------------------------------- a server that hangs


@contextmanager
def stopped(server: postgres.Server, way: Forwarder) -> Iterator[None]:
    with server.frozen():
        yield


@contextmanager
def swallowed(server: postgres.Server, way: Forwarder) -> Iterator[None]:
    with way.stalled():
        yield


Hang = Callable[[postgres.Server, Forwarder], AbstractContextManager[None]]


@pytest.fixture
def way(own_server: postgres.Server) -> Iterator[Forwarder]:
    with forwarder(own_server.socket) as running:
        yield running


@pytest.fixture
def hanging_product(way: Forwarder, tmp_path: Path, sendgrid_signer: SendGridSigner) -> Iterator[Product]:
    """A product whose database is about to hang."""
    url = f"postgresql://postgres@127.0.0.1:{way.port}/postgres"
    with running_product(tmp_path, url, sendgrid_signer) as product:
        yield product


@pytest.mark.parametrize("hang", [stopped, swallowed])
def test_while_the_database_hangs_each_webhook_gets_its_503_in_time_and_all_threads_come_back(
    hang: Hang, hanging_product: Product, own_server: postgres.Server, way: Forwarder
) -> None:
    """It accepts, it acknowledges, it never answers: before, each webhook took a thread with it for good."""
    product = hanging_product
    before, meanwhile = people(8, "before-it-hangs"), people(64, "while-it-hangs")
    product.deliver_all([[opt_out(address)] for address in before], threads=8)
    product.await_told(before)

    def post(address: str) -> tuple[int, float]:
        began = time.monotonic()
        status = product.post([opt_out(address)], timeout=PATIENCE).status_code
        return status, time.monotonic() - began

    summary.count(summary.FAULTS)
    with hang(own_server, way), ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(post, meanwhile))
        # The web process does not need its database to be alive: the platform must not restart it in a loop.
        assert requests.get(f"{product.url}/healthz", timeout=IN_TIME).status_code == 200
        assert requests.get(f"{product.url}/readyz", timeout=IN_TIME).status_code == 503
    assert Counter(status for status, _ in answers) == {503: len(meanwhile)}
    slowest = max(seconds for _, seconds in answers)
    print(f"{hang.__name__}: the slowest 503 took {slowest:.1f} s")  # noqa: T201
    assert slowest < IN_TIME

    # More than it has threads: none of them is still waiting.
    after = people(64, "after-it-hung")
    product.deliver_all([[opt_out(address)] for address in after + meanwhile], threads=48)
    product.await_told(after + meanwhile, within=LEASE + PATIENCE)
    product.await_nothing_waiting()


def test_a_worker_that_is_told_to_stop_while_the_database_hangs_ends_in_time(
    hanging_product: Product, own_server: postgres.Server
) -> None:
    (worker,) = hanging_product.workers
    with own_server.frozen():
        time.sleep(2.0)
        assert worker.stop() == 0


def test_a_connection_that_dies_in_mid_answer_is_cut_and_the_next_one_works(
    own_server: postgres.Server, way: Forwarder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook_app.outbox.engines.postgresql.TRANSACTION_TIMEOUT", 1.0)
    database = open_database(f"postgresql://postgres@127.0.0.1:{way.port}/postgres")
    began = time.monotonic()
    with pytest.raises(OutboxUnavailable, match="did not answer in time"), database.read() as connection:
        connection.exec_driver_sql("SELECT 1")
        with way.stalled():
            connection.exec_driver_sql("SELECT repeat('x', 10000000)")
    assert time.monotonic() - began < IN_TIME
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    database.close()


# ---------------------------------------------------------------- behind a pooler


@pytest.fixture
def pooler(own_server: postgres.Server) -> Iterator[str]:
    with pgbouncer.pooler(own_server, sessions=5) as url:
        yield url


@contextmanager
def another_client(pooler_url: str) -> Iterator[list[str]]:
    """Somebody else who uses the pooler's sessions, between any two of our transactions. Yields what leaked to them."""
    leaked: list[str] = []
    over = threading.Event()
    settings = ("statement_timeout", "lock_timeout", "enable_sort", "idle_in_transaction_session_timeout")

    def use() -> None:
        with psycopg.connect(pooler_url, autocommit=True, prepare_threshold=None) as connection:
            connection.add_notify_handler(lambda notify: leaked.append(f"heard {notify.channel}"))
            found = dict.fromkeys(settings, "")
            while not over.wait(0.002):
                with connection.transaction():
                    for name in settings:
                        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                        assert row
                        if found[name] not in ("", row[0]):
                            leaked.append(f"{name} = {row[0]}")
                        found[name] = found[name] or row[0]
                    for query in (
                        "SELECT 'listens to ' || pg_listening_channels()",
                        "SELECT 'has prepared ' || statement FROM pg_prepared_statements WHERE NOT from_sql",
                        "SELECT 'holds a lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
                    ):
                        leaked.extend(text for (text,) in connection.execute(query))

    with ThreadPoolExecutor(1) as pool:
        using = pool.submit(use)
        try:
            yield leaked
        finally:
            over.set()
        using.result()


def test_behind_a_pooler_everything_works_under_load_and_nothing_leaks_to_its_other_clients(
    pooler: str, tmp_path: Path, sendgrid_signer: SendGridSigner
) -> None:
    """Before, a quarter of the webhooks were answered 503."""
    with (
        another_client(pooler) as leaked,
        running_product(tmp_path, pooler, sendgrid_signer, workers=2) as product,
    ):
        with product.under_load("behind-a-pooler", threads=8) as load:
            wait_until(lambda: len(load.taken) > 2000, "it takes webhooks")
        product.await_told(load.taken)
        product.await_nothing_waiting()
        assert requests.get(f"{product.url}/readyz", timeout=30).status_code == 200
        assert load.answers.keys() == {200}
        assert not any('"outbox_unavailable"' in log for log in product.logs().values())
    print(f"{len(load.taken)} people, {load.answers[200]} webhooks")  # noqa: T201
    assert leaked == []


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_behind_a_pooler_a_worker_still_finds_new_work_within_a_second(mode: str, own_server: postgres.Server) -> None:
    with pgbouncer.pooler(own_server, mode=mode, sessions=20) as url:
        database, other = open_database(url), open_database(url)
        schema.upgrade(database)
        queue, intake = Queue(database), Intake(other)
        queue.wait(0.0)
        delays = []
        for number in range(10):
            store(intake, f"u{number}@example.com")
            began = time.monotonic()
            while not queue.claim(1):
                queue.wait(5.0)
            delays.append(time.monotonic() - began)
        assert min(delays) < 1.0
        database.close()
        other.close()


def test_two_releases_at_once_behind_a_pooler_migrate_once(own_server: postgres.Server, pooler: str) -> None:
    # Another value than the usual one: a session that we gave back with the usual one would show it.
    own_server.execute("ALTER SYSTEM SET lock_timeout = '59s'", "SELECT pg_reload_conf()")
    url = pgbouncer.through(pooler, postgres.create_database(own_server.url))
    databases = [open_database(url) for _ in range(3)]
    with another_client(url) as leaked, ThreadPoolExecutor(3) as pool:
        list(pool.map(schema.upgrade, databases))
    assert [schema.problem(one) for one in databases] == [None] * 3
    assert leaked == []
    for one in databases:
        one.close()


# ---------------------------------------------------------------- an export while the database dies


@pytest.fixture
def exporting(own_server: postgres.Server, tmp_path: Path, sendgrid_signer: SendGridSigner) -> Iterator[Product]:
    """A product with a list that takes a while to read."""
    settings = {"CONSOLE_PASSWORD": "correct-horse-battery", "SECRET_KEY": "s" * 32}
    with running_product(tmp_path, own_server.url, sendgrid_signer, workers=0, settings=settings) as product:
        database = open_database(own_server.url)
        fill(database, 200_000, people=1000)
        database.close()
        yield product


def test_a_file_that_was_cut_off_by_the_database_is_seen_to_be_cut(
    exporting: Product, own_server: postgres.Server
) -> None:
    """Half of the list that looks like all of it would be taken for it."""
    url = f"{exporting.url}/console/events.csv"
    with requests.get(url, auth=("x", "correct-horse-battery"), stream=True, timeout=PATIENCE) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_content(65536)
        next(pieces)
        # Far more than fits into the buffers on the way is still to be read.
        own_server.stop()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(pieces)
    own_server.start()


def test_a_command_whose_database_dies_ends_with_1_and_a_line(exporting: Product, own_server: postgres.Server) -> None:
    command = [find("flask"), "events", "list", "--json", "--limit", "1000000"]
    with subprocess.Popen(
        command, cwd=exporting.folder, env=exporting.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        own_server.stop()
        while process.stdout.read(65536):
            pass
        complaint = process.stderr.read().decode()
    own_server.start()
    assert process.returncode == 1
    assert "the database cannot be used" in complaint
    assert "Traceback" not in complaint
