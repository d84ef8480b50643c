"""The main job as a customer's shop has it: `make run`, somebody else's Dynamic Yield, somebody else's SendGrid key."""

import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.processes import Program, checkout, environment, free_port, running, wait_for_http, wait_until
from tests.signing import SendGridSigner
from webhook_app.dev import sandbox
from webhook_app.dev.sandbox import Sandbox

pytestmark = [pytest.mark.slow, pytest.mark.alone]

OPT_OUTS = ("unsubscribe", "group_unsubscribe", "spamreport")
OTHERS = ("processed", "delivered", "open", "click", "deferred", "bounce", "dropped", "group_resubscribe")


@pytest.fixture
def dynamic_yield() -> Iterator[Sandbox]:
    with sandbox.running(api_key="server-side-key") as stand_in:
        yield stand_in


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def env(port: int, dynamic_yield: Sandbox, sendgrid_signer: SendGridSigner) -> dict[str, str]:
    return environment(
        PORT=str(port),
        EVENTS_API_URL=dynamic_yield.url,
        EVENTS_API_KEY="server-side-key",
        SENDGRID_VERIFICATION_KEYS=sendgrid_signer.public_key,
    )


@contextmanager
def make_run(folder: Path, env: dict[str, str]) -> Iterator[Program]:
    with running([sys.executable, "-m", "webhook_app.dev.run"], cwd=folder, env=env) as program:
        wait_for_http(f"http://127.0.0.1:{env['PORT']}/readyz")
        yield program


@pytest.fixture
def product(tmp_path: Path, env: dict[str, str]) -> Iterator[Program]:
    with make_run(checkout(tmp_path), env) as program:
        yield program


def mixed_batch(size: int, seed: int) -> tuple[bytes, set[str]]:
    """A batch as SendGrid writes it, and the addresses that opted out in it."""
    rng = random.Random(seed)
    events: list[dict[str, Any]] = []
    addresses = set()
    for number in range(size):
        event = {
            "email": f"person-{seed}-{number}@example.com",
            "timestamp": int(time.time()) - number,
            "event": rng.choice(OPT_OUTS if number % 3 == 0 else OTHERS),
            "sg_event_id": f"event-{seed}-{number}",
            "sg_message_id": f"message-{seed}-{number}",
            "category": rng.choice(["newsletter", ["newsletter", "sale"]]),
            "customer_id": f"C-{number}",
        }
        if event["event"] == "bounce":
            event["type"] = "blocked"
        if event["event"] in OPT_OUTS:
            addresses.add(str(event["email"]))
        events.append(event)
    events[1] = {"event": "account_status_change", "type": "compliance_suspend", "timestamp": int(time.time())}
    return ("[" + ",\r\n".join(map(json.dumps, events)) + "]\r\n").encode(), addresses


def post(port: int, body: bytes, signer: SendGridSigner) -> dict[str, int]:
    answer = requests.post(
        f"http://127.0.0.1:{port}/webhooks/sendgrid", data=body, headers=signer.headers(body), timeout=30
    )
    assert answer.status_code == 200, answer.text
    counts: dict[str, int] = answer.json()
    return counts


def told(dynamic_yield: Sandbox) -> Counter[str]:
    """Whom Dynamic Yield has taken an opt-out of, and how often; fails for a body that is not the documented one."""
    addresses: Counter[str] = Counter()
    for body in dynamic_yield.taken:
        (event,) = body["events"]
        address = event["properties"]["plainTextEmail"]
        properties = {"dyType": "message-optout-v1", "cuidType": "email", "plainTextEmail": address}
        assert body == {"user": {}, "session": {}, "events": [{"name": "Email Opt-Out", "properties": properties}]}
        addresses[address] += 1
    return addresses


def test_exactly_the_opt_outs_of_a_signed_batch_arrive_once_each_whatever_is_killed_or_repeated(
    product: Program, env: dict[str, str], port: int, dynamic_yield: Sandbox, sendgrid_signer: SendGridSigner
) -> None:
    body, addresses = mixed_batch(1000, seed=1)
    counts = post(port, body, sendgrid_signer)
    assert counts == {
        "accepted": len(addresses),
        "duplicates": 0,
        "ignored": 1000 - len(addresses),
        "quarantined": 0,
    }
    wait_until(lambda: len(dynamic_yield.taken) >= len(addresses), "every opt-out has arrived")

    # SendGrid sends the batch again: nothing more leaves.
    assert post(port, body, sendgrid_signer)["duplicates"] == len(addresses)
    time.sleep(0.5)
    assert told(dynamic_yield) == Counter(addresses)

    # The worker is killed in mid-send.
    dynamic_yield.latency = 0.3
    second, more = mixed_batch(1000, seed=2)
    post(port, second, sendgrid_signer)
    before = len(dynamic_yield.received)
    wait_until(lambda: len(dynamic_yield.received) > before, "sending has begun")
    (worker,) = product.descendants("flask forward")
    os.kill(worker, signal.SIGKILL)
    dynamic_yield.latency = 0.0
    # One of the programs has died: all of them end, which nobody overlooks.
    assert product.process.wait(timeout=30) == 1
    with make_run(product.log.parent, env):
        wait_until(lambda: set(told(dynamic_yield)) == addresses | more, "every opt-out has arrived after all")
    repeated = sum(times - 1 for times in told(dynamic_yield).values())
    # Only what was under way may come twice: sent, but not yet settled.
    assert repeated <= 64, repeated


def test_sending_starts_within_50_ms_of_the_commit(
    product: Program, port: int, dynamic_yield: Sandbox, sendgrid_signer: SendGridSigner
) -> None:
    lags: list[float] = []
    for number in range(21):
        event = {"email": f"p{number}@example.com", "event": "unsubscribe", "timestamp": int(time.time())}
        body = json.dumps([event]).encode()
        post(port, body, sendgrid_signer)
        answered = time.time()
        wait_until(lambda: dynamic_yield.counts["arrived"] == len(lags) + 1, "the opt-out has arrived")
        lags.append(dynamic_yield.received[-1]["at"] - answered)
    assert statistics.median(lags) < 0.05, lags


def test_a_waiting_worker_burns_no_cpu(product: Program) -> None:
    (worker,) = product.descendants("flask forward")

    def cpu_seconds() -> float:
        fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def waits() -> bool:
        before, began = cpu_seconds(), time.monotonic()
        time.sleep(2)
        return (cpu_seconds() - before) / (time.monotonic() - began) < 0.1

    # 200 looks a second at SQLite's counter cost one percent of a core, three of a slow one. To look for work as often
    # would take half of it in each of these stretches; the end of the start, or a neighbour, is in one or two.
    wait_until(waits, "two seconds with hardly any CPU", within=40)


def test_make_run_says_what_it_made_up_and_simulate_uses_it(tmp_path: Path) -> None:
    """The README's first screen, as a newcomer types it."""
    port = free_port()
    folder = checkout(tmp_path)
    command = [sys.executable, "-m", "webhook_app.dev.run"]
    with running(command, cwd=folder, env=environment(PORT=str(port))) as program:
        program.wait_for("try it")
        assert f"http://localhost:{port}/webhooks/sendgrid" in program.output()
        assert "for development only, kept in instance/dev.env" in program.output()
        secrets = folder / "instance" / "dev.env"
        assert secrets.stat().st_mode & 0o777 == 0o600

        simulate = ["flask", "simulate", "sendgrid", "--count", "2"]
        with running(simulate, cwd=folder, env=environment(), log="simulate") as simulation:
            assert simulation.process.wait(timeout=30) == 0, simulation.output()
            assert '"accepted":2' in simulation.output()
        wait_until(lambda: program.output().count("outcome=delivered") == 2, "both opt-outs are delivered")
        # No secret is said aloud.
        for line in secrets.read_text().splitlines():
            assert line.partition("=")[2] not in program.output()
        assert program.stop() == 0


def test_a_port_in_use_costs_one_clear_line(tmp_path: Path, product: Program, port: int) -> None:
    other = tmp_path / "other"
    other.mkdir()
    command = [sys.executable, "-m", "webhook_app.dev.run"]
    with running(command, cwd=checkout(other), env=environment(PORT=str(port))) as program:
        assert program.process.wait(timeout=30) == 1
        assert f"PORT {port} is in use; try PORT=" in program.output()
        assert "Traceback" not in program.output()
