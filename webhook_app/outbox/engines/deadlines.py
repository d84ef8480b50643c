"""Deadlines for a database's answers, kept on our side of the wire."""

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog

GRACE = 2.0  # seconds between asking the server to cancel and cutting the connection
LOOK_EVERY = 0.25  # seconds

log = structlog.get_logger()


@dataclass(slots=True)
class _Deadline:
    at: float  # monotonic
    cancelled: bool = False


class Deadlines:
    """Ends what a server does not answer in time.

    A server that hangs (stopped, its disk stuck) keeps its connections alive: the kernel acknowledges what nobody
    reads, and the driver would wait for ever. First the server is asked to cancel, which frees the locks of one that is
    merely slow; then the connection is cut, and whoever waits for it gets the driver's `OperationalError`.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._deadlines: dict[psycopg.Connection[Any], _Deadline] = {}
        self._watcher: threading.Thread | None = None

    def set(self, connection: psycopg.Connection[Any], seconds: float) -> None:
        """From now on `connection` has so many seconds, until its deadline is lifted or set anew."""
        with self._mutex:
            self._deadlines[connection] = _Deadline(time.monotonic() + seconds)
            # Not before: a thread does not survive the fork of a web process.
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = threading.Thread(target=self._watch, name="database-deadlines", daemon=True)
                self._watcher.start()

    def lift(self, connection: psycopg.Connection[Any]) -> None:
        with self._mutex:
            self._deadlines.pop(connection, None)

    def passed(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether an error of this connection is our doing."""
        with self._mutex:
            deadline = self._deadlines.get(connection)
            return deadline is not None and deadline.cancelled

    def close(self) -> None:
        """Watch no longer, until another deadline is set."""
        self._watcher = None

    def _watch(self) -> None:
        while self._watcher is threading.current_thread():
            time.sleep(LOOK_EVERY)
            try:
                with self._mutex:
                    for connection, deadline in list(self._deadlines.items()):
                        self._enforce(connection, deadline, time.monotonic())
            except Exception as error:
                # Without this thread, a server that hangs would stop us for good.
                log.error("database_deadlines_failed", exc_info=error)

    def _enforce(self, connection: psycopg.Connection[Any], deadline: _Deadline, now: float) -> None:
        if connection.closed:
            del self._deadlines[connection]
        elif now > deadline.at + GRACE:
            _cut(connection)
        elif now > deadline.at and not deadline.cancelled:
            deadline.cancelled = True
            # Not here: it asks over a connection of its own, which may hang as well.
            threading.Thread(target=_cancel, args=[connection], daemon=True).start()


def _cancel(connection: psycopg.Connection[Any]) -> None:
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=GRACE)


def _cut(connection: psycopg.Connection[Any]) -> None:
    # Not `close()`: the thread that waits is inside the driver, and would not notice.
    with suppress(psycopg.Error, OSError):
        number = connection.fileno()
        with socket.socket(fileno=os.dup(number)) as ours:
            # Had the driver closed it in between, the number might be another connection's by now.
            if connection.fileno() == number:
                ours.shutdown(socket.SHUT_RDWR)
