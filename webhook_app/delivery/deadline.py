"""The deadline of an attempt: when it has passed, the connection is cut off under whoever still reads from it.

A time-out bounds the wait for each piece of an answer, and so ends nothing: a byte every nine seconds keeps the status
line and the headers, which `http.client` reads in one go, alive for ever.
"""

import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

LOOK_EVERY = 0.1  # seconds between two looks for attempts that are over

log = structlog.get_logger()


class TimedAttempt:
    """The attempt that a thread makes just now, and the connection that it keeps for the next one."""

    def __init__(self) -> None:
        #: On the monotonic clock; infinite between two attempts.
        self.ends_at = math.inf
        #: Whether the connection was cut off: what was read since then may look whole, and is not.
        self.cut = False
        #: Whether a connection is being opened: until it is open, nothing was sent.
        self.is_connecting = False
        self._connection: HTTPConnection | None = None
        # So that the guard cannot cut off the next attempt for the one that has just ended.
        self._lock = threading.Lock()

    def begin(self, seconds: float) -> None:
        with self._lock:
            self.ends_at, self.cut, self.is_connecting = time.monotonic() + seconds, False, False

    def end(self) -> None:
        with self._lock:
            self.ends_at = math.inf

    def check(self) -> None:
        """Raises `TimeoutError` where the attempt is over."""
        if self.cut or time.monotonic() >= self.ends_at:
            raise TimeoutError

    def use(self, connection: HTTPConnection) -> None:
        self._connection = connection

    def cut_if_over(self, now: float) -> None:
        with self._lock:
            sock = self._connection.sock if self._connection else None
            if now >= self.ends_at:
                self.cut = True
                if sock is not None:
                    # Not `sock.shutdown`: that of a TLS socket would first forget that there is TLS, and whoever
                    # writes in that moment would write in the clear. Errors: it is being opened, or closed already.
                    with suppress(OSError):
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class DeadlineThread:
    """A thread that cuts off the attempts that are over. It begins with the first attempt it is given."""

    def __init__(self) -> None:
        self._attempts: list[TimedAttempt] = []
        self._stopped = threading.Event()
        self._started = False
        self._lock = threading.Lock()

    def watch(self, attempt: TimedAttempt) -> None:
        with self._lock:
            self._attempts.append(attempt)
            if not self._started:
                self._started = True
                threading.Thread(target=self._look, name="deadlines", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _look(self) -> None:
        while not self._stopped.wait(LOOK_EVERY):
            now = time.monotonic()
            for attempt in list(self._attempts):
                try:
                    attempt.cut_if_over(now)
                except Exception as error:
                    # Nobody else ends what drips: go on, and say so.
                    log.error("deadline_guard_failed", exc_info=error)


_of_thread = threading.local()


@contextmanager
def _guarded(connection: HTTPConnection) -> Iterator[None]:
    """Its thread's attempt knows a connection from its first moment on: it can be cut off while it is being opened."""
    attempt: TimedAttempt = _of_thread.attempt
    attempt.use(connection)
    attempt.is_connecting = True
    yield
    attempt.is_connecting = False
    # Looking up the host and trying its addresses may have taken until after the end: then nothing may be sent any
    # more, for a newer change may have been sent meanwhile.
    attempt.check()


class _GuardedHttp(HTTPConnection):
    def connect(self) -> None:
        with _guarded(self):
            super().connect()


class _GuardedHttps(HTTPSConnection):
    def connect(self) -> None:
        with _guarded(self):
            super().connect()


class GuardedAdapter(HTTPAdapter):
    """One connection to one host, for one thread."""

    def __init__(self, attempt: TimedAttempt) -> None:
        self._attempt = attempt
        super().__init__(pool_connections=1, pool_maxsize=1)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        _of_thread.attempt = self._attempt
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _GuardedHttps if pool.scheme == "https" else _GuardedHttp
        return pool
