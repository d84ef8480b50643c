"""`make tunnel`, with a stand-in for ngrok whose tunnel really leads to the receiver."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from tests.processes import Program, checkout, environment, free_port, running, wait_for_http, wait_until
from tests.signing import SendGridSigner

FAKE = Path(__file__).parents[1] / "fake_ngrok.py"
ROOT = FAKE.parent.parent


@pytest.fixture
def with_ngrok(tmp_path: Path) -> str:
    """A PATH on which there is an ngrok."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ngrok"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{environment()['PATH']}"


@pytest.fixture
def tunnel(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    running_now = []

    def start(**environ: str) -> Program:
        context = running(
            [sys.executable, "-m", "webhook_app.dev.tunnel"],
            cwd=checkout(tmp_path),
            env=environment(HTTP_PROXY="http://127.0.0.1:1", **environ),
        )
        running_now.append(context)
        return context.__enter__()

    yield start
    for context in running_now:
        context.__exit__(None, None, None)


def test_without_ngrok_one_line_says_how_to_get_it(tunnel: Callable[..., Program]) -> None:
    program = tunnel(PATH="/usr/bin:/bin")
    assert program.process.wait(timeout=30) == 1
    (line,) = program.output().splitlines()
    assert "ngrok is not installed: get it from https://ngrok.com/download" in line


def test_without_a_token_ngroks_own_reason_is_said(tunnel: Callable[..., Program], with_ngrok: str) -> None:
    program = tunnel(PATH=with_ngrok, PORT=str(free_port()))
    assert program.process.wait(timeout=30) == 1
    assert "ngrok has ended: authentication failed" in program.output()
    assert "is NGROK_AUTHTOKEN set?" in program.output()
    assert "Traceback" not in program.output()


@pytest.mark.slow
def test_a_webhook_comes_in_through_the_tunnel_and_ends_at_dynamic_yield(
    tunnel: Callable[..., Program], with_ngrok: str, tmp_path: Path
) -> None:
    port = str(free_port())
    product = tmp_path / "product"
    product.mkdir()
    make_run = [sys.executable, "-m", "webhook_app.dev.run"]
    with running(make_run, cwd=checkout(product), env=environment(PORT=port)) as receiver:
        wait_for_http(f"http://127.0.0.1:{port}/readyz")
        # The tunnel is opened in the same folder: it knows the made-up secrets.
        (tmp_path / "instance").symlink_to(product / "instance")
        program = tunnel(PATH=with_ngrok, PORT=port, NGROK_AUTHTOKEN="token")
        program.wait_for("try it")
        printed = program.output()
        found = re.search(r"SendGrid\s+(\S+)/webhooks/sendgrid", printed)
        assert found, printed
        assert f"Emarsys        {found[1]}/webhooks/emarsys" in printed, "open providers are listed"
        assert "mailgun" not in printed, "closed ones are not"
        assert f"flask simulate sendgrid --url {found[1]}" in printed
        assert "nothing listens" not in printed

        simulate = ["flask", "simulate", "sendgrid", "--url", found[1], "--count", "1"]
        with running(simulate, cwd=product, env=environment(), log="simulate") as simulation:
            assert simulation.process.wait(timeout=30) == 0, simulation.output()
        wait_until(lambda: "outcome=delivered" in receiver.output(), "the opt-out has arrived")
        (ngrok,) = program.descendants("fake_ngrok.py")
        assert program.stop() == 0
        wait_until(lambda: not Path(f"/proc/{ngrok}").exists(), "ngrok ends with us")


def test_the_makefile_has_it() -> None:
    assert "python -m webhook_app.dev.tunnel" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "hooks.example.com", "X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "evil.example.com", "X-Forwarded-Prefix": "/../"},
        {"Forwarded": 'proto=http;host="evil.example.com"', "X-Forwarded-Port": "99999", "X-Original-URL": "/console/"},
    ],
)
def test_what_a_proxy_says_of_the_address_changes_nothing(
    headers: dict[str, str], make_app: Callable[..., Flask], sendgrid_signer: SendGridSigner
) -> None:
    """PUBLIC_URL alone says what the ESP called: everybody can send these headers."""
    body = b'[{"email": "jane@example.com", "event": "unsubscribe", "timestamp": 1760000000}]'
    client = make_app().test_client()
    answer = client.post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body) | headers)
    assert (answer.status_code, answer.json["accepted"]) == (200, 1)  # type: ignore[index] # it is JSON
    assert "example.com" not in str(answer.headers)
