"""The ceiling on requests per second, with a clock of its own."""

from webhook_app.delivery.pacer import Pacer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_requests_are_spaced_evenly_whoever_asks() -> None:
    pacer = Pacer(4, clock=Clock())
    # Two in one place would be a burst on the wire.
    assert [pacer.turn() for _ in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_idle_time_is_not_saved_up_for_a_burst() -> None:
    clock = Clock()
    pacer = Pacer(2, clock=clock)
    pacer.turn()
    clock.now += 60
    assert [pacer.turn() for _ in range(3)] == [0.0, 0.5, 1.0]


def test_without_a_ceiling_nobody_waits() -> None:
    pacer = Pacer(0, clock=Clock())
    assert {pacer.turn() for _ in range(1000)} == {0.0}
