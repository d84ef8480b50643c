"""`flask connect` at Mailgun, Postmark, Mailchimp and Brevo, over real HTTP against their stand-ins."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from tests import esp_apis
from tests.esp_apis import StandIn
from webhook_app.sync.webhooks import CONNECTIONS

URL = "https://hooks.example.com"
SECRET = "a-secret-of-the-receiver-0123456789"

Run = Callable[..., Result]


@pytest.fixture(params=CONNECTIONS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def esp(provider: str) -> Iterator[Any]:
    with esp_apis.running(provider) as esp:
        yield esp
    assert esp.complaints == []


@pytest.fixture
def run(make_app: Callable[..., Flask], provider: str, esp: StandIn, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in an environment with the secret, unless `secret` is empty."""
    monkeypatch.delenv(CONNECTIONS[provider].variable, raising=False)

    def run(*arguments: str, secret: str = SECRET, answer: str = "", **environ: str) -> Result:
        variable = CONNECTIONS[provider].variable
        app = make_app(**(esp.environ | {variable: secret} | environ))
        command = ["connect", provider, "--url", URL, *arguments]
        return app.test_cli_runner().invoke(args=command, input=answer, env={variable: secret or None})

    return run


def writes(esp: StandIn) -> list[tuple[str, str]]:
    return [(call.method, call.path) for call in esp.calls if call.method != "GET"]


def webhooks(provider: str, esp: Any) -> Any:
    """What the ESP has, as it would show it."""
    if provider == "mailchimp":
        return [(one["url"], one["events"], one["sources"]) for audience in esp.audiences for one in audience.webhooks]
    return esp.webhooks


EXPECTED: dict[str, Any] = {
    "mailchimp": [
        (
            f"{URL}/webhooks/mailchimp/{SECRET}",
            {"subscribe": True, "unsubscribe": True, "cleaned": True},
            {"user": True, "admin": True, "api": True},
        )
    ]
    * 2,
    "mailgun": {"unsubscribed": [f"{URL}/webhooks/mailgun"], "complained": [f"{URL}/webhooks/mailgun"]},
    "postmark": [
        {
            "Url": f"{URL}/webhooks/postmark",
            "MessageStream": "broadcast",
            "HttpHeaders": [{"Name": "X-Webhook-Token", "Value": SECRET}],
            "Triggers": {
                "SubscriptionChange": {"Enabled": True},
                "SpamComplaint": {"Enabled": True, "IncludeContent": False},
            },
            "ID": 1000,
        }
    ],
    "brevo": [
        {
            "url": f"{URL}/webhooks/brevo",
            "description": "Opt-outs to Dynamic Yield",
            "events": ["unsubscribed", "spam"],
            "auth": {"type": "bearer", "token": SECRET},
            "type": kind,
            "id": 1000 + number,
        }
        for number, kind in enumerate(("marketing", "transactional"))
    ],
}


def test_from_nothing_it_makes_the_webhook_that_the_receiver_understands(provider: str, esp: Any, run: Run) -> None:
    result = run("--yes")
    assert result.exit_code == 0, result.output
    assert webhooks(provider, esp) == EXPECTED[provider]
    assert "is connected. To see it work:" in result.output
    assert SECRET not in result.output, "the secret is on nobody's screen once the receiver has it"


def test_a_second_run_changes_nothing(esp: Any, run: Run) -> None:
    run("--yes")
    before = len(writes(esp))
    result = run()  # nobody answers: there is nothing to ask
    assert result.exit_code == 0, result.output
    assert "nothing to change" in result.output
    assert len(writes(esp)) == before


@pytest.mark.parametrize(("arguments", "answer", "exit_code"), [(["--dry-run"], "", 0), ([], "n\n", 1), ([], "", 1)])
def test_what_will_change_is_shown_and_not_done_unless_agreed(
    arguments: list[str], answer: str, exit_code: int, provider: str, esp: Any, run: Run
) -> None:
    result = run(*arguments, answer=answer)
    assert f"{URL}/webhooks/{provider}" in result.output
    assert SECRET not in result.output
    assert (result.exit_code, writes(esp)) == (exit_code, [])


def test_the_receiver_gets_its_secret_before_the_esp_calls(provider: str, esp: Any, run: Run, tmp_path: Path) -> None:
    """The other way round, every call until the restart would be refused, and some ESPs give up at the first."""
    env = tmp_path / ".env"
    result = run("--yes", "--write-env", str(env), secret="")
    assert result.exit_code == 0, result.output
    assert f"Wrote {CONNECTIONS[provider].variable} to {env}" in result.output
    assert "Nothing was changed" in result.output
    assert writes(esp) == []
    name, _, secret = env.read_text().strip().partition("=")
    assert name == CONNECTIONS[provider].variable
    assert len(secret) > 20
    assert env.stat().st_mode & 0o777 == 0o600
    assert secret not in result.output
    # Typed again before the receiver has it: the secret that is there is not replaced.
    again = run("--yes", "--write-env", str(env), secret="")
    assert again.exit_code == 1
    assert "load it first" in again.output
    assert run("--yes", secret=secret).exit_code == 0


def test_without_a_file_the_variable_is_printed(provider: str, esp: Any, run: Run) -> None:
    assert f"\n{CONNECTIONS[provider].variable}=" in run("--yes", secret="").output


def test_a_key_of_another_account_costs_one_clear_line(provider: str, esp: Any, run: Run) -> None:
    variable = next(iter(esp.settings))
    result = run("--yes", **{variable: "wrong-key-us21"})
    assert result.exit_code == 1
    assert f"refuses {variable}" in result.output
    assert "wrong-key" not in result.output


def test_an_esp_that_does_not_keep_what_it_took_is_found_out(
    provider: str, esp: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = esp.route
    monkeypatch.setattr(esp, "route", lambda call: {} if call.method != "GET" else route(call))
    result = run("--yes")
    assert result.exit_code == 1
    assert "shows that it did not make this one" in result.output


@pytest.mark.parametrize("provider", ["mailchimp"])
def test_mailchimps_webhook_with_an_older_secret_is_changed_and_what_is_on_stays_on(esp: Any, run: Run) -> None:
    run("--yes")
    for audience in esp.audiences:
        audience.webhooks[0] |= {"url": f"{URL}/webhooks/mailchimp/older", "events": {"profile": True}}
    result = run("--yes")
    assert "change url, events of the webhook https://hooks.example.com/webhooks/mailchimp/…" in result.output
    assert "older" not in result.output
    url, events, _ = webhooks("mailchimp", esp)[0]
    assert url.endswith(SECRET)
    assert events == {"profile": True, "subscribe": True, "unsubscribe": True, "cleaned": True}


@pytest.mark.parametrize("provider", ["mailgun"])
def test_mailguns_other_urls_stay_and_a_fourth_is_said_before_anything_is_done(esp: Any, run: Run) -> None:
    esp.webhooks = {"unsubscribed": ["https://crm.example.com/hook"]}
    assert run("--yes").exit_code == 0
    assert esp.webhooks["unsubscribed"] == ["https://crm.example.com/hook", f"{URL}/webhooks/mailgun"]
    esp.webhooks = {"complained": [f"https://crm.example.com/{number}" for number in range(3)]}
    before = len(writes(esp))
    result = run("--yes")
    assert "mg.example.com has 3 URLs for complained already" in result.output
    assert len(writes(esp)) == before


@pytest.mark.parametrize("provider", ["postmark"])
def test_postmarks_other_triggers_and_headers_stay(esp: Any, run: Run) -> None:
    headers = [{"Name": "X-Theirs", "Value": "1"}, {"Name": "X-Webhook-Token", "Value": "older"}]
    esp.webhooks = [
        {
            "ID": 7,
            "Url": f"{URL}/webhooks/postmark",
            "MessageStream": "broadcast",
            "HttpHeaders": headers,
            "Triggers": {"Open": {"Enabled": True, "PostFirstOpenOnly": False}, "SpamComplaint": {"Enabled": False}},
        }
    ]
    result = run("--yes")
    assert "switch on SubscriptionChange, switch on SpamComplaint, set its secret" in result.output
    (webhook,) = esp.webhooks
    assert webhook["Triggers"]["Open"] == {"Enabled": True, "PostFirstOpenOnly": False}
    assert webhook["HttpHeaders"] == [headers[0], {"Name": "X-Webhook-Token", "Value": SECRET}]


@pytest.mark.parametrize("provider", ["brevo"])
def test_brevos_other_events_stay_and_a_secret_that_it_does_not_show_is_left(esp: Any, run: Run) -> None:
    esp.webhooks = [
        {"id": number, "url": f"{URL}/webhooks/brevo", "type": kind, "events": ["hardBounce", "spam"]}
        for number, kind in enumerate(("marketing", "transactional"))
    ]
    result = run("--yes")
    assert "in the marketing webhook https://hooks.example.com/webhooks/brevo: switch on unsubscribed" in result.output
    assert [one["events"] for one in esp.webhooks] == [["hardBounce", "spam", "unsubscribed"]] * 2
