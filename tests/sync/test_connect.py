"""`flask connect sendgrid`, against the stand-in and a receiver that really listens."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select
from werkzeug.serving import make_server

from tests.processes import free_port
from tests.sendgrid_api import ALL_SCOPES, SWITCHES, Account, SendGrid
from tests.signing import SendGridSigner
from webhook_app.outbox.tables import events
from webhook_app.sync.sendgrid_webhook import CannotConnect, webhook_url

URL = "https://hooks.example.com"
FULL_URL = f"{URL}/webhooks/sendgrid"

Run = Callable[..., Result]


@pytest.fixture
def run(make_app: Callable[..., Flask], sendgrid: SendGrid) -> Run:
    """Runs the command; keyword arguments are further environment variables."""

    def run(*arguments: str, answer: str = "", **environ: str) -> Result:
        given = {"SENDGRID_API_KEY": "SG.full", "SENDGRID_API_URL": sendgrid.url, "SENDGRID_VERIFICATION_KEYS": ""}
        app = make_app(**(given | environ))
        command = ["connect", "sendgrid", "--url", URL, *arguments]
        runner = app.test_cli_runner()
        return runner.invoke(args=command, input=answer, env={"SENDGRID_VERIFICATION_KEYS": None} | environ)

    return run


def writes(sendgrid: SendGrid) -> list[tuple[str, Any]]:
    return [(call.method, call.body) for call in sendgrid.calls if call.method != "GET"]


def existing(account: Account, **more: Any) -> dict[str, Any]:
    webhook = {**dict.fromkeys(SWITCHES, False), "id": "w-1", "url": FULL_URL, "enabled": True, **more}
    account.webhooks.append(webhook)
    return webhook


def test_from_nothing_it_creates_a_signed_webhook_and_says_the_key(run: Run, sendgrid: SendGrid) -> None:
    result = run("--yes")
    assert result.exit_code == 0, result.output
    (webhook,) = sendgrid.account.webhooks
    on = {switch for switch in SWITCHES if webhook[switch]}
    assert on == {"unsubscribe", "group_unsubscribe", "group_resubscribe", "spam_report"}
    assert (webhook["url"], webhook["enabled"]) == (FULL_URL, True)
    assert f"SENDGRID_VERIFICATION_KEYS={sendgrid.account.public_key(webhook['id'])}\n" in result.output
    assert "restart the receiver and run this command again" in result.output
    # Not one event can come unsigned: it is enabled only when it is signed.
    assert [body.get("enabled") for _, body in writes(sendgrid)] == [False, True, True]


def test_the_events_follow_the_setting(run: Run, sendgrid: SendGrid) -> None:
    run("--yes", SENDGRID_EVENTS="unsubscribe,bounce,dropped")
    (webhook,) = sendgrid.account.webhooks
    on = {switch for switch in SWITCHES if webhook[switch]}
    assert on == {"unsubscribe", "bounce", "dropped", "group_resubscribe"}


@pytest.mark.parametrize(("arguments", "answer", "exit_code"), [(["--dry-run"], "", 0), ([], "n\n", 1), ([], "", 1)])
def test_what_will_change_is_shown_and_not_done_unless_agreed(
    arguments: list[str], answer: str, exit_code: int, run: Run, sendgrid: SendGrid
) -> None:
    result = run(*arguments, answer=answer)
    assert f"create the Event Webhook {FULL_URL}" in result.output
    assert "switch on: group_resubscribe, group_unsubscribe, spam_report, unsubscribe" in result.output
    assert (result.exit_code, writes(sendgrid)) == (exit_code, [])


def test_what_the_customer_has_on_stays_on(run: Run, sendgrid: SendGrid) -> None:
    oauth = {"oauth_client_id": "id", "oauth_token_url": "https://oauth.example.com", "oauth_client_secret": "s"}
    webhook = existing(sendgrid.account, open=True, delivered=True, enabled=False, friendly_name="Ours", **oauth)
    result = run(answer="y\n")
    assert result.exit_code == 0, result.output
    for line in ("enabled: off → on", "unsubscribe: off → on", "turn its signature on"):
        assert line in result.output
    assert "open:" not in result.output
    on = {switch for switch in SWITCHES if webhook[switch]}
    assert on == {"open", "delivered", "unsubscribe", "group_unsubscribe", "group_resubscribe", "spam_report"}
    assert webhook["friendly_name"] == "Ours"
    assert oauth.items() <= webhook.items()


def test_a_second_run_changes_nothing(run: Run, sendgrid: SendGrid) -> None:
    run("--yes")
    key = sendgrid.account.public_key(sendgrid.account.webhooks[0]["id"])
    before = len(writes(sendgrid))
    result = run()  # nobody answers: there is nothing to ask
    assert result.exit_code == 0
    assert "nothing to change" in result.output
    assert key in result.output
    assert len(writes(sendgrid)) == before


def test_a_subuser_gets_a_webhook_of_its_own(run: Run, sendgrid: SendGrid) -> None:
    sendgrid.subusers["shop-eu"] = Account()
    result = run("--yes", "--subuser", "shop-eu")
    assert "in the subuser shop-eu" in result.output
    assert (len(sendgrid.account.webhooks), len(sendgrid.subusers["shop-eu"].webhooks)) == (0, 1)


def test_a_plan_without_room_is_said_before_anything_is_done(run: Run, sendgrid: SendGrid) -> None:
    sendgrid.account.max_allowed = 1
    existing(sendgrid.account, url="https://user:hush@crm.example.com/events")
    result = run("--yes")
    assert result.exit_code == 1
    assert "the SendGrid plan allows 1 Event Webhook, and no more is free" in result.output
    assert "w-1  https://crm.example.com/events" in result.output
    assert "hush" not in result.output
    assert writes(sendgrid) == []


def test_the_only_webhook_of_a_plan_can_be_pointed_here(run: Run, sendgrid: SendGrid) -> None:
    sendgrid.account.max_allowed = 1
    webhook = existing(sendgrid.account, url="https://crm.example.com/events")
    result = run("--yes", "--replace", "w-1")
    assert f"url: https://crm.example.com/events → {FULL_URL}" in result.output
    assert webhook["url"] == FULL_URL
    assert "there is no Event Webhook with the id w-2" in run("--replace", "w-2").output


@pytest.mark.parametrize(
    ("scopes", "environ", "said"),
    [
        (ALL_SCOPES, {"SENDGRID_API_KEY": ""}, "SENDGRID_API_KEY is not set"),
        (ALL_SCOPES, {"SENDGRID_API_KEY": "SG.wrong"}, "SendGrid does not know SENDGRID_API_KEY"),
        (ALL_SCOPES - {"user.webhooks.event.settings.read"}, {}, "it needs: Mail Settings > Event Notification"),
        (ALL_SCOPES - {"user.webhooks.event.settings.update"}, {}, "it needs: Mail Settings > Event Notification"),
    ],
)
def test_a_key_that_does_not_do_costs_one_clear_line_and_leaves_nothing_half_done(
    scopes: frozenset[str], environ: dict[str, str], said: str, run: Run, sendgrid: SendGrid
) -> None:
    sendgrid.keys["SG.full"] = scopes
    result = run("--yes", **environ)
    assert result.exit_code == 1
    assert said in result.output
    assert sendgrid.account.webhooks == []
    assert "SG." not in result.output


def test_a_creation_that_cannot_be_finished_is_undone(
    run: Run, sendgrid: SendGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sendgrid, "_toggle_signing", lambda *_: {})
    assert run("--yes").exit_code == 1
    assert sendgrid.account.webhooks == []


def test_the_variable_is_written_beside_the_keys_and_settings_that_are_there(
    run: Run, sendgrid: SendGrid, tmp_path: Path
) -> None:
    other = SendGridSigner().public_key
    env = tmp_path / ".env"
    env.write_text(f"PORT=8300\nSENDGRID_VERIFICATION_KEYS={other}\n")
    result = run("--yes", "--write-env", str(env))
    assert result.exit_code == 0, result.output
    key = sendgrid.account.public_key(sendgrid.account.webhooks[0]["id"])
    assert env.read_text() == f"PORT=8300\nSENDGRID_VERIFICATION_KEYS={other},{key}\n"
    assert env.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_is_told_before_anything_is_done(
    run: Run, sendgrid: SendGrid, tmp_path: Path
) -> None:
    (tmp_path / "latin").write_bytes(b"# B\xfcro\n")
    (tmp_path / "file").touch()
    for env in (tmp_path / "no" / ".env", tmp_path / "file" / ".env", tmp_path / "latin"):
        result = run("--yes", "--write-env", str(env))
        assert (result.exit_code, result.output.count(f"{env} cannot be written")) == (1, 1), result.output
    assert sendgrid.calls == []


def test_a_file_that_could_not_be_written_after_all_costs_nobody_the_key(
    run: Run, sendgrid: SendGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("webhook_app.cli.connect.set_key", full)
    result = run("--yes", "--write-env", str(tmp_path / ".env"))
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / '.env'} could not be written: No space left on device" in result.output
    key = sendgrid.account.public_key(sendgrid.account.webhooks[0]["id"])
    assert f"\nSENDGRID_VERIFICATION_KEYS={key}\n" in result.output


@pytest.mark.parametrize("given", ["https://hooks.example.com", "https://hooks.example.com/", FULL_URL, f"{FULL_URL}/"])
def test_the_url_may_be_given_in_short_or_in_full(given: str) -> None:
    assert webhook_url(given) == FULL_URL


@pytest.mark.parametrize(
    "given",
    ["", "hooks.example.com", "http://hooks.example.com", "https://u:p@hooks.example.com", "https://[", "ftp://x"],
)
def test_a_url_that_sendgrid_could_not_use_is_refused(given: str) -> None:
    with pytest.raises(CannotConnect, match="--url"):
        webhook_url(given)


@pytest.fixture
def serve() -> Iterator[Callable[[Flask, int], None]]:
    servers = []

    def serve(app: Flask, port: int) -> None:
        server = make_server("127.0.0.1", port, app, threaded=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    yield serve
    for server in servers:
        server.shutdown()


def test_from_a_key_to_a_proven_connection(
    make_app: Callable[..., Flask], sendgrid: SendGrid, serve: Callable[[Flask, int], None]
) -> None:
    """Twice the same command: it sets the webhook up, and, once the receiver knows the key, proves it."""
    port = free_port()
    environ = {"SENDGRID_API_KEY": "SG.full", "SENDGRID_API_URL": sendgrid.url}
    command = ["connect", "sendgrid", "--url", f"http://127.0.0.1:{port}", "--yes", "--timeout", "10"]
    first = make_app(**environ, SENDGRID_VERIFICATION_KEYS="")
    result = first.test_cli_runner().invoke(args=command, env={"SENDGRID_VERIFICATION_KEYS": None})
    key = result.output.partition("SENDGRID_VERIFICATION_KEYS=…):")[2].split("=", 1)[1].split()[0]

    app = make_app(**environ, SENDGRID_VERIFICATION_KEYS=key)
    serve(app, port)
    result = app.test_cli_runner().invoke(args=command)
    assert result.exit_code == 0, result.output
    assert "The test has arrived, was authentic, and is stored" in result.output
    with app.extensions["database"].read() as connection:
        rows = connection.execute(select(events.c.state, events.c.identity_value)).all()
    assert {tuple(row) for row in rows} == {("test", "example@test.com")}


def test_a_test_that_does_not_arrive_says_where_to_look(run: Run, sendgrid: SendGrid) -> None:
    sendgrid.delivers_tests = False
    run("--yes")
    key = sendgrid.account.public_key(sendgrid.account.webhooks[0]["id"])
    result = run("--timeout", "0.1", SENDGRID_VERIFICATION_KEYS=key)
    assert result.exit_code == 1
    assert "the test has not arrived within 0.1 seconds" in result.output
    assert "heroku run flask connect sendgrid" in result.output
