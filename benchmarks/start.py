"""S: how long it takes until something can be done."""

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import requests

from benchmarks import webhooks
from benchmarks.machine import MEASURED, OTHERS
from benchmarks.product import place, running
from tests.processes import checkout, environment, find, free_port, wait_until


def times(engine: str, rounds: int) -> dict[str, list[float]]:
    """Seconds, all cores free: what `make run` starts, up to its first webhook, and a command that prints a page."""
    with place(engine) as where:
        return {
            "first_webhook": [first_webhook() for _ in range(rounds)] if engine == "sqlite" else [],
            "events_list": [
                _seconds([find("flask"), "events", "list"], where.folder, where.env) for _ in range(rounds)
            ],
        }


def first_webhook() -> float:
    """From `make run`, set up already but in a folder where it never ran, until a webhook is on disk."""
    port = free_port()
    env = environment(PORT=str(port), EMARSYS_TOKENS=webhooks.EMARSYS_TOKEN)
    body = next(webhooks.emarsys_bodies())
    headers = {"Content-Type": "application/json", "X-Api-Key": webhooks.EMARSYS_TOKEN}

    def is_accepted() -> bool:
        try:
            url = f"http://127.0.0.1:{port}/webhooks/emarsys"
            return requests.post(url, data=body, headers=headers, timeout=5).status_code == 200
        except requests.RequestException:
            return False

    with ExitStack() as stack:
        folder = checkout(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))))
        began = time.perf_counter()
        command = [sys.executable, "-m", "webhook_app.dev.run"]
        stack.enter_context(running(command, cwd=folder, env=env, log="run", on=MEASURED | OTHERS))
        wait_until(is_accepted, "the first webhook is accepted")
        return time.perf_counter() - began


def _seconds(command: list[str], cwd: Path, env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
