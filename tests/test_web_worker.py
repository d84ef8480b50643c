"""The contract with the installed gunicorn: what our worker class leans on is there, and does what we think it does."""

import inspect
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from gunicorn.http.body import Body
from gunicorn.workers.gthread import TConn, ThreadWorker
from structlog.testing import capture_logs

from tests.processes import environment, find, free_port, running, wait_for_http
from webhook_app.ops.logs import without_exception_text
from webhook_app.web_worker import SlowlorisGuard, TimedReader, Worker, has_more, same_type_without_text

#: The app answers with the length of what it read, or with 408; `/slow` takes its time for that.
APP = """
import time
from webhook_app import web_worker

web_worker.READ_WITHIN = 1.0

def app(environ, start_response):
    try:
        body = environ["wsgi.input"].read()
    except TimeoutError:
        start_response("408 Request Timeout", [("Content-Length", "0")])
        return []
    if environ["PATH_INFO"] == "/slow":
        time.sleep(4)
    answer = str(len(body)).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
"""


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("init_process", ["self"]),
        ("handle", ["self", "conn"]),
        ("handle_request", ["self", "req", "conn"]),
        ("handle_error", ["self", "req", "client", "addr", "exc"]),
    ],
)
def test_gunicorn_calls_what_we_override_as_we_expect(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(ThreadWorker, name)).parameters) == parameters
    assert list(inspect.signature(getattr(Worker, name)).parameters) == parameters


def test_a_connection_has_its_socket_and_a_body_its_reader_and_the_worker_counts_connections() -> None:
    assert "self.sock = sock" in inspect.getsource(TConn)
    assert "self.nr_conns += 1" in inspect.getsource(ThreadWorker.accept)
    assert Body("the reader").reader == "the reader"


class Fails:
    @property
    def sock(self) -> None:
        raise RuntimeError("nobody expected this")


def test_the_guard_outlives_an_error_nobody_expected_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook_app.web_worker.READ_WITHIN", -1.0)
    ours, theirs = socket.socketpair()
    guard = SlowlorisGuard()
    with capture_logs(processors=[without_exception_text]) as lines, ours, theirs:
        with guard.watching(Fails()):
            guard.start()
            while not lines:
                time.sleep(0.05)
        with guard.watching(type("Connection", (), {"sock": ours})) as reading:
            ours.settimeout(30)
            # The end of the stream, which only the guard can have brought about.
            assert ours.recv(1) == b""
        assert reading.timed_out
    assert "test_web_worker.py:" in lines[0].pop("place")
    assert lines[0] == {"event": "slowloris_guard_failed", "error": "RuntimeError", "log_level": "error"}


@pytest.mark.parametrize("ends_with", [b"", ValueError("malformed chunk")])
def test_the_end_of_a_body_that_the_guard_has_ended_is_a_timeout(ends_with: bytes | Exception) -> None:
    pieces = iter([b"half", ends_with, ends_with])

    class Source:
        def read(self, size: int) -> bytes:
            piece = next(pieces)
            if isinstance(piece, Exception):
                raise piece
            return piece

    with SlowlorisGuard().watching(None) as reading:
        reader = TimedReader(Source(), reading)
        assert reader.read(10) == b"half"
        if isinstance(ends_with, bytes):
            assert reader.read(10) == b""
        else:
            with pytest.raises(ValueError, match="malformed"):
                reader.read(10)
        reading.timed_out = True
        with pytest.raises(TimeoutError):
            reader.read(10)


def test_an_error_loses_its_text_and_keeps_its_type() -> None:
    bare = same_type_without_text(UnicodeDecodeError("utf-8", b"secret", 0, 1, "secret"))
    assert isinstance(bare, UnicodeDecodeError)
    assert str(bare) == "UnicodeDecodeError"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("worker")
    (folder / "small.py").write_text(APP)
    (folder / "webhook_app").symlink_to(Path(__file__).parents[1] / "webhook_app")
    port = free_port()
    command = [find("gunicorn"), "--worker-class", "webhook_app.web_worker.Worker", "--threads", "4"]
    command += ["--bind", f"127.0.0.1:{port}", "--no-control-socket", "--config", "/dev/null", "small:app"]
    with running(command, cwd=folder, env=environment()):
        wait_for_http(f"http://127.0.0.1:{port}/")
        yield port


def status(port: int, *parts: bytes) -> int:
    """What is answered where these parts are sent, a fifth of a second apart, and then nothing more."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
            threading.Event().wait(0.2)
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", connection.recv(65536))
    return int(found[1]) if found else 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", b"ab", b"cd"], 200),
        # Whole, and only the answer takes longer than a request may take to come.
        ([b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd"], 200),
        ([b"POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"], 200),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabc"], 408),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"], 408),
        ([b"POST / HTTP/1.1\r\nHost: a\r\n"], 408),
    ],
)
def test_late_is_408_and_whole_is_taken_however_long_its_answer_takes(
    port: int, parts: list[bytes], expected: int
) -> None:
    assert status(port, *parts) == expected


def ask(connection: socket.socket) -> int:
    """The status of the answer to one more request on a connection."""
    connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd")
    received = b""
    while not received.endswith(b"\r\n\r\n4"):  # how much it has read
        piece = connection.recv(65536)
        assert piece
        received += piece
    return int(received.split()[1])


@pytest.mark.parametrize(
    ("connections", "pause"),
    [
        (1, 0.0),  # its thread stays
        (1, 0.05),  # and has gone by then
        (4, 0.0),
        (12, 0.0),  # more than threads: nobody stays
    ],
)
def test_every_request_of_a_kept_connection_is_answered(port: int, connections: int, pause: float) -> None:
    def talk(_: int) -> list[int]:
        answers = []
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            for _ in range(50):
                answers.append(ask(connection))
                time.sleep(pause)
        return answers

    with ThreadPoolExecutor(connections) as pool:
        assert set(pool.map(tuple, pool.map(talk, range(connections)))) == {(200,) * 50}


def test_as_many_kept_connections_as_threads_keep_nobody_out(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            kept = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            assert ask(kept) == 200
        assert status(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd") == 200


@pytest.mark.parametrize(("said", "expected"), [(b"POST", True), (b"", False)])
def test_a_thread_stays_only_for_what_comes_at_once(said: bytes, expected: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        assert has_more(ours) is expected
        theirs.close()
        assert has_more(ours)  # its end: gunicorn closes it, too
