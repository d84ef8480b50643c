"""What Heroku's button sets up, and whether it boots as Heroku boots it."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from docs.builders.app_json import ASKED, OF_THE_SYSTEM
from tests.processes import (
    ROOT,
    Program,
    checkout,
    environment,
    free_port,
    running,
    wait_for_http,
    wait_until,
)
from tests.signing import SendGridSigner
from webhook_app.dev import sandbox
from webhook_app.dev.run import procfile
from webhook_app.settings import variables

GRACE = 30.0  # seconds from Heroku's SIGTERM to its SIGKILL

#: What Heroku's Python buildpack exports into every dyno (`vendor/python.gunicorn.sh`, `bin/compile`).
BUILDPACK = {
    "FORWARDED_ALLOW_IPS": "*",
    "GUNICORN_CMD_ARGS": "--access-logfile -",
    "PYTHONUNBUFFERED": "true",
    "LANG": "C.UTF-8",
    # Its Python lives on a shared library there. Here they name what the tests' own Python has anyway.
    "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib",
    "PYTHONHOME": sys.base_prefix,
    "DYNO_RAM": "512",
}


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "app.json").read_text("utf-8"))
    return document


def test_the_buttons_form_has_few_boxes(written: dict[str, Any]) -> None:
    assert list(written["env"]) == [*ASKED, *OF_THE_SYSTEM]
    assert written["env"].keys() - OF_THE_SYSTEM.keys() <= variables().keys()
    for name, variable in written["env"].items():
        assert variable["description"], name
        assert "`" not in variable["description"], "Heroku's form shows no Markdown"
    assert {name for name, variable in written["env"].items() if variable.get("required")} == {"EVENTS_API_KEY"}
    assert {name for name, variable in written["env"].items() if variable.get("generator")} == {
        "CONSOLE_PASSWORD",
        "SECRET_KEY",
    }
    # Heroku would start two, and with the worker exceed the 20 connections of the smallest database.
    assert written["env"]["WEB_CONCURRENCY"]["value"] == "1"


def test_what_it_starts_is_what_the_procfile_has(written: dict[str, Any]) -> None:
    processes = procfile(ROOT / "Procfile")
    assert written["formation"].keys() == processes.keys() - {"release"}
    assert {dyno["size"] for dyno in written["formation"].values()} == {"basic"}
    assert len(written["name"]) <= 30
    assert any(addon["plan"].startswith("heroku-postgresql") for addon in written["addons"])


# ---------------------------------------------------------------- a boot


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts processes of the Procfile by name, each in an environment as Heroku makes it."""
    processes = procfile(ROOT / "Procfile")
    checkout(tmp_path)
    with ExitStack() as programs:

        def start(name: str, **environ: str) -> Program:
            command = ["/bin/sh", "-c", f"exec {processes[name]}"]
            given = environment(**(BUILDPACK | {"DYNO": f"{name}.1"} | environ))
            return programs.enter_context(running(command, cwd=tmp_path, env=given, log=f"{name}.log"))

        yield start


def terminate_as_heroku_does(program: Program) -> tuple[int, float]:
    """Exit status and seconds. Heroku's SIGTERM goes to every process of a dyno at once."""
    began = time.monotonic()
    for pid in [program.process.pid, *program.descendants("")]:
        os.kill(pid, signal.SIGTERM)
    return program.process.wait(timeout=GRACE), time.monotonic() - began


@pytest.mark.slow
def test_it_boots_serves_and_ends_as_heroku_wants_it(
    stage: Callable[..., Program], new_postgres_database: Callable[[], str], sendgrid_signer: SendGridSigner
) -> None:
    port = free_port()
    with sandbox.running(api_key="server-side-key") as dynamic_yield:
        environ = {
            # As Heroku writes it.
            "DATABASE_URL": new_postgres_database().replace("postgresql://", "postgres://"),
            "PORT": str(port),
            "WEB_CONCURRENCY": "2",
            "EVENTS_API_KEY": "server-side-key",
            "EVENTS_API_URL": dynamic_yield.url,
            "SENDGRID_VERIFICATION_KEYS": sendgrid_signer.public_key,
        }
        release = stage("release", **environ)
        assert release.process.wait(timeout=60) == 0, release.output()
        web, worker = stage("web", **environ), stage("worker", **environ)
        wait_for_http(f"http://127.0.0.1:{port}/readyz")
        wait_until(lambda: len(web.descendants("gunicorn")) == 2, "WEB_CONCURRENCY is heeded")

        def post(email: str) -> None:
            body = json.dumps([{"email": email, "event": "unsubscribe", "timestamp": int(time.time())}]).encode()
            url = f"http://127.0.0.1:{port}/webhooks/sendgrid"
            answer = requests.post(url, data=body, headers=sendgrid_signer.headers(body), timeout=10)
            assert answer.status_code == 200, answer.text

        post("jane@example.com")
        wait_until(lambda: len(dynamic_yield.taken) == 1, "the opt-out has arrived")

        dynamic_yield.latency = 2.0
        post("max@example.com")
        wait_until(lambda: dynamic_yield.counts["arrived"] == 2, "the second one is under way")
        status, seconds = terminate_as_heroku_does(worker)
        assert (status, seconds < GRACE) == (0, True), worker.output()
        assert len(dynamic_yield.taken) == 2, "what was under way is finished"

        status, seconds = terminate_as_heroku_does(web)
        assert (status, seconds < GRACE) == (0, True), web.output()
        for program in (release, web, worker):
            assert "Traceback" not in program.output()
            assert "server-side-key" not in program.output()


URL_SECRET = "a-secret-that-stands-in-the-url"


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", ["", " --access-logformat '%(r)s %({x-api-key}i)s' --log-level debug --capture-output"]
)
def test_with_the_buildpacks_variables_every_line_is_json_and_no_secret_and_no_address_stands_in_any(
    more: str, stage: Callable[..., Program], new_postgres_database: Callable[[], str]
) -> None:
    url, canary = f"http://127.0.0.1:{(port := free_port())}", "canary@example.com"
    environ = {
        "DATABASE_URL": new_postgres_database(),
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "GUNICORN_CMD_ARGS": BUILDPACK["GUNICORN_CMD_ARGS"] + more,
        "EMARSYS_URL_SECRETS": URL_SECRET,
        "CONSOLE_PASSWORD": "a-password-for-people",
    }
    assert stage("release", **environ).process.wait(timeout=60) == 0
    web = stage("web", **environ)
    wait_for_http(f"{url}/readyz")
    event = {"email": canary, "external_id": canary, "optin": "2"}
    assert requests.post(f"{url}/webhooks/emarsys/{URL_SECRET}", json=event, timeout=30).status_code == 200
    paths = (
        f"/webhooks/emarsys/{URL_SECRET}?person={canary}",
        f"/webhooks/{canary}",
        f"/console/events?person={canary}",
        f"/{canary}?x={URL_SECRET}",
    )
    for path in paths:
        requests.get(url + path, headers={"X-Api-Key": URL_SECRET, "Referer": url + path}, timeout=30)
    for start in (b"GET /%s HTTP/9.9", b"GET /%s HTTP/1.1\r\nbroken header", b"G%sT / HTTP/1.1"):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(start % f"{canary}{URL_SECRET}".encode() + b"\r\n\r\n")
            while connection.recv(1000):
                pass
    assert terminate_as_heroku_does(web)[0] == 0
    for secret in (canary, URL_SECRET, "a-password-for-people"):
        assert secret not in web.output()
    for written in web.output().splitlines():
        assert json.loads(written)["event"], written


@pytest.mark.slow
@pytest.mark.parametrize("name", ["release", "web", "worker"])
def test_without_the_add_on_nothing_starts_and_one_line_says_what_to_do(
    name: str, stage: Callable[..., Program]
) -> None:
    program = stage(name, PORT=str(free_port()), EVENTS_API_KEY="server-side-key")
    assert program.process.wait(timeout=30) != 0
    assert "heroku addons:create heroku-postgresql" in program.output()
    assert "Traceback" not in program.output()
