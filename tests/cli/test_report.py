"""`flask report`."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox import Intake, Queue, Settlement, State

MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """With one opt-out that was taken after a minute."""
    app = make_app()
    database = app.extensions["database"]
    change = ConsentChange(
        action=Action.OPT_OUT,
        identity=Identity(kind=IdentityKind.EMAIL, value="jane@example.com"),
        reason="unsubscribe",
        occurred_at=datetime.now(UTC) - timedelta(seconds=60),
    )
    Intake(database).add("sendgrid", changes=[(change, b"{}")])
    queue = Queue(database)
    now = time.time()
    queue.settle(
        [
            Settlement(claimed=one, state=State.DELIVERED, started_at=now, duration=0.0, outcome="delivered")
            for one in queue.claim(1)
        ]
    )
    return app


def test_the_report_as_a_table_and_as_json(app: Flask) -> None:
    result = app.test_cli_runner().invoke(args=["report", "--since", "30d"])
    assert result.exit_code == 0
    assert "sendgrid" in result.stdout
    assert "100.00%" in result.stdout
    line = json.loads(app.test_cli_runner().invoke(args=["report", "--json"]).stdout.splitlines()[-1])
    assert (line["provider"], line["taken"], line["within_48h"]) == ("sendgrid", 1, 1.0)
    assert 59 <= line["worst_seconds"] <= 120
    assert "jane" not in result.stdout


@pytest.mark.parametrize("since", ["yesterday", "30", "-d", "999999999999d", ""])
def test_a_time_that_is_none_is_said_in_a_line(app: Flask, since: str) -> None:
    result = app.test_cli_runner().invoke(args=["report", "--since", since])
    assert result.exit_code == 1
    assert "must be a time like 2026-01-31, or a span like 30d or 48h" in result.stderr
