"""Did Jane's unsubscribe go through? The answer in a sentence, her page, and forgetting her."""

import re
import time
from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import func, select

from tests.console.person import Person
from webhook_app.outbox import State
from webhook_app.outbox.journal import Journal
from webhook_app.outbox.queue import Queue, Settlement
from webhook_app.outbox.rows import Sent
from webhook_app.outbox.tables import consents, events, mentions

Post = Callable[..., None]

SENT = Sent("POST", "https://dy-api.com/v2/collect/user/event", b'{"plainTextEmail": "jane@example.com"}')


def unsubscribe(email: str = "jane@example.com", **more: object) -> dict[str, object]:
    return {"event": "unsubscribe", "email": email, "timestamp": int(time.time()) - 5} | more


def settle(app: Flask, state: State, **more: object) -> None:
    """The worker's next attempt."""
    queue = Queue(app.extensions["database"])
    (claimed,) = queue.claim(1)
    now = time.time()
    fields = {"outcome": state.value, "started_at": now, "duration": 0.1, "sent": SENT} | more
    queue.settle([Settlement(claimed=claimed, state=state, **fields)])  # type: ignore[arg-type] # of the caller's choosing


def ask(person: Person, looked_for: str = "jane@example.com") -> str:
    answer = person.post("/console/people", form_on="/console/", person=looked_for)
    if answer.status_code == 303:
        # A router on the way logs each URL.
        assert "jane" not in answer.location.lower()
        return said(person.get(answer.location).text)
    return said(answer.text)


def said(page: str) -> str:
    """The answer, without tags."""
    found = re.search(r'aria-label="The answer">(.*?)</section>', page, re.DOTALL)
    assert found, page
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", found[1])).strip()


def test_yes_with_the_time_it_took_and_the_trace(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe(event="group_unsubscribe", asm_group_id=1))
    settle(app, State.DELIVERED, trace_id="6f1c")
    text = ask(person, " JANE@example.com ")
    assert re.match(r"Yes jane@example\.com left a group at SendGrid on ", text), text
    assert re.search(r"; Dynamic Yield took it \d+ seconds later \(trace 6f1c\)\.$", text), text
    assert "suppressed" not in text


def test_the_first_time_counts_and_a_repetition_takes_nothing_back(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe())
    settle(app, State.DELIVERED, trace_id="first", started_at=time.time())
    person.post("/console/events/1/replay", form_on="/console/events/1")
    settle(app, State.DELIVERED, trace_id="second", started_at=time.time() + 3600)
    assert "seconds later (trace first)" in ask(person)
    post(unsubscribe(timestamp=int(time.time()) + 60))  # counts as now
    assert "Dynamic Yield had taken the same before, on" in ask(person)
    settle(app, State.DEAD, status=422, message="no such section")
    assert ask(person).startswith("Yes")


def test_not_yet_with_the_reason_and_the_next_try(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe())
    assert ask(person).startswith("Not yet")
    settle(app, State.PENDING, due_at=time.time() + 300, status=503, message="Service Unavailable")
    assert "it waits: Service Unavailable. Next try" in ask(person)


def test_no_with_what_dynamic_yield_said(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe())
    settle(app, State.DEAD, status=422, message="no such section (E1)")
    text = ask(person)
    assert text.startswith("No jane@example.com unsubscribed at SendGrid")
    assert "Dynamic Yield refused it (no such section (E1)), on" in text
    assert "Mend the cause, then send it again" in text


@pytest.mark.parametrize(
    "event",
    [
        {"event": "resigned", "email": "Jane@example.com"},
        {"event": "unsubscribe", "email": "Jane <jane@example.com>, Joe <joe@example.com>", "timestamp": 1760000000},
        {"event": "unsubscribe", "address": "mail=jane%40example.com&x=1"},
    ],
)
def test_who_stands_in_quarantine_is_found_there(
    app: Flask, person: Person, post: Post, event: dict[str, object]
) -> None:
    post(event)
    text = ask(person)
    assert "Something about this address came from SendGrid" in text
    assert "it was not understood" in text
    assert "Nothing about" in ask(person, "jill@example.com")


def test_nothing_came_says_when_each_esp_called_last(app: Flask, person: Person, post: Post) -> None:
    assert "SendGrid has never called" in ask(person)
    post(unsubscribe("joe@example.com"))
    app.extensions["counters"].flush()
    text = ask(person)
    assert "Nothing about jane@example.com has come" in text
    assert "SendGrid called last" in text


def test_her_page_shows_word_for_word_what_was_sent(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe())
    settle(app, State.PENDING, due_at=0.0, status=503, message="Service Unavailable")
    settle(app, State.DELIVERED, trace_id="6f1c")
    answer = person.post("/console/people", form_on="/console/", person="jane@example.com")
    page = person.get(answer.location).text
    assert page.count("POST https://dy-api.com/v2/collect/user/event") == 2
    assert "&#34;plainTextEmail&#34;: &#34;jane@example.com&#34;" in page
    assert "Proof, made on" in page
    assert "answer 503: Service Unavailable" in page


def test_a_person_is_forgotten_and_the_journal_says_who_did_it(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe(), unsubscribe("joe@example.com"), {"event": "resigned", "email": "jane@example.com"})
    page = person.post("/console/people", form_on="/console/", person="jane@example.com").location
    refused = person.post(f"{page}/erase", form_on=page)
    assert (refused.status_code, "would never be told" in refused.text) == (400, True)
    person.post(f"{page}/erase", form_on=page, even_if_unfinished="1")
    assert "2 events of this person were erased." in person.get("/console/").text
    assert "Nothing about jane@example.com" in ask(person)
    with app.extensions["database"].read() as connection:
        left = [
            connection.execute(select(func.count()).select_from(one)).scalar() for one in (events, consents, mentions)
        ]
    assert left == [1, 1, 0]
    last = Journal(app.extensions["database"]).last("people erase")
    assert last
    assert last.who == "console"
    assert "jane" not in str(last.details)


def test_who_stands_in_quarantine_alone_can_be_forgotten_too(app: Flask, person: Person, post: Post) -> None:
    post({"event": "resigned", "email": "jane@example.com"})
    page = person.post("/console/people", form_on="/console/", person="jane@example.com").location
    person.post(f"{page}/erase", form_on=page)
    assert "1 event of this person was erased." in person.get("/console/").text
    assert "Nothing about" in ask(person)


def test_a_body_full_of_addresses_costs_a_bounded_number_of_hashes(app: Flask, post: Post) -> None:
    many = " ".join(f"u{number}@example.com" for number in range(500))
    post(*({"event": "resigned", "text": f"{place} {many}"} for place in range(30)))
    with app.extensions["database"].read() as connection:
        assert connection.execute(select(func.count()).select_from(mentions)).scalar() == 1000


def test_a_page_of_nobody_is_not_found_and_nobody_by_an_address(person: Person, post: Post) -> None:
    post(unsubscribe())
    for pseudonym in ("0" * 32, "x", "jane@example.com", "%00"):
        assert person.get(f"/console/people/{pseudonym}").status_code == 404
