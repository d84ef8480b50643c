"""`flask sections fill`, on both engines."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from tests.outbox.world import change, register
from webhook_app.outbox import Intake

MakeApp = Callable[..., Flask]
APP = '[app]\napi_key = "APP_DY_KEY"\n'
UK = '[uk]\napi_key = "UK_DY_KEY"\nwhen = "provider == \'sendgrid\'"\n'


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
