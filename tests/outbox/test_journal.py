"""Who did what, and whether somebody changed that later."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, update

from webhook_app.outbox import Database
from webhook_app.outbox.journal import PAGE, Journal
from webhook_app.outbox.tables import journal


def test_what_was_done_is_listed_newest_first(database: Database) -> None:
    written = Journal(database, clock=lambda: 1_800_000_000.0)
    written.record("ann", "replay", number=7)
    written.record("ben", "discard", state="dead", done=3)
    newest, oldest = written.entries()
    assert (newest.who, newest.what, newest.details) == ("ben", "discard", {"state": "dead", "done": 3})
    assert (oldest.who, oldest.at.year) == ("ann", 2027)
    assert written.entries(before=newest.id) == [oldest]
    assert written.last("replay") == oldest
    assert written.last("erase") is None
    assert written.broken_at() is None


def test_an_untouched_journal_of_several_pages_holds(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook_app.outbox.journal.PAGE", 2)
    assert PAGE > 2
    written = Journal(database)
    assert written.broken_at() is None
    for number in range(5):
        written.record("ann", "replay", number=number)
    assert written.broken_at() is None


@pytest.mark.parametrize("column", ["at", "who", "what", "details"])
def test_an_entry_that_was_changed_later_is_found(database: Database, column: str) -> None:
    written = Journal(database)
    for number in range(3):
        written.record("ann", "replay", number=number)
    changed = {"at": 5, "who": "ben", "what": "login", "details": "{}"}[column]
    with database.write() as connection:
        connection.execute(update(journal).where(journal.c.id == 2).values({column: changed}))
    assert written.broken_at() == 2


def test_an_entry_that_was_taken_away_is_missed(database: Database) -> None:
    written = Journal(database)
    for number in range(3):
        written.record("ann", "replay", number=number)
    with database.write() as connection:
        connection.execute(delete(journal).where(journal.c.id == 2))
    assert written.broken_at() == 3


def test_many_who_write_at_once_make_one_chain(database: Database) -> None:
    with ThreadPoolExecutor(4) as people:
        list(people.map(lambda number: Journal(database).record("ann", "replay", number=number), range(20)))
    assert len(Journal(database).entries()) == 20
    # A second entry behind the same one would be a branch that nobody sees.
    assert Journal(database).broken_at() is None
