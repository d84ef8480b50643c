"""The outbox's three sides on a database of either engine, and a clock that stands still."""

import pytest

from tests.outbox.world import Clock
from webhook_app.outbox import Database, Intake, Queue
from webhook_app.outbox.maintenance import Maintenance


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def intake(database: Database, clock: Clock) -> Intake:
    return Intake(database, clock=clock)


@pytest.fixture
def queue(database: Database, clock: Clock) -> Queue:
    return Queue(database, clock=clock)


@pytest.fixture
def maintenance(database: Database, clock: Clock) -> Maintenance:
    return Maintenance(database, clock)
