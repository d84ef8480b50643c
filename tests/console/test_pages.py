"""What the pages say, and that weird input is harmless."""

import csv
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import update

from tests.console.person import PASSWORD, Person
from tests.outbox.world import ending
from tests.signing import SendGridSigner
from webhook_app.consent import Identity, IdentityKind
from webhook_app.outbox import Queue, State, queries
from webhook_app.outbox.counters import Count
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.queries import Filter
from webhook_app.outbox.tables import consents, events

Post = Callable[..., None]


def unsubscribe(email: str = "jane@example.com", **more: object) -> dict[str, object]:
    return {"event": "unsubscribe", "email": email, "timestamp": 1760000000} | more


def states(app: Flask) -> list[State]:
    return [event.state for event in queries.search(app.extensions["database"], Filter(), ascending=True).events]


def test_the_overview_says_why_it_is_not_working(person: Person) -> None:
    page = person.get("/console/").text
    assert "Not working" in page
    assert "no live worker: nothing is forwarded" in page
    assert "start <code>flask forward</code>" in page


def test_the_overview_says_it_works_and_what_to_look_at(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe(), state="dead")
    post({"event": "unsubscribe"})
    Queue(app.extensions["database"]).report("a worker")
    page = person.get("/console/").text
    assert "Working, with something to look at" in page
    assert "1 change was given up" in page
    assert "1 event was not understood" in page
    # Where it is mended is a link here, and no way to be told.
    assert "console →" not in page


def test_the_overview_names_the_types_that_no_entry_knows(app: Flask, person: Person, post: Post) -> None:
    post({"event": "resigned", "email": "jane@example.com", "timestamp": 1760000000})
    app.extensions["counters"].flush()
    page = person.get("/console/").text
    assert "sendgrid has sent 1 event of the unknown type resigned" in page
    assert "of an unknown type: resigned" in page


def test_the_overview_shows_what_each_esp_last_called_with(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe())
    app.test_client().post("/webhooks/emarsys", data=b"{}")
    app.extensions["counters"].flush()
    page = person.get("/console/").text
    assert "new changes" in page
    assert "calls, and is refused" in person.get("/console/esps").text


def test_a_change_that_failed_often_says_how_often(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe())
    queue = Queue(app.extensions["database"])
    for _ in range(23):
        queue.settle([ending(queue.claim(1)[0], State.PENDING, due_at=0)])
    page = person.get("/console/events/1").text
    assert "23 attempts have failed" in page
    assert page.count(": retry</b>") == 20
    assert "Attempt 11" not in page


def test_the_chart_counts_what_happened_in_the_time_asked_for(app: Flask, person: Person) -> None:
    counters = app.extensions["counters"]
    counters.add(((Count.ACCEPTED, "sendgrid", "", 7),))
    counters.add(((Count.FAILED, "sendgrid", "http_503", 3),))
    counters.flush()
    for length in ("24h", "7d", "30d", "weird"):
        page = person.get(f"/console/?range={length}").text
        assert "7 received" in page
        assert "0 delivered" in page
        assert "3 failed attempts" in page


def test_an_address_from_outside_is_text_wherever_it_stands(app: Flask, person: Person, post: Post) -> None:
    # No address may hold < or >, so it is put where the schema never let it.
    post(unsubscribe(), {"event": "unsubscribe", "address": "<script>alert(1)</script>"})
    evil = "<script>alert(4)</script>'\"@example.com"
    hashed = load_hasher(app.extensions["database"]).identity(Identity(kind=IdentityKind.EMAIL, value=evil))
    with app.extensions["database"].write() as connection:
        connection.execute(
            update(events).where(events.c.id == 1).values(identity_value=evil, identity_hash=hashed, reason=evil)
        )
        connection.execute(update(consents).values(identity_hash=hashed))
    for path in (
        "/console/events",
        "/console/events/1",
        "/console/events/2",
        "/console/quarantine",
        "/console/events?person=<script>alert(3)</script>&state=<script>",
        "/console/discard?person=<script>alert(4)</script>'\"@example.com",
    ):
        page = person.get(path)
        assert "<script>alert" not in page.text, path
        assert "&lt;script&gt;" in page.text, path


@pytest.mark.parametrize(
    "query",
    [
        "page=1000000000",
        "after=1000000000",
        "after=1000000000.1000000000",
        "before=" + "9" * 100 + ".1",
        "after=%00.%00",
        "sort=id;DROP TABLE events",
        "state=gone",
        "from=yesterday",
        "to=9999-12-31",
        "from=0001-01-01",
        "from=2026-01-01T00:00:00%2B99:00",
        "person=" + "x" * 5000,
        "person=%00",
        "person=%ED%A0%80",
        "provider=' OR 1=1 --",
        "state=dead&state=pending",
        "order=sideways",
        "%FF=%FE",
    ],
)
def test_weird_filters_are_harmless(app: Flask, person: Person, post: Post, query: str) -> None:
    post(unsubscribe())
    for path in ("/console/events", "/console/events.csv", "/console/quarantine", "/console/replay", "/console/"):
        answer = person.get(f"{path}?{query}")
        assert answer.status_code in (200, 303, 400), path
        answer.get_data()
    assert states(app) == [State.PENDING]


@pytest.mark.parametrize("looked_for", ["jane@example.com", " JANE@example.com ", "#1", "1"])
def test_who_is_looked_for_stands_in_no_url(person: Person, post: Post, looked_for: str) -> None:
    """A router on the way, like Heroku's, logs each URL."""
    post(unsubscribe("jane@example.com"), unsubscribe("joe@example.com"))
    answer = person.post("/console/events", form_on="/console/events", person=looked_for, state="pending")
    assert answer.status_code == 303
    assert "state=pending" in answer.location
    found = person.get(answer.location)
    assert "jane@example.com" in found.text
    assert "joe@example.com" not in found.text
    for link in [answer.location, *re.findall(r'(?:href|action|value)="([^"]*)"', found.text)]:
        assert "jane" not in link.lower(), link


def test_a_url_with_an_address_leads_to_one_without_and_a_link_to_it_keeps_working(person: Person, post: Post) -> None:
    post(unsubscribe("jane@example.com"))
    answer = person.get("/console/events?person=jane@example.com&sort=attempts&after=0.1&_external=1")
    assert (answer.status_code, "jane" in answer.location) == (303, False)
    assert "sort=attempts" in answer.location
    assert person.get(answer.location).status_code == 200
    nobody = person.get("/console/events?person=nobody@example.com")
    assert "Nothing found" in person.get(nobody.location).text


def test_a_search_that_is_not_understood_is_told_and_stands_in_no_url(person: Person) -> None:
    answer = person.post("/console/events", form_on="/console/events", person="jane@example.com", to="yesterday")
    assert (answer.status_code, "is not a day" in answer.text) == (400, True)


def test_every_page_works_on_either_engine(
    make_app: Callable[..., Flask], database_url: str, sendgrid_signer: SendGridSigner
) -> None:
    app = make_app(CONSOLE_PASSWORD=PASSWORD, DATABASE_URL=database_url)
    body = json.dumps(
        [unsubscribe(), unsubscribe("joe@example.com"), {"event": "unsubscribe", "for": "jill@example.com"}]
    ).encode()
    app.test_client().post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
    app.extensions["counters"].flush()
    person = Person(app.test_client())
    person.log_in("wrong")
    person.log_in()
    window = "from=2026-01-01&to=2999-01-01&state=pending&provider=sendgrid"
    for path in (
        "",
        "?range=30d",
        f"events?{window}&person={'0' * 32}",
        "events?sort=attempts&order=asc&after=0.1",
        "events?sort=occurred&before=1760000000000000.1",
        "events/1",
        "events/3",
        "quarantine",
        f"replay?{window}",
        f"discard?{window}",
        "events.csv",
        "esps",
        "esps/sendgrid",
        "report",
        "report.csv?since=all",
        "journal",
    ):
        assert person.get(f"/console/{path}").status_code == 200, path
    for somebody, word in (("jane@example.com", "Not yet"), ("jill@example.com", "it was not understood")):
        answer = person.post("/console/people", form_on="/console/", person=somebody)
        assert word in person.get(answer.location).text
    done = person.post("/console/discard", form_on=f"/console/discard?{window}", state="pending", up_to="9").text
    assert "2 changes were discarded" in done
    assert person.get("/metrics").text.count("\nesp_webhooks_accepted_total{") == 1


def test_the_report_counts_what_took_longer_than_two_days(app: Flask, person: Person, post: Post) -> None:
    now = datetime.now(UTC).timestamp()
    post(unsubscribe(timestamp=int(now) - 3 * 86_400))
    queue = Queue(app.extensions["database"])
    queue.settle([ending(claimed, started_at=now) for claimed in queue.claim(1)])
    page = person.get("/console/report").text
    assert re.search(r'title="1, 100.00 %"><th scope="row">longer than 48 hours<', page)
    assert '"1, 100.00 %"><th scope="row">24 to 48 hours' not in page


@pytest.mark.parametrize("number", ["0", "99", "1000000000", "9" * 40, "-1", "1.5", "x", "%00"])
def test_an_event_that_does_not_exist_is_not_found(person: Person, number: str) -> None:
    assert person.get(f"/console/events/{number}").status_code == 404


def test_lists_are_paged_there_and_back(person: Person, post: Post) -> None:
    post(*(unsubscribe(f"u{number}@example.com") for number in range(120)))
    seen, path = [], "/console/events"
    for _ in range(3):
        page = person.get(path).text
        seen.append(page.count('scope="row"'))
        if 'rel="next"' in page:
            path = "/console/events?" + page.split('rel="next" href="?')[1].split('"')[0].replace("&amp;", "&")
    assert seen == [50, 50, 20]
    assert 'rel="prev"' in page


def test_one_event_shows_the_exact_request_without_the_key(make_app: Callable[..., Flask], post: Post) -> None:
    post(unsubscribe(sg_event_id="esp-1"))
    person = Person(make_app(CONSOLE_PASSWORD=PASSWORD, EVENTS_API_KEY="secret-key").test_client())
    person.log_in()
    page = person.get("/console/events/1").text
    assert "POST https://dy-api.com/v2/collect/user/event" in page
    assert "&#34;plainTextEmail&#34;: &#34;jane@example.com&#34;" in page
    assert "esp-1" in page
    assert "secret-key" not in page


def test_a_superseded_event_says_why_it_is_not_sent(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe())
    post(unsubscribe(timestamp=1760000100))
    assert states(app) == [State.SUPERSEDED, State.PENDING]
    page = person.get("/console/events/1").text
    assert "<b>Superseded</b>" in page
    assert "a newer change of this person counts" in page


def test_an_emptied_event_is_still_found_and_says_so(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe(), state="delivered")
    with app.extensions["database"].write() as connection:
        connection.execute(update(events).values(identity_value=None, visitor=None, raw=None))
    assert "#1" in person.get("/console/events?person=JANE@example.com", follow_redirects=True).text
    page = person.get("/console/events/1").text
    assert "The keyed hash stays as proof" in page
    assert "Retention has emptied this change." in page


def test_the_export_is_safe_to_open_in_a_spreadsheet(app: Flask, person: Person, post: Post) -> None:
    post(*(unsubscribe(f"{sign}cmd|' /C calc'!A0@example.com".replace(" ", "")) for sign in "=+-"), unsubscribe())
    answer = person.get("/console/events.csv")
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=events-")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["identity_value"][0] for row in rows] == ["'"] * 3 + ["j"]
    assert datetime.fromisoformat(rows[0]["received_at"]).tzinfo == UTC
    some = person.get("/console/events.csv?person=jane@example.com").text
    assert len(some.splitlines()) == 2


def test_all_found_are_replayed_after_a_confirmation_that_says_how_many(app: Flask, person: Person, post: Post) -> None:
    post(*(unsubscribe(f"u{number}@example.com") for number in range(3)), state="dead")
    post(unsubscribe("late@example.com"))
    page = person.get("/console/replay?state=dead").text
    assert "Replay 3 changes?" in page
    answer = person.post("/console/replay", form_on="/console/replay?state=dead", state="dead", up_to="4")
    assert "3 changes were replayed" in answer.text
    assert states(app) == [State.PENDING] * 4


def test_an_order_does_not_reach_what_came_in_after_it_was_confirmed(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe("a@example.com"), unsubscribe("b@example.com"))
    person.post("/console/discard", form_on="/console/discard?state=pending", state="pending", up_to="1")
    assert states(app) == [State.DISCARDED, State.PENDING]


def test_an_order_that_takes_long_goes_on_where_it_was(
    app: Flask, person: Person, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook_app.console.pages.orders.PATIENCE", -1.0)
    post(*(unsubscribe(f"u{number}@example.com") for number in range(1500)), state="dead")
    form = {"form_on": "/console/replay?state=dead", "state": "dead", "up_to": "1500"}
    first = person.post("/console/replay", **form).text
    assert "1,000 changes were replayed" in first
    assert 'name="after" value="1000"' in first
    second = person.post("/console/replay", **form, after="1000", done="1000").text
    assert "1,500 changes were replayed" in second


@pytest.mark.parametrize("fields", [{}, {"state": ""}, {"state": "gone"}, {"from": "soon"}, {"page": "1"}])
def test_an_order_whose_filter_got_lost_reaches_nothing(
    app: Flask, person: Person, post: Post, fields: dict[str, str]
) -> None:
    post(unsubscribe())
    for verb in ("replay", "discard"):
        answer = person.post(f"/console/{verb}", form_on="/console/", up_to="99", **fields)
        assert answer.status_code == 400
    assert states(app) == [State.PENDING]


def test_one_change_is_replayed_or_discarded_from_its_page(app: Flask, person: Person, post: Post) -> None:
    post(unsubscribe(), state="dead")
    answer = person.post("/console/events/1/replay", form_on="/console/events/1")
    assert answer.location == "/console/events/1"
    assert "#1 will be sent again." in person.get("/console/events/1").text
    person.post("/console/events/1/discard", form_on="/console/events/1")
    assert states(app) == [State.DISCARDED]


def test_what_is_still_not_understood_stays_in_quarantine_and_says_so(app: Flask, person: Person, post: Post) -> None:
    post({"event": "unsubscribe", "email": "jane"})
    answer = person.post("/console/events/1/replay", form_on="/console/quarantine", back="/console/quarantine")
    assert answer.location == "/console/quarantine"
    page = person.get("/console/quarantine").text
    assert "#1 is still not understood." in page
    assert "email: is not an email address" in page


def test_a_database_that_is_away_is_said_in_words(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    app = make_app(CONSOLE_PASSWORD=PASSWORD, DATABASE_URL=f"sqlite:///{tmp_path}/other.db", SECRET_KEY="x" * 16)
    person = Person(app.test_client())
    person.log_in()
    app.extensions["database"].close()
    (tmp_path / "other.db").rename(tmp_path / "hidden.db")
    (tmp_path / "other.db").mkdir()
    for path in ("/console/", "/console/events", "/console/events.csv", "/console/events/1", "/console/quarantine"):
        answer = person.get(path)
        assert (answer.status_code, "The database cannot be used" in answer.text) == (503, True), path


def test_no_address_gets_into_the_log_by_a_search(
    person: Person, post: Post, capsys: pytest.CaptureFixture[str]
) -> None:
    post(unsubscribe())
    person.get("/console/events?person=jane@example.com")
    person.get("/console/login?next=/console/events?person=jane@example.com")
    assert "jane" not in capsys.readouterr().out
