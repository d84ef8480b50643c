"""Workers that are killed again and again send for two sections, one of which refuses half of all requests as if its
key were wrong: nobody is lost in either, and each person's newest wish is the last on the wire in both."""

import os
import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import summary
from tests.end_to_end.test_killed_workers import Crew, waiting
from tests.outbox.world import ConcernedBy, change, rows, states
from tests.processes import wait_until
from webhook_app.consent import Action, Visitor
from webhook_app.dev.sandbox import running
from webhook_app.outbox import Database, Intake, State

#: The whole of it takes a while: `SOAK=1`.
CHANGES, PEOPLE = (20_000, 5_000) if os.environ.get("SOAK") else (3_000, 800)
WORKERS = 4
KILL_EVERY = 2.0  # seconds
#: Seconds for which the one section refuses, or takes. The breaker tries every 30 s in the end: not always in one mood.
MOOD = 4.3
SECTIONS = """
[uk]
api_key = "UK_DY_KEY"
url = "{uk}"
[app]
api_key = "APP_DY_KEY"
url = "{app}"
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_sections_one_of_which_answers_401_half_of_the_time_lose_nobody(
    database_url: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(7)
    stored = [
        change(
            f"u{dice.randrange(PEOPLE)}@example.com",
            ago=CHANGES - number,
            action=dice.choice(list(Action)),
            visitor=Visitor(dyid=str(number)),
        )
        for number in range(CHANGES)
    ]
    newest = {one.identity.value: one.visitor.dyid for one in stored}
    dice.shuffle(stored)
    intake = Intake(database, sections=dict.fromkeys(("uk", "app"), ConcernedBy(lambda raw: True)))
    with ExitStack() as stack:
        boxes = {name: stack.enter_context(running("key")) for name in ("uk", "app")}
        judge = boxes["uk"].judge

        def moody(request: Any) -> tuple[int, Any]:
            refuses = int(time.monotonic() / MOOD) % 2
            return (401, {"message": "unauthorized"}) if refuses else judge(request)

        monkeypatch.setattr(boxes["uk"], "judge", moody)
        (tmp_path / "sections.toml").write_text(SECTIONS.format(**{name: box.url for name, box in boxes.items()}))
        more = {"UK_DY_KEY": "key", "APP_DY_KEY": "key", "SECTIONS_FILE": str(tmp_path / "sections.toml")}
        crew = Crew(WORKERS, tmp_path, database_url, boxes["app"], more)
        for place in range(0, CHANGES, 50):
            intake.add("sendgrid", changes=[(one, b"{}") for one in stored[place : place + 50]])
        deadline = time.monotonic() + 600
        while waiting(database) and time.monotonic() < deadline:
            time.sleep(KILL_EVERY)
            if crew.killed < 10:
                crew.kill_one(dice)
        wait_until(lambda: not waiting(database), "everything settled")
        crew.stop()
        for name, box in boxes.items():
            arrived: dict[str, list[int]] = {}
            for body in box.taken:
                person = body["events"][0]["properties"]["plainTextEmail"]
                arrived.setdefault(person, []).append(int(body["user"]["dyid"]))
            # If this failed, somebody who unsubscribed would get messages again.
            assert {person: str(seen[-1]) for person, seen in arrived.items()} == newest, name
            assert [person for person, seen in arrived.items() if seen != sorted(seen)] == [], name
    assert len(rows(database)) == CHANGES
    assert set(states(database)) == {State.DELIVERED, State.SUPERSEDED}
    summary.count(summary.SENT, CHANGES)
