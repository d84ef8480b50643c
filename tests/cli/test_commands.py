"""`flask …`, as a person or a script calls it."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import update

from tests.outbox.world import give_all_up
from tests.processes import ROOT, checkout, environment, find, free_port
from tests.signing import SendGridSigner
from webhook_app import build_app
from webhook_app.dev.sandbox import running
from webhook_app.outbox import State, queries
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.queries import Filter
from webhook_app.outbox.tables import events

MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp, sendgrid_signer: SendGridSigner) -> Flask:
    """Three unsubscribes that were given up, and one event that was not understood."""
    app = make_app()
    batch: list[dict[str, Any]] = [
        {"event": "unsubscribe", "email": f"{name}@example.com", "timestamp": 1760000000}
        for name in ("jane", "joe", "jill")
    ]
    batch.append({"event": "unsubscribe"})
    body = json.dumps(batch).encode()
    app.test_client().post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    give_all_up(app.extensions["database"])
    return app


def run(app: Flask, *arguments: str, **more: Any) -> Result:
    return app.test_cli_runner().invoke(args=list(arguments), **more)


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def states(app: Flask) -> list[State]:
    return [event.state for event in queries.search(app.extensions["database"], Filter(), ascending=True).events]


def test_providers_are_listed_with_url_and_what_opens_them(app: Flask) -> None:
    output = run(app, "providers").output
    assert "open    SendGrid                  http://localhost:8000/webhooks/sendgrid" in output
    assert "set EMARSYS_TOKENS" in output
    listed = {one["name"]: one for one in lines(run(app, "providers", "--json"))}
    assert listed["sendgrid"]["open"] is True
    assert listed["emarsys"]["open"] is False


def test_events_are_listed_newest_first_and_filtered(app: Flask) -> None:
    assert [one["id"] for one in lines(run(app, "events", "list", "--json"))] == [4, 3, 2, 1]
    assert [one["id"] for one in lines(run(app, "events", "list", "--json", "--limit", "2"))] == [4, 3]
    (jane,) = lines(run(app, "events", "list", "--json", "--person", "Jane@example.com"))
    assert (jane["identity_value"], jane["state"], jane["error"]) == ("jane@example.com", "dead", "refused")
    assert "#4" in run(app, "events", "list", "--state", "quarantined").output
    assert run(app, "events", "list", "--since", "2999-01-01").output == ""


def test_one_event_is_shown_with_raw_event_and_the_exact_request(app: Flask) -> None:
    (jane,) = lines(run(app, "events", "show", "1", "--json"))
    assert json.loads(jane["raw"])["email"] == "jane@example.com"
    assert json.loads(jane["request"]["body"])["events"][0]["properties"]["plainTextEmail"] == "jane@example.com"
    text = run(app, "events", "show", "1").output
    assert "POST https://dy-api.com/v2/collect/user/event" in text


def test_all_filtered_are_replayed_after_a_confirmation_that_says_how_many(app: Flask) -> None:
    refused = run(app, "events", "replay", "--state", "dead", input="n\n")
    assert (refused.exit_code, "replay 3 changes?" in refused.output) == (1, True)
    assert states(app)[:3] == [State.DEAD] * 3
    assert "3 replayed" in run(app, "events", "replay", "--state", "dead", input="y\n").output
    assert states(app)[:3] == [State.PENDING] * 3


def test_a_script_replays_by_number_and_learns_what_was_left_alone(app: Flask) -> None:
    answer = run(app, "events", "replay", "1", "4", "--json")
    assert lines(answer) == [{"replayed": 1, "left_alone": 1}]
    assert lines(run(app, "events", "discard", "2", "--json")) == [{"discarded": 1, "left_alone": 0}]
    assert states(app) == [State.PENDING, State.DISCARDED, State.DEAD, State.QUARANTINED]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["events", "show", "99"], "Error: there is no change #99"),
        (["events", "show", "1" + "0" * 40], "Error: there is no change #1"),
        (["events", "replay"], "Error: name the changes either by their numbers or by filters, like --state dead"),
        (["events", "replay", "1", "--state", "dead"], "Error: name the changes either"),
        (["events", "discard", "99"], "Error: there is no change #99"),
        (["events", "replay", "1", "2", "98", "99"], "Error: there is no change #98, #99: nothing was changed"),
        (["events", "discard", "1", "99", "--json"], "Error: there is no change #99: nothing was changed"),
        (
            ["events", "list", "--provider", "Sendgrid"],
            "Error: there is no provider Sendgrid; there are: activecampaign,",
        ),
        (["events", "replay", "--provider", "sendgird", "--yes"], "Error: there is no provider sendgird; there are:"),
        (["events", "discard", "--provider", "sendgird", "--json", "--yes"], "Error: there is no provider sendgird;"),
        (["webhooks", "sendgird"], "Error: there is no provider sendgird; there are: activecampaign,"),
        (["webhooks", "sendgird", "--json"], "Error: there is no provider sendgird; there are: activecampaign,"),
        (["events", "list", "--state", "gone"], "Error: Invalid value for '--state'"),
        (["events", "list", "--since", "yesterday"], "Error: Invalid value for '--since'"),
        (["events", "discard", "--person", "", "--yes"], "Error: Invalid value for '--person': is blank"),
        (["events", "replay", "--state", "dead", "--person", "\r", "--yes"], "Error: Invalid value for '--person'"),
        (["events", "replay", "--state", "dead", "--provider", " ", "--yes"], "Error: Invalid value for '--provider'"),
    ],
)
def test_a_mistake_is_one_clear_line(app: Flask, arguments: list[str], line: str) -> None:
    before = states(app)
    result = run(app, *arguments)
    assert result.exit_code == 1
    assert states(app) == before
    assert result.output.splitlines()[-1].startswith(line)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("events list --state gone", "Error: Invalid value for '--state': 'gone' is not one of"),
        ("events list --sinse 30d", "Error: No such option '--sinse'. (Did you mean"),
        ("evnts list", "Error: No such command 'evnts'."),
        ("people show", "Error: Missing argument 'PERSON'."),
    ],
)
def test_a_mistake_in_what_is_typed_is_one_clear_line_too(tmp_path: Path, words: str, line: str) -> None:
    env = environment(FLASK_APP="webhook_app", PYTHONPATH=str(ROOT), DATABASE_URL=f"sqlite:///{tmp_path}/outbox.db")
    done = subprocess.run(
        [find("flask"), *words.split()], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    (said,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert said.startswith(line)


def test_a_provider_that_was_taken_away_is_still_known_by_what_it_sent(make_app: MakeApp, tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    file.write_text('[acme]\nlike = "generic"\nauth = { scheme = "token", secrets = "ACME_TOKENS" }\n')
    database = {"DATABASE_URL": f"sqlite:///{tmp_path}/acme.db"}
    app = make_app(**database, PROVIDERS_FILE=str(file), ACME_TOKENS="a-long-random-text-of-acme")
    headers = {"Authorization": "Bearer a-long-random-text-of-acme"}
    body = {"action": "opt_out", "email": "jane@example.com"}
    assert app.test_client().post("/webhooks/acme", json=body, headers=headers).status_code == 200
    app.extensions["counters"].flush()
    without = make_app(**database)
    assert "jane@example.com" in run(without, "events", "list", "--provider", "acme").output
    assert "POST 200" in run(without, "webhooks", "acme").output
    # Nothing of it is left there, and all the same it is no mistake.
    assert lines(run(without, "events", "list", "--provider", "acme", "--state", "dead", "--json")) == []


def test_a_number_that_is_given_twice_counts_once(app: Flask) -> None:
    assert lines(run(app, "events", "replay", "1", "1", "--json")) == [{"replayed": 1, "left_alone": 0}]


def test_a_group_that_is_named_alone_lists_its_commands(app: Flask) -> None:
    result = run(app, "events")
    assert result.exit_code == 1
    assert "replay" in result.output


@pytest.mark.parametrize(
    "command", [("events", "list"), ("report",), ("reconcile", "sendgrid")], ids=lambda words: " ".join(words)
)
@pytest.mark.parametrize(
    ("since", "meant"),
    [
        ("2026-01-31", "2026-01-31T00:00+00:00"),
        ("20260131", "2026-01-31T00:00+00:00"),
        ("20260131T0800", "2026-01-31T08:00+00:00"),
        # `fromisoformat` takes these digits for a time in the year 1712.
        ("1712012800", "2024-04-01T23:06:40+00:00"),
        ("1712012800000", "2024-04-01T23:06:40+00:00"),
        ("Mon, 01 Apr 2024 23:06:40 +0000", "2024-04-01T23:06:40+00:00"),
        ("2026-01-31T08:00", "2026-01-31T08:00+00:00"),
        ("2026-01-31T08:00:05+01:00", "2026-01-31T07:00:05+00:00"),
        ("1970-01-01", "1970-01-01T00:00+00:00"),
        ("30d", timedelta(days=30)),
        ("48 H", timedelta(hours=48)),
    ],
)
def test_a_time_is_written_alike_for_every_command(
    app: Flask, command: tuple[str, ...], since: str, meant: str | timedelta
) -> None:
    group = app.cli.get_command(click.Context(app.cli), command[0])
    found = group.get_command(click.Context(group), command[1]) if isinstance(group, click.Group) else group
    assert found
    said = found.make_context(command[-1], ["--since", since]).params["since"]
    if isinstance(meant, timedelta):
        assert abs(datetime.now(UTC) - meant - said) < timedelta(minutes=1)
    else:
        assert said == datetime.fromisoformat(meant)


def test_a_database_that_cannot_be_used_is_one_clear_line(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(DATABASE_URL=f"sqlite:///{tmp_path}/other.db")
    app.extensions["database"].close()
    (tmp_path / "other.db").unlink()
    result = run(app, "events", "list")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("Error: the database cannot be used:")


@pytest.mark.parametrize("person", ["forward", "sandbox"])
def test_a_scripts_json_stands_alone_on_standard_output_whatever_words_it_gives(tmp_path: Path, person: str) -> None:
    """Seen otherwise: the log's line of the journal before it, as of a command of that name."""
    env = environment(FLASK_APP="webhook_app", PYTHONPATH=str(ROOT), DATABASE_URL=f"sqlite:///{tmp_path}/outbox.db")

    def flask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [find("flask"), *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        )

    flask("db", "upgrade")
    done = flask("events", "discard", "--person", person, "--yes", "--json")
    assert json.loads(done.stdout) == {"discarded": 0, "left_alone": 0}
    assert '"event":"journal"' in done.stderr


def test_the_workers_log_lines_are_on_standard_output(tmp_path: Path) -> None:
    env = environment(DATABASE_URL=f"sqlite:///{tmp_path}/x.db", EVENTS_API_KEY="key")
    env |= {"FLASK_APP": "webhook_app", "PYTHONPATH": str(ROOT)}
    subprocess.run([find("flask"), "db", "upgrade"], cwd=tmp_path, env=env, check=True)
    worker = subprocess.Popen([find("flask"), "forward"], cwd=tmp_path, env=env, stdout=subprocess.PIPE)
    assert worker.stdout
    first = json.loads(worker.stdout.readline())
    worker.terminate()
    worker.communicate(timeout=60)
    assert first["level"] == "info"


def test_prune_empties_what_was_finished_long_ago(app: Flask) -> None:
    database = app.extensions["database"]
    with database.write() as connection:
        connection.execute(update(events).where(events.c.id == 1).values(received_at=1))
    Maintenance(database, clock=lambda: 1_000_000_000.0).discard([1])
    assert "1 finished changes older than 30 days were emptied" in run(app, "prune").output
    (jane,) = lines(run(app, "events", "list", "--json", "--person", "jane@example.com"))
    assert jane["identity_value"] is None


def test_prune_of_everything_asks(app: Flask) -> None:
    database = app.extensions["database"]
    Maintenance(database, clock=lambda: 1_000_000_000.0).discard([1])
    refused = run(app, "prune", "--days", "0", input="n\n")
    assert (refused.exit_code, "what came in just now too?" in refused.output) == (1, True)
    assert "1 finished changes" in run(app, "prune", "--days", "0", "--yes").output


def test_check_makes_no_database(tmp_path: Path) -> None:
    app = build_app({"DATABASE_URL": f"sqlite:///{tmp_path}/instance/outbox.db"})
    result = run(app, "check")
    assert result.exit_code == 1
    assert "wrong   service: the database schema is behind (no tables" in result.output
    assert list(tmp_path.iterdir()) == []


def test_check_says_what_is_wrong_and_fails(app: Flask) -> None:
    result = run(app, "check")
    assert result.exit_code == 1
    assert "wrong   service: no live worker" in result.output
    assert "wrong   key: EVENTS_API_KEY is not set" in result.output


def test_check_live_asks_the_destination(make_app: MakeApp) -> None:
    with running("the-key") as sandbox:
        app = make_app(EVENTS_API_URL=sandbox.url, EVENTS_API_KEY="the-key")
        assert "ok      host: answers" in run(app, "check", "--live").output
        wrong = make_app(EVENTS_API_URL=sandbox.url, EVENTS_API_KEY="another")
        assert "wrong   key: EVENTS_API_KEY is not accepted" in run(wrong, "check", "--live").output
        assert sandbox.taken == []


def test_each_command_is_found_under_its_own_name(app: Flask) -> None:
    """They are imported when they are called; a name that leads nowhere would be seen by whoever types it."""
    context = click.Context(app.cli)
    found = {name: app.cli.get_command(context, name) for name in app.cli.list_commands(context)}
    assert {name: command and command.name for name, command in found.items()} == {name: name for name in found}
    assert {"forward", "events", "import"} <= found.keys()


def test_the_web_process_loads_no_command_and_nothing_of_development(tmp_path: Path) -> None:
    """Each would cost memory in production, and every command the time to load all the others."""
    command = [sys.executable, "-c", "import sys, webhook_app; webhook_app.create_app(); print(*sys.modules)"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(DATABASE_URL=f"sqlite:///{tmp_path}/x.db"),
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = {name.removeprefix("webhook_app.") for name in done.stdout.split() if name.startswith("webhook_app.")}
    assert "receiver" in loaded, done.stderr
    assert "requests" not in done.stdout.split()
    assert {name for name in loaded if name.startswith(("cli.", "dev.", "console.", "sync."))} == set()


def test_a_webhook_loads_nothing_more(tmp_path: Path) -> None:
    """What an open ESP needs is loaded and compiled before the fork: workers share it, and no first webhook is slow."""
    env = environment(
        DATABASE_URL=f"sqlite:///{tmp_path}/x.db",
        SENDGRID_VERIFICATION_KEYS=SendGridSigner().public_key,
        EMARSYS_JWT_SECRETS="j" * 32,
        SES_TOPIC_ARNS="arn:aws:sns:eu-west-1:1234:name",
        MAILGUN_SIGNING_KEYS="m" * 32,
        SECTION_WHEN="provider == 'emarsys'",
    )
    program = (
        "import sys, webhook_app\n"
        "app = webhook_app.create_app()\n"
        "client, before = app.test_client(), set(sys.modules)\n"
        "headers = {'Authorization': 'Bearer a.b.c'}\n"
        "for name in app.extensions['providers']:\n"
        "    print(client.post(f'/webhooks/{name}', data='{}', headers=headers).status_code)\n"
        "print('loaded', *(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    assert (lines.count("401"), set(lines[:-1])) == (4, {"401", "404"}), done.stderr
    loaded = lines[-1].split()
    assert loaded.pop(0) == "loaded"
    ours_or_heavy = ("webhook_app", "cryptography", "jmespath", "jwt", "marshmallow", "sqlalchemy")
    assert [name for name in loaded if name.startswith(ours_or_heavy)] == []


def test_a_command_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """A person waits for each of these, at every command."""
    env = environment(DATABASE_URL=f"sqlite:///{tmp_path}/x.db", EMARSYS_TOKENS="t" * 32)
    assert subprocess.run([find("flask"), "db", "upgrade"], cwd=ROOT, env=env, check=False).returncode == 0
    program = "import atexit, sys, flask.cli; atexit.register(lambda: print(*sys.modules)); flask.cli.main()"
    command = [sys.executable, "-c", program, "events", "list"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    loaded = set(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert {"webhook_app.cli.events", "webhook_app.providers.emarsys"} <= loaded
    assert loaded & {"alembic", "apprise", "markdown", "prometheus_client", "psycopg", "requests"} == set()
    assert loaded & {"cryptography", "jmespath", "jwt", "sqlalchemy.dialects.postgresql"} == set()
    assert loaded & {"webhook_app.receiver", "webhook_app.web", "webhook_app.ops.metrics"} == set()
    # No entry of the catalogue is compiled: none is open.
    assert "webhook_app.providers.declaration" not in loaded


def test_a_dotenv_of_a_folder_above_is_not_taken_for_ours(tmp_path: Path) -> None:
    """Our tables would be made in another application's database."""
    other = tmp_path / "other.db"
    (tmp_path / ".env").write_text(f"DATABASE_URL=sqlite:///{other}\nPORT\nTITLE=Shop\n")
    folder = tmp_path / "receiver"
    folder.mkdir()
    checkout(folder)

    def upgrade(**environ: str) -> subprocess.CompletedProcess[str]:
        command = [find("flask"), "db", "upgrade"]
        given = environment(**environ)
        return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=60, check=False)

    refused = upgrade()
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"Cannot start: DATABASE_URL would come from {tmp_path}/.env, which is not of this folder")
    assert line.endswith("or set FLASK_SKIP_DOTENV=1 and FLASK_APP=webhook_app")
    # Which to Flask means that it is not skipped.
    assert upgrade(FLASK_SKIP_DOTENV="0").stderr == refused.stderr
    assert not other.exists()
    assert upgrade(FLASK_SKIP_DOTENV="1", FLASK_APP="webhook_app").returncode == 0
    assert not other.exists()
    # What the environment says comes first anyway.
    assert upgrade(DATABASE_URL=f"sqlite:///{tmp_path}/ours.db").returncode == 0
    (folder / ".env").touch()
    assert upgrade().returncode == 0
    assert (folder / "instance" / "outbox.db").exists()
    assert not other.exists()


@pytest.mark.parametrize("given", [["flask"], ["flask", "--env-file", "../.env"]], ids=["environment", "option"])
def test_what_was_given_on_purpose_may_be_in_a_dotenv_above_too(given: list[str], tmp_path: Path) -> None:
    """`EnvironmentFile=/srv/app/.env` with `WorkingDirectory=/srv/app/current`, and `set -a; . ../.env`."""
    url = f"sqlite:///{tmp_path}/ours.db"
    (tmp_path / ".env").write_text(f"DATABASE_URL={url}\n")
    folder = tmp_path / "current"
    folder.mkdir()
    done = subprocess.run(
        [find(given[0]), *given[1:], "db", "upgrade"],
        cwd=checkout(folder),
        env=environment(**({"DATABASE_URL": url} if len(given) == 1 else {})),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ours.db").exists()


def test_simulate_takes_no_proxy_and_no_netrc_of_the_environment(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorizations = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            authorizations.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("default login somebody password secret\n")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("EMARSYS_TOKENS", "a-long-enough-token")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        result = run(
            make_app(EMARSYS_TOKENS="a-long-enough-token"), "simulate", "emarsys", "--count", "1", "--url", url
        )
        server.shutdown()
    assert result.exit_code == 0, result.output
    assert authorizations == ["Bearer a-long-enough-token"]
