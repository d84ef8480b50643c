"""The client over real sockets: each row of the table, and every way in which the other side can behave badly."""

import gc
import socket
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests import authority
from tests.authority import Authority
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.delivery import Answer, Call, Outcome
from webhook_app.delivery import client as client_module
from webhook_app.delivery.client import BODY_LIMIT, Client, Timeouts
from webhook_app.delivery.deadline import TimedAttempt
from webhook_app.delivery.events_api import EventsApi
from webhook_app.dev import sandbox
from webhook_app.dev.sandbox import Sandbox
from webhook_app.egress import Egress
from webhook_app.ops.logs import without_exception_text

#: For destinations that never come to an end: they are cut off soon.
IMPATIENT = Timeouts(connect=0.5, read=0.3, total=0.8)
#: The same, and time enough for the status on a busy machine.
PATIENT_AT_FIRST = Timeouts(read=1.0, total=3.0)
#: Seconds within which a machine, however busy, notices that an attempt is over.
SOME_TIME = 30.0


def call(address: str = "jane@example.com") -> Call:
    identity = Identity(kind=IdentityKind.EMAIL, value=address)
    change = ConsentChange(action=Action.OPT_OUT, identity=identity, reason="unsubscribe")
    return EventsApi().call(change, pseudonym="p")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts to which a connection was opened, in turn."""
    hosts: list[str] = []
    look_up = socket.getaddrinfo

    def counting(host: str, *rest: Any, **more: Any) -> Any:
        hosts.append(host)
        return look_up(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", counting)
    return hosts


#: How long the client waits in the cases of the next table where the destination never ends.
WAITS = {"timeout": IMPATIENT, "drip_headers": IMPATIENT, "endless_headers": IMPATIENT, "drip_body": PATIENT_AT_FIRST}


@pytest.mark.parametrize(
    ("kind", "options", "outcome", "reason"),
    [
        *(("status", {"status": s, "body": "{}"}, Outcome.DELIVERED, "taken") for s in (200, 202)),
        *(("status", {"status": s}, Outcome.RETRY, f"http_{s}") for s in (408, 425, 429, 500, 502, 503, 504, 520)),
        *(("status", {"status": s}, Outcome.REFUSED, f"http_{s}") for s in (400, 409, 413, 422)),
        *(("status", {"status": s}, Outcome.MISCONFIGURED, f"http_{s}") for s in (401, 403, 404, 405, 407)),
        *(("status", {"status": s, "body": "{}"}, Outcome.RETRY, "partial") for s in (206, 207)),
        ("status", {"status": 200, "body": {"errors": ["no such channel"]}}, Outcome.RETRY, "contradiction"),
        ("status", {"status": 202, "body": {"status": "error"}}, Outcome.RETRY, "contradiction"),
        *(("redirect", {"status": s}, Outcome.MISCONFIGURED, f"http_{s}") for s in (301, 302, 303, 307, 308)),
        ("redirect", {"location": "http://[broken"}, Outcome.MISCONFIGURED, "http_302"),
        ("html", {}, Outcome.RETRY, "html"),
        ("broken_json", {}, Outcome.RETRY, "not_json"),
        ("warnings", {}, Outcome.DELIVERED, "taken"),
        ("gzip_bomb", {}, Outcome.RETRY, "answer_cut"),
        ("timeout", {}, Outcome.RETRY, "timeout"),
        ("close", {}, Outcome.RETRY, "connection_lost"),
        ("reset", {}, Outcome.RETRY, "connection_lost"),
        ("cut", {}, Outcome.RETRY, "answer_cut"),
        ("cut", {"reset": True}, Outcome.RETRY, "answer_cut"),
        ("cut_headers", {}, Outcome.RETRY, "answer_cut"),
        ("endless_redirect", {}, Outcome.MISCONFIGURED, "http_302"),
        ("drip_headers", {}, Outcome.RETRY, "timeout"),
        ("drip_body", {}, Outcome.RETRY, "answer_cut"),
        ("drip_body", {"status": 400}, Outcome.REFUSED, "http_400"),
        ("drip_body", {"status": 401}, Outcome.MISCONFIGURED, "http_401"),
        ("endless_headers", {}, Outcome.RETRY, "timeout"),
        ("endless_body", {}, Outcome.RETRY, "answer_cut"),
        ("endless_body", {"status": 503}, Outcome.RETRY, "http_503"),
        ("interim", {}, Outcome.RETRY, "http_103"),
        ("two_lengths", {}, Outcome.RETRY, "not_http"),
        ("not_http", {}, Outcome.RETRY, "not_http"),
    ],
)
def test_each_way_of_answering_is_read_rightly_and_in_time(
    kind: str, options: dict[str, Any], outcome: Outcome, reason: str, client: Client, box: Sandbox
) -> None:
    box.fault(kind, **options)
    client.timeouts = WAITS.get(kind, client.timeouts)
    begun = time.monotonic()
    answer = client.send(call())
    assert (answer.outcome, answer.reason) == (outcome, reason)
    # Longer: what never ends was waited for.
    assert time.monotonic() - begun < client.timeouts.total + SOME_TIME
    assert len(box.received) == 1  # nothing is sent twice, and no redirect is followed
    # Whatever state that left the connection in, the next call does not suffer from it.
    client.timeouts = Timeouts()
    assert client.send(call()).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("kind", ["drip_headers", "drip_body"])
def test_a_slow_drip_is_cut_off_at_the_deadline_and_not_before(kind: str, client: Client, box: Sandbox) -> None:
    """Each byte comes well within the read timeout: only the deadline ends this."""
    box.fault(kind, every=0.01)
    client.timeouts = Timeouts(total=1.0)
    begun = time.monotonic()
    assert client.send(call()).outcome is Outcome.RETRY
    assert client.timeouts.total <= time.monotonic() - begun < SOME_TIME


def test_an_attempt_that_is_cut_off_within_the_headers_is_no_answer(client: Client, box: Sandbox) -> None:
    """`http.client` takes the end of a connection for the end of the headers: a status of 200 and nothing more."""
    box.fault("drip_headers", every=0.01)
    client.timeouts = Timeouts(total=0.5)
    answer = client.send(call())
    assert (answer.outcome, answer.status, answer.lost) == (Outcome.RETRY, None, True)


def test_a_deadline_of_one_attempt_does_not_shorten_the_next(client: Client, box: Sandbox) -> None:
    box.latency = 1.0  # three in a row are over the deadline
    client.timeouts = Timeouts(total=2.5)
    outcomes = [client.send(call()).outcome for _ in range(3)]
    assert outcomes == [Outcome.DELIVERED] * 3


@pytest.mark.parametrize(
    ("kind", "options", "lost"),
    [
        ("timeout", {}, True),
        ("close", {}, True),
        ("reset", {}, True),
        ("not_http", {}, True),
        ("interim", {}, True),
        ("status", {"status": 504}, True),
        ("status", {"status": 502}, True),
        ("status", {"status": 503}, False),
        ("status", {"status": 429}, False),
        ("status", {"status": 422}, False),
        ("warnings", {}, False),
    ],
)
def test_an_answer_says_whether_the_request_may_still_take_effect(
    kind: str, options: dict[str, Any], lost: bool, client: Client, box: Sandbox
) -> None:
    box.fault(kind, **options)
    client.timeouts = WAITS.get(kind, client.timeouts)
    assert client.send(call()).lost is lost


def test_the_answer_to_one_change_is_not_taken_for_the_answer_to_the_next(client: Client, box: Sandbox) -> None:
    """Seen otherwise: the last answer to the first comes late, and the second is taken that was refused."""
    box.fault("interim")
    box.fault("status", status=500)
    assert [client.send(call()).status for _ in range(2)] == [103, 500]


def test_what_could_not_connect_was_not_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        assert Client(f"http://127.0.0.1:{taken.getsockname()[1]}", "k").send(call()).lost is False


def test_a_taken_change_brings_its_trace_id(client: Client) -> None:
    answer = client.send(call())
    assert answer == Answer(outcome=Outcome.DELIVERED, reason="taken", status=204, trace_id="sandbox-1")


def test_a_wrong_key_is_a_wrong_set_up_and_goes_right_with_the_right_one(box: Sandbox, client: Client) -> None:
    other = Client(box.url, "not-the-key")
    answer = other.send(call())
    other.close()
    assert answer.outcome is Outcome.MISCONFIGURED
    assert answer.status == 401
    assert "EVENTS_API_KEY is not accepted" in answer.message
    assert client.send(call()).outcome is Outcome.DELIVERED


def test_a_refusal_names_the_key_that_was_wrong(client: Client) -> None:
    body = call().body.replace(b"plainTextEmail", b"plainTestEmail")
    answer = client.send(Call(method="POST", path=call().path, body=body))
    assert answer.outcome is Outcome.REFUSED
    assert "plainTestEmail is not a known key" in answer.message


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({"status": 429, "retry_after": 7}, 7, 7),
        ({"status": 503, "retry_after_date": 20}, 17, 20),
        ({"status": 503, "retry_after": 10**12}, 3600, 3600),
    ],
)
def test_retry_after_comes_through(
    options: dict[str, Any], least: float, most: float, client: Client, box: Sandbox
) -> None:
    box.fault("status", **options)
    assert least <= (client.send(call()).retry_after or -1) <= most


@pytest.mark.parametrize("status", [400, 401, 503])
def test_an_answer_that_repeats_the_address_does_not_get_it_into_the_message(
    status: int, client: Client, box: Sandbox
) -> None:
    box.fault("echo", status=status)
    answer = client.send(call("canary-4711@example.com"))
    assert "cannot take" in answer.message
    assert "canary" not in repr(answer)
    assert "example.com" not in repr(answer)


@pytest.mark.parametrize("kind", ["timeout", "reset", "not_http", "endless_headers"])
def test_no_failure_mentions_the_host_the_key_or_the_address(kind: str, client: Client, box: Sandbox) -> None:
    box.fault(kind)
    client.timeouts = WAITS.get(kind, client.timeouts)
    said = repr(client.send(call("canary-4711@example.com")))
    for secret in ("canary", "example.com", "127.0.0.1", "server-side-key"):
        assert secret not in said


def test_a_call_holds_no_address_in_its_repr() -> None:
    assert "jane" not in repr(call())


def test_calls_of_a_thread_share_one_connection_and_carry_the_documented_headers(
    client: Client, box: Sandbox, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    # An environment that would send us elsewhere, were it asked.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    box.fault("status", status=200, headers={"Set-Cookie": "tracked=1"}, body="{}")
    for _ in range(5):
        assert client.send(call()).outcome is Outcome.DELIVERED
    assert len(opened) == 1
    for arrival in box.received:
        assert arrival["headers"]["content-type"] == "application/json"
        assert arrival["headers"]["accept"] == "application/json"
        assert "cookie" not in arrival["headers"]


def test_a_connection_that_was_silent_for_long_is_not_trusted(
    client: Client, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    client.send(call())
    monkeypatch.setattr(client_module, "IDLE_LIMIT", 0.0)
    assert client.send(call()).outcome is Outcome.DELIVERED
    assert len(opened) == 2


def test_a_connection_that_was_closed_while_idle_costs_no_attempt(client: Client, box: Sandbox) -> None:
    box.fault("status", status=200, body="{}", headers={"Connection": "close"})
    assert [client.send(call()).outcome for _ in range(2)] == [Outcome.DELIVERED] * 2


def test_many_threads_send_at_once_and_everything_arrives_once(box: Sandbox) -> None:
    client = Client(box.url, "server-side-key")  # with its own timeouts: a busy machine is no fault of the client's
    addresses = [f"jane{number}@example.com" for number in range(400)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda address: client.send(call(address)), addresses))
    assert {answer.outcome for answer in answers} == {Outcome.DELIVERED}
    arrived = [body["events"][0]["properties"]["plainTextEmail"] for body in box.taken]
    # Bodies mixed up between threads would show as one address twice and another one missing.
    assert sorted(arrived) == sorted(addresses)
    client.close()


def test_nothing_listening_is_passing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        client = Client(f"http://127.0.0.1:{taken.getsockname()[1]}", "k")
        answer = client.send(call())
    assert (answer.outcome, answer.reason) == (Outcome.RETRY, "connection_refused")


def test_a_host_that_does_not_exist_is_passing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    answer = Client("https://nowhere.example", "k").send(call())
    assert (answer.outcome, answer.reason) == (Outcome.RETRY, "dns")


def test_what_connects_only_after_the_deadline_sends_nothing(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver knows no time limit of ours; meanwhile a newer change may have been sent."""
    client = Client(box.url, "server-side-key", timeouts=Timeouts(total=0.2))
    look_up = socket.getaddrinfo

    def slow(*args: Any, **more: Any) -> Any:
        time.sleep(0.4)
        return look_up(*args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    answer = client.send(call())
    client.close()
    assert (answer.outcome, answer.reason) == (Outcome.RETRY, "timeout")
    assert box.received == []


def test_a_bug_of_ours_is_an_answer_too(client: Client) -> None:
    answer = client.send(Call(method="POST", path="no slash", body=b"", private=(None,)))  # type: ignore[arg-type]
    assert answer.outcome is Outcome.RETRY
    assert answer.reason in ("unexpected", "dns")


def test_an_answer_up_to_the_limit_is_read(client: Client, box: Sandbox) -> None:
    box.fault("status", status=200, body='"' + "x" * (BODY_LIMIT - 2) + '"')
    box.fault("status", status=200, body='"' + "x" * (BODY_LIMIT - 1) + '"')
    assert [client.send(call()).reason for _ in range(2)] == ["taken", "answer_cut"]


def test_closing_leaves_no_socket_behind(box: Sandbox) -> None:
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # what other tests left open is theirs
    client = Client(box.url, "server-side-key")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: client.send(call()), range(20)))
    client.close()
    gc.collect()  # an open socket would warn here, and a warning is an error


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority.create(tmp_path_factory.mktemp("authority"))


def test_a_certificate_of_nobody_we_trust_is_not_talked_to(ca: Authority) -> None:
    with sandbox.running(tls=ca.tls()) as box:
        client = Client(box.url, "k")
        answer = client.send(call())
        client.close()
        assert (answer.outcome, answer.reason, answer.lost) == (Outcome.RETRY, "tls", False)
        assert box.received == []


def test_a_certificate_of_another_host_is_not_talked_to(ca: Authority) -> None:
    with sandbox.running(tls=ca.tls()) as box:
        client = Client(box.url.replace("127.0.0.1", "localhost"), "k", egress=Egress(ca_file=str(ca.ca_file)))
        answer = client.send(call())
        client.close()
        assert (answer.outcome, answer.reason) == (Outcome.RETRY, "tls")
        assert box.received == []


def test_tls_that_fails_while_the_answer_is_read_leaves_open_whether_the_request_was_taken(ca: Authority) -> None:
    def take_and_answer_nonsense(listener: socket.socket) -> bytes:
        plain, _ = listener.accept()
        with ca.tls().wrap_socket(plain, server_side=True) as encrypted:
            taken = encrypted.recv(65536)
            # Past TLS, as a broken middlebox does it: no record of it can be read.
            socket.socket.sendall(encrypted, b"HTTP/1.1 200 OK" * 100)
            time.sleep(0.5)
        return taken

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as other_side:
        taken = other_side.submit(take_and_answer_nonsense, listener)
        port = listener.getsockname()[1]
        client = Client(f"https://127.0.0.1:{port}", "k", egress=Egress(ca_file=str(ca.ca_file)))
        answer = client.send(call())
        client.close()
        assert taken.result(timeout=SOME_TIME).startswith(b"POST ")
    assert (answer.outcome, answer.reason, answer.lost) == (Outcome.RETRY, "tls", True)


def test_the_deadline_holds_inside_tls_too(ca: Authority) -> None:
    with sandbox.running(tls=ca.tls()) as box:
        client = Client(box.url, "k", egress=Egress(ca_file=str(ca.ca_file)))
        assert client.send(call()).outcome is Outcome.DELIVERED
        client.timeouts = Timeouts(total=1.0)
        for kind in ("drip_headers", "drip_body"):
            box.fault(kind, every=0.01)
            begun = time.monotonic()
            assert client.send(call()).outcome is Outcome.RETRY
            assert client.timeouts.total <= time.monotonic() - begun < SOME_TIME
        client.timeouts = Timeouts()
        assert client.send(call()).outcome is Outcome.DELIVERED
        client.close()


def test_a_tls_handshake_that_never_ends_does_not_hold_the_attempt() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        begun = time.monotonic()
        client = Client(f"https://127.0.0.1:{mute.getsockname()[1]}", "k", timeouts=Timeouts(connect=0.2, total=0.5))
        answer = client.send(call())
    assert (answer.outcome, answer.reason) == (Outcome.RETRY, "timeout")
    assert time.monotonic() - begun < SOME_TIME


def test_the_guard_of_deadlines_goes_on_after_an_error_that_nobody_expected_and_says_so(
    client: Client, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = TimedAttempt.cut_if_over
    failed: list[float] = []

    def fail_once(attempt: TimedAttempt, now: float) -> None:
        if not failed:
            failed.append(now)
            raise RuntimeError("jane@example.com")
        cut(attempt, now)

    monkeypatch.setattr(TimedAttempt, "cut_if_over", fail_once)
    box.fault("drip_headers", every=0.01)
    client.timeouts = Timeouts(total=0.5)
    with capture_logs(processors=[without_exception_text]) as logs:
        # For ever, were the guard gone.
        assert client.send(call()).reason == "timeout"
    assert [(line["event"], line["error"]) for line in logs] == [("deadline_guard_failed", "RuntimeError")]
    assert "test_client.py:" in logs[0]["place"]
