"""gunicorn's threaded worker with a slowloris guard: a request that has not come whole within 15 seconds gets 408.

gunicorn's own waits for ever for a sender that has begun: as many such senders as threads, and nobody else is served.
https://docs.gunicorn.org/en/stable/custom.html (a worker class is an extension point)
"""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from gunicorn.workers.gthread import ThreadWorker

#: ESPs send two megabytes within one second.
READ_WITHIN = 15.0  # seconds

#: How long a thread stays with a connection that it has answered, where each connection can have a thread of its own.
STAY = 0.005  # seconds

TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class WatchedConnection:
    """A connection on which a request is being served."""

    connection: Any
    began: float = field(default_factory=time.monotonic)
    #: Whether the guard has ended it.
    timed_out: bool = False
    #: Whether its head has come whole, so that the app answers.
    reached_app: bool = False


class SlowlorisGuard:
    """Ends requests that have not come whole in time. One thread looks at all of them once a second."""

    def __init__(self) -> None:
        self._readings: set[WatchedConnection] = set()

    def start(self) -> None:
        threading.Thread(target=self._keep_watching, name="slowloris-guard", daemon=True).start()

    @contextmanager
    def watching(self, connection: Any) -> Iterator[WatchedConnection]:
        reading = WatchedConnection(connection)
        self._readings.add(reading)
        try:
            yield reading
        finally:
            self._readings.discard(reading)

    def end_late_ones(self) -> None:
        now = time.monotonic()
        for reading in self._readings.copy():
            if now - reading.began > READ_WITHIN:
                reading.timed_out = True
                # The thread that waits for more sees the end of the stream. Where the request had come whole and only
                # its answer takes time, nothing happens but that the connection is not used again.
                with suppress(OSError):
                    reading.connection.sock.shutdown(socket.SHUT_RD)

    def _keep_watching(self) -> None:
        while True:
            time.sleep(1)
            try:
                self.end_late_ones()
            except Exception as error:
                # Without this thread, a few idle sockets would keep every webhook out.
                log.error("slowloris_guard_failed", exc_info=error)


@dataclass(frozen=True, slots=True)
class TimedReader:
    """Reads a request's body for gunicorn. Where the guard has ended it, its end is a `TimeoutError`.

    Without this, half a body would look like a whole one.
    """

    reader: Any
    reading: WatchedConnection

    def read(self, size: int) -> bytes:
        try:
            piece: bytes = self.reader.read(size)
        except Exception:
            if self.reading.timed_out:
                raise TimeoutError from None
            raise
        if not piece and self.reading.timed_out:
            raise TimeoutError
        return piece


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """Serves with threads behind the slowloris guard, and repeats nothing of a request that is no HTTP.

    gunicorn quotes what it could not parse in its log and in its answer, up to the whole URL: that may hold an address,
    or the secret that opens a webhook.
    """

    def init_process(self) -> None:
        self.guard = SlowlorisGuard()
        self.guard.start()
        #: What each thread serves just now.
        self.serving = threading.local()
        super().init_process()

    def handle(self, conn: Any) -> Any:
        """Serve a request, and the next one of the same connection where it comes at once.

        To hand a connection back, have it polled and take it again costs a tenth of all that a webhook costs. Where
        there are more connections than threads, nobody stays: others wait.
        """
        result = self.handle_one(conn)
        while result is True and self.nr_conns <= self.cfg.threads and has_more(conn.sock):
            result = self.handle_one(conn)
        return result

    def handle_one(self, conn: Any) -> Any:
        with self.guard.watching(conn) as self.serving.reading:
            result = super().handle(conn)
            if self.serving.reading.timed_out and not self.serving.reading.reached_app:
                with suppress(OSError):
                    conn.sock.sendall(TIMED_OUT)
            return result

    def handle_request(self, req: Any, conn: Any) -> Any:
        reading = self.serving.reading
        reading.reached_app = True
        req.body.reader = TimedReader(req.body.reader, reading)
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        without_text = same_type_without_text(exc)
        try:
            # gunicorn logs the error that is being handled, with its text; this one takes its place.
            raise without_text from None
        except type(without_text):
            super().handle_error(None, client, addr, without_text)


def has_more(connection: socket.socket) -> bool:
    """Whether its sender says more within `STAY`, or has closed it."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(STAY * 1000))


def same_type_without_text(error: BaseException) -> BaseException:
    """Same exception type, empty message, so that request data cannot reach the log."""
    kind = type(error)
    same: type[BaseException] = type(
        kind.__name__, (kind,), {"__init__": lambda self: None, "__str__": lambda self: kind.__name__}
    )
    return same()
