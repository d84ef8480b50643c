"""A TCP forwarder before the database: a name that points elsewhere after a fail-over, a network that swallows."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Forwarder:
    """Hands the bytes of each connection on to a Unix socket, until it is told not to."""

    def __init__(self, target: Path) -> None:
        #: Where new connections go; those there are stay where they are.
        self.target = target
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Connections are accepted and bytes acknowledged, and none arrives, in either direction."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def close(self) -> None:
        self._flows.set()
        for one in [self._listener, *self._open]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=[client], daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._flows.wait()
        server = socket.socket(socket.AF_UNIX)
        self._open += [client, server]
        try:
            server.connect(str(self.target))
        except OSError:
            client.close()
            return
        threading.Thread(target=self._hand_on, args=[client, server], daemon=True).start()
        self._hand_on(server, client)

    def _hand_on(self, source: socket.socket, drain: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                drain.sendall(data)
        for one in (source, drain):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def forwarder(target: Path) -> Iterator[Forwarder]:
    running = Forwarder(target)
    try:
        yield running
    finally:
        running.close()
