"""What is measured: the product and its limit by turns, in the same run, on the same work."""

import statistics
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import requests

from benchmarks import filling, load, looking, start, suppressions, webhooks
from benchmarks.limits import batches as batches_limit
from benchmarks.limits import posting
from benchmarks.limits import rows as rows_limit
from benchmarks.limits.relaying import body_about
from benchmarks.machine import MEASURED, OTHERS, apart, cpu_seconds, pin, pss
from benchmarks.product import Place, Served, gunicorn, place, sandbox, worker
from tests.processes import find, wait_until

CONNECTIONS = 32
BATCH_CONNECTIONS = 4
THREADS = 16  # WORKER_CONCURRENCY's default
LATENCY = 10  # ms that the sandbox takes for an answer
SLOW = 50  # ms that it takes in the second turn of C
LIMITS = Path(__file__).parent / "limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long and how often."""

    rounds: int = 5
    seconds: float = 2.0
    drain_seconds: float = 6.0
    batches: int = 40
    backlog: int = 100_000
    webhooks: int = 300
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    growth_rounds: int = 3
    burst: int = 100_000
    imported: int = 1_000_000
    import_rounds: int = 1  # each takes minutes
    looks: int = 40


QUICK = Effort(
    rounds=1,
    seconds=0.5,
    drain_seconds=1.5,
    batches=2,
    backlog=4_000,
    webhooks=10,
    sizes=(1_000, 2_000),
    growth_rounds=1,
    burst=500,
    imported=1_000,
    looks=5,
)


@dataclass(slots=True)
class Compared:
    """One measure on one engine. `ratios` has the product's figure divided by the limit's for each round."""

    measure: str
    engine: str
    unit: str
    product: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
    #: By the clock instead of by CPU time, where the measure goes by CPU time, and the other way round.
    other_product: list[float] = field(default_factory=list)
    other_limit: list[float] = field(default_factory=list)
    more: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        ratios = sorted(mine / its for mine, its in zip(self.product, self.limit, strict=True))
        others = sorted(mine / its for mine, its in zip(self.other_product, self.other_limit, strict=True))
        return asdict(self) | {
            "ratio": statistics.median(ratios) if ratios else None,
            "ratio_range": [ratios[0], ratios[-1]] if ratios else None,
            "other_ratio": statistics.median(others) if others else None,
        }


Rate = tuple[float, float]


def by_turns(compared: Compared, rounds: int, product: Callable[[], Rate], limit: Callable[[], Rate]) -> Compared:
    """Measure product and limit alternately; each gives the figure that counts and the one that stands beside it."""
    for number in range(rounds):
        # Who begins changes: whatever slows the machine down meets both.
        for measure_product in (number % 2 == 0, number % 2 == 1):
            figure, other = product() if measure_product else limit()
            if measure_product:
                compared.product.append(figure)
                compared.other_product.append(other)
            else:
                compared.limit.append(figure)
                compared.other_limit.append(other)
    return compared


# ---------------------------------------------------------------- A


def batches(where: Place, web: Served, effort: Effort, opt_outs: float) -> Compared:
    """Signed SendGrid batches: events per CPU second of the web process; beside it, per second of the clock."""

    def product() -> Rate:
        requests_ = webhooks.signed_batches(where.signer, effort.batches, opt_outs)
        before = cpu_seconds(web.pids)
        done = load.run(web.port, requests_, connections=BATCH_CONNECTIONS)
        events = done.answered * webhooks.BATCH
        return events / (cpu_seconds(web.pids) - before or 0.01), events / done.seconds

    def limit() -> Rate:
        bodies = [webhooks.batch(opt_outs) for _ in range(effort.batches)]
        signed = [(where.signer.headers(body), body) for body in bodies]
        events, cpu, wall = apart(batches_limit.run, where.database_url, where.signer.public_key, signed)
        return events / cpu, events / wall

    product()
    compared = Compared(f"A {opt_outs:.0%}", where.engine, "events/s per core")
    return by_turns(compared, effort.rounds, product, limit)


# ---------------------------------------------------------------- B


def singles(where: Place, web: Served, nothing: Served, effort: Effort, *, measure: str = "B") -> Compared:
    """Single webhooks over 32 connections: requests per second; beside it, per CPU second of the web process."""
    foreseen = round(25_000 * effort.seconds)
    p99: dict[int, list[float]] = {web.port: [], nothing.port: []}

    def one(server: Served) -> Rate:
        requests_ = webhooks.singles(foreseen)
        before = cpu_seconds(server.pids)
        done = load.run(server.port, requests_, connections=CONNECTIONS, seconds=effort.seconds)
        p99[server.port].append(quantile(done.latencies, 0.99) * 1000)
        return done.rate, done.answered / (cpu_seconds(server.pids) - before or 0.01)

    one(web)
    one(nothing)
    compared = Compared(measure, where.engine, "requests/s")
    by_turns(compared, effort.rounds, lambda: one(web), lambda: one(nothing))
    compared.more = {
        f"p99_ms_{name}": statistics.median(p99[port])
        for name, port in (("product", web.port), ("limit", nothing.port))
    }
    return compared


def empty_view(where: Place, name: str = "nothing") -> AbstractContextManager[Served]:
    """A limit of B, under gunicorn as it comes."""
    app = f"benchmarks.limits.{name}:create_app()"
    return gunicorn(where.folder, where.env, app=app, config=LIMITS / "stock.py", name=name)


# ---------------------------------------------------------------- W


def whole_way(where: Place, web: Served, effort: Effort) -> dict[str, float]:
    """Microseconds of CPU for one opt-out, from the webhook to "taken", of each part."""
    count = round(500 * effort.seconds)
    with sandbox(where.folder) as box, worker(where, box.port, name="worker-whole-way", on=OTHERS) as sender:
        parts = {"web": web.pids, "worker": [sender.process.pid], "database": where.database_pids}
        found: dict[str, list[float]] = {part: [] for part in parts}
        # Once before: connections, caches, what happens on the first.
        for measured in (False, *[True] * effort.rounds):
            requests.delete(f"http://127.0.0.1:{box.port}/sandbox/received", timeout=10)
            parts["database"] = where.database_pids
            before = {part: cpu_seconds(pids) for part, pids in parts.items()}
            load.run(web.port, webhooks.singles(count), connections=CONNECTIONS)
            wait_until(lambda: taken(box.port) >= count, "all have arrived")
            if measured:
                for part, pids in parts.items():
                    found[part].append((cpu_seconds(pids) - before[part]) / count * 1e6)
    return {part: statistics.median(figures) for part, figures in found.items()}


# ---------------------------------------------------------------- C


def draining(where: Place, effort: Effort, *, rounds: int, answers_in: int = LATENCY) -> Compared:
    """A backlog, the sandbox answering in 10 or 50 ms: events per second of one worker process."""
    compared = Compared("C" if answers_in == LATENCY else f"C {answers_in}", where.engine, "events/s")
    with sandbox(where.folder) as box:
        requests.put(f"http://127.0.0.1:{box.port}/sandbox/fault", json={"latency_ms": answers_in}, timeout=10)
        done = 0

        def product() -> Rate:
            nonlocal done
            done += 1
            with worker(where, box.port, name=f"worker-{answers_in}-{done}") as program:
                pid, at_first = program.process.pid, delivered(where)
                wait_until(lambda: delivered(where) > at_first, "the worker sends")
                time.sleep(effort.drain_seconds / 4)  # claims, connections: what happens once
                before, cpu, began = delivered(where), cpu_seconds([pid]), time.perf_counter()
                time.sleep(effort.drain_seconds)
                # However busy the machine is, a rate of nothing is none.
                wait_until(lambda: delivered(where) > before, "the worker goes on")
                count, seconds = delivered(where) - before, time.perf_counter() - began
                compared.more["worker_pss_mb"] = max(compared.more.get("worker_pss_mb", 0), pss(pid))
                return count / seconds, count / (cpu_seconds([pid]) - cpu or 0.01)

        def limit() -> Rate:
            bodies = [body_about(f"C-pending-{number:032}") for number in range(round(1200 * effort.drain_seconds))]
            count, cpu, wall = apart(posting.run, box.port, bodies, THREADS)
            return count / wall, count / cpu

        return by_turns(compared, rounds, product, limit)


def delivered(where: Place) -> int:
    return filling.scalar(where, "SELECT max(id) FROM attempts")


# ---------------------------------------------------------------- D


def latency(where: Place, web: Served, effort: Effort) -> Compared:
    """Milliseconds from a webhook's sending to the arrival of the request at Dynamic Yield, nothing else going on."""
    compared = Compared("D", where.engine, "ms")
    with ExitStack() as stack:
        box = stack.enter_context(sandbox(where.folder))
        stack.enter_context(worker(where, box.port, name="worker-latency"))
        env = where.env | {"SANDBOX_PORT": str(box.port)}
        app = "benchmarks.limits.relaying:create_app()"
        relay = stack.enter_context(gunicorn(where.folder, env, app=app, name="relay"))
        for server, figures in ((web, compared.product), (relay, compared.limit)):
            figures += lags(server.port, box.port, effort.webhooks)
    return compared


def lags(port: int, sandbox_port: int, count: int) -> list[float]:
    admin = f"http://127.0.0.1:{sandbox_port}/sandbox"
    requests.delete(f"{admin}/received", timeout=10)
    sent_at: dict[str, float] = {}
    with requests.Session() as session:
        session.trust_env = False
        for number in range(count):
            time.sleep(0.02 + 0.037 * (number % 7) / 7)  # in no rhythm with the worker's
            send_one(session, port, sent_at)
    wait_until(lambda: taken(sandbox_port) >= count, "all have arrived")
    arrived = arrivals(sandbox_port)
    return [(arrived[person] - sent_at[person]) * 1000 for person in sent_at]


def send_one(session: requests.Session, port: int, sent_at: dict[str, float]) -> None:
    """Send a webhook about somebody new, and write down when."""
    body = next(webhooks.emarsys_bodies())
    headers = {"Content-Type": "application/json", "X-Api-Key": webhooks.EMARSYS_TOKEN}
    sent_at[orjson.loads(body)["external_id"]] = time.time()
    answer = session.post(f"http://127.0.0.1:{port}/webhooks/emarsys", data=body, headers=headers, timeout=60)
    answer.raise_for_status()


def arrivals(sandbox_port: int) -> dict[str, float]:
    """When each person arrived at the sandbox, as far back as it remembers."""
    received = requests.get(f"http://127.0.0.1:{sandbox_port}/sandbox/received", timeout=120).json()["received"]
    return {one["body"]["events"][0]["properties"]["externalId"]: one["at"] for one in received}


def taken(sandbox_port: int) -> int:
    """How many events the sandbox has taken."""
    counts = requests.get(f"http://127.0.0.1:{sandbox_port}/sandbox/counts", timeout=30).json()["counts"]
    return int(counts["taken"])


# ---------------------------------------------------------------- D2


def burst(where: Place, web: Served, effort: Effort) -> dict[str, Any]:
    """Many webhooks at once, and one more each second: how long answers take, and the fresh one to Dynamic Yield.

    Raises `LoadFailed` where a webhook of the burst is refused.
    """
    fresh: dict[str, float] = {}
    over = threading.Event()
    with (
        sandbox(where.folder) as box,
        worker(where, box.port, name="worker-burst", on=OTHERS),
        ThreadPoolExecutor(1) as beside,
    ):
        arrived: dict[str, float] = {}
        sending = beside.submit(_one_a_second, web.port, fresh, over, lambda: arrived.update(arrivals(box.port)))
        try:
            done = load.run(web.port, webhooks.singles(effort.burst), connections=CONNECTIONS)
        finally:
            over.set()
        sending.result()
        deadline = time.monotonic() + 1800
        while taken(box.port) < effort.burst + len(fresh):
            if time.monotonic() > deadline:
                raise load.LoadFailed("the burst was not delivered in time")
            time.sleep(10)
            arrived |= arrivals(box.port)
        arrived |= arrivals(box.port)
    lags_ = [arrived[person] - sent_at for person, sent_at in fresh.items()]
    return {
        "webhooks": done.answered,
        "seconds": done.seconds,
        "p99_ms": quantile(done.latencies, 0.99) * 1000,
        "fresh_s": [quantile(lags_, 0.5), max(lags_)],
    }


def _one_a_second(port: int, sent_at: dict[str, float], over: threading.Event, look: Callable[[], object]) -> None:
    """Look now and then at what has arrived: the sandbox remembers the last 100,000."""
    with requests.Session() as session:
        session.trust_env = False
        while True:
            send_one(session, port, sent_at)
            if over.wait(1):
                look()
                return
            if len(sent_at) % 15 == 0:
                look()


# ---------------------------------------------------------------- I


def importing(where: Place, effort: Effort) -> Compared:
    """`flask import` of a list, rows per second of the clock, with its start and its check of the whole file."""

    def product() -> Rate:
        file, run = where.folder / "opt-outs.csv", _run()
        lines = (f"person.{run}.{number}@example.com\n" for number in range(effort.imported))
        file.write_text("email\n" + "".join(lines))
        command = [find("flask"), "import", "klaviyo", str(file), "--yes", "--all-rows", "--no-time", "--ahead", "0"]
        env = where.env | {"KLAVIYO_WEBHOOK_SECRETS": "benchmark-klaviyo-secret"}
        return _rows_a_second(where, command, env, effort.imported)

    return by_turns(Compared("I", where.engine, "rows/s"), effort.import_rounds, product, _bare_insert(where, effort))


def reconciling(where: Place, effort: Effort) -> Compared:
    """`flask reconcile` with a list of which nothing is known here: entries per second of the clock, all stored.

    The list comes in SendGrid's pages of 500, from the other core.
    """

    def product() -> Rate:
        about = {suppressions.LENGTH: str(effort.imported), "RUN": _run()}
        app = "benchmarks.suppressions:create_app()"
        with gunicorn(
            where.folder, where.env | about, app=app, config=LIMITS / "stock.py", name="api", on=OTHERS
        ) as api:
            command = [find("flask"), "reconcile", "sendgrid"]
            env = where.env | {
                "SENDGRID_API_KEY": "SG.benchmark",
                "SENDGRID_API_URL": f"http://127.0.0.1:{api.port}",
                "SENDGRID_EVENTS": "unsubscribe",
            }
            return _rows_a_second(where, command, env, effort.imported)

    compared = Compared("I reconcile", where.engine, "rows/s")
    return by_turns(compared, effort.import_rounds, product, _bare_insert(where, effort))


def _run() -> str:
    """What makes the addresses of a run different from those of all others."""
    return uuid.uuid4().hex[:12]


def _rows_a_second(where: Place, command: list[str], env: dict[str, str], count: int) -> Rate:
    before, began = filling.scalar(where, _LAST), time.perf_counter()
    subprocess.run(command, cwd=where.folder, env=env, check=True, capture_output=True, preexec_fn=pin(MEASURED))
    rate = count / (time.perf_counter() - began)
    if (stored := filling.scalar(where, _LAST) - before) < count:
        raise load.LoadFailed(f"{stored} of {count} rows were stored")
    return rate, rate


_LAST = "SELECT max(id) FROM events"


def _bare_insert(where: Place, effort: Effort) -> Callable[[], Rate]:
    def limit() -> Rate:
        rate = apart(rows_limit.run, where.database_url, effort.imported)
        return rate, rate

    return limit


# ---------------------------------------------------------------- all of them


def on_engine(engine: str, effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """A to D2, F, I, S and W on one engine."""
    results: dict[str, Any] = {"compared": [], "growth": [], "memory": {}}

    def keep(compared: Compared) -> None:
        results["compared"].append(compared.as_json())
        say(f"{engine}: {compared.measure} done")

    with ExitStack() as stack:
        where = stack.enter_context(place(engine))
        web = stack.enter_context(gunicorn(where.folder, where.env))
        nothing = stack.enter_context(empty_view(where))
        with ExitStack() as idle:
            box = idle.enter_context(sandbox(where.folder))
            ours = idle.enter_context(worker(where, box.port))
            time.sleep(1)
            results["memory"]["idle"] = memory(web, ours.process.pid)
        keep(latency(where, web, effort))
        keep(singles(where, web, nothing, effort))
        with empty_view(where, "bare") as bare:
            keep(singles(where, web, bare, effort, measure="B bare"))
        for opt_outs in (0.05, 1.0):
            keep(batches(where, web, effort, opt_outs))
            results["memory"][f"under A {opt_outs:.0%}"] = {"web": [pss(pid) for pid in web.pids]}
    # In a place of its own: what others left waiting would be sent first.
    with place(engine) as where:
        with gunicorn(where.folder, where.env) as web:
            results["whole_way"] = whole_way(where, web, effort)
            say(f"{engine}: W done")
            results["burst"] = burst(where, web, effort)
            say(f"{engine}: D2 done")
        keep(importing(where, effort))
        keep(reconciling(where, effort))
    results["start"] = start.times(engine, effort.rounds)
    say(f"{engine}: S done")
    with place(engine) as where:
        filling.fill(where, pending=effort.backlog)
        compared = draining(where, effort, rounds=max(1, effort.rounds // 2))
        keep(compared)
        keep(draining(where, effort, rounds=max(1, effort.rounds // 2), answers_in=SLOW))
        results["memory"]["draining"] = {"worker": compared.more["worker_pss_mb"]}
    return results


def memory(web: Served, worker_pid: int) -> dict[str, Any]:
    return {"web": [pss(pid) for pid in web.pids], "worker": pss(worker_pid)}


def growth(engine: str, effort: Effort, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """E: the same with more and more people. Absolute figures, and by CPU, which noise disturbs less."""
    found = []
    few = Effort(
        rounds=effort.growth_rounds,
        seconds=effort.seconds,
        drain_seconds=effort.drain_seconds / 2,
        batches=max(2, effort.batches // 4),
    )
    with ExitStack() as stack:
        places = []
        for size in effort.sizes:
            where = stack.enter_context(place(engine))
            filling.fill(where, delivered=size)
            web = stack.enter_context(gunicorn(where.folder, where.env))
            nothing = stack.enter_context(empty_view(where))
            places.append((size, where, web, nothing))
            say(f"{engine}: {size:,} rows made, {size_mb(where):.0f} MB")
        for size, where, web, nothing in places:
            row: dict[str, Any] = {"engine": engine, "rows": size, "database_mb": size_mb(where)}
            for compared in (singles(where, web, nothing, few), batches(where, web, few, 1.0)):
                row[compared.measure] = compared.as_json()
            row["web_pss_mb"] = sum(pss(pid) for pid in web.pids)
            filling.fill(where, pending=round(2500 * few.drain_seconds * few.rounds))
            compared = draining(where, few, rounds=few.rounds)
            row["C"] = compared.as_json()
            row["worker_pss_mb"] = compared.more["worker_pss_mb"]
            row |= looks(where, few)
            found.append(row)
            say(f"{engine}: measured with {size:,} rows")
    return found


def looks(where: Place, effort: Effort) -> dict[str, list[float]]:
    """Milliseconds of a worker's claims, and of the console's search for somebody and its report."""
    filling.fill(where, pending=2 * looking.CLAIMED)
    claims = apart(looking.claims, where.database_url, effort.looks)
    people = filling.some_people(where, effort.looks)
    with gunicorn(where.folder, where.env | {"CONSOLE_PASSWORD": looking.CONSOLE_PASSWORD}, name="console") as web:
        person = looking.console(web.port)
        person.search(people[:3])  # what happens once
        return {"claim_ms": claims, "search_ms": person.search(people), "report_ms": person.report(effort.looks)}


def connections(effort: Effort) -> dict[str, int]:
    """How many connections to PostgreSQL a web process under B, and a worker that drains, have opened."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'esp-webhooks'"
    with place("postgresql") as where, gunicorn(where.folder, where.env) as web, sandbox(where.folder) as box:
        load.run(web.port, webhooks.singles(round(400 * effort.seconds)), connections=CONNECTIONS)
        requests.get(f"http://127.0.0.1:{web.port}/readyz", timeout=10)
        of_web = filling.scalar(where, count)
        with worker(where, box.port):
            time.sleep(effort.drain_seconds / 2)
            return {"web": of_web, "worker": filling.scalar(where, count) - of_web}


def size_mb(where: Place) -> float:
    if where.engine == "sqlite":
        return Path(where.database_url.removeprefix("sqlite:///")).stat().st_size / 2**20
    return filling.scalar(where, "SELECT pg_database_size(current_database())") / 2**20


def quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
