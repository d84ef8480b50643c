"""Requests that two servers in a row could read differently: never two requests out of one, never a 500.

Heroku's router, or a proxy of the customer's, stands in front of gunicorn. Where both disagree about the end of a
request, what a stranger put into the body of one becomes a request of its own, past whatever the proxy checks.
"""

import re
import socket
from contextlib import suppress

import pytest
import requests

from tests.product import Product

pytestmark = [
    pytest.mark.slow,
    # What is asked here is answered before any database is.
    pytest.mark.parametrize("shared_product", ["sqlite"], indirect=True),
]

POST = b"POST /webhooks/sendgrid HTTP/1.1\r\nHost: localhost\r\n"
#: The app logs the id that a request brings: this one must never be seen in the log.
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: smuggled\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(b"0\r\n\r\n" + HIDDEN)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
END = b"0\r\n\r\n"


def in_chunk(size: bytes, data: bytes = b"abc", end: bytes = b"\r\n") -> bytes:
    return POST + CHUNKED + b"\r\n" + size + b"\r\n" + data + end + END + HIDDEN


SHAPES: dict[str, bytes] = {
    "a length and chunks": POST + LENGTH + CHUNKED + b"\r\n" + END + HIDDEN,
    "chunks and a length": POST + CHUNKED + LENGTH + b"\r\n" + END + HIDDEN,
    "two lengths": POST + b"Content-Length: 0\r\n" + LENGTH + b"\r\n" + END + HIDDEN,
    "two lengths the other way round": POST + LENGTH + b"Content-Length: 0\r\n" + b"\r\n" + END + HIDDEN,
    "a list of lengths": POST + b"Content-Length: 0, 5\r\n\r\n" + HIDDEN,
    "a length with a sign": POST + b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "a hexadecimal length": POST + b"Content-Length: 0x0\r\n\r\n" + HIDDEN,
    "a length with an underscore": POST + b"Content-Length: 0_0\r\n\r\n" + HIDDEN,
    "a length of other digits": POST + "Content-Length: ٠\r\n\r\n".encode() + HIDDEN,
    "a length with a space before the colon": POST + b"Content-Length : 0\r\n\r\n" + HIDDEN,
    "an endless length": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + HIDDEN,
    "xchunked": POST + LENGTH + b"Transfer-Encoding: xchunked\r\n\r\n" + END + HIDDEN,
    "chunked with a vertical tab": POST + LENGTH + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + END + HIDDEN,
    "chunked in quotes": POST + LENGTH + b'Transfer-Encoding: "chunked"\r\n\r\n' + END + HIDDEN,
    "chunked, identity": POST + LENGTH + b"Transfer-Encoding: chunked, identity\r\n\r\n" + END + HIDDEN,
    "identity, chunked": POST + LENGTH + b"Transfer-Encoding: identity, chunked\r\n\r\n" + END + HIDDEN,
    "two encodings": POST + LENGTH + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + END + HIDDEN,
    "a space before the colon": POST + LENGTH + b"Transfer-Encoding : chunked\r\n\r\n" + END + HIDDEN,
    "a folded header": POST + LENGTH + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + END + HIDDEN,
    "a folded header of another": POST + LENGTH + b"X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n" + END + HIDDEN,
    "underscores": POST + LENGTH + b"Transfer_Encoding: chunked\r\n\r\n" + END + HIDDEN,
    "a bare line feed before the header": POST + LENGTH + b"X-A: b\n" + CHUNKED + b"\r\n" + END + HIDDEN,
    "a bare carriage return before the header": POST + LENGTH + b"X-A: b\r" + CHUNKED + b"\r\n" + END + HIDDEN,
    "bare line feeds all over": (POST + LENGTH + CHUNKED + b"\r\n").replace(b"\r\n", b"\n") + END + HIDDEN,
    "NUL in a header": POST + LENGTH + b"X-A: b\0" + CHUNKED + b"\r\n" + END + HIDDEN,
    "a header without a name": POST + LENGTH + b": chunked\r\n\r\n" + END + HIDDEN,
    "a line that is no header": POST + LENGTH + b"Transfer-Encoding\r\n\r\n" + END + HIDDEN,
    "chunks in HTTP/1.0": POST.replace(b"1.1", b"1.0") + LENGTH + CHUNKED + b"\r\n" + END + HIDDEN,
    "a chunk size with a sign": in_chunk(b"+3"),
    "a hexadecimal chunk size": in_chunk(b"0x3"),
    "a chunk size with an underscore": in_chunk(b"0_3"),
    "a chunk size with a space": in_chunk(b" 3"),
    "an endless chunk size": in_chunk(b"f" * 5000),
    "a negative chunk size": in_chunk(b"-3"),
    "no chunk size": in_chunk(b""),
    "a chunk longer than it says": in_chunk(b"2"),
    "a chunk without an end": in_chunk(b"3", end=b""),
    "a chunk that ends with a line feed": in_chunk(b"3", end=b"\n"),
    "a chunk size that ends with a line feed": POST + CHUNKED + b"\r\n3\nabc\r\n" + END + HIDDEN,
    "an extension with a line feed": in_chunk(b"3;a\nb"),
    "a request line of 100 kB": b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a thousand headers": POST + b"".join(b"X-%d: b\r\n" % number for number in range(1000)) + b"\r\n",
    "a header of 100 kB": POST + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP/9.9": POST.replace(b"1.1", b"9.9") + b"\r\n",
    "a method of its own": POST.replace(b"POST", b"P\xc3\x96ST") + b"\r\n",
}


def answers(product: Product, request: bytes) -> list[int]:
    """What a connection gets on which only these bytes are sent, in order."""
    with socket.create_connection(("127.0.0.1", product.port), timeout=30) as connection:
        received = b""
        # Refused before it was read to its end: that is a reset, and an answer lost on the way.
        with suppress(OSError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3}) ", received, re.MULTILINE)]


def test_two_requests_that_are_two_are_two(product: Product) -> None:
    """The control: what the other tests must not find can be found."""
    hidden = HIDDEN.replace(b"smuggled", b"in-the-open")
    assert answers(product, POST + b"Content-Length: 2\r\n\r\n[]" + hidden) == [401, 200]
    assert '"in-the-open"' in product.logs()["web.log"]


@pytest.mark.parametrize("shape", SHAPES)
def test_one_request_is_never_two_and_never_a_500(product: Product, shape: str) -> None:
    got = answers(product, SHAPES[shape])
    # Seen: what stands in the body of one request was taken for another.
    assert "smuggled" not in product.logs()["web.log"]
    # 501 says that a transfer coding is not known; anything else above 499 would be a mistake of ours.
    assert all(400 <= status < 500 or status == 501 for status in got), got
    assert len(got) <= 1
    assert requests.get(f"{product.url}/healthz", timeout=30).ok
