"""A section that is added later, on both engines."""

import pytest

from tests.outbox.world import START, Clock, ConcernedBy, add, addresses, change, ending, register, send_all, states
from webhook_app.consent import Action
from webhook_app.outbox import Database, Intake, Queue, State
from webhook_app.outbox.filling import fill
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.promptness import report
from webhook_app.outbox.status import status

everybody = ConcernedBy(lambda raw: True)


def test_a_section_that_is_added_later_learns_each_persons_newest_wish(
    database: Database, intake: Intake, queue: Queue
) -> None:
    add(intake, change("jane@example.com", ago=30), change("jane@example.com", ago=10, action=Action.OPT_IN))
    add(intake, change("joe@example.com"), change("test@example.com", is_test=True))
    send_all(queue)
    assert sum(batch.concerned for batch in fill(database, "uk", everybody)) == 3
    later = Queue(database)
    claimed = later.claim(10, section="uk")
    assert {one.change.identity.value: one.change.action for one in claimed if one.change} == {
        "jane@example.com": Action.OPT_IN,
        "joe@example.com": Action.OPT_OUT,
    }
    later.release(claimed)
    # The other section does not notice, and a second time there is nothing to do.
    assert send_all(queue) == []
    assert list(fill(database, "uk", everybody)) == []


def test_only_what_the_condition_says_goes_there_and_what_it_fails_on_is_counted(
    database: Database, intake: Intake
) -> None:
    add(intake, *(change(f"u{number}@example.com") for number in range(3)))
    answers = iter([True, False])
    assert [(one.concerned, one.failed) for one in fill(database, "uk", ConcernedBy(lambda raw: next(answers)))] == [
        (1, 1)
    ]
    assert len(addresses(Queue(database).claim(10, section="uk"))) == 1
    assert set(states(database)) == {"pending"}


@pytest.mark.parametrize("first", list(Action))
def test_a_wish_is_not_told_where_retention_has_emptied_a_newer_one_that_undid_it(
    first: Action, database: Database, intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    """The older one came later, as in an import: it still has its address, and the newer one can be told no more."""
    second = Action.OPT_IN if first is Action.OPT_OUT else Action.OPT_OUT
    add(intake, change("jane@example.com", ago=10, action=second), change("joe@example.com", ago=10, action=first))
    send_all(queue)
    clock.go(1)
    assert maintenance.prune(clock.moment) == 2
    add(intake, change("jane@example.com", ago=30, action=first), change("joe@example.com", ago=30, action=first))
    assert sum(batch.concerned for batch in fill(database, "uk", everybody)) == 1
    # What was emptied says the same of Joe.
    assert addresses(queue.claim(10, section="uk")) == ["joe@example.com"]


def test_a_wish_is_told_where_the_newer_one_that_undid_it_is_of_another_section(
    database: Database, queue: Queue, clock: Clock
) -> None:
    intake = Intake(database, clock=clock)
    opt_out, opt_in = change(ago=30), change(ago=10, action=Action.OPT_IN)
    intake.add("sendgrid", changes=[(opt_out, b"uk"), (opt_in, b"us")])
    assert sum(batch.concerned for batch in fill(database, "uk", ConcernedBy(lambda raw: raw == b"uk"))) == 1
    (claimed,) = queue.claim(10, section="uk")
    assert claimed.change == opt_out


def test_what_is_filled_in_or_sent_again_says_nothing_about_how_long_it_waited(
    database: Database, intake: Intake, queue: Queue, maintenance: Maintenance, clock: Clock
) -> None:
    add(intake, change())
    send_all(queue)
    prompt = report(database)
    clock.go(60 * 86_400)
    assert sum(batch.concerned for batch in fill(database, "uk", everybody)) == 1
    assert maintenance.replay([1]) == 1
    assert (status(database).oldest_waiting, status(database).is_waiting) == (None, True)
    for section in ("default", "uk"):
        # Nor where a try fails first.
        (claimed,) = Queue(database).claim(1, section=section)
        queue.settle([ending(claimed, State.PENDING, due_at=START)])
        (claimed,) = Queue(database).claim(1, section=section)
        assert not claimed.is_timed
        queue.settle([ending(claimed, started_at=clock.now)])
    assert report(database) == prompt
    assert [row.in_doubt for row in register(database)] == [0, 0]


@pytest.mark.parametrize("is_being_told", [True, False])
def test_a_change_that_comes_after_a_fill_is_as_prompt_as_any(
    is_being_told: bool, database: Database, intake: Intake, queue: Queue, clock: Clock
) -> None:
    add(intake, change(ago=90 * 86_400, action=Action.OPT_IN))
    assert sum(batch.concerned for batch in fill(database, "uk", everybody)) == 1
    held = Queue(database).claim(1, section="uk") if is_being_told else []
    Intake(database, sections={"uk": everybody}, clock=clock).add("sendgrid", changes=[(change(), b"{}")])
    queue.settle([ending(one) for one in held])
    assert status(database).oldest_waiting == clock.moment
    (claimed,) = Queue(database).claim(1, section="uk")
    assert claimed.is_timed
