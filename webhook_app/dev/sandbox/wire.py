"""HTTP/1.1, as little as a stand-in needs of it: a request with a length in, an answer out."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(slots=True)
class WireRequest:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


MAX_HEAD = 32 * 1024  # bytes
MAX_BODY = 1024 * 1024  # bytes


class BadRequest(Exception):
    """What was sent is not a request that this server reads."""


async def read_request(reader: asyncio.StreamReader) -> WireRequest | None:
    """The next request of a connection, None at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BadRequest from None
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    try:
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
    except ValueError:
        raise BadRequest from None
    if "transfer-encoding" in headers or not 0 <= length <= MAX_BODY:
        raise BadRequest
    return WireRequest(method, path.partition("?")[0], headers, await reader.readexactly(length))


def phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Ordered"


def render(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} {phrase(status)}"]
    if status != HTTPStatus.NO_CONTENT:
        lines += [f"Content-Length: {len(body)}"]
        if body and not (headers and "Content-Type" in headers):
            lines.append("Content-Type: application/json")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
