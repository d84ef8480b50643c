"""Bodies that do not come whole: cut off, half-closed, stalled, or in broken chunks. For every way into every provider.

Half a body can be read as a whole one: a form that is cut behind `jane@example.com` of `jane@example.com.au` names
another person, and a batch that was taken for unreadable is never sent again. A signature over the body would show it;
passwords, tokens and secrets in the URL do not.
"""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest

from tests.end_to_end.conftest import ENGINES
from tests.processes import wait_until
from tests.product import Product, running_product
from tests.providers.cases import PUBLIC_URL, Case, cases, payloads
from tests.signing import SendGridSigner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Of SendGrid the product has a key pair of its own; that of Amazon's topics could not be fetched.
CASES = [case for case in cases() if case.kind not in ("sendgrid", "sns")]
every_way_in = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.provider}-{case.variable}")


@pytest.fixture(scope="module", params=ENGINES)
def product(
    request: pytest.FixtureRequest,
    new_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
    sendgrid_signer: SendGridSigner,
) -> Iterator[Product]:
    """Everything is open, and nothing is sent on: what is stored stays to be counted."""
    settings = {case.variable: case.old for case in cases() if case.kind != "sendgrid"}
    settings |= {"PUBLIC_URL": PUBLIC_URL, "EMARSYS_IDENTITY": "email"}
    folder = tmp_path_factory.mktemp(f"halves-{request.param}")
    with running_product(folder, new_database(request.param), sendgrid_signer, workers=0, settings=settings) as product:
        yield product


@dataclass(frozen=True, slots=True)
class Webhook:
    """One opt-out as its ESP sends it."""

    head: bytes
    body: bytes

    def with_length(self, upto: int) -> bytes:
        """With the length of the whole body, and so many bytes of it."""
        return self.head + b"Content-Length: %d\r\n\r\n" % len(self.body) + self.body[:upto]

    def in_chunks(self, rest: bytes) -> bytes:
        """The first half as one chunk, and then this."""
        half = self.body[: len(self.body) // 2]
        return self.head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(half), half) + rest


def webhook(case: Case) -> Webhook:
    request = case.sign(case.request(payloads(case.provider)["opt_out"].body), case.old)
    path = f"/webhooks/{case.provider}" + (f"/{request.url_secret}" if request.url_secret else "")
    lines = [f"POST {path} HTTP/1.1", "Host: hooks.example.net"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return Webhook("\r\n".join([*lines, ""]).encode("latin-1"), request.body)


def connect(product: Product) -> socket.socket:
    return socket.create_connection(("127.0.0.1", product.port), timeout=120)


def status(connection: socket.socket) -> int:
    """Of the answer; 0 where the connection ends without one."""
    received = b""
    while b"\r\n" not in received and (piece := connection.recv(65536)):
        received += piece
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
    return int(found[1]) if found else 0


def answer(product: Product, sent: bytes) -> int:
    """What comes back where these bytes are sent and no more will follow."""
    with connect(product) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return status(connection)


def stored(product: Product) -> int:
    return int(product.sql("SELECT count(*) FROM events")[0][0])


def refusals(product: Product, status: int) -> int:
    return len(re.findall(rf'"status":{status}\b', product.logs()["web.log"]))


@every_way_in
def test_a_body_shorter_than_its_length_is_400_and_nothing_of_it_is_read(product: Product, case: Case) -> None:
    sent, before = webhook(case), stored(product)
    for upto in (0, len(sent.body) // 2, len(sent.body) - 1):
        # 200: half a body was taken for whole, and whoever it names now is opted out.
        assert answer(product, sent.with_length(upto)) == 400
    assert stored(product) == before


def test_half_a_form_names_nobody(product: Product) -> None:
    """The whole address is jane@example.com.au; what has come is a person of her own."""
    (case,) = [case for case in CASES if case.variable == "MAILCHIMP_URL_SECRETS"]
    body = b"type=unsubscribe&fired_at=2026-01-05+10%3A15%3A30&data[email]=jane%40example.com.au"
    half = Webhook(webhook(case).head, body).with_length(len(body) - len(".au"))
    before = stored(product)
    assert answer(product, half) == 400
    assert stored(product) == before


#: What follows the first chunk, which holds half of the body.
BROKEN_CHUNKS = {
    "no end": b"",
    "an end without its empty line": b"0\r\n",
    "a chunk that is cut": b"40\r\n{",
    "a size that is cut": b"4",
    "a size that is no number": b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": b"1\r\n{}\r\n0\r\n\r\n",
    "a negative size": b"-1\r\n\r\n0\r\n\r\n",
}


@every_way_in
def test_a_body_in_broken_chunks_is_400_and_nothing_of_it_is_read(product: Product, case: Case) -> None:
    sent, before = webhook(case), stored(product)
    for name, rest in BROKEN_CHUNKS.items():
        assert answer(product, sent.in_chunks(rest)) == 400, name
    assert stored(product) == before


def test_whoever_hangs_up_in_the_middle_leaves_nothing(product: Product) -> None:
    before, refused = stored(product), refusals(product, 400)
    for case in CASES:
        with connect(product) as connection:
            connection.sendall(webhook(case).with_length(len(webhook(case).body) - 1))
    wait_until(lambda: refusals(product, 400) == refused + len(CASES), "each of them is seen to be cut")
    assert stored(product) == before


def test_a_body_that_stalls_is_408_and_nothing_of_it_is_read(product: Product) -> None:
    """All of them at once: each holds a thread until the guard ends it."""
    before = stored(product)
    with ExitStack() as stack:
        connections = []
        for case in CASES:
            sent = webhook(case)
            for part in (sent.with_length(len(sent.body) - 1), sent.in_chunks(b"40\r\n{")):
                connections.append(stack.enter_context(connect(product)))
                connections[-1].sendall(part)
        assert {status(connection) for connection in connections} == {408}
    assert stored(product) == before


def test_a_request_whose_head_stalls_is_408(product: Product) -> None:
    with connect(product) as connection:
        connection.sendall(b"POST /webhooks/emarsys HTTP/1.1\r\nHost: hooks.example.net\r\n")
        assert status(connection) == 408


def test_a_whole_body_that_came_slowly_but_in_time_is_taken(product: Product) -> None:
    """The control: what is refused above is taken when it comes whole."""
    for case in CASES:
        sent = webhook(case)
        with connect(product) as connection:
            connection.sendall(sent.with_length(len(sent.body) - 1))
            with suppress(TimeoutError):
                connection.settimeout(0.05)
                assert not connection.recv(1), "answered before it was whole"
            connection.settimeout(120)
            connection.sendall(sent.body[-1:])
            assert status(connection) == 200, case
    assert stored(product) > 0
