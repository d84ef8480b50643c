"""Connections that end with their attempt: `requests` with a deadline and a limit that hold at every step.

A read timeout alone ends nothing: a byte every nine seconds would keep an attempt alive for ever.
"""

import http.client
import io
import math
import socket
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool, HTTPConnectionPool, HTTPSConnectionPool

#: Bytes on the wire, head and framing included. Also bounds an endless row of headers or of `100 Continue`.
WIRE_LIMIT = 128 * 1024

#: Absolute time (`time.monotonic`) at which the attempt under way in this thread is over.
_deadline: ContextVar[float] = ContextVar("deadline")


def begin(seconds: float) -> None:
    """Whatever this thread sends and reads from now on is over in so many seconds."""
    _deadline.set(time.monotonic() + seconds)


def _left(most: float) -> float:
    """Seconds that the next step may take. Raises `TimeoutError` when the attempt is over."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(most, left)


class TooLong(Exception):
    """The answer is longer than anything Dynamic Yield sends."""


class _BoundedReader(io.RawIOBase):
    """A socket's bytes, up to the attempt's deadline and to `WIRE_LIMIT`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # Holds the socket open when the connection lets go of it, as it does after `Connection: close`.
        self._raw = sock.makefile("rb", buffering=0)
        self._read_timeout = sock.gettimeout() or math.inf
        self._room = WIRE_LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._read_timeout))
        count = self._raw.readinto(buffer) or 0
        self._room -= count
        if self._room < 0:
            raise TooLong
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Source:
    """What `http.client` wants of a socket: a file to read the answer from."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self._sock))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(_Source(sock), *args, **kwargs)  # type: ignore[arg-type] # only makefile is asked for


def _look_up(host: str, port: int, timeout: float) -> list[Any]:
    """What `getaddrinfo` finds, or `TimeoutError`: the system's resolver knows no time limit of ours."""
    found: list[Any] = []

    def look() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            found.append(error)

    # Left behind where it takes too long; it ends with the resolver's own patience, half a minute or so.
    thread = threading.Thread(target=look, name="look up", daemon=True)
    thread.start()
    thread.join(timeout)
    if not found:
        raise TimeoutError
    if isinstance(found[0], Exception):
        raise found[0]
    addresses: list[Any] = found[0]
    return addresses


class _Punctual:
    """A connection whose every step ends with the attempt. Mixed into urllib3's."""

    response_class = _Response

    def _new_conn(self: Any) -> socket.socket:
        # urllib3 gives each address of a host the full connect timeout, however many there are.
        problem: OSError = OSError("the host has no address")
        for family, kind, protocol, _, address in _look_up(self._dns_host, self.port, _left(self.timeout)):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(_left(self.timeout))
                sock.connect(address)
                # For the TLS handshake, which is next.
                sock.settimeout(_left(self.timeout))
            except OSError as error:
                sock.close()
                problem = error
            else:
                return sock
        raise problem

    def request(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            # A kept-alive socket still has what was left of the last attempt.
            self.sock.settimeout(_left(self.timeout))
        super().request(*args, **kwargs)  # type: ignore[misc] # the class it is mixed into has it


class _HttpConnection(_Punctual, HTTPConnection):  # type: ignore[misc] # http.client reads response_class so
    pass


class _HttpsConnection(_Punctual, HTTPSConnection):  # type: ignore[misc] # the same
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class PunctualAdapter(HTTPAdapter):
    """One connection to one host; `begin` starts each attempt.

    What `requests` finds out anew for each request, and would always find the same, it is told here: that was a
    quarter of an attempt's CPU time.
    """

    def __init__(self) -> None:
        self._pool: ConnectionPool | None = None
        super().__init__(pool_connections=1, pool_maxsize=1)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> ConnectionPool:
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        return request.path_url

    def build_response(self, req: PreparedRequest, resp: Any) -> Response:
        """Status, headers and the raw body: no cookies, no guess at the encoding."""
        response = Response()
        response.status_code, response.headers, response.raw = resp.status, resp.headers, resp
        return response

    def close(self) -> None:
        self._pool = None
        super().close()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
