"""The sandbox's faults: how an answer can go wrong, a function each, and the table of them."""

import asyncio
import socket
import struct
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from typing import Any

import orjson

from webhook_app.dev.sandbox.rules import EVENTS_PATH
from webhook_app.dev.sandbox.wire import WireRequest, phrase, render


@dataclass(slots=True)
class Exchange:
    """One request that is being answered badly."""

    request: WireRequest
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    options: dict[str, Any]
    #: Makes the request count as taken, now.
    take_effect: Callable[[], None]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> int:
        await self.send(render(status, body, {name.replace("_", "-"): value for name, value in headers.items()}))
        return status

    async def forever(self, piece: bytes, every: float) -> None:
        """Send the piece over and over, until the other side has had enough."""
        while not self.reader.at_eof():
            await self.send(piece)
            await asyncio.sleep(every)

    def reset(self) -> None:
        # Lingering for zero seconds turns the close into a reset.
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def _status(exchange: Exchange) -> int:
    options = exchange.options
    status = int(options.get("status", 500))
    headers = {str(name): str(value) for name, value in options.get("headers", {}).items()}
    if "retry_after" in options:
        headers["Retry-After"] = str(options["retry_after"])
    if "retry_after_date" in options:
        headers["Retry-After"] = formatdate(time.time() + float(options["retry_after_date"]), usegmt=True)
    body = options.get("body", {"message": phrase(status), "type": "ordered"})
    return await exchange.answer(status, body.encode() if isinstance(body, str) else orjson.dumps(body), **headers)


async def _html(exchange: Exchange) -> int:
    page = b"<!DOCTYPE html><title>Sign in</title><p>Accept the terms to go on.</p>"
    return await exchange.answer(200, page, Content_Type="text/html; charset=utf-8")


async def _broken_json(exchange: Exchange) -> int:
    return await exchange.answer(200, b'{"error": nul')


async def _warnings(exchange: Exchange) -> int:
    message = exchange.options.get("message", "the event was dropped")
    return await exchange.answer(200, orjson.dumps({"warnings": [{"code": "W001", "message": message}]}))


async def _redirect(exchange: Exchange) -> int:
    status = int(exchange.options.get("status", 302))
    location = str(exchange.options.get("location", EVENTS_PATH))
    return await exchange.answer(status, Location=location)


async def _echo(exchange: Exchange) -> int:
    """Refuse, and repeat in the message what was sent: whoever keeps messages keeps addresses."""
    status = int(exchange.options.get("status", 400))
    sent = exchange.request.body.decode(errors="replace")
    return await exchange.answer(status, orjson.dumps({"message": f"cannot take {sent}", "type": "echo"}))


@cache
def _packed_zeros() -> bytes:
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(16)) + packer.flush()


async def _gzip_bomb(exchange: Exchange) -> int:
    return await exchange.answer(200, _packed_zeros(), Content_Encoding="gzip")


async def _timeout(exchange: Exchange) -> None:
    await exchange.reader.read(1)


async def _close(exchange: Exchange) -> None:
    """Hang up without an answer; the connection's end does the rest."""


async def _reset(exchange: Exchange) -> None:
    exchange.reset()


async def _cut(exchange: Exchange) -> None:
    # What does come is valid JSON: only the length tells that something is missing.
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{}")
    if exchange.options.get("reset"):
        exchange.reset()


async def _cut_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Le")


async def _drip_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    await exchange.forever(b"x", float(exchange.options.get("every", 0.1)))


async def _drip_body(exchange: Exchange) -> None:
    status = int(exchange.options.get("status", 200))
    head = f"HTTP/1.1 {status} Slowly\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    await exchange.send(head.encode())
    await exchange.forever(b" ", float(exchange.options.get("every", 0.1)))


async def _endless_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await exchange.forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0)


async def _endless_body(exchange: Exchange) -> None:
    status = int(exchange.options.get("status", 200))
    await exchange.send(f"HTTP/1.1 {status} Endlessly\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    await exchange.forever(b"2000\r\n" + b" " * 0x2000 + b"\r\n", 0)


async def _endless_redirect(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nTransfer-Encoding: chunked\r\n\r\n")
    await exchange.forever(b"2000\r\n" + b" " * 0x2000 + b"\r\n", 0)


async def _late(exchange: Exchange) -> int:
    """Take the request, but only after some seconds, whether or not anybody still waits for the answer."""
    await asyncio.sleep(float(exchange.options.get("seconds", 20)))
    exchange.take_effect()
    return await exchange.answer(204)


async def _interim(exchange: Exchange) -> int:
    """Take the request with two answers: one on the way (103 Early Hints), and the last one a little later."""
    await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    await asyncio.sleep(float(exchange.options.get("seconds", 0.1)))
    exchange.take_effect()
    return await exchange.answer(204)


async def _two_lengths(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")


async def _not_http(exchange: Exchange) -> None:
    await exchange.send(b"220 mail.example.com ESMTP\r\n")


#: Kind → what it does; returns the status that was sent, None where the connection is good for nothing any more.
FAULTS: dict[str, Callable[[Exchange], Awaitable[int | None]]] = {
    "status": _status,
    "html": _html,
    "broken_json": _broken_json,
    "warnings": _warnings,
    "redirect": _redirect,
    "echo": _echo,
    "gzip_bomb": _gzip_bomb,
    "timeout": _timeout,
    "close": _close,
    "reset": _reset,
    "cut": _cut,
    "cut_headers": _cut_headers,
    "late": _late,
    "drip_headers": _drip_headers,
    "drip_body": _drip_body,
    "endless_headers": _endless_headers,
    "endless_body": _endless_body,
    "endless_redirect": _endless_redirect,
    "interim": _interim,
    "two_lengths": _two_lengths,
    "not_http": _not_http,
}
