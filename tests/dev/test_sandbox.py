"""The stand-in for Dynamic Yield: it believes nothing, remembers everything, and fails as ordered."""

import copy
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from webhook_app.dev import sandbox
from webhook_app.dev.sandbox import FAULTS, Sandbox
from webhook_app.dev.sandbox.page import BUTTONS
from webhook_app.dev.sandbox.wire import WireRequest

EVENTS = "/v2/collect/user/event"
OPT_OUT = "/v2/userdata/channels/email/opt-out"
KEY = "k"

EMAIL = {"dyType": "message-optout-v1", "cuidType": "email", "plainTextEmail": "jane@example.com"}
EXTERNAL = {"dyType": "message-optout-v1", "cuidType": "external", "externalId": "852456456"}
PUSH = {"dyType": "message-optout-v1", "pushID": "100"}


def web(**properties: Any) -> dict[str, Any]:
    return {"user": {}, "session": {}, "events": [{"name": "Opt-Out", "properties": properties}]}


def api(**properties: Any) -> dict[str, Any]:
    return {**web(**properties), "user": {"id": "john_123"}, "sessionId": "s"} | {"session": None}


def without(body: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != key}


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with sandbox.running(KEY) as box:
        yield box


def post(box: Sandbox, path: str, body: Any, **headers: str | None) -> requests.Response:
    named = {"DY-API-Key": KEY, "Accept": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return requests.post(box.url + path, json=body, headers=named, timeout=5)


@pytest.mark.parametrize("properties", [EMAIL, EXTERNAL, PUSH], ids=["email", "external", "push"])
def test_each_documented_body_is_taken(properties: dict[str, Any], box: Sandbox) -> None:
    for body in (web(**properties), without(api(**properties), "session")):
        answer = post(box, EVENTS, body)
        assert answer.status_code == 204, answer.text
        assert answer.headers["DY-Trace-ID"]
    assert box.counts == {"arrived": 2, "taken": 2, "refused": 0, "faults": 0}


def test_the_ids_and_the_consent_that_are_documented_are_taken(box: Sandbox) -> None:
    known = web(**PUSH) | {
        "user": {"dyid": "1", "dyid_server": "1", "active_consent_accepted": True},
        "session": {"dy": "s"},
    }
    assert post(box, EVENTS, known).status_code == 204


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "events is missing; session is missing; user is missing"),
        ([], "the body must be an object"),
        (web(**EMAIL) | {"extra": 1}, "extra is not a known key"),
        (web(**EMAIL) | {"user": {"id": "x"}}, "user.id is not a known key"),
        (web(**EMAIL) | {"user": {"dyid": ""}}, "user.dyid must be a text"),
        (web(**EMAIL) | {"user": {"active_consent_accepted": "true"}}, "user.active_consent_accepted must be True"),
        (web(**EMAIL) | {"session": {"id": "x"}}, "session.id is not a known key"),
        (without(web(**EMAIL), "session"), "session is missing"),
        (api(**EMAIL), "session is not a known key"),
        (web(**EMAIL) | {"events": web(**EMAIL)["events"] * 2}, "events must be a list of one event"),
        (web(**EMAIL) | {"events": [{"properties": EMAIL}]}, "events[0].name is missing"),
        # The typo of an example that goes round.
        (
            web(dyType="message-optout-v1", cuidType="email", plainTestEmail="jane@example.com"),
            "plainTestEmail is not a known key",
        ),
        (web(**EMAIL, externalId="852456456"), "it has externalId, plainTextEmail"),
        (web(dyType="message-optout-v1"), "it has none"),
        (web(**EMAIL | {"dyType": "message-opt-out"}), "dyType must be message-optout-v1 or message-optin-v1"),
        (web(**EMAIL | {"cuidType": "external"}), "cuidType must be email"),
        (web(**EMAIL | {"plainTextEmail": "9f86d081884c7d65"}), "plainTextEmail must be an email address"),
        (web(**EMAIL | {"plainTextEmail": " jane@example.com"}), "plainTextEmail must be an email address"),
        (web(**EXTERNAL | {"externalId": 852456456}), "externalId must be a text"),
        (web(**PUSH | {"pushID": ""}), "pushID must be a text"),
        (web(**PUSH, cuidType="push"), "cuidType is not a known key"),
        (web(**PUSH, channelType="WEB_PUSH"), "channelType is not a known key"),
        (web(**PUSH | {"dyType": "message-optin-v1"}), "channelType is missing"),
        (
            web(**PUSH | {"dyType": "message-optin-v1", "channelType": "EMAIL"}),
            "channelType must be APP_PUSH or WEB_PUSH",
        ),
    ],
)
def test_anything_else_is_refused_and_what_is_wrong_is_named(body: Any, named: str, box: Sandbox) -> None:
    answer = post(box, EVENTS, body)
    assert answer.status_code == 422
    assert named in answer.json()["message"]
    assert answer.json()["type"]
    assert box.taken == []


def test_the_dedicated_endpoints_are_as_strict(box: Sandbox) -> None:
    good = {"identifier": {"type": "email", "value": "jane@example.com"}, "associatedDevice": {"dyid": ""}}
    answer = post(box, OPT_OUT, good)
    assert (answer.status_code, answer.json()["error"]) == (202, None)
    assert answer.json()["dy_trace_id"] == answer.headers["DY-Trace-ID"]
    for path, value in [("identifier.value", ""), ("identifier.extra", "x"), ("associatedDevice.dyid", None)]:
        bad = copy.deepcopy(good)
        outer, inner = path.split(".")
        bad[outer][inner] = value  # type: ignore[assignment] # that is what is tried
        refused = post(box, OPT_OUT, bad)
        assert refused.status_code == 400
        assert path in refused.json()["error"]["message"]
        assert refused.json()["error"]["type"] == "E019"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (EVENTS, {"DY_API_Key": "another"}, 401),
        (EVENTS, {"DY_API_Key": None}, 401),
        (EVENTS, {"Content_Type": "text/plain"}, 400),
        (OPT_OUT, {"Accept": "*/*"}, 400),
        ("/v2/collect/user/events", {}, 404),
        ("/v2/userdata/channels/email/opt-sideways", {}, 404),
    ],
)
def test_key_type_and_path_are_checked(path: str, headers: dict[str, str | None], status: int, box: Sandbox) -> None:
    answer = post(box, path, web(**EMAIL), **headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.json() == {"error": "401"}


def test_other_methods_and_broken_json_are_refused(box: Sandbox) -> None:
    headers = {"DY-API-Key": KEY, "Content-Type": "application/json"}
    assert requests.get(box.url + EVENTS, headers=headers, timeout=5).status_code == 405
    assert requests.post(box.url + EVENTS, data=b"{", headers=headers, timeout=5).status_code == 400


def test_the_log_shows_what_arrived_newest_last_and_never_the_key(box: Sandbox) -> None:
    post(box, EVENTS, web(**EMAIL))
    post(box, EVENTS, web(**PUSH, cuidType="push"))
    box.fault("reset")
    with pytest.raises(requests.ConnectionError):
        post(box, EVENTS, web(**PUSH))
    log = requests.get(box.url + "/sandbox/received", timeout=5).json()
    assert log["counts"] == {"arrived": 3, "taken": 1, "refused": 1, "faults": 1}
    assert requests.get(box.url + "/sandbox/counts", timeout=5).json() == {"counts": log["counts"]}
    assert [one["became"] for one in log["received"]] == ["taken", "refused", "reset"]
    assert [one["number"] for one in log["received"]] == [1, 2, 3]
    assert log["received"][0]["body"] == web(**EMAIL)
    assert log["received"] == box.received
    assert "dy-api-key" not in str(log).lower()
    requests.delete(box.url + "/sandbox/received", timeout=5)
    assert box.received == []


def test_the_log_can_be_kept_in_a_file_that_survives(tmp_path: Path) -> None:
    with sandbox.running(log_file=tmp_path / "log.jsonl") as box:
        post(box, EVENTS, web(**EMAIL))
        lines = (tmp_path / "log.jsonl").read_text().splitlines()  # while it runs: a test may kill it
    assert [json.loads(line)["body"] for line in lines] == [web(**EMAIL)]


def test_the_log_in_memory_is_bounded() -> None:
    box = Sandbox(keep=3)
    for number in range(10):
        box.arrive(WireRequest("POST", EVENTS, {}, str(number).encode()))
    assert [one["body"] for one in box.received] == [7, 8, 9]
    assert box.counts["arrived"] == 10


def test_a_fault_lasts_as_many_requests_as_ordered_one_after_the_other(box: Sandbox) -> None:
    orders: list[dict[str, Any]] = [
        {"kind": "status", "status": 503, "times": 2, "retry_after": 4},
        {"kind": "warnings"},
    ]
    assert requests.post(box.url + "/sandbox/fault", json=orders, timeout=5).json()["faults"][0]["times"] == 2
    answers = [post(box, EVENTS, web(**EMAIL)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 200, 204]
    assert answers[0].headers["Retry-After"] == "4"


def test_orders_replace_and_cancel(box: Sandbox) -> None:
    box.fault("timeout", times=None)
    requests.put(box.url + "/sandbox/fault", json={"kind": "html", "times": None}, timeout=5)
    assert post(box, EVENTS, web(**EMAIL)).text.startswith("<!DOCTYPE")
    assert post(box, EVENTS, web(**EMAIL)).text.startswith("<!DOCTYPE")
    requests.delete(box.url + "/sandbox/fault", timeout=5)
    assert post(box, EVENTS, web(**EMAIL)).status_code == 204


@pytest.mark.parametrize(
    "wish", [{"kind": "earthquake"}, {"times": 3}, {"kind": "reset", "times": 0}, {"kind": "reset", "times": "x"}, [7]]
)
def test_an_order_that_cannot_be_understood_is_refused(wish: Any, box: Sandbox) -> None:
    assert requests.post(box.url + "/sandbox/fault", json=wish, timeout=5).status_code == 400
    assert post(box, EVENTS, web(**EMAIL)).status_code == 204


def test_every_answer_can_be_made_to_take_its_time(box: Sandbox) -> None:
    requests.post(box.url + "/sandbox/fault", json={"latency_ms": 120}, timeout=5)
    begun = time.monotonic()
    post(box, EVENTS, web(**EMAIL))
    assert 0.12 <= time.monotonic() - begun < 1


@pytest.mark.parametrize("kind", FAULTS)
def test_a_faulty_connection_does_not_disturb_the_others(kind: str, box: Sandbox) -> None:
    box.fault(kind)
    with socket.create_connection(("127.0.0.1", int(box.url.rpartition(":")[2]))) as victim:
        victim.sendall(f"POST {EVENTS} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
        while not box.counts["faults"]:
            time.sleep(0.005)
        assert post(box, EVENTS, web(**EMAIL)).status_code == 204


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000,
    ],
)
def test_what_is_not_a_request_ends_the_connection_and_nothing_else(sent: bytes, box: Sandbox) -> None:
    with socket.create_connection(("127.0.0.1", int(box.url.rpartition(":")[2])), timeout=5) as visitor:
        visitor.sendall(sent)
        try:
            while visitor.recv(4096):
                pass
        except ConnectionResetError:
            pass
    assert post(box, EVENTS, web(**EMAIL)).status_code == 204


def test_the_page_shows_what_came_in_and_runs_none_of_it(box: Sandbox) -> None:
    post(box, EVENTS, web(**EMAIL | {"plainTextEmail": "<script>alert(1)</script>@example.com"}))
    page = requests.get(box.url, timeout=5)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "&lt;script&gt;" in page.text
    assert "<script" not in page.text


def test_the_buttons_of_the_page_break_it_and_heal_it(box: Sandbox) -> None:
    for button in BUTTONS:
        page = requests.post(box.url, data={"fault": button.title, "times": "all"}, timeout=5)
        assert [fault["kind"] for fault in box.faults] == [button.kind]
        assert "Broken: " in page.text
    requests.post(box.url, data={"fault": "503", "times": "1"}, timeout=5)
    assert [post(box, EVENTS, web(**EMAIL)).status_code for _ in range(2)] == [503, 204]
    requests.post(box.url, data={"fault": "401", "times": "all"}, timeout=5)
    assert "All is well" in requests.post(box.url, data={"do": "heal"}, timeout=5).text
    assert "0 arrived" in requests.post(box.url, data={"do": "forget"}, timeout=5).text
    requests.post(box.url, data={"fault": "no such button", "do": "no such thing"}, timeout=5)
    assert box.faults == []


def test_served_by_itself_it_ends_cleanly_when_told_to() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"from webhook_app.dev import sandbox; sandbox.serve('127.0.0.1', {port}, api_key={KEY!r})"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    try:
        for _ in range(200):
            try:
                status = requests.post(f"http://127.0.0.1:{port}{EVENTS}", timeout=5).status_code
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        assert status == 401
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
