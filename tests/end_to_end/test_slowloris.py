"""Slowloris: senders that never finish, without any secret, must not keep the others out."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import requests

from tests.processes import ROOT, wait_until
from tests.product import Product, opt_out
from webhook_app.web_worker import READ_WITHIN

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("shared_product", ["sqlite"], indirect=True)]

THREADS = int(re.findall(r"^threads = (\d+)$", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)[0])

HEAD = b"POST /webhooks/sendgrid HTTP/1.1\r\nHost: localhost\r\n"
#: What each sends before it stops.
BEGINNINGS = [HEAD, HEAD + b"Content-Length: 1000\r\n\r\n{", HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{"]


@pytest.fixture
def drip() -> Iterator[list[socket.socket]]:
    """Sockets on which a byte is sent every half second: none of them is ever idle for long."""
    dripping: list[socket.socket] = []
    over = threading.Event()

    def keep_dripping() -> None:
        while not over.wait(0.5):
            for connection in dripping:
                with suppress(OSError):
                    connection.send(b" ")

    thread = threading.Thread(target=keep_dripping)
    thread.start()
    yield dripping
    over.set()
    thread.join()


def test_more_senders_that_never_finish_than_threads_keep_nobody_out_for_long(
    product: Product, drip: list[socket.socket]
) -> None:
    with ExitStack() as stack:
        for number in range(THREADS + 4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", product.port), timeout=30))
            connection.sendall(BEGINNINGS[number % len(BEGINNINGS)])
            if number % 2:
                drip.append(connection)

        def is_served() -> bool:
            with suppress(requests.RequestException):
                return product.post([opt_out("patient@example.com")], timeout=2).status_code == 200
            return False

        # Never: one stranger with twenty sockets would keep every webhook out, for as long as they like.
        wait_until(is_served, "an honest webhook is taken", within=2 * READ_WITHIN + 30)
    product.await_told(["patient@example.com"])
