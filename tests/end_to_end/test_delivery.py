"""What the worker does where Dynamic Yield, or something on the way, behaves in ways nobody had thought of.

Real processes on both engines; what counts is the stand-in's own log, in the order in which things took effect.
"""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.end_to_end.test_faults import watch_for_overlaps
from tests.processes import wait_until
from tests.product import Product, opt_out, people

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def log_lines(product: Product, worker: int = 0) -> list[dict[str, object]]:
    return [json.loads(line) for line in product.workers[worker].output().splitlines() if line.startswith("{")]


def pauses_said(product: Product) -> int:
    return sum(line["event"] == "destination_paused" for line in log_lines(product))


# ---------------------------------------------------------------- the set-up


@pytest.mark.parametrize("status", [401, 405, 407])
def test_a_wrong_set_up_uses_nothing_up_claims_little_and_goes_on_by_itself(product: Product, status: int) -> None:
    addresses = people(50, f"misconfigured-{status}")
    box = product.dynamic_yield
    said = pauses_said(product)
    box.fault("status", times=None, status=status, body="")
    assert product.post([opt_out(address) for address in addresses]).ok
    wait_until(lambda: pauses_said(product) > said, "it says so")
    arrived = box.counts["arrived"]
    time.sleep(5)
    # One try after 1, 2, 4 … up to 30 seconds.
    assert box.counts["arrived"] - arrived <= 4
    assert product.states(addresses) == {"pending": 50}
    box.heal()
    product.await_told(addresses)
    product.await_nothing_waiting()
    assert product.states(addresses) == {"delivered": 50}


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 200, "body": {"errors": [{"code": "E019", "message": "no such channel"}]}},
        {"status": 202, "body": {"status": "error"}},
        {"status": 207, "body": {}},
        {"status": 200, "body": {"success": False}},
    ],
    ids=lambda answer: str(answer["body"] or answer["status"]),
)
def test_an_answer_that_says_taken_and_speaks_of_a_failure_is_not_believed(
    product: Product, answer: dict[str, Any]
) -> None:
    (address,) = people(1, f"contradiction-{abs(hash(str(answer)))}")
    product.dynamic_yield.fault("status", **answer)
    assert product.post([opt_out(address)]).ok
    # Not at all: the first answer was taken for a delivery.
    assert product.await_told([address]) == {address: ["optout"]}


# ---------------------------------------------------------------- a few that something on the way dislikes


def test_a_few_changes_that_are_always_answered_403_hold_nobody_up_and_stand_visible_in_the_end(
    product: Product,
) -> None:
    box = product.dynamic_yield
    said = pauses_said(product)
    disliked = people(5, "disliked")
    for address in disliked:
        box.fault("status", times=None, only=f'"{address}"', status=403, body={"message": "blocked by policy"})
    others = people(2000, "beside-the-disliked")
    # The few come first, and again and again among the others.
    webhooks = [[opt_out(address) for address in disliked + others[:50]]]
    webhooks += [[opt_out(address) for address in others[start : start + 50]] for start in range(50, len(others), 50)]
    product.deliver_all(webhooks)
    told = product.await_told(others)
    assert set(map(len, told.values())) == {1}
    # Once at the most, for the moment before anybody else had been taken.
    assert pauses_said(product) - said <= 1

    with trickle(product, "while-they-are-tried-again"):
        wait_until(lambda: product.states(disliked) == {"dead": 5}, "the few stand visible", within=240)


@contextmanager
def trickle(product: Product, name: str) -> Iterator[None]:
    """Other people's opt-outs keep coming, and go through."""
    with product.under_load(name, threads=1, size=1):
        yield


# ---------------------------------------------------------------- an answer that got lost


def test_a_request_that_takes_effect_late_behind_a_newer_opposite_change_is_followed_by_that_one_once_more(
    product: Product,
) -> None:
    """Dynamic Yield takes the opt-out 20 s after it was sent, when we have given up and the opt-in has been taken."""
    (address,) = people(1, "taken-late")
    began = int(time.time()) - 1000
    product.dynamic_yield.fault("late", only=f'"{address}"', seconds=20)
    assert product.post([opt_out(address, timestamp=began)]).ok
    wait_until(lambda: not product.dynamic_yield.faults, "the opt-out is under way")
    newer = opt_out(address, event="group_resubscribe", timestamp=began + 1, asm_group_id=1)
    assert product.post([newer]).ok
    wait_until(lambda: product.told([address])[address] == ["optin"], "the opt-in is taken")
    wait_until(lambda: product.told([address])[address] == ["optin", "optout"], "the opt-out takes effect late")
    # Else Dynamic Yield acts by what the person no longer wants, and nobody would ever know.
    wait_until(lambda: product.told([address])[address][-1] == "optin", "the opt-in is sent once more", within=150)
    time.sleep(3)
    assert product.told([address])[address] == ["optin", "optout", "optin"]
    product.await_nothing_waiting()


# ---------------------------------------------------------------- clocks


@pytest.mark.parametrize("shared_product", ["postgresql"], indirect=True)
def test_workers_whose_clocks_are_a_minute_apart_lose_nothing_double_nothing_and_reorder_nothing(
    product: Product,
) -> None:
    """A file's workers share a machine, and so a clock; a server's do not, and leases and due times are by its own."""
    assert product.workers.pop().stop() == 0
    for ahead in (-60.0, 60.0, 25.0):
        product.start_worker(clock_ahead=ahead)
    for worker in product.workers:
        worker.wait_for('"worker_started"')
    addresses = people(60, "clocks-apart")
    began = int(time.time()) - 1000
    overlapping = watch_for_overlaps(product)
    # Longer than a worker's clock would have to be wrong to take another's lease for one that has run out.
    product.dynamic_yield.latency = 2.0
    for step, kind in enumerate(["unsubscribe", "group_resubscribe", "unsubscribe"]):
        product.deliver([opt_out(one, event=kind, timestamp=began + step, asm_group_id=1) for one in addresses])
        time.sleep(1)
    product.await_nothing_waiting()
    told = product.told(addresses)
    assert {changes[-1] for changes in told.values()} == {"optout"}
    # More than they had said: somebody sent what another had under way or had done.
    assert max(map(len, told.values())) <= 3
    assert overlapping == []


# ---------------------------------------------------------------- a row that is gone


def test_a_row_that_is_gone_while_it_is_being_sent_costs_only_itself_and_is_said_once(product: Product) -> None:
    gone, *others = people(40, "row-is-gone")
    product.dynamic_yield.latency = 1.0
    assert product.post([opt_out(address) for address in (gone, *others)]).ok
    wait_until(lambda: is_under_way(product, gone), "it is being sent")
    product.take_rows_of(gone)
    product.dynamic_yield.latency = 0.0
    product.await_told(others)
    wait_until(lambda: product.states(others) == {"delivered": len(others)}, "everybody else is settled")
    lines = log_lines(product)
    # More: it is tried again and again.
    assert sum(line["event"] in ("outbox_unavailable", "settled_row_is_gone") for line in lines) <= 1
    before = len(lines)
    began = time.monotonic()
    assert product.workers[0].stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 30
    # Thousands: it spins while it ends.
    assert len(log_lines(product)) - before < 20


def is_under_way(product: Product, address: str) -> bool:
    return any(
        one["became"] == "hanging" and address in json.dumps(one["body"]) for one in product.dynamic_yield.received
    )
