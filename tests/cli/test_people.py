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
from webhook_app.consent import Action, Identity, IdentityKind
from webhook_app.outbox import Intake, Queue, Sent
from webhook_app.outbox.journal import Journal
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.queries import pseudonyms
from webhook_app.outbox.recent import RecentWebhooks, recent

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


def test_an_event_is_shown_with_what_was_really_sent(app: Flask) -> None:
    shown = json.loads(app.test_cli_runner().invoke(args=["events", "show", "1", "--json"]).output)
    sent = {"method": "POST", "url": SENT.url, "body": SENT.body.decode()}
    assert shown["attempts"][0]["sent"] == shown["request"] == sent


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


def stored(app: Flask, *raws: bytes) -> None:
    Intake(app.extensions["database"]).add("sendgrid", quarantined=[("email: is odd", raw) for raw in raws])


def erase(app: Flask, person: str) -> str:
    return run(app, "erase", person, "--yes", "--even-if-unfinished").output


def kept_bodies(app: Flask) -> list[bytes | None]:
    return [one.body for one in recent(app.extensions["database"])]


@pytest.mark.parametrize(
    ("erased", "stays"),
    [
        ("ann@example.com", b'{"mail": "joann@example.com"}'),
        ("ann@example.com", b'{"mail": "ann@example.com.au"}'),
        ("42", b'{"mail": "joe42@example.com", "time": 1764201600, "id": 42}'),
    ],
)
def test_whoever_is_erased_takes_nobody_elses_quarantined_event_along(app: Flask, erased: str, stays: bytes) -> None:
    database = app.extensions["database"]
    opt_out = change(identity=Identity(kind=IdentityKind.EXTERNAL, value="42"))
    Intake(database).add("sendgrid", changes=[(opt_out, b"{}")])
    stored(app, stays)
    assert "1 events of this person were erased" in erase(app, erased)
    assert [bytes(row.raw) for row in rows(database) if row.state == "quarantined"] == [stays]


@pytest.mark.parametrize(
    "raw",
    [b'{"mail": "o\'brien@example.com"}', b"mail=O%27Brien%40Example.com&x=1", b"{'mail': 'o'brien@example.com'}"],
)
def test_an_address_with_an_apostrophe_is_whole_with_it(app: Flask, raw: bytes) -> None:
    stored(app, raw)
    assert "nothing is known" in erase(app, "brien@example.com")
    assert "1 events of this person were erased" in erase(app, "o'brien@example.com")


def test_what_was_set_aside_out_of_the_quarantine_goes_with_its_person(app: Flask) -> None:
    database = app.extensions["database"]
    stored(app, b'{"mail": "jane@example.com"}', b'{"mail": "jill@example.com"}')
    Maintenance(database).discard([row.id for row in rows(database) if row.state == "quarantined"])
    assert "2 events of this person were erased" in erase(app, "jane@example.com")
    assert "1 events of this person were erased" in erase(app, "jill@example.com")
    assert not [row for row in rows(database) if row.state == "discarded"]


@pytest.mark.parametrize("by_pseudonym", [False, True])
def test_who_is_erased_is_gone_from_what_is_shown_of_the_last_webhooks(app: Flask, by_pseudonym: bool) -> None:
    database = app.extensions["database"]
    opt_out = change(identity=Identity(kind=IdentityKind.EXTERNAL, value="cust-42"))
    Intake(database).add("sendgrid", changes=[(opt_out, b"{}")])
    webhooks = RecentWebhooks(database)
    bodies = [b"email=Jane%40example.com", b'[{"mail": "jane@example.com"}]', b'{"mail": "mary-jane@example.com"}']
    for body in [*bodies, b'{"id": "cust-42"}', b'{"id": "cust-421"}', b'{"id": "my-cust-42"}']:
        webhooks.add("sendgrid", method="POST", status=200, body=body)
    webhooks.flush()
    for person in ("jane@example.com", "cust-42"):
        erase(app, pseudonyms(database, person) if by_pseudonym else person)
    left = [b'{"mail": "mary-jane@example.com"}', b'{"id": "cust-421"}', b'{"id": "my-cust-42"}']
    assert sorted(filter(None, kept_bodies(app))) == sorted(left)
    assert len(kept_bodies(app)) == 6


def test_who_stands_in_quarantine_alone_is_shown_and_can_be_erased(app: Flask) -> None:
    stored(app, b'{"mail": "jill@example.com"}')
    assert "email: is odd: quarantined" in run(app, "show", "jill@example.com").output
    (event,) = json.loads(run(app, "show", "jill@example.com", "--json").output)["set_aside"]
    assert event["error"] == "email: is odd"
    assert "1 events of this person were erased" in erase(app, "jill@example.com")
    assert "nothing is known" in run(app, "show", "jill@example.com").output


@pytest.mark.parametrize("blank", ["", " ", "\r\n"])
def test_a_blank_person_is_one_clear_line(app: Flask, blank: str) -> None:
    for command in (["show", blank], ["erase", blank, "--yes"]):
        result = run(app, *command)
        assert result.exit_code == 1
        assert result.stderr.strip() == "Error: Invalid value for 'PERSON': is blank"


def test_ids_are_hashed_as_they_are_for_dynamic_yield_compares_them_exactly(app: Flask) -> None:
    opt_out = change(identity=Identity(kind=IdentityKind.EXTERNAL, value="Cust-42"))
    Intake(app.extensions["database"]).add("sendgrid", changes=[(opt_out, b"{}")])
    hashed = {line["sha256"] for line in exported(app, "--hash", "sha256")}
    assert hashlib.sha256(b"Cust-42").hexdigest() in hashed
