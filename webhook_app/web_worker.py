"""gunicorn's worker, made discreet and impatient."""

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

#: A request that has not come whole by then is given up. ESPs send two megabytes within one.
READ_WITHIN = 15.0  # seconds


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """Serves with threads, of which a sender that dawdles holds one: as many such senders as threads, and nobody else
    is served any more. gunicorn waits for them for ever.

    What is no HTTP is refused, and what goes wrong below the app is logged, without repeating the request. gunicorn
    quotes it in its log and in its answer, up to the whole URL: that may hold an address, or the secret that opens a
    webhook.
    """

    def init_process(self) -> None:
        #: Connection → when a thread began to serve it, on the monotonic clock.
        self._served: dict[Any, float] = {}
        _wake_politely()
        threading.Thread(target=self._watch, daemon=True).start()
        super().init_process()

    def handle(self, conn: Any) -> Any:
        self._served[conn] = time.monotonic()
        try:
            return super().handle(conn)
        finally:
            del self._served[conn]

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        wordless = _wordless(exc)
        try:
            # gunicorn logs the error that is being handled, with its text; this one takes its place.
            raise wordless from None
        except type(wordless):
            super().handle_error(None, client, addr, wordless)

    def _watch(self) -> None:
        while True:
            time.sleep(1)
            now = time.monotonic()
            for conn, began in list(self._served.items()):
                if now - began > READ_WITHIN:
                    # For the thread that waits for more, the request ends here. Where it had come whole long ago, and
                    # only its answer takes time, nothing happens but that the connection is not used again.
                    with suppress(OSError):
                        conn.sock.shutdown(socket.SHUT_RD)


def _wake_politely() -> None:
    """Let no thread that wakes up, of this process and those to come, displace the one that runs.

    Whoever wakes needs the interpreter's lock, which the running thread holds: it would look, and go to sleep again.
    https://man7.org/linux/man-pages/man7/sched.7.html
    """
    if hasattr(os, "SCHED_BATCH"):
        # Where a container forbids it, everything works as well, only with more steps.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _wordless(error: BaseException) -> BaseException:
    """An error of the same kind, which is all that it says."""
    kind = type(error)
    same: type[BaseException] = type(
        kind.__name__, (kind,), {"__init__": lambda self: None, "__str__": lambda self: kind.__name__}
    )
    return same()
