"""`flask try`, as a person calls it who writes a mapping: in a folder of their own, with no secret and no database."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAYLOADS = ROOT / "tests" / "payloads"

ACME = """
[acme]
title = "Acme Mail"
auth = { scheme = "token", secrets = "ACME_TOKENS" }
opt_out = "type == 'unsubscribed'"
opt_in = "type == 'subscribed'"
email = "person.mail"
time = "when"
event_id = "id"
"""

Try = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def try_(tmp_path: Path) -> Try:
    def run(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flask", "try", *arguments],
            cwd=tmp_path,
            # A database that nobody reaches: none is needed.
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "FLASK_APP": "webhook_app",
                "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none",
                **environ,
            },
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_event_of_a_batch_is_told_with_its_reason(try_: Try) -> None:
    batch = [
        {"event": "unsubscribe", "email": "jane@example.com", "timestamp": 1760000000, "sg_message_id": "m1"},
        {"event": "unsubscribe", "email": "Jane@example.com", "timestamp": 1760000000, "sg_message_id": "m1"},
        {"event": "open", "email": "jane@example.com", "timestamp": 1760000000},
        {"event": "unsubscribe", "email": "jane", "timestamp": 1760000000},
        {"event": "unsubscribe", "email": "example@test.com", "timestamp": 1760000000},
        {"event": "group_resubscribe", "email": "jane@example.com", "timestamp": 1760000000},
    ]
    told = events(try_("sendgrid", "-", "--json", stdin=json.dumps(batch)))
    assert [one["outcome"] for one in told] == ["accepted", "duplicate", "ignored", "quarantined", "test", "ignored"]
    assert told[0] == {
        "event": 1,
        "outcome": "accepted",
        "why": None,
        "action": "opt_out",
        "channel": "email",
        "identity_kind": "email",
        "identity_value": "jane@example.com",
        "reason": "unsubscribe",
        "occurred_at": "2025-10-09T08:53:20Z",
        "esp_event_id": "",
        "esp_message_id": "m1",
        "known_again_by": "person, reason, time and message",
    }
    assert told[1]["why"] == "the same as #1"
    assert told[3]["why"] == "email: is not an email address"
    assert "FORWARD_OPT_INS" in told[5]["why"]


def test_a_person_reads_it_in_plain_lines(try_: Try) -> None:
    done = try_("mailgun", str(PAYLOADS / "mailgun" / "opt_out.json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "#1  accepted, an opt-out",
        "      who             email  jane@example.com",
        "      channel         email",
        "      reason          unsubscribed",
        "      when            2026-01-05 10:00:00 UTC",
        "      event           Ase7i2zsRYeDXztHGENqRA",
        "      message         20260105.1@mg.example.com",
        "      known again by  person, reason, time and message",
        "1 event: 1 accepted. Nothing was stored.",
    ]


def test_a_providers_file_under_development_is_tried_before_it_has_a_secret(try_: Try, tmp_path: Path) -> None:
    (tmp_path / "providers.toml").write_text(ACME)
    body = (
        '{"type": "unsubscribed", "id": "e-1", "when": "2026-01-05T10:00:00Z", "person": {"mail": "jane@example.com"}}'
    )
    (one,) = events(try_("acme", "-", "--json", stdin=body))
    assert (one["action"], one["identity_value"]) == ("opt_out", "jane@example.com")
    (other,) = events(try_("acme", "-", "--json", stdin='{"type": "opened"}'))
    assert (other["outcome"], other["why"]) == ("ignored", "neither opt_out nor opt_in holds of it")


def test_a_damaged_event_of_a_batch_is_told_apart_from_its_neighbours(try_: Try, tmp_path: Path) -> None:
    good = b'{"event": "unsubscribe", "email": "jane@example.com", "timestamp": 1760000000}'
    (tmp_path / "batch.json").write_bytes(b"[" + good + b"," + good.replace(b"jane", b"j\xe9ne") + b"]")
    first, second = events(try_("sendgrid", "batch.json", "--json"))
    assert (first["outcome"], second["outcome"]) == ("accepted", "quarantined")
    assert second["why"] == "email: holds bytes that are no UTF-8 text"


@pytest.mark.parametrize(
    ("line", "body", "why"),
    [
        ('skip = "ping == `true`"', '{"ping": true}', "skip holds of the body"),
        ("ignore = \"channel == 'sms'\"", '{"type": "unsubscribed", "channel": "sms"}', "ignore holds of it"),
        (
            'type = "type"\nknown = ["open*"]',
            '{"type": "opened"}',
            "its type, opened, is known to say nothing about consent",
        ),
    ],
)
def test_why_an_event_is_ignored_names_the_key_that_does_it(
    try_: Try, tmp_path: Path, line: str, body: str, why: str
) -> None:
    (tmp_path / "providers.toml").write_text(ACME + line)
    (one,) = events(try_("acme", "-", "--json", stdin=body))
    assert (one["outcome"], one["why"]) == ("ignored", why)


def test_what_the_url_says_counts(try_: Try) -> None:
    contact = '{"external_id": "C-1001"}'
    (without,) = events(try_("emarsys", "-", "--json", stdin=contact))
    (opt_out,) = events(try_("emarsys", "-", "--json", "--query", "action=opt_out", stdin=contact))
    assert without["outcome"] != "accepted"
    assert (opt_out["action"], opt_out["identity_kind"], opt_out["identity_value"]) == ("opt_out", "external", "C-1001")
    assert "without a time" in opt_out["known_again_by"]


def test_which_section_would_be_told_is_said(try_: Try) -> None:
    event = {"email": "jane@example.com", "event": "group_unsubscribe", "timestamp": 1767607200}
    events = json.dumps([event | {"asm_group_id": group} for group in (4711, "4711", 1)])
    told = try_("sendgrid", "-", stdin=events, SECTION_WHEN="event.asm_group_id == `4711`")
    assert told.returncode == 0, told.stderr
    assert "sections        default" in told.stdout
    assert "write event.asm_group_id == '4711'" in told.stdout
    assert "ignored, an opt-out: it concerns no section of Dynamic Yield" in told.stdout
    assert "3 events: 1 accepted, 1 quarantined, 1 ignored." in told.stdout


def test_an_opt_in_is_accepted_where_opt_ins_are_forwarded(try_: Try) -> None:
    file = str(PAYLOADS / "mailchimp" / "opt_in.txt")
    (one,) = events(
        try_("mailchimp", file, "--json", "--content-type", "application/x-www-form-urlencoded", FORWARD_OPT_INS="true")
    )
    assert (one["outcome"], one["action"]) == ("accepted", "opt_in")


def test_a_post_that_verifies_the_url_says_nothing_of_a_person(try_: Try) -> None:
    body = '{"callbackId": "c-1", "verificationKey": "v-1"}'
    (one,) = events(try_("sfmc", "-", "--json", stdin=body))
    assert one["outcome"] == "ignored"
    assert "verifies this URL" in one["why"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "line"),
    [
        (["nobody", "-"], "{}", "Error: there is no provider nobody; there are: activecampaign, "),
        (["mailgun", "missing.json"], "", "Error: missing.json cannot be read: No such file or directory"),
        (["mailgun", "."], "", "Error: . cannot be read: Is a directory"),
        (["mailgun", "-"], "{]", "Error: the whole body would be quarantined: the body is not JSON: "),
        (["iterable", "-"], "", "Error: the whole body would be quarantined: the body is not JSON: "),
        (["mailgun", "-"], " " * 3_000_000, "Error: it would be refused with 413: "),
    ],
)
def test_a_mistake_is_one_clear_line(try_: Try, arguments: list[str], stdin: str, line: str) -> None:
    done = try_(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == 1


def test_a_mistake_in_the_providers_file_is_named(try_: Try, tmp_path: Path) -> None:
    (tmp_path / "providers.toml").write_text(ACME.replace("person.mail", "person."))
    done = try_("acme", "-", stdin="{}")
    assert done.returncode == 1
    assert "providers.toml: [acme] email: is no JMESPath expression" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_left_behind(try_: Try, tmp_path: Path) -> None:
    assert events(try_("mailgun", str(PAYLOADS / "mailgun" / "opt_out.json"), "--json", DATABASE_URL=""))
    assert list(tmp_path.iterdir()) == []
