"""An optional ceiling on requests per second: evenly spaced, without bursts."""

import threading
import time
from collections.abc import Callable


class Pacer:
    """Hands out places in time to any number of threads; `per_second` of 0 means no ceiling."""

    def __init__(
        self,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when it is this caller's turn."""
        if not self._interval:
            return
        with self._lock:
            now = self._clock()
            # Time in which nobody asked is not saved up: a burst is what the ceiling is there to prevent.
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            self._sleep(turn - now)
