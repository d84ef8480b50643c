"""Who did what, as the console shows it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flask import Flask

from tests.console.person import PASSWORD, Person
from tests.console.test_pages import unsubscribe
from tests.processes import checkout, environment
from webhook_app.outbox.journal import Journal

MakeApp = Callable[..., Flask]
Post = Callable[..., None]


def test_replays_discards_and_exports_are_written_down_with_the_login(
    make_app: MakeApp, app: Flask, post: Post
) -> None:
    post(unsubscribe(), state="dead")
    ann = Person(make_app(CONSOLE_USERS="ann:anns password").test_client())
    ann.log_in("anns password", name="ann")
    ann.post("/console/events/1/replay", form_on="/console/events/1")
    ann.post("/console/discard", form_on="/console/discard?state=pending", state="pending", up_to="9")
    ann.get("/console/events.csv?person=jane@example.com")
    page = ann.get("/console/journal").text
    for said in (
        "console (ann)",
        "replay",
        "number: 1",
        "discard",
        "state: pending",
        "export",
        "one, by address or id",
    ):
        assert said in page
    assert "jane@example.com" not in page


def test_a_name_that_nobody_proved_stands_in_no_entry(make_app: MakeApp) -> None:
    app = make_app(CONSOLE_PASSWORD=PASSWORD, CONSOLE_USERS="ann:anns password")
    scripts = app.test_client(use_cookies=False)
    for name, password in (("ann", PASSWORD), ("ann", "anns password"), ("ben", PASSWORD)):
        assert scripts.get("/console/events.csv", auth=(name, password)).status_code == 200
    entries = Journal(app.extensions["database"]).entries()
    assert [entry.who for entry in entries] == ["console", "console (ann)", "console"]


def test_an_empty_journal_says_so_and_nobody_reads_it_without_a_login(app: Flask, person: Person) -> None:
    assert "Nothing yet" in person.get("/console/journal").text
    assert app.test_client().get("/console/journal").status_code == 303


def test_flask_writes_down_what_it_did_and_check_verifies(tmp_path: Path) -> None:
    folder, env = checkout(tmp_path), environment(EVENTS_API_KEY="key")

    def flask(*command: str) -> str:
        ran = subprocess.run([sys.executable, "-m", "flask", *command], cwd=folder, env=env, capture_output=True)
        return (ran.stdout + ran.stderr).decode()

    flask("db", "upgrade")
    flask("events", "discard", "--state", "dead", "--yes")
    assert "each entry holds on to the one before" in flask("check")
