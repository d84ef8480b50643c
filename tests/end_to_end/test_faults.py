"""Faults that must be survived, row by row: real processes, real databases, real signals, and an oracle of its own."""

import itertools
import json
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest
import requests

from tests import postgres, summary
from tests.processes import PATIENCE, wait_until
from tests.product import LEASED, Product, disk_full, opt_out, people
from webhook_app.delivery.worker import LEASE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: A file has no server that could go away.
ON_POSTGRESQL = pytest.mark.parametrize("shared_product", ["postgresql"], indirect=True)

Fault = Callable[[Product, postgres.Server], AbstractContextManager[None]]

# ---------------------------------------------------------------- the database


@contextmanager
def locked(product: Product, server: postgres.Server) -> Iterator[None]:
    """Somebody else writes, and does not stop."""
    if product.database_url.startswith("sqlite"):
        rival = sqlite3.connect(product.sqlite_file, isolation_level=None)
        rival.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            rival.execute("ROLLBACK")
            rival.close()
    else:
        with psycopg.connect(product.database_url) as other, other.cursor() as cursor:
            cursor.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            yield
            other.rollback()


@contextmanager
def full(product: Product, server: postgres.Server) -> Iterator[None]:
    """No file can grow. PostgreSQL would stop altogether, so there the server only says so, in its own words."""
    if product.database_url.startswith("sqlite"):
        with disk_full(product.web_process()):
            yield
    else:
        with psycopg.connect(product.database_url, autocommit=True) as admin:
            admin.execute(
                "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
            )
            admin.execute("CREATE TRIGGER no_space BEFORE INSERT ON events EXECUTE FUNCTION no_space()")
            try:
                yield
            finally:
                admin.execute("DROP FUNCTION no_space CASCADE")


@contextmanager
def down(product: Product, server: postgres.Server) -> Iterator[None]:
    server.stop(signal.SIGINT)
    try:
        yield
    finally:
        server.start()


def refused_for_now(product: Product, server: postgres.Server, fault: Fault) -> None:
    addresses = people(50, f"database-{fault.__name__}")
    # One of them is quarantined: that, too, is stored with the others or not at all.
    events = [*(opt_out(address) for address in addresses), {"event": "unsubscribe", "email": fault.__name__}]
    with fault(product, server):
        summary.count(summary.FAULTS)
        answer = product.post(events)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
        assert answer.json() == {"error": "cannot store this now"}
    assert product.states(addresses) == {}
    assert product.post(events).json() == {"accepted": 50, "duplicates": 0, "ignored": 0, "quarantined": 1}
    assert set(product.await_told(addresses)) == set(addresses)


@pytest.mark.parametrize("fault", [locked, full])
def test_database_locked_or_disk_full_at_receive_503_nothing_half_stored_and_the_same_request_succeeds_later(
    product: Product, postgres_server: postgres.Server, fault: Fault
) -> None:
    refused_for_now(product, postgres_server, fault)


@ON_POSTGRESQL
def test_database_down_at_receive_503_nothing_half_stored_and_the_same_request_succeeds_later(
    product: Product, postgres_server: postgres.Server
) -> None:
    refused_for_now(product, postgres_server, down)


def test_kill_9_of_web_after_commit_before_the_answer_the_esp_resends_200_one_row(product: Product) -> None:
    """The log line of a request is written between the two; here nobody reads it, so that the process stands still."""
    (address,) = people(1, "killed-before-the-answer")
    product.kill_web()
    with product.web_that_cannot_log() as post_in_background:
        answered = post_in_background([opt_out(address, timestamp=1760000000)])
        wait_until(lambda: product.states([address]).total() == 1, "the row is committed")
        # Answered already: the process was not stopped in time, and this test would prove nothing.
        assert not answered.done()
        product.kill_web()
        # An answer here: it was on its way before the kill.
        assert isinstance(answered.exception(timeout=PATIENCE), requests.ConnectionError)
    product.start_web()
    assert product.post([opt_out(address, timestamp=1760000000)]).json()["duplicates"] == 1
    assert product.await_told([address]) == {address: ["optout"]}
    assert product.states([address]).total() == 1


def test_kill_9_of_web_at_any_moment_under_load_every_accepted_change_arrives_once(product: Product) -> None:
    with product.under_load("web-killed") as load:
        for _ in range(4):
            taken = len(load.taken)
            wait_until(lambda: len(load.taken) >= taken + 50, "it takes webhooks")  # noqa: B023 (called at once)
            # Wherever it happens to be: reading, verifying, committing, answering.
            product.kill_web()
            product.start_web()
    # None: it was never killed in mid-request.
    assert load.answers[0] > 0
    # Twice: a webhook that was sent again was taken for a new one.
    assert set(map(len, product.await_told(load.taken).values())) == {1}


# ---------------------------------------------------------------- the worker


def test_kill_9_of_the_worker_repeatedly_under_load_every_accepted_change_arrives_duplicates_only_of_what_was_in_flight(
    product: Product,
) -> None:
    in_flight: set[str] = set()
    product.dynamic_yield.latency = 0.05
    with product.under_load("worker-killed") as load:
        for _ in range(5):
            arrived = product.dynamic_yield.counts["arrived"]
            wait_until(lambda: product.dynamic_yield.counts["arrived"] > arrived + 50, "it sends")  # noqa: B023
            product.kill_worker()
            in_flight |= {address for (address,) in product.sql(LEASED)}
            product.start_worker()
    product.dynamic_yield.latency = 0.0
    product.await_told(load.taken, within=LEASE + PATIENCE)
    product.await_nothing_waiting()
    repeated = {address: len(changes) - 1 for address, changes in product.told(load.taken).items() if len(changes) > 1}
    summary.count(summary.REPEATED, sum(repeated.values()))
    # Somebody else: a change was sent again although the worker that died had long been done with it.
    assert repeated.keys() <= in_flight
    assert product.states(load.taken) == {"delivered": len(load.taken)}


def told_of(product: Product, addresses: list[str]) -> int:
    return sum(map(bool, product.told(addresses).values()))


def test_sigterm_in_mid_send_in_flight_finished_or_handed_back_within_30_s_exit_0(product: Product) -> None:
    addresses = people(200, "terminated")
    product.dynamic_yield.latency = 1.0
    assert product.post([opt_out(address) for address in addresses]).ok
    arrived = product.dynamic_yield.counts["arrived"]
    wait_until(lambda: product.dynamic_yield.counts["arrived"] > arrived, "it is in mid-send")
    began = time.monotonic()
    assert product.workers[0].stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 30
    # A lease is left: nobody could send that change before the lease runs out.
    assert product.sql(LEASED) == []
    taken = told_of(product, addresses)
    assert 0 < taken < len(addresses)
    assert product.states(addresses) == {"delivered": taken, "pending": len(addresses) - taken}

    product.dynamic_yield.latency = 0.0
    product.start_workers(1)
    # Slower than that: the next worker had to wait for leases of the one that was stopped.
    told = product.await_told(addresses, within=LEASE / 2)
    # Twice: what was in flight was handed back although it had been sent.
    assert set(map(len, told.values())) == {1}


def test_sigterm_while_dynamic_yield_does_not_answer_exit_0_within_30_s(product: Product) -> None:
    (address,) = people(1, "hanging")
    product.dynamic_yield.fault("timeout", times=1)
    assert product.post([opt_out(address)]).ok
    wait_until(lambda: not product.dynamic_yield.faults, "it hangs")
    began = time.monotonic()
    assert product.workers[0].stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 30
    product.start_workers(1)
    assert product.await_told([address]) == {address: ["optout"]}


@ON_POSTGRESQL
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["restarted", "crashed"])
def test_postgresql_restarted_under_load_web_answers_503_meanwhile_worker_reconnects_by_itself_nothing_lost(
    product: Product, postgres_server: postgres.Server, how: signal.Signals
) -> None:
    (worker,) = product.workers
    web = product.web_process()
    with product.under_load(f"postgresql-{how.name}") as load:
        wait_until(lambda: len(load.taken) > 100, "it takes webhooks")
        summary.count(summary.FAULTS)
        postgres_server.stop(how)
        try:
            wait_until(lambda: load.answers[503] > 3, "the ESP is asked to come again")
            assert requests.get(f"{product.url}/readyz", timeout=30).status_code == 503
            # The web process does not need its database to be alive: the platform must not restart it in a loop.
            assert requests.get(f"{product.url}/healthz", timeout=30).status_code == 200
        finally:
            postgres_server.start()
        taken = len(load.taken)
        wait_until(lambda: len(load.taken) > taken + 100, "it takes webhooks again")
    told = product.await_told(load.taken, within=LEASE + PATIENCE)
    summary.count(summary.REPEATED, sum(len(changes) - 1 for changes in told.values()))
    product.await_nothing_waiting()
    # Nobody was restarted: they found their way back by themselves.
    assert worker.process.poll() is None
    assert product.web_process() == web
    wait_until(lambda: requests.get(f"{product.url}/readyz", timeout=30).status_code == 200, "it is ready again")


# ---------------------------------------------------------------- what is sent


def test_one_bad_event_in_a_hundred_99_forwarded_1_quarantined_200(product: Product) -> None:
    addresses = people(99, "beside-a-bad-one")
    events = [opt_out(address) for address in addresses]
    events.insert(50, opt_out("this is no address"))
    answer = product.post(events)
    assert (answer.status_code, answer.json()) == (
        200,
        {"accepted": 99, "duplicates": 0, "ignored": 0, "quarantined": 1},
    )
    assert set(map(len, product.await_told(addresses).values())) == {1}
    quarantined = product.sql("SELECT error, raw FROM events WHERE state = 'quarantined'")
    assert [error for error, raw in quarantined if b"this is no address" in raw] == ["email: is not an email address"]


def test_10_000_duplicates_from_16_threads_one_row(product: Product) -> None:
    (address,) = people(1, "sent-ten-thousand-times")
    numbers = itertools.count()
    start = threading.Barrier(16)

    def insist(_: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        start.wait()
        for _ in range(25):
            # Everything that may differ between two deliveries of one event does.
            events = [
                opt_out(
                    random.choice([address, address.upper()]), timestamp=1760000000, sg_event_id=f"id-{next(numbers)}"
                )
                for _ in range(25)
            ]
            counts += Counter(product.post(events).json())
        return counts

    with ThreadPoolExecutor(16) as pool:
        answered = sum(pool.map(insist, range(16)), Counter())
    assert answered == {"accepted": 1, "duplicates": 9_999}
    assert product.sql("SELECT count(*) FROM events WHERE lower(identity_value) = ?", address) == [(1,)]
    product.await_nothing_waiting()
    taken = [body for body in product.dynamic_yield.taken if address in json.dumps(body).lower()]
    # More: one of the repetitions led to a second call.
    assert len(taken) == 1


def test_opt_out_then_opt_in_then_opt_out_of_one_person_shuffled_retried_with_three_workers_the_newest_wins(
    product: Product,
) -> None:
    """On the wire and in the table. Half of the people end the other way round: "an opt-out comes last" is no rule."""
    rng = random.Random(7)
    out, back = people(40, "ends-out"), people(40, "ends-in")
    began = int(time.time()) - 1000
    webhooks = []
    for address in out + back:
        kinds = ["unsubscribe", "group_resubscribe", "unsubscribe"]
        if address in back:
            kinds = ["group_resubscribe", "unsubscribe", "group_resubscribe"]
        for step, kind in enumerate(kinds):
            webhook = [opt_out(address, event=kind, timestamp=began + step, asm_group_id=1)]
            webhooks += [webhook] * rng.choice([1, 2])
    rng.shuffle(webhooks)
    product.start_workers(3)
    overlapping = watch_for_overlaps(product)
    product.dynamic_yield.latency = 0.02
    for kind in ("status", "reset", "close"):
        product.dynamic_yield.fault(kind, times=10)
    product.deliver_all(webhooks, threads=8)
    product.await_nothing_waiting()

    told = product.await_told(out + back)
    # The other way round: an older change overtook the newest one, and the person has what they no longer want.
    assert {address: told[address][-1] for address in out} == dict.fromkeys(out, "optout")
    assert {address: told[address][-1] for address in back} == dict.fromkeys(back, "optin")
    assert product.states(told, occurred_at=(began + 2) * 1_000_000).keys() == {"delivered"}
    # Two calls about one person at once: which of them Dynamic Yield takes last would be chance.
    assert overlapping == []


def watch_for_overlaps(product: Product) -> list[str]:
    """People about whom two requests are under way at once, from now on."""
    under_way: Counter[str] = Counter()
    seen: list[str] = []
    box = product.dynamic_yield
    arrive, settle = box.arrive, box.settle

    def person(request: object) -> str:
        properties: dict[str, str] = json.loads(request.body)["events"][0]["properties"]  # type: ignore[attr-defined]
        return properties["plainTextEmail"]

    def watched_arrive(request: object) -> object:
        arrival = arrive(request)  # type: ignore[arg-type]
        under_way[person(request)] += 1
        if under_way[person(request)] > 1:
            seen.append(person(request))
        return arrival

    def watched_settle(arrival: object, became: str, status: int | None) -> None:
        under_way[person(arrival.request)] -= 1  # type: ignore[attr-defined]
        settle(arrival, became, status)  # type: ignore[arg-type]

    box.arrive, box.settle = watched_arrive, watched_settle  # type: ignore[method-assign,assignment]
    return seen
