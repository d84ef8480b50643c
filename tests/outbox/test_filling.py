"""A section that is added later, on both engines."""

from tests.outbox.world import add, addresses, change, send_all, states
from webhook_app.consent import Action
from webhook_app.outbox import Database, Intake, Queue
from webhook_app.outbox.filling import fill


def everybody(*_: object) -> bool:
    return True


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
    assert [(one.concerned, one.failed) for one in fill(database, "uk", lambda *_: next(answers))] == [(1, 1)]
    assert len(addresses(Queue(database).claim(10, section="uk"))) == 1
    assert set(states(database)) == {"pending"}
