"""A forward proxy on real sockets: it connects whoever knows user and password, and keeps a log."""

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

USER, PASSWORD = "shop", "proxy-p4ssword/@"
_ALLOWED = b"Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())


@dataclass
class Proxy:
    """`url()` is how a client writes it; with another password it answers 407."""

    port: int
    #: What it was asked for, and what it answered.
    log: list[tuple[str, int]] = field(default_factory=list)
    #: Answers every CONNECT with this status, if set.
    refuses_with: int | None = None

    def url(self, password: str = PASSWORD) -> str:
        quoted = password.replace("/", "%2F").replace("@", "%40")
        return f"http://{USER}:{quoted}@127.0.0.1:{self.port}"

    def answer(self, head: bytes) -> int:
        headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        if headers.get(b"Proxy-Authorization") != _ALLOWED:
            return 407
        return self.refuses_with or 200


@contextmanager
def running() -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = Proxy(listening.getsockname()[1])
        thread = threading.Thread(target=_accept, args=(listening, proxy), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            # Wakes `accept`, which closing alone does not.
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _accept(listening: socket.socket, proxy: Proxy) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, proxy), daemon=True).start()


def _serve(client: socket.socket, proxy: Proxy) -> None:
    with client, suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(4096)
            if not piece:
                return
            head += piece
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
        status = proxy.answer(head)
        proxy.log.append((f"{method.decode()} {target.decode()}", status))
        if status != 200:
            client.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        elif method == b"CONNECT":
            host, _, port = target.partition(b":")
            with socket.create_connection((host.decode(), int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                _pass_on(client, server, b"")
        else:
            host, _, port = target.split(b"/")[2].partition(b":")
            with socket.create_connection((host.decode(), int(port))) as server:
                _pass_on(client, server, head.replace(b"http://%s:%s" % (host, port), b"", 1))


def _pass_on(client: socket.socket, server: socket.socket, first: bytes) -> None:
    server.sendall(first)
    back = threading.Thread(target=_copy, args=(server, client), daemon=True)
    back.start()
    _copy(client, server)
    back.join(10)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
