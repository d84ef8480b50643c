"""A load generator that costs a tenth of what it loads: one thread, raw sockets, requests made beforehand."""

import gc
import re
import selectors
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

PATIENCE = 60.0  # seconds without any answer

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class LoadFailed(Exception):
    """The server did not answer as it must; what it measured would be worth nothing."""


@dataclass(slots=True)
class Load:
    """What was answered with a 2xx."""

    answered: int
    seconds: float
    #: Seconds from the first byte sent to the last received, one for each answer.
    latencies: list[float] = field(repr=False)

    @property
    def rate(self) -> float:
        return self.answered / self.seconds


@dataclass(slots=True, eq=False)
class _Wire:
    sock: socket.socket
    sent_at: float = 0.0
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    received: bytearray = field(default_factory=bytearray)


def request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes of an HTTP/1.1 request that keeps its connection."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def run(port: int, requests: list[bytes], *, connections: int, seconds: float | None = None) -> Load:
    """Send the requests over so many kept-alive connections, each waiting for its answer.

    Until the time is over or, where none is given, until the requests are.

    Requests that were sent are waited for. Raises `LoadFailed` for any answer but a 2xx, and where the requests run
    out before the time: the server was faster than foreseen.
    """
    waiting = iter(requests)
    wires = [_Wire(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
    for wire in wires:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.sock.setblocking(False)
    gc.collect()
    gc.disable()
    try:
        return _run(wires, waiting, seconds)
    finally:
        gc.enable()
        for wire in wires:
            wire.sock.close()


def _run(wires: list[_Wire], waiting: Iterator[bytes], seconds: float | None) -> Load:
    selector = selectors.DefaultSelector()
    latencies: list[float] = []
    began = time.perf_counter()
    until = began + seconds if seconds else float("inf")
    under_way = 0
    for wire in wires:
        if _send_next(wire, waiting):
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wire.unsent else 0)
            selector.register(wire.sock, events, wire)
            under_way += 1
    while under_way:
        ready = selector.select(PATIENCE)
        if not ready:
            raise LoadFailed(f"no answer for {PATIENCE:.0f} s")
        for key, event in ready:
            wire = key.data
            if event & selectors.EVENT_WRITE:
                _flush(wire)
                if not wire.unsent:
                    selector.modify(wire.sock, selectors.EVENT_READ, wire)
            if event & selectors.EVENT_READ and _receive(wire):
                now = time.perf_counter()
                latencies.append(now - wire.sent_at)
                if now < until:
                    if not _send_next(wire, waiting):
                        if seconds:
                            raise LoadFailed("the requests ran out: make more of them")
                        under_way -= 1
                    elif wire.unsent:
                        selector.modify(wire.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, wire)
                else:
                    under_way -= 1
    return Load(len(latencies), time.perf_counter() - began, latencies)


def _send_next(wire: _Wire, waiting: Iterator[bytes]) -> bool:
    data = next(waiting, None)
    if data is None:
        return False
    wire.sent_at = time.perf_counter()
    wire.unsent = memoryview(data)
    _flush(wire)
    return True


def _flush(wire: _Wire) -> None:
    with suppress(BlockingIOError):
        wire.unsent = wire.unsent[wire.sock.send(wire.unsent) :]


def _receive(wire: _Wire) -> bool:
    """True when an answer is complete."""
    data = wire.sock.recv(65536)
    if not data:
        raise LoadFailed("the server hung up")
    wire.received += data
    head_end = wire.received.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    head = bytes(wire.received[:head_end])
    if (length := _LENGTH.search(head)) is None:
        if b" 204 " not in head[:14]:
            raise LoadFailed(f"an answer without a length: {head!r}")
        complete = head_end + 4
    else:
        complete = head_end + 4 + int(length[1])
    if len(wire.received) < complete:
        return False
    if head[9:10] != b"2":
        raise LoadFailed(bytes(wire.received[:500]).decode(errors="replace"))
    wire.received.clear()
    return True
