"""Workers that are killed again and again, under load, lose nothing and let nobody's older change arrive last.

What counts is the sandbox's own log.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from tests import summary
from tests.outbox.world import START, change, rows, states
from tests.processes import checkout, environment, find, wait_until
from webhook_app.consent import Action, ConsentChange, Visitor
from webhook_app.dev.sandbox import Sandbox, running
from webhook_app.outbox import Database, Intake, State

CHANGES = 8_000
PEOPLE = 2_000
KILL_EVERY = 1.3  # seconds; a worker is up within one
SPREAD_OVER = 8.0  # seconds
LATENCY = 0.02  # seconds that Dynamic Yield takes, so that a kill meets what is under way


class Crew:
    """Several workers. Whoever dies is replaced at once, as Heroku does."""

    def __init__(
        self, size: int, directory: Path, database_url: str, box: Sandbox, settings: Mapping[str, str] = {}
    ) -> None:
        self._directory = checkout(directory)
        defaults = {"DATABASE_URL": database_url, "EVENTS_API_KEY": "key", "EVENTS_API_URL": box.url}
        self._environment = environment(**{**defaults, "WORKER_CONCURRENCY": "8", **settings})
        self._log: IO[bytes] = (directory / "log").open("ab")
        self._workers = [self._start() for _ in range(size)]
        self.killed = 0

    def kill_one(self, dice: random.Random) -> None:
        number = dice.randrange(len(self._workers))
        os.kill(self._workers[number].pid, signal.SIGKILL)
        self._workers[number].wait()
        self._workers[number] = self._start()
        self.killed += 1
        summary.count(summary.KILLED)

    def stop(self) -> list[int]:
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        statuses = [worker.wait(30) for worker in self._workers]
        self._log.close()
        return statuses

    def _start(self) -> subprocess.Popen[bytes]:
        command = [find("flask"), "forward"]
        return subprocess.Popen(command, cwd=self._directory, env=self._environment, stdout=self._log, stderr=self._log)


def changes_of_many(dice: random.Random) -> list[ConsentChange]:
    """Each with a number of its own, which Dynamic Yield is told as the visitor's id. Opt-ins among them, shuffled."""
    made = [
        replace(
            change(f"u{dice.randrange(PEOPLE)}@example.com", ago=CHANGES - number, action=dice.choice(list(Action))),
            visitor=Visitor(dyid=str(number)),
        )
        for number in range(CHANGES)
    ]
    # Somewhat out of order, as ESPs deliver: up to eight hundred places from where it belongs.
    order = sorted(range(CHANGES), key=lambda number: number + dice.uniform(0, 800))
    return [made[number] for number in order]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("database_url", "workers"),
    [("sqlite", 2), ("sqlite", 8), ("postgresql", 4), ("postgresql", 8)],
    indirect=["database_url"],
)
def test_workers_killed_at_random_lose_nothing_and_the_newest_change_of_each_person_arrives_last(
    workers: int, database_url: str, database: Database, tmp_path: Path
) -> None:
    dice = random.Random(workers)
    stored = changes_of_many(dice)
    newest = {one.identity.value: one for one in sorted(stored, key=lambda one: one.occurred_at or START)}
    intake = Intake(database)
    summary.count(summary.SENT, CHANGES)
    with running("key") as box:
        box.latency = LATENCY
        crew = Crew(workers, tmp_path, database_url, box)
        began = next_kill = time.monotonic()
        for place in range(0, CHANGES, 20):
            time.sleep(max(0.0, began + SPREAD_OVER * place / CHANGES - time.monotonic()))
            intake.add("sendgrid", changes=[(one, b"{}") for one in stored[place : place + 20]])
            if time.monotonic() >= next_kill:
                crew.kill_one(dice)
                next_kill = time.monotonic() + KILL_EVERY
        wait_until(lambda: not waiting(database), "everything settled", within=200)
        # One that has only just been started, in place of the last that was killed, may not heed SIGTERM yet.
        assert set(crew.stop()) <= {0, -signal.SIGTERM}
        received = box.received

    assert crew.killed >= 5
    # Nothing is missing, nothing was given up.
    assert len(rows(database)) == CHANGES
    assert set(states(database)) == {State.DELIVERED, State.SUPERSEDED}
    arrivals: dict[str, list[int]] = {}
    for one in received:
        assert one["became"] == "taken"
        person = one["body"]["events"][0]["properties"]["plainTextEmail"]
        arrivals.setdefault(person, []).append(int(one["body"]["user"]["dyid"]))
    # The newest of each person, and it last. If this failed, somebody who unsubscribed would get messages again.
    assert {person: seen[-1] for person, seen in arrivals.items()} == {
        person: int(one.visitor.dyid) for person, one in newest.items()
    }
    # And never an older one after a newer one, not even for a moment.
    assert [person for person, seen in arrivals.items() if seen != sorted(seen)] == []
    # What a kill costs: what was under way, and what was answered since the last settlement, is sent twice.
    twice = sum(count - 1 for count in Counter((p, n) for p, seen in arrivals.items() for n in seen).values())
    assert twice <= crew.killed * 8 * 4
    summary.count(summary.REPEATED, twice)


def waiting(database: Database) -> bool:
    with database.read() as connection:
        return bool(connection.exec_driver_sql("SELECT 1 FROM consents WHERE due_at IS NOT NULL LIMIT 1").first())
