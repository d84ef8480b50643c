"""The rate limit of a section: requests evenly spaced, without bursts."""

import threading
import time
from collections.abc import Callable


class Pacer:
    """Hands out places in time to any number of threads; `per_second` of 0 means no ceiling."""

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0

    def turn(self) -> float:
        """Seconds until it is this caller's turn."""
        if not self._interval:
            return 0.0
        with self._lock:
            now = self._clock()
            # Time in which nobody asked is not saved up: a burst is what the ceiling is there to prevent.
            turn = max(now, self._next)
            self._next = turn + self._interval
        return turn - now
