"""The app is stock Flask: what Flask documents works, and every error has the same form."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from flask import Flask, Response, abort, got_request_exception, request_finished, request_started
from werkzeug.exceptions import HTTPException

from webhook_app import web

MakeApp = Callable[..., Flask]


@pytest.fixture
def app() -> Flask:
    app = Flask("test", static_folder=None)
    web.configure(app)
    app.add_url_rule("/number", "number", lambda: {"id": web.current().id})
    app.add_url_rule("/busy", "busy", lambda: abort(429, retry_after=7))
    app.add_url_rule("/status/<int:status>", "status", lambda status: abort(status))
    return app


def test_every_http_error_is_json_with_its_own_status(app: Flask) -> None:
    client = app.test_client()
    for status in (400, 404, 413, 415, 500, 503):
        answer = client.get(f"/status/{status}")
        phrase = HTTPStatus(status).phrase.lower()
        assert (answer.status_code, answer.content_type) == (status, "application/json")
        assert set(answer.json or {}) == {"error"}
        assert status == 413 or answer.json == {"error": phrase}


def test_a_405_says_what_is_allowed_and_a_429_when_to_come_again(app: Flask) -> None:
    answer = app.test_client().post("/number")
    assert (answer.status_code, answer.json) == (405, {"error": "method not allowed"})
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert app.test_client().get("/busy").headers["Retry-After"] == "7"


def test_an_error_that_brings_its_own_response_keeps_it(app: Flask) -> None:
    def view() -> Response:
        raise HTTPException(response=Response("as it is", 418))

    app.add_url_rule("/own", "own", view)
    answer = app.test_client().get("/own")
    assert (answer.status_code, answer.text) == (418, "as it is")


@pytest.mark.parametrize("given", ["", "a" * 65, "jane@example.com", "x y"])
def test_a_request_has_an_id_of_ours_unless_it_brings_a_harmless_one(app: Flask, given: str) -> None:
    client = app.test_client()
    made = (client.get("/number", headers={"X-Request-ID": given}).json or {})["id"]
    assert len(made) == 32
    assert client.get("/number", headers={"X-Request-ID": "4bf92f3577b34da6"}).json == {"id": "4bf92f3577b34da6"}


def test_signals_hooks_and_teardowns_run_as_flask_documents_them(make_app: MakeApp) -> None:
    app, seen = make_app(), []

    def note(name: str) -> Callable[..., Any]:
        def called(*arguments: Any, **_: Any) -> Any:
            seen.append(name)
            return arguments[0] if name == "after" else None

        return called

    app.before_request(note("before"))
    app.after_request(note("after"))
    app.teardown_request(note("teardown"))
    listeners = [note("started"), note("finished"), note("exception")]
    signals = (request_started, request_finished, got_request_exception)
    for signal, listener in zip(signals, listeners, strict=True):
        signal.connect(listener, app)
    assert app.test_client().get("/healthz").status_code == 200
    assert seen == ["started", "before", "after", "finished", "teardown"]


def test_a_host_that_is_not_trusted_is_refused_where_flask_is_told_so(make_app: MakeApp) -> None:
    app = make_app()
    app.config["TRUSTED_HOSTS"] = ["hooks.example.net"]
    client = app.test_client()
    assert client.get("/healthz", base_url="https://hooks.example.net").status_code == 200
    assert client.get("/healthz", base_url="https://evil.example").status_code == 400
