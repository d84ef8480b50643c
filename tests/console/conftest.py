"""The console with something in it: delivered, dead, waiting and quarantined."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from werkzeug.serving import make_server

from tests import browser as chromium
from tests.console.person import PASSWORD, Person
from tests.outbox.world import give_all_up, send_all
from tests.signing import SendGridSigner
from webhook_app.outbox import Queue

MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp, sendgrid_signer: SendGridSigner) -> Flask:
    app = make_app(CONSOLE_PASSWORD=PASSWORD)
    app.extensions["signer"] = sendgrid_signer
    return app


@pytest.fixture
def post(app: Flask, sendgrid_signer: SendGridSigner) -> Callable[..., None]:
    """Hands in what SendGrid sends."""

    def send(*batch: dict[str, Any], state: str = "") -> None:
        body = json.dumps(batch).encode()
        answer = app.test_client().post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
        assert answer.status_code == 200
        if state:
            if state == "delivered":
                send_all(Queue(app.extensions["database"]))
            else:
                give_all_up(app.extensions["database"], "http 422")

    return send


@pytest.fixture
def person(app: Flask) -> Person:
    """Someone who knows the password, at a browser without scripts."""
    client: FlaskClient = app.test_client()
    person = Person(client)
    assert person.log_in().status_code == 303
    return person


@pytest.fixture(scope="session")
def real_browser() -> Iterator[Browser]:
    path = chromium.find()
    if path is None:
        pytest.fail(chromium.MISSING, pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(chromium.ARGUMENTS))
        yield browser
        browser.close()


class Server:
    """The app behind a real port, which it keeps when it is stopped and started again."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server = make_server("127.0.0.1", self._port, self._app, threaded=True)
        self._port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server(app: Flask) -> Iterator[Server]:
    server = Server(app)
    yield server
    server.stop()


@pytest.fixture
def served(server: Server) -> str:
    """Where the app is served."""
    return server.address


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of: blocked by the policy, broken scripts, requests to anybody else."""
    return []


@pytest.fixture
def context(real_browser: Browser) -> Iterator[BrowserContext]:
    context = real_browser.new_context()
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, served: str, complaints: list[str]) -> Iterator[Page]:
    """A browser in front of the console, not logged in yet."""
    page = context.new_page()

    def watch(address: str) -> None:
        if not address.startswith((served, "data:")):
            complaints.append(f"asked somebody else: {address}")

    page.on("request", lambda request: watch(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(f"{served}/")
    yield page
    assert complaints == []
