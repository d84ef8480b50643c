"""A worker that has nothing to do: it wakes at once, costs next to nothing, and survives what it waits for."""

import statistics
import threading
import time
from collections.abc import Callable

import pytest

from tests.outbox.world import change
from webhook_app.outbox import Database, Intake, Queue, open_database


def test_a_worker_wakes_within_milliseconds_of_a_commit_by_another_process(
    database_url: str, database: Database
) -> None:
    other = open_database(database_url)
    intake, queue = Intake(other), Queue(database)
    delays, committed = [], 0.0
    over = threading.Event()

    def receive() -> None:
        nonlocal committed
        for number in range(20):
            time.sleep(0.05)
            intake.add("sendgrid", changes=[(change(f"u{number}@example.com"), b"{}")])
            committed = time.monotonic()
        over.set()

    receiving = threading.Thread(target=receive)
    receiving.start()
    while not over.is_set():
        queue.wait(1.0)
        if queue.claim(1):
            delays.append(max(0.0, time.monotonic() - committed))
    receiving.join()
    other.close()
    assert len(delays) >= 15
    assert statistics.median(delays) < 0.020


def test_waiting_costs_next_to_nothing(database: Database) -> None:
    queue = Queue(database)
    queue.wait(0.01)
    waiting = cpu_of(lambda: queue.wait(0.5))

    def look_every_10_ms() -> None:
        queue.claim(1)
        time.sleep(0.01)

    # A few per cent of a core, where looking for work takes more than ten; how fast the machine is, is in both.
    assert waiting < cpu_of(look_every_10_ms) / 2


def cpu_of(step: Callable[[], object]) -> float:
    """The CPU time that this thread takes to do it over and over for two seconds."""
    before, began = time.thread_time(), time.monotonic()
    while time.monotonic() - began < 2.0:
        step()
    return time.thread_time() - before


@pytest.mark.parametrize("timeout", [0.0, 0.2])
def test_waiting_ends_in_time_when_nothing_comes(timeout: float, database: Database) -> None:
    queue = Queue(database)
    for _ in range(3):  # the first returns at once: something may have come before
        queue.wait(0.0)
    began = time.monotonic()
    queue.wait(timeout)
    assert timeout - 0.05 < time.monotonic() - began < timeout + 0.2


def test_what_was_stored_just_before_the_wait_is_not_slept_through(database_url: str, database: Database) -> None:
    other = open_database(database_url)
    intake, queue = Intake(other), Queue(database)
    queue.wait(0.0)
    queue.wait(0.0)
    for number in range(20):
        assert queue.claim(1) == []
        intake.add("sendgrid", changes=[(change(f"u{number}@example.com"), b"{}")])
        began = time.monotonic()
        queue.wait(5.0)
        assert time.monotonic() - began < 1.0
        queue.claim(1)
    other.close()
