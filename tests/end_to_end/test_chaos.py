"""Chaos: every fault at once, at random, for a while. `SOAK=minutes` lengthens it; `CHAOS_SEED` repeats a run."""

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests import postgres, summary
from tests.end_to_end.test_faults import down, locked
from tests.processes import PATIENCE, wait_until
from tests.product import Product
from webhook_app.delivery.worker import LEASE

SECONDS = 60 * float(os.environ.get("SOAK") or 0.25)
#: What is tried again waits for longer after each failure, ten minutes at most.
CATCHING_UP = LEASE + PATIENCE + min(600.0, 4 * SECONDS)  # seconds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS + CATCHING_UP + 300)]

#: How Dynamic Yield fails for now. What hangs until a timeout has a test of its own: here it would only take time.
PASSING: list[dict[str, object]] = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429, "retry_after": 1},
    {"kind": "status", "status": 408},
    {"kind": "html"},
    {"kind": "broken_json"},
    {"kind": "reset"},
    {"kind": "close"},
    {"kind": "cut"},
    {"kind": "not_http"},
    {"kind": "endless_body"},
    {"kind": "gzip_bomb"},
]


def test_nothing_is_lost_when_everything_fails_at_once_at_random_under_load(
    product: Product, postgres_server: postgres.Server
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(2**32))
    print(f"CHAOS_SEED={seed}")  # noqa: T201 (shown when this fails)
    rng = random.Random(seed)
    on_postgresql = product.database_url.startswith("postgresql")

    def web_is_killed() -> None:
        product.kill_web()
        product.start_web()

    def worker_is_killed() -> None:
        product.kill_worker(rng.randrange(len(product.workers)))
        product.start_worker()

    def worker_is_replaced() -> None:
        worker = product.workers.pop(0)
        product.start_worker()
        # Before that, nobody has told Python what SIGTERM means.
        worker.wait_for('"worker_started"')
        assert worker.stop(signal.SIGTERM) == 0

    def database_goes_away() -> None:
        summary.count(summary.FAULTS)
        with (down if on_postgresql else locked)(product, postgres_server):
            time.sleep(rng.uniform(0, 1))

    def dynamic_yield_fails() -> None:
        product.dynamic_yield.fault(**rng.choice(PASSING), times=rng.randint(1, 20))  # type: ignore[arg-type]

    mishaps: list[Callable[[], None]] = [web_is_killed, worker_is_killed, worker_is_replaced, database_goes_away]
    mishaps += [dynamic_yield_fails] * len(mishaps)
    product.start_workers(2)
    product.dynamic_yield.latency = 0.02
    until = time.monotonic() + SECONDS
    with product.under_load("chaos", threads=2) as load:
        while time.monotonic() < until:
            rng.choice(mishaps)()
            taken = len(load.taken)
            wait_until(lambda: len(load.taken) > taken, "a webhook is taken")  # noqa: B023 (called at once)
    product.heal()
    product.start_workers(2)
    told = product.await_told(load.taken, within=CATCHING_UP)
    wait_until(
        lambda: product.states(load.taken) == {"delivered": len(load.taken)}, "all is settled", within=CATCHING_UP
    )
    summary.count(summary.REPEATED, sum(len(changes) - 1 for changes in told.values()))
