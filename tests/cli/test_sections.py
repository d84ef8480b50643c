"""`flask sections …`, and a section that is configured no more, on both engines."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask

from tests.outbox.world import change, register, rows, states
from webhook_app.outbox import Intake, Queue
from webhook_app.outbox.journal import Journal
from webhook_app.outbox.lookup import is_backlog_over

MakeApp = Callable[..., Flask]
APP = '[app]\napi_key = "APP_DY_KEY"\n'
UK_OF_ALL = '[uk]\napi_key = "UK_DY_KEY"\n'
UK = UK_OF_ALL + "when = \"provider == 'sendgrid'\"\n"


@pytest.fixture
def shop(make_app: MakeApp, database_url: str, tmp_path: Path) -> Callable[[str], Flask]:
    """The receiver as it starts with these sections."""

    def start(sections: str) -> Flask:
        file = tmp_path / "sections.toml"
        file.write_text(sections)
        return make_app(DATABASE_URL=database_url, SECTIONS_FILE=str(file), APP_DY_KEY="app-key", UK_DY_KEY="uk-key")

    return start


def test_a_section_that_was_added_later_is_told_what_concerns_it_once(shop: Callable[[str], Flask]) -> None:
    before = shop(APP)
    intake = Intake(before.extensions["database"], sections=before.extensions["conditions"])
    intake.add("sendgrid", changes=[(change(f"u{number}@example.com"), b"{}") for number in range(3)])
    intake.add("klaviyo", changes=[(change("ann@example.com"), b"{}")])

    after = shop(APP + UK)
    for _ in range(2):
        result = after.test_cli_runner().invoke(args=["sections", "fill", "uk"])
        assert result.exit_code == 0
        told = [row.section for row in register(after.extensions["database"])]
        assert (told.count("uk"), told.count("app")) == (3, 4)
    assert "0 events concern section uk" in result.output


def test_a_section_is_filled_by_its_own_condition_alone(shop: Callable[[str], Flask]) -> None:
    """Of the last one, what nearly concerns another was counted as what its condition fails on."""
    before = shop(APP)
    Intake(before.extensions["database"], sections=before.extensions["conditions"]).add(
        "sendgrid", changes=[(change(), b'{"brand":"APP"}'), (change("ann@example.com"), b'{"brand":"uk"}')]
    )
    brands = [table + f"when = \"event.brand == '{name}'\"\n" for name, table in (("app", APP), ("uk", UK_OF_ALL))]
    result = shop("".join(brands)).test_cli_runner().invoke(args=["sections", "fill", "uk"])
    assert "1 events concern section uk" in result.output
    assert "left out" not in result.output


def test_a_section_that_is_not_there_is_named_with_those_that_are(shop: Callable[[str], Flask]) -> None:
    result = shop(APP + UK).test_cli_runner().invoke(args=["sections", "fill", "us"])
    assert result.exit_code == 1
    assert "there is no section us; there are: app, uk" in result.output


def test_an_event_that_waits_is_shown_with_the_host_of_the_first_section(shop: Callable[[str], Flask]) -> None:
    app = shop(APP + 'region = "eu"\n')
    Intake(app.extensions["database"], sections=app.extensions["conditions"]).add(
        "sendgrid", changes=[(change(), b"{}")]
    )
    shown = app.test_cli_runner().invoke(args=["events", "show", "1"]).output
    assert "POST https://dy-api.eu/v2/collect/user/event" in shown


@pytest.fixture
def renamed(shop: Callable[[str], Flask]) -> Flask:
    """Two people waited for the section `uk` for weeks; it is called something else now."""
    before = shop(UK)
    long_ago = datetime.now(UTC) - timedelta(days=90)
    intake = Intake(
        before.extensions["database"], sections=before.extensions["conditions"], clock=lambda: long_ago.timestamp()
    )
    intake.add("sendgrid", changes=[(change(f"u{number}@example.com"), b"{}") for number in range(2)])
    after = shop(APP)
    Queue(after.extensions["database"]).report("a worker")
    return after


def test_who_waits_for_a_section_that_is_gone_is_told_as_that_and_as_nothing_else(renamed: Flask) -> None:
    answer = renamed.test_client().get("/status")
    assert answer.status_code == 503
    assert [
        (one["slug"], one["sentence"]) for one in (answer.json or {})["findings"] if "silent" not in one["slug"]
    ] == [("not_configured:uk", "2 people wait for section uk, which is not configured")]
    assert "flask sections drop uk" in str(answer.json)
    assert "esp_webhooks_oldest_waiting_seconds 0.0" in renamed.test_client().get("/metrics").text


def test_who_waits_for_a_section_that_is_gone_keeps_no_import_waiting_and_no_address_is_lost(renamed: Flask) -> None:
    database = renamed.extensions["database"]
    assert is_backlog_over(database, 1)
    assert not is_backlog_over(database, 1, renamed.extensions["sections"])
    prune, drop = ["prune", "--days", "30"], ["sections", "drop", "uk", "--yes"]
    for args, left in ((prune, 2), (drop, 2), (prune, 0)):
        assert renamed.test_cli_runner().invoke(args=args).exit_code == 0
        assert sum(row.identity_value is not None for row in rows(database)) == left


def test_a_section_that_is_gone_is_dropped_after_a_question(renamed: Flask) -> None:
    database, runner = renamed.extensions["database"], renamed.test_cli_runner()
    asked = runner.invoke(args=["sections", "drop", "uk"], input="n\n")
    assert (asked.exit_code, len(register(database))) == (1, 2)
    assert "forget 2 people of section uk? 2 of them wait" in asked.output

    done = runner.invoke(args=["sections", "drop", "uk", "--yes"])
    assert (done.exit_code, register(database)) == (0, [])
    assert "2 people of section uk were dropped" in done.output
    assert states(database) == ["discarded", "discarded"]
    assert "not_configured" not in str(renamed.test_client().get("/status").json)
    (entry,) = [one for one in Journal(database).entries() if one.what == "sections drop"]
    assert entry.details == {"section": "uk"}

    again = runner.invoke(args=["sections", "drop", "uk", "--yes"])
    assert (again.exit_code, "nothing is kept for a section uk" in again.output) == (1, True)


def test_a_section_that_is_configured_cannot_be_dropped(renamed: Flask) -> None:
    result = renamed.test_cli_runner().invoke(args=["sections", "drop", "app", "--yes"])
    assert result.exit_code == 1
    assert "section app is configured" in result.output


def test_a_section_that_was_dropped_and_is_put_back_can_be_filled_again(
    renamed: Flask, shop: Callable[[str], Flask]
) -> None:
    renamed.test_cli_runner().invoke(args=["sections", "drop", "uk", "--yes"])
    back = shop(APP + UK)
    for expected in (2, 0):
        result = back.test_cli_runner().invoke(args=["sections", "fill", "uk"])
        assert f"{expected} events concern section uk" in result.output
    assert [row.section for row in register(back.extensions["database"])] == ["uk", "uk"]
    assert [row.sections for row in rows(back.extensions["database"])] == ['["uk"]'] * 2
