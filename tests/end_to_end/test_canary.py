"""The canary: an address and some secrets go everywhere, through errors too; then everything is searched for them."""

import base64
import gzip
import hashlib
import html
import json
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote, quote_plus

import psycopg
import pytest
import requests

from tests import summary
from tests.end_to_end.conftest import ENGINES
from tests.processes import PATIENCE, running, wait_until
from tests.product import API_KEY, STATES, Event, Product, opt_out, running_product
from tests.signing import SendGridSigner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CANARY = "canary.5f1c0b9e@example.com"
#: No part of it may be found either, whatever stands around it.
CORE = "canary.5f1c0b9e"
SECRETS = {
    "EMARSYS_URL_SECRETS": "url-secret-5f1c0b9e",
    "CONSOLE_PASSWORD": "console-password-5f1c0b9e",
    "SECRET_KEY": "session-key-5f1c0b9e-session-key",
}


def forms(text: str) -> dict[str, str]:
    """How it might be written: what is searched for → what that is called. Compared without case."""
    raw = text.encode()
    found = {text: "plain", quote(text, safe=""): "quoted", quote_plus(text): "quoted", html.escape(text): "HTML"}
    found |= {json.dumps(text)[1:-1]: "JSON", raw.hex(): "hex", text[::-1]: "backwards"}
    for shift in range(3):
        # Base64 of a longer text looks different with each of three alignments; the edges belong to the neighbours.
        found[base64.b64encode(bytes(shift) + raw).decode()[4:-4]] = "base64"
        found[base64.urlsafe_b64encode(bytes(shift) + raw).decode()[4:-4]] = "base64"
    for name in ("md5", "sha1", "sha256", "sha512"):
        # Whoever has a list of addresses can undo a hash without a key.
        for digest in (hashlib.new(name, raw).digest(), hashlib.new(name, b"email:" + raw).digest()):
            found[digest.hex()] = f"{name} without a key"
            found[base64.b64encode(digest).decode().rstrip("=")] = f"{name} without a key"
    return {form.lower(): name for form, name in found.items()}


class Search:
    """Looks for the canary and the secrets in whatever it is given."""

    def __init__(self, secrets: list[str]) -> None:
        self.wanted = forms(CANARY) | forms(CORE)
        for secret in secrets:
            self.wanted |= dict.fromkeys(forms(secret), "a secret")
        self.found: list[str] = []

    def __call__(self, where: str, text: str) -> None:
        summary.count(summary.CANARY_PLACES)
        text = text.lower()
        for form, name in self.wanted.items():
            if (place := text.find(form)) >= 0:
                self.found.append(f"{where}: {name}: …{text[max(0, place - 80) : place + 80]}…")


@pytest.fixture(scope="module", params=ENGINES)
def product(
    request: pytest.FixtureRequest,
    new_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
    sendgrid_signer: SendGridSigner,
) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp(f"canary-{request.param}")
    settings = {"EMARSYS_IDENTITY": "email", "MAX_BODY_BYTES": "20000", **SECRETS}
    with running_product(folder, new_database(request.param), sendgrid_signer, settings=settings) as product:
        yield product


def test_the_canary_is_found_in_no_log_no_metric_and_no_error(product: Product) -> None:
    search = Search([API_KEY, *SECRETS.values()])
    try_every_path(product, search)
    for path in ("/metrics", "/readyz", "/status", "/healthz"):
        search(path, requests.get(product.url + path, timeout=30).text)
    kept = product.sql("SELECT error, '', '' FROM events UNION ALL SELECT message, trace_id, warnings FROM attempts")
    search("what the database keeps about failures", repr(kept))
    assert product.web
    for program in (product.web, *product.workers):
        program.stop(signal.SIGTERM)
    for name, text in product.logs().items():
        search(name, text)
    # Here: where it stood, in which form, and what was around it.
    assert search.found == []
    # The paths were really taken.
    assert {state for _, state in product.sql(STATES, 0, 0)} >= {"delivered", "pending"}
    assert product.sql("SELECT count(*) FROM events WHERE state = 'quarantined'") != [(0,)]


def test_the_search_finds_what_is_there() -> None:
    """The control: a canary that is not found where it was put would prove nothing."""
    search = Search(["the-secret"])
    places = [
        f"someone called {CANARY.upper()} asked",
        f"/console?q={quote(CANARY)}",
        json.dumps({"token": base64.b64encode(f"user:{CANARY}:password".encode()).decode()}),
        hashlib.sha256(CANARY.encode()).hexdigest(),
        "canary.5f1c0b9e is all that is left",
        "Bearer the-secret",
    ]
    for number, text in enumerate(places):
        before = len(search.found)
        search(f"place {number}", text)
        assert len(search.found) > before, text
    search("harmless", "canary@example.com, secret, 5f1c0b9f")
    assert len({line.partition(":")[0] for line in search.found}) == len(places)


# ---------------------------------------------------------------- the paths


def try_every_path(product: Product, search: Search) -> None:
    session = requests.Session()
    session.trust_env = False

    def refused(answer: requests.Response, *statuses: int) -> None:
        assert answer.status_code in statuses, (answer.status_code, answer.text)
        search(f"the answer {answer.status_code} of {answer.request.method}", f"{answer.text} {answer.headers}")

    def call(method: str, path: str, **more: object) -> requests.Response:
        return session.request(method, product.url + path, timeout=60, allow_redirects=False, **more)  # type: ignore[arg-type]

    with session:
        what_dynamic_yield_answers(product)
        what_cannot_be_read(product)
        who_is_not_let_in(product, call, refused)
        what_cannot_be_stored(product, refused)
        what_is_no_http(product, search)
        what_a_person_orders(product, search)
        a_worker_that_is_killed(product)


def person(number: str) -> str:
    return CANARY.replace("@", f"+{number}@")


def what_dynamic_yield_answers(product: Product) -> None:
    box = product.dynamic_yield
    # Taken, then refused and passing, each with an answer that repeats all that was sent; then odd ones.
    assert product.post([opt_out(person("taken"))]).ok
    product.await_told([person("taken")])
    for name, fault in {
        "refused": {"kind": "echo", "status": 400},
        "passing": {"kind": "echo", "status": 503},
        "warned": {"kind": "warnings", "message": f"{person('warned')} is unknown"},
        "named": {"kind": "status", "status": 422, "body": f"no such person: {quote(person('named'))}"},
        "traced": {"kind": "status", "status": 400, "headers": {"DY-Trace-ID": person("traced")}},
    }.items():
        arrived = box.counts["arrived"]
        box.fault(**fault)  # type: ignore[arg-type]
        assert product.post([opt_out(person(name))]).ok
        wait_until(lambda: box.counts["arrived"] > arrived and not box.faults, f"{name} has arrived")  # noqa: B023
    refused = [person("refused"), person("named"), person("traced")]
    wait_until(lambda: product.states(refused) == {"dead": 3}, "what was refused is dead")


def what_cannot_be_read(product: Product) -> None:
    for event in (
        {"email": f"no address {CANARY}", "event": "unsubscribe", "timestamp": 1760000000},
        {"email": CANARY, "event": "unsubscribe", "timestamp": CANARY},
        {"email": {CANARY: CANARY}, "event": "unsubscribe", "timestamp": 1760000000},
        {"email": CANARY, "event": [CANARY]},
        {"email": CANARY, "event": "group_unsubscribe", "asm_group_id": CANARY},
        {"email": CANARY, "event": "unsubscribe", "timestamp": 1760000000, "sg_message_id": [CANARY]},
        CANARY,
    ):
        assert product.post([event]).ok  # type: ignore[list-item]
    for body in (f'[{{"email": "{CANARY}"'.encode(), CANARY.encode(), gzip.compress(CANARY.encode())):
        assert product.post(body).json()["quarantined"] == 1
    # A type that SendGrid's entry does not know.
    assert product.post([{"email": CANARY, "event": CANARY}]).json()["quarantined"] == 1


def who_is_not_let_in(product: Product, call: Callable[..., requests.Response], refused: Callable[..., None]) -> None:
    body = json.dumps([opt_out(CANARY)]).encode()
    secret = SECRETS["EMARSYS_URL_SECRETS"]
    forged = SendGridSigner().headers(body)
    refused(call("POST", "/webhooks/sendgrid", data=body, headers=forged), 401)
    refused(call("POST", "/webhooks/sendgrid", data=body, headers=forged | {"X-Request-ID": CANARY}), 401)
    refused(call("POST", "/webhooks/sendgrid", data=body, headers={"Authorization": f"Bearer {CANARY}"}), 401)
    refused(call("POST", f"/webhooks/emarsys/{CANARY}", json={"email": CANARY}), 401)
    refused(call("POST", f"/webhooks/emarsys/{secret}x?email={CANARY}", json={"email": CANARY}), 401)
    refused(call("POST", f"/webhooks/{CANARY}", data=body), 404)
    refused(call("POST", f"/webhooks/mailgun/{secret}", data=body), 404)
    refused(call("GET", f"/{CANARY}?email={CANARY}"), 404)
    refused(call("PUT", f"/webhooks/emarsys/{secret}?{CANARY}", data=body), 405)
    refused(call("GET", f"/webhooks/sendgrid?email={CANARY}"), 405)
    signed = product.signer.headers(body * 1000)
    refused(call("POST", "/webhooks/sendgrid", data=body * 1000, headers=signed | {"User-Agent": CANARY}), 413)
    # Through the open door, in every place where an address may stand.
    assert call("POST", f"/webhooks/emarsys/{secret}?email={CANARY}", json={"email": CANARY, "optin": "2"}).ok
    assert call("POST", f"/webhooks/emarsys/{secret}", json={"email": [CANARY], "optin": CANARY}).ok
    refused(call("GET", f"/console/?q={CANARY}", auth=("user", CANARY)), 401)
    refused(call("POST", "/console/login", data={"password": CANARY}), 400, 401, 403)
    assert call("GET", "/console/", auth=("user", SECRETS["CONSOLE_PASSWORD"])).ok


@contextmanager
def no_room(product: Product) -> Iterator[None]:
    """The database takes nothing; PostgreSQL quotes the row in its reason, as it does where a constraint is hurt."""
    if product.database_url.startswith("sqlite"):
        rival = sqlite3.connect(product.sqlite_file, isolation_level=None)
        rival.execute("BEGIN IMMEDIATE")
        yield
        rival.execute("ROLLBACK")
        rival.close()
        return
    with psycopg.connect(product.database_url, autocommit=True) as admin:
        admin.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no room' USING "
            "ERRCODE = '23514', DETAIL = 'Failing row contains (' || NEW.identity_value || ')'; END $$"
        )
        admin.execute("CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()")
        yield
        admin.execute("DROP FUNCTION refuse CASCADE")


def what_cannot_be_stored(product: Product, refused: Callable[..., None]) -> None:
    event: Event = opt_out(person("stored-later"))
    with no_room(product):
        refused(product.post([event]), 503)
    assert product.post([event]).ok


def what_is_no_http(product: Product, search: Search) -> None:
    """gunicorn refuses these before the app sees them, and has a log and answers of its own."""
    for request in (
        f"GET /{CANARY}\r\n\r\n",
        f"G@T /{CANARY} HTTP/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\n{CANARY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\n{CANARY}: x\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: {CANARY}\0\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {CANARY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {CANARY}\r\n\r\n",
        f"GET /{CANARY} HTTP/9.9\r\nHost: localhost\r\n\r\n",
        f"POST /webhooks/sendgrid HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}\r\n",
        f"POST /webhooks/sendgrid HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{CANARY}",
        f"GET /{CANARY * 400} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        received = b""
        with socket.create_connection(("127.0.0.1", product.port), timeout=30) as connection, suppress(OSError):
            connection.sendall(request.encode("latin-1"))
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        search(f"the answer to {request[:20]!r}", received.decode("latin-1"))


def what_a_person_orders(product: Product, search: Search) -> None:
    """`list` and `show` are there to show addresses; what changes something only says how much."""
    for number, command in enumerate(
        (
            ["flask", "events", "replay", "--state", "dead", "--yes"],
            ["flask", "events", "replay", "--state", "quarantined", "--yes"],
            ["flask", "events", "discard", "--person", person("passing"), "--yes"],
            ["flask", "events", "show", "999999999"],
            ["flask", "check"],
            ["flask", "providers"],
            ["flask", "prune"],
        )
    ):
        with running(command, cwd=product.folder, env=product.env, log=f"command-{number}.log") as program:
            program.process.wait(timeout=PATIENCE)
            search(" ".join(command[:3]), program.output())
            assert "Traceback" not in program.output()


def a_worker_that_is_killed(product: Product) -> None:
    product.dynamic_yield.latency = 0.5
    assert product.post([opt_out(person(f"under-way-{number}")) for number in range(20)]).ok
    wait_until(lambda: product.dynamic_yield.counts["arrived"] > 0, "it sends")
    product.kill_worker()
    product.dynamic_yield.latency = 0.0
    product.start_workers(1)
    # The last: it makes everything wait. Where a redirect leads may hold what was sent.
    product.dynamic_yield.fault("redirect", times=None, location=f"https://elsewhere.example/?email={CANARY}")
    assert product.post([opt_out(person("redirected"))]).ok
    wait_until(lambda: "destination_paused" in product.workers[0].output(), "it has noticed the redirect")
