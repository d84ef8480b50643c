"""`flask people …`, on both engines."""

import csv
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from tests.outbox.world import Clock, change, ending, register, rows
from webhook_app.consent import Action
from webhook_app.outbox import Intake, Queue, Sent
from webhook_app.outbox.journal import Journal
from webhook_app.outbox.maintenance import Maintenance

MakeApp = Callable[..., Flask]
SENT = Sent("POST", "https://dy-api.com/v2/collect/user/event", b'{"plainTextEmail": "jane@example.com"}')


@pytest.fixture
def app(make_app: MakeApp, database_url: str) -> Flask:
    """Jane opted out, and Dynamic Yield knows; Joe opted in again; Ann's opt-out waits."""
    app = make_app(DATABASE_URL=database_url)
    database = app.extensions["database"]
    intake, queue = Intake(database), Queue(database)
    told = [change("Jane@example.com"), change("joe@example.com", action=Action.OPT_IN)]
    intake.add("sendgrid", changes=[(one, b'{"email": "jane@example.com"}') for one in told])
    queue.settle([ending(one, status=204, trace_id="trace-1", sent=SENT) for one in queue.claim(10)])
    intake.add("sendgrid", changes=[(change("ann@example.com"), b"{}")])
    return app


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=["people", *arguments])


def test_a_person_is_shown_with_what_is_wanted_told_and_was_really_sent(app: Flask) -> None:
    said = run(app, "show", "JANE@example.com").output
    assert "section default: wants opt_out since 2025-06-15 15:05:40 (event #" in said
    assert "told       opt_out on" in said
    assert "trace-1" in said
    assert "sent POST https://dy-api.com/v2/collect/user/event" in said
    assert "due" in run(app, "show", "ann@example.com").output
    shown: dict[str, Any] = json.loads(run(app, "show", "jane@example.com", "--json").output)
    assert [one["told"] for one in shown["register"]] == ["opt_out"]
    assert [one["state"] for one in shown["events"]] == ["delivered"]
    assert shown["attempts"][0]["sent"]["body"] == SENT.body.decode()


def exported(app: Flask, *arguments: str) -> list[dict[str, str]]:
    # The log line of the journal comes first here; the real command has it on its standard error.
    _, _, written = run(app, "export", *arguments).stdout.partition("\nsection,")
    return list(csv.DictReader(f"section,{written}".splitlines()))


def test_nobody_knows_a_stranger(app: Flask) -> None:
    result = run(app, "show", "stranger@example.com")
    assert (result.exit_code, result.output) == (1, "Error: nothing is known of this person\n")


def test_the_suppression_list_holds_everybody_who_wants_nothing_told_or_not(app: Flask) -> None:
    assert {line["identity"]: bool(line["told_at"]) for line in exported(app)} == {
        "Jane@example.com": True,
        "ann@example.com": False,
    }
    hashed = {line["sha256"] for line in exported(app, "--hash", "sha256")}
    assert hashlib.sha256(b"jane@example.com").hexdigest() in hashed


def test_who_is_erased_is_gone_everywhere_and_the_journal_names_a_hash(app: Flask) -> None:
    database = app.extensions["database"]
    Intake(database).add("sendgrid", quarantined=[("email: is odd", b'{"mail": "Jane@Example.com"}')])
    assert "2 events of this person were erased" in run(app, "erase", "jane@example.com", "--yes").output
    assert [row.identity_value for row in rows(database)] == ["joe@example.com", "ann@example.com"]
    assert len(register(database)) == 2
    assert run(app, "show", "jane@example.com").exit_code == 1
    newest = Journal(database).entries()[0]
    assert newest.what == "people erase"
    assert "jane" not in repr(newest)


def test_nobody_is_erased_whose_opt_out_dynamic_yield_does_not_know(app: Flask) -> None:
    result = run(app, "erase", "ann@example.com", "--yes")
    assert result.exit_code == 1
    assert "does not know yet" in result.output
    assert run(app, "erase", "ann@example.com", "--yes", "--even-if-unfinished").exit_code == 0


def test_retention_empties_what_was_sent_with_the_address(app: Flask) -> None:
    database = app.extensions["database"]
    clock = Clock()
    clock.go(10**9)
    assert Maintenance(database, clock).prune(clock.moment) == 2
    shown = json.loads(run(app, "show", "jane@example.com", "--json").output)
    assert shown["attempts"][0]["sent"] is None
    assert shown["events"][0]["identity_value"] is None
    assert [line["identity"] for line in exported(app)] == ["ann@example.com"]
