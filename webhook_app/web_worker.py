"""gunicorn's worker, made discreet and impatient."""

import socket
import threading
import time
from contextlib import suppress
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from webhook_app import many_threads

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
        many_threads.wake_politely()
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


def _wordless(error: BaseException) -> BaseException:
    """An error of the same kind, which is all that it says."""
    kind = type(error)
    same: type[BaseException] = type(
        kind.__name__, (kind,), {"__init__": lambda self: None, "__str__": lambda self: kind.__name__}
    )
    return same()
