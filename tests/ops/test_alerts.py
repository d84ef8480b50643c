"""Who is told when something breaks, and nobody twice; over a real HTTP receiver and a real SMTP server."""

import fcntl
import json
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import insert

from tests.outbox.world import Clock
from tests.processes import checkout, environment, find, free_port, running, wait_for_http, wait_until
from webhook_app.egress import DIRECT, Egress
from webhook_app.ops import alerts
from webhook_app.ops.alerts import (
    CannotSend,
    DatabaseOutage,
    Message,
    Notifier,
    look_once,
    send,
    watching,
)
from webhook_app.ops.status import Finding, Severity
from webhook_app.outbox import Database, open_database, schema
from webhook_app.outbox.alerts import RETRY_AFTER, TRIES, WELL_FOR, Alerts
from webhook_app.outbox.engines import sqlite
from webhook_app.outbox.tables import alerts as alerts_table

DEAD = Finding(slug="dead", severity=Severity.ERROR, sentence="3 changes were given up", mend="replay them")
NO_WORKER = Finding(slug="no_worker", severity=Severity.CRITICAL, sentence="no live worker", mend="start one")
PAUSED = Finding(slug="paused", severity=Severity.CRITICAL, sentence="the destination is paused", mend="mend the key")


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Watch:
    """A worker's look at what is wrong, without its thread."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.alerts, self.clock = Alerts(database, clock=clock), clock
        self.notifier = Notifier(self._tell, places=2, name="shop")
        self.outage = DatabaseOutage(self.notifier, self.alerts, clock=clock)
        self.told: list[Message] = []
        self.unreachable: list[int] = []
        self.broken = False

    def look(self, *findings: Finding, after: float = 15.0) -> list[str]:
        """The titles that were sent."""
        self.clock.go(after)
        before = len(self.told)
        look_once(self.alerts, lambda: findings, self.notifier, self.outage)
        return [one.title for one in self.told[before:]]

    def _tell(self, message: Message) -> list[int]:
        if self.broken:
            raise CannotSend("the process that sends alerts ended with status 127")
        if len(self.unreachable) < 2:
            self.told.append(message)
        return self.unreachable


@pytest.fixture
def watch(database: Database, clock: Clock) -> Watch:
    return Watch(database, clock)


def test_what_begins_to_be_wrong_is_told_once(watch: Watch) -> None:
    assert watch.look() == []
    assert watch.look(DEAD) == ["shop: 1 thing is wrong"]
    assert watch.told[0].body == "✕ 3 changes were given up (replay them)"
    assert [watch.look(DEAD) for _ in range(20)] == [[]] * 20


def test_all_is_well_again_is_told_when_it_has_been_for_a_minute(watch: Watch) -> None:
    watch.look(DEAD, PAUSED)
    assert watch.look(DEAD) == []
    assert watch.look(DEAD, after=WELL_FOR) == ["shop: better, not all is well yet"]
    assert watch.look() == []
    assert watch.look(after=WELL_FOR) == ["shop: all is well again"]
    assert watch.look(after=WELL_FOR) == []


def test_what_comes_and_goes_within_a_minute_is_told_once(watch: Watch) -> None:
    assert watch.look(PAUSED) == ["shop: 1 thing is wrong"]
    assert [watch.look(*([PAUSED] if number % 2 else [])) for number in range(20)] == [[]] * 20


def test_what_was_over_and_is_wrong_again_is_told_again(watch: Watch) -> None:
    watch.look(PAUSED)
    watch.look(after=WELL_FOR + 15)
    assert watch.look(PAUSED) == ["shop: 1 thing is wrong"]


def test_of_two_workers_one_tells(database: Database, clock: Clock) -> None:
    one, other = Watch(database, clock), Watch(database, clock)
    assert len(one.look(DEAD)) + len(other.look(DEAD)) + len(one.look(DEAD)) == 1


def test_an_address_that_cannot_be_reached_is_tried_again_and_not_for_ever(watch: Watch) -> None:
    watch.unreachable = [1, 2]
    assert watch.look(DEAD) == []
    watch.unreachable = []
    assert watch.look(DEAD) == []  # not at once
    assert watch.look(DEAD, after=RETRY_AFTER) == ["shop: 1 thing is wrong"]

    watch.unreachable = [1, 2]
    for _ in range(TRIES):
        watch.look(DEAD, PAUSED, after=RETRY_AFTER)
    watch.unreachable = []
    assert watch.look(DEAD, PAUSED, after=RETRY_AFTER) == []


def test_an_address_that_never_works_costs_the_others_neither_peace_nor_the_good_news(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch.unreachable = [2]
    assert watch.look(DEAD) == ["shop: 1 thing is wrong"]
    assert [watch.look(DEAD, after=RETRY_AFTER) for _ in range(TRIES)] == [[]] * TRIES
    assert watch.look(after=WELL_FOR + 15) == ["shop: all is well again"]
    assert [watch.look(after=RETRY_AFTER) for _ in range(TRIES)] == [[]] * TRIES
    assert capsys.readouterr().out.count("alert_not_sent") == 2


def test_a_worker_that_is_only_restarted_is_no_alert_and_a_dead_one_is(watch: Watch) -> None:
    assert watch.look(NO_WORKER) == []
    assert [watch.look(NO_WORKER), watch.look(), watch.look(after=WELL_FOR), watch.look(after=300)] == [[]] * 4
    assert [watch.look(NO_WORKER) for _ in range(8)] == [[]] * 8
    assert watch.look(NO_WORKER) == ["shop: 1 thing is wrong"]
    assert watch.look(after=WELL_FOR + 15) == ["shop: all is well again"]


def test_what_is_over_when_it_would_have_been_told_is_no_alert(watch: Watch) -> None:
    assert [watch.look(NO_WORKER) for _ in range(7)] == [[]] * 7  # for 90 seconds
    assert [watch.look() for _ in range(8)] == [[]] * 8


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody else holds what the alerts are written to."""
    if url.startswith("sqlite"):
        with Path(f"{url.removeprefix('sqlite:///')}.lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    else:
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE alerts IN ACCESS EXCLUSIVE MODE")
            yield


def test_a_database_that_is_locked_for_two_minutes_is_told_once_and_so_is_its_end(
    watch: Watch, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.1)
    assert watch.look() == []
    with locked(database_url):
        assert watch.look() == []
        assert watch.look(after=120) == ["shop: 1 thing is wrong"]
        assert "the database cannot be used" in watch.told[0].body
        assert watch.look(after=300) == []
    assert watch.look() == []
    assert watch.look(after=WELL_FOR) == ["shop: all is well again"]
    assert "over: the database cannot be used" in watch.told[1].body
    assert watch.look(after=WELL_FOR) == []


def test_a_database_that_is_locked_for_a_moment_is_no_alert(
    watch: Watch, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.1)
    with locked(database_url):
        assert watch.look() == []
    assert [watch.look(after=200), watch.look(after=200)] == [[], []]


# ---------------------------------------------------------------- over the wire


@pytest.fixture
def http_receiver() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Its port, and what it was sent."""
    received: list[dict[str, Any]] = []
    held = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append(said | {"authorization": self.headers["Authorization"]})
            if self.path == "/slow":
                held.wait(30)
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, received
        held.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def smtp_server() -> Iterator[tuple[int, list[str]]]:
    """Its port, and the letters it took."""
    letters: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 mail.example\r\n")
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    letter = b""
                    while (line := self.rfile.readline()) != b".\r\n":
                        letter += line
                    letters.append(letter.decode())
                self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], letters
        server.shutdown()
        thread.join()


TEST = Message(title="shop: a test", body="Nothing is wrong.")


def test_an_alert_arrives_over_http_and_by_mail(
    http_receiver: tuple[int, list[dict[str, Any]]], smtp_server: tuple[int, list[str]]
) -> None:
    (port, received), (smtp_port, letters) = http_receiver, smtp_server
    urls = [
        f"json://127.0.0.1:{port}/hook",
        f"mailto://127.0.0.1:{smtp_port}/?mode=insecure&from=shop@example.com&to=ops@example.com",
    ]
    assert send(urls, DIRECT, TEST, withheld=()) == []
    assert (received[0]["title"], received[0]["message"]) == ("shop: a test", "Nothing is wrong.")
    assert "Subject: shop: a test" in letters[0]


def test_the_places_of_addresses_that_did_not_take_it_are_told(
    http_receiver: tuple[int, list[dict[str, Any]]],
) -> None:
    port = http_receiver[0]
    urls = [
        f"json://127.0.0.1:{port}/broken",
        f"json://127.0.0.1:{port}/hook",
        f"json://127.0.0.1:{free_port()}/",
        "nosuch://x",
    ]
    assert send(urls, DIRECT, TEST, withheld=()) == [1, 3, 4]
    assert send(urls, DIRECT, None, withheld=()) == [4]


def test_an_address_that_takes_too_long_does_not_hide_whom_the_alert_has_reached(
    http_receiver: tuple[int, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = http_receiver[0]
    monkeypatch.setattr(alerts, "SEND_TIMEOUT", 8.0)
    urls = [f"json://127.0.0.1:{port}/hook", f"json://127.0.0.1:{port}/slow?rto=30"]
    assert send(urls, DIRECT, TEST, withheld=()) == [2]


def a_python(directory: Path, script: str) -> str:
    """A wrapper of Python, as `sys.executable`."""
    wrapper = directory / "python"
    wrapper.write_text(f"#!/bin/sh\n{script}\n")
    wrapper.chmod(0o700)
    return str(wrapper)


def test_an_alert_leaves_where_python_needs_a_variable_to_start(
    http_receiver: tuple[int, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on Heroku: without LD_LIBRARY_PATH the loader finds no libpython, and ends with 127.
    python = a_python(tmp_path, f'test -n "$LD_LIBRARY_PATH" || exit 127\nexec {sys.executable} "$@"')
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert send([f"json://127.0.0.1:{http_receiver[0]}/hook"], DIRECT, TEST, withheld=()) == []


def test_the_process_that_sends_is_told_no_secret_and_nothing_of_others_proxies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = a_python(tmp_path, f'env > {tmp_path}/env\nexec {sys.executable} "$@"')
    monkeypatch.setattr(sys, "executable", python)
    others = ("https_proxy", "ALL_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
    ours = ("DATABASE_URL", "EVENTS_API_KEY", "ALERT_URLS", "BRAZE_TOKENS", "EMARSYS_TOKENS")
    for name in (*others, *ours):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    send(["nosuch://x"], Egress(proxy="http://127.0.0.1:1"), None, withheld=ours)
    told = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert "canary" not in told.values()
    assert (told["PYTHONHASHSEED"], told["HTTPS_PROXY"]) == ("0", "http://127.0.0.1:1")


def test_a_netrc_says_nothing_to_an_alerts_address(
    http_receiver: tuple[int, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    port, received = http_receiver
    assert send([f"json://127.0.0.1:{port}/authorization"], DIRECT, TEST, withheld=()) == []
    assert received[0]["authorization"] is None


def test_a_process_that_cannot_send_is_told_as_such_and_the_alert_stays_due(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", a_python(tmp_path, "exit 127"))
    with pytest.raises(CannotSend, match="ended with status 127"):
        send(["json://alerts.example/hook"], DIRECT, TEST, withheld=())
    assert "alert_process_failed" in capsys.readouterr().out

    watch.broken = True
    assert watch.look(DEAD) == []
    assert "ended with status 127" in capsys.readouterr().out
    watch.broken = False
    assert watch.look(DEAD, after=RETRY_AFTER) == ["shop: 1 thing is wrong"]


def test_an_alert_leaves_through_the_proxy(http_receiver: tuple[int, list[dict[str, Any]]], tmp_path: Path) -> None:
    # Plain HTTP through a proxy is a request to the proxy itself: it is there that the alert arrives.
    port, received = http_receiver
    assert send(["json://alerts.example/hook"], Egress(proxy=f"http://127.0.0.1:{port}"), TEST, withheld=()) == []
    assert received[0]["title"] == "shop: a test"


def test_a_database_that_is_gone_is_told_over_http_by_the_thread(
    http_receiver: tuple[int, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, received = http_receiver
    monkeypatch.setattr(alerts, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(alerts, "WELL_FOR", 0.5)
    monkeypatch.setattr(alerts, "NOTIFY_AFTER", {"database": 0.5})
    path = tmp_path / "outbox.db"
    database = open_database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.close()
    path.rename(tmp_path / "away.db")
    path.mkdir()
    tell = partial(send, [f"json://127.0.0.1:{port}/hook"], DIRECT, withheld=())
    with watching(Alerts(database), list, Notifier(tell, places=1, name="shop")):
        wait_until(lambda: len(received) == 1, "somebody is told")
        path.rmdir()
        (tmp_path / "away.db").rename(path)
        wait_until(lambda: len(received) == 2, "and that it is over")
    assert received[0]["message"].startswith("✕ the database cannot be used")
    assert received[1]["message"].startswith("✓ over: the database cannot be used")
    database.close()


@pytest.mark.slow
def test_a_web_process_tells_that_no_worker_lives(
    http_receiver: tuple[int, list[dict[str, Any]]], database: Database, database_url: str, tmp_path: Path
) -> None:
    port, received = http_receiver
    # As long ago as it takes to be told.
    with database.write() as connection:
        row = {"slug": "no_worker", "text": NO_WORKER.text(), "well": False, "tries": 0, "due_at": 0}
        connection.execute(insert(alerts_table), row | {"seen_at": int(time.time() * 1e6)})
    given = environment(
        DATABASE_URL=database_url,
        PORT=str(web := free_port()),
        WEB_CONCURRENCY="2",
        ALERT_URLS=f"json://127.0.0.1:{port}/hook",
    )
    with running([find("gunicorn")], cwd=checkout(tmp_path), env=given) as gunicorn:
        wait_for_http(f"http://127.0.0.1:{web}/healthz")
        wait_until(lambda: received, "somebody is told")
        assert gunicorn.stop() == 0
        assert "Traceback" not in gunicorn.output()
    (told,) = received
    assert "no live worker" in told["message"]
