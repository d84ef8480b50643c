"""What `web.Application` leaves out of Flask is left out only where nobody asked for it."""

from collections.abc import Callable

import pytest
from flask import Blueprint, Flask, Response, after_this_request
from flask.testing import FlaskClient

from webhook_app import web

AfterRequest = Callable[[Response], Response]


@pytest.fixture
def app() -> Flask:
    app = web.Application("test", static_folder=None)
    plain = Blueprint("plain", __name__)
    guarded = Blueprint("guarded", __name__)
    for blueprint in (plain, guarded):
        blueprint.add_url_rule(f"/{blueprint.name}", "view", lambda: web.answer({"said": "by the view"}))
    plain.add_url_rule("/plain/<name>", "named", lambda name: web.answer({"name": name}))
    guarded.before_request(lambda: ("no entry", 403))
    app.register_blueprint(plain)
    app.register_blueprint(guarded)
    app.after_request(_finish)
    return app


def _finish(response: web.Answer) -> web.Answer:
    response.headers["X-Finished"] = "yes"
    return response


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def test_a_hook_of_one_part_guards_that_part_and_no_other(client: FlaskClient) -> None:
    assert client.get("/guarded").status_code == 403
    assert client.get("/plain").json == {"said": "by the view"}


@pytest.mark.parametrize("path", ["/plain", "/guarded", "/nowhere"])
def test_a_hook_of_the_whole_app_guards_everything(app: Flask, path: str) -> None:
    app.before_request(lambda: ("no entry", 403))
    assert app.test_client().get(path).status_code == 403


@pytest.mark.parametrize("path", ["/plain", "/guarded", "/nowhere"])
def test_every_answer_is_finished(client: FlaskClient, path: str) -> None:
    assert client.get(path).headers["X-Finished"] == "yes"


def test_answers_are_finished_in_flasks_order(app: Flask) -> None:
    order: list[str] = []

    def note(name: str) -> AfterRequest:
        def finish(response: Response) -> Response:
            order.append(name)
            return response

        return finish

    app.after_request(note("second"))
    app.after_request(note("first"))
    app.add_url_rule("/asks", "asks", lambda: after_this_request(note("the view's own")) and web.answer({}))
    assert app.test_client().get("/asks").headers["X-Finished"] == "yes"
    assert order == ["the view's own", "first", "second"]


def test_what_is_to_be_done_when_a_request_ends_is_done(app: Flask) -> None:
    ended: list[str] = []
    app.teardown_request(lambda _: ended.append("request"))
    app.teardown_appcontext(lambda _: ended.append("app"))
    app.test_client().get("/plain")
    assert ended == ["request", "app"]


def test_a_path_that_is_known_still_heeds_the_method_and_a_variable_one_its_part(client: FlaskClient) -> None:
    for _ in range(2):
        assert client.get("/plain").status_code == 200
        assert client.post("/plain").status_code == 405
        assert client.get("/plain/").status_code == 404
        assert client.get("/plain/one").json == {"name": "one"}
        assert client.get("/plain/two").json == {"name": "two"}
