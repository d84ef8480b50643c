"""G: the product and its peers by turns."""

import base64
import itertools
import shutil
import statistics
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
import requests

from benchmarks import load, webhooks
from benchmarks.machine import MEASURED, OTHERS, cpu_seconds
from benchmarks.measures import CONNECTIONS, Effort, taken
from benchmarks.product import ENGINES, Place, Served, gunicorn, place, running, sandbox, worker
from tests.processes import environment, free_port, wait_for_http, wait_until

HERE = Path(__file__).parent
VENV = HERE.parent.parent / ".venv-bench"
NODE_RED = HERE / "node-red" / "node_modules" / "node-red" / "red.js"


def run(effort: Effort, say: Callable[[str], None]) -> list[dict[str, Any]]:
    found = []
    for engine in ENGINES:
        if (VENV / "bin" / "gunicorn").exists():
            found.append(_storing(engine, effort))
            say(f"{engine}: django-anymail done")
        else:
            say("django-anymail is not installed: run `make bench`")
    if NODE_RED.exists():
        found += [_end_to_end(engine, effort) for engine in ENGINES]
        say("Node-RED done")
    else:
        say("Node-RED is not installed: it needs npm, and `make bench`")
    return found


def _storing(engine: str, effort: Effort) -> dict[str, Any]:
    """One event a request, on disk before the answer."""
    with place(engine) as ours, place(engine) as theirs, ExitStack() as stack:
        web = stack.enter_context(gunicorn(ours.folder, ours.env))
        peer = stack.enter_context(_anymail(theirs))
        foreseen = round(6000 * effort.seconds)

        def rate(server: Served, make: Callable[[int], list[bytes]]) -> float:
            return load.run(server.port, make(foreseen), connections=CONNECTIONS, seconds=effort.seconds).rate

        sides = {"product": lambda: rate(web, webhooks.singles), "peer": lambda: rate(peer, _postmark)}
        return _by_turns("django-anymail", "B", engine, effort.rounds, sides)


def _end_to_end(engine: str, effort: Effort) -> dict[str, Any]:
    """Webhooks in until all have arrived at the sandbox, a core for each process. Beside it, per CPU second.

    The product is two processes, as it is deployed; Node-RED is one, stores nothing, and answers when it has forwarded.
    The worker shares its core with the load and the sandbox.
    """
    count = round(1200 * effort.seconds)
    with place(engine, on=MEASURED | OTHERS) as where, ExitStack() as stack:
        ours = stack.enter_context(sandbox(where.folder))
        web = stack.enter_context(gunicorn(where.folder, where.env))
        sender = stack.enter_context(worker(where, ours.port, on=OTHERS))
        theirs = stack.enter_context(sandbox(where.folder))
        peer = stack.enter_context(_node_red(where, theirs.port))
        per_cpu: dict[str, list[float]] = {"product": [], "peer": []}

        def rate(side: str, server: Served, box: Served, pids: list[int]) -> float:
            admin = f"http://127.0.0.1:{box.port}/sandbox"
            requests.delete(f"{admin}/received", timeout=10)
            cpu, began = cpu_seconds(pids), time.perf_counter()
            load.run(server.port, webhooks.singles(count), connections=CONNECTIONS)
            wait_until(lambda: taken(box.port) >= count, "all have arrived")
            seconds = time.perf_counter() - began
            per_cpu[side].append(count / (cpu_seconds(pids) - cpu))
            return count / seconds

        sides = {
            "product": lambda: rate("product", web, ours, [*web.pids, sender.process.pid]),
            "peer": lambda: rate("peer", peer, theirs, peer.pids),
        }
        # Node-RED's compiler has most of its work behind it after some thousand requests.
        found = _by_turns("Node-RED", "end to end, a core for each process", engine, effort.rounds, sides, warm_up=4)
        medians = {side: statistics.median(figures[-effort.rounds :]) for side, figures in per_cpu.items()}
        return found | {"other_ratio": medians["product"] / medians["peer"], "peer_per_cpu": medians["peer"]}


def _by_turns(
    peer: str, measure: str, engine: str, rounds: int, sides: dict[str, Callable[[], float]], *, warm_up: int = 1
) -> dict[str, Any]:
    figures: dict[str, list[float]] = {side: [] for side in sides}
    for measured in [*sides.values()] * warm_up:
        measured()
    for number in range(rounds):
        for side in sorted(sides, reverse=number % 2 == 1):
            figures[side].append(sides[side]())
    ratios = sorted(mine / its for mine, its in zip(figures["product"], figures["peer"], strict=True))
    return {"name": peer, "measure": measure, "engine": engine, **figures} | {
        "ratio": statistics.median(ratios),
        "ratio_range": [ratios[0], ratios[-1]],
    }


def _postmark(count: int) -> list[bytes]:
    unique = uuid.uuid4().hex[:12]
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Basic {base64.b64encode(b'bench:mark').decode()}",
        "User-Agent": "Postmark",
    }
    made = []
    for number in itertools.islice(itertools.count(), count):
        body = orjson.dumps(
            {
                "RecordType": "SubscriptionChange",
                "MessageID": f"{unique}-{number}",
                "Recipient": f"person.{unique}.{number}@example.com",
                "ChangedAt": "2026-01-05T10:00:00Z",
                "SuppressSending": True,
                "SuppressionReason": "ManualSuppression",
            }
        )
        made.append(load.request("POST", "/anymail/postmark/tracking/", headers, body))
    return made


@contextmanager
def _anymail(where: Place) -> Iterator[Served]:
    folder = where.folder / "anymail"
    folder.mkdir()
    shutil.copy(HERE / "anymail_app.py", folder)
    url = where.database_url
    database = f"sqlite:///{folder}/peer.db" if where.engine == "sqlite" else url.partition("host=")[2]
    env = environment(PEER_DATABASE=database)
    subprocess.run([VENV / "bin" / "python", "anymail_app.py", "create"], cwd=folder, env=env, check=True)
    port = free_port()
    # As the product's gunicorn.conf.py has it.
    command = [str(VENV / "bin" / "gunicorn"), "anymail_app:application", "--bind", f"127.0.0.1:{port}", "--preload"]
    command += ["--worker-class", "gthread", "--threads", "32", "--keep-alive", "75", "--no-control-socket"]
    with running(command, cwd=folder, env=env, log="anymail") as program:
        wait_for_http(f"http://127.0.0.1:{port}/healthz")
        yield Served(port, program)


@contextmanager
def _node_red(where: Place, sandbox_port: int) -> Iterator[Served]:
    folder = where.folder / "node-red"
    folder.mkdir()
    shutil.copy(HERE / "node-red" / "flows.json", folder)
    node, port = shutil.which("node"), free_port()
    assert node, "node is not installed"
    env = environment(SANDBOX_URL=f"http://127.0.0.1:{sandbox_port}", NODE_ENV="production")
    command = [node, str(NODE_RED), "--userDir", str(folder), "--port", str(port), "flows.json"]
    with running(command, cwd=folder, env=env, log="node-red") as program:
        program.wait_for("Started flows")
        yield Served(port, program)
