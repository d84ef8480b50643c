"""The ceiling on requests per second, with a clock of its own."""

import threading

from webhook_app.delivery.pacer import Pacer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_requests_are_spaced_evenly() -> None:
    clock = Clock()
    pacer = Pacer(4, clock=clock, sleep=clock.sleep)
    for _ in range(9):
        pacer.wait()
    assert clock.now == 102.0  # the first goes at once, eight more at 4 a second take 2 s
    assert clock.slept == [0.25] * 8


def test_idle_time_is_not_saved_up_for_a_burst() -> None:
    clock = Clock()
    pacer = Pacer(2, clock=clock, sleep=clock.sleep)
    pacer.wait()
    clock.now += 60
    for _ in range(3):
        pacer.wait()
    assert clock.slept == [0.5, 0.5]


def test_without_a_ceiling_nobody_waits() -> None:
    clock = Clock()
    pacer = Pacer(0, clock=clock, sleep=clock.sleep)
    for _ in range(1000):
        pacer.wait()
    assert clock.slept == []


def test_threads_get_places_of_their_own() -> None:
    waits: list[float] = []
    pacer = Pacer(10, clock=lambda: 100.0, sleep=waits.append)
    threads = [threading.Thread(target=pacer.wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Two in one place would show as a number seen twice, and a burst on the wire.
    assert [round(wait, 1) for wait in sorted(waits)] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
