"""Replaying, reading again and discarding, one and many, on both engines."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from marshmallow import ValidationError
from sqlalchemy import update

from tests.outbox.world import give_all_up
from tests.signing import SendGridSigner
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox import Intake, State
from webhook_app.outbox.queries import Event, Filter, search, show
from webhook_app.outbox.tables import events
from webhook_app.providers import Provider
from webhook_app.redelivery import Redelivery, Verb

MakeApp = Callable[..., Flask]
Post = Callable[[Any], None]


@pytest.fixture
def app(make_app: MakeApp, database_url: str) -> Flask:
    return make_app(DATABASE_URL=database_url)


@pytest.fixture
def post(app: Flask, sendgrid_signer: SendGridSigner) -> Post:
    def send(batch: Any) -> None:
        body = batch if isinstance(batch, bytes) else json.dumps(batch).encode()
        answer = app.test_client().post("/webhooks/sendgrid", data=body, headers=sendgrid_signer.headers(body))
        assert answer.status_code == 200

    return send


def redelivery(app: Flask, **providers: Provider) -> Redelivery:
    return Redelivery(app.extensions["database"], {**app.extensions["providers"], **providers}, forward_opt_ins=False)


def mended(app: Flask) -> Provider:
    """SendGrid, were its schema to read `address` too."""

    def translate(event: Any, _: object) -> ConsentChange | None:
        if event["event"] == "nothing":
            return None
        identity = Identity(kind=IdentityKind.EMAIL, value=event["address"])
        return ConsentChange(action=Action.OPT_OUT, identity=identity, reason="unsubscribe")

    provider: Provider = app.extensions["providers"]["sendgrid"]
    return dataclasses.replace(provider, translate=translate)


def all_events(app: Flask) -> list[Event]:
    return search(app.extensions["database"], Filter(), ascending=True).events


def unsubscribe(number: int) -> dict[str, Any]:
    return {"event": "unsubscribe", "email": f"u{number}@example.com", "timestamp": 1760000000}


def test_all_filtered_are_replayed_in_batches_and_counted_before(app: Flask, post: Post) -> None:
    post([unsubscribe(number) for number in range(1500)])
    give_all_up(app.extensions["database"])
    again = redelivery(app)
    which = Filter(state=State.DEAD)
    assert again.count(Verb.REPLAY, which) == 1500
    assert [progress.done for progress in again.run(Verb.REPLAY, which)] == [1000, 500]
    assert again.count(Verb.REPLAY, which) == 0
    assert {event.state for event in all_events(app)} == {State.PENDING}


def test_a_run_can_go_on_behind_the_change_where_it_was_left(app: Flask, post: Post) -> None:
    post([unsubscribe(number) for number in range(3)])
    (progress,) = redelivery(app).run(Verb.DISCARD, Filter(), after=2)
    assert (progress.done, progress.last) == (1, 3)
    assert [event.state for event in all_events(app)] == [State.PENDING, State.PENDING, State.DISCARDED]


def test_a_quarantined_event_is_read_again_by_the_mended_mapping(app: Flask, post: Post) -> None:
    post([{"event": "unsubscribe", "address": "jane@example.com"}])
    (event,) = all_events(app)
    assert redelivery(app).one(Verb.REPLAY, event) is False
    assert all_events(app)[0].state is State.QUARANTINED

    assert redelivery(app, sendgrid=mended(app)).one(Verb.REPLAY, event) is True
    aside, new = all_events(app)
    assert (aside.state, aside.error) == (State.DISCARDED, "read again: it is now #2")
    assert (new.state, new.identity_value) == (State.PENDING, "jane@example.com")
    # SendGrid did not say when: it happened when the event came in, not when it was read again.
    assert new.occurred_at == aside.received_at


def test_what_was_discarded_out_of_the_quarantine_can_still_be_read_again(app: Flask, post: Post) -> None:
    post([{"event": "unsubscribe", "address": "jane@example.com", "timestamp": 1767607200}])
    (event,) = all_events(app)
    assert redelivery(app).one(Verb.DISCARD, event)
    ready = redelivery(app, sendgrid=mended(app))
    discarded = Filter(state=State.DISCARDED)
    assert ready.count(Verb.REPLAY, discarded) == 1
    assert [step.done for step in ready.run(Verb.REPLAY, discarded)] == [1]
    assert [one.state for one in all_events(app)] == [State.DISCARDED, State.PENDING]
    # It was read: nothing is left to be read again.
    assert ready.count(Verb.REPLAY, discarded) == 0


def test_a_whole_body_is_read_again_event_by_event(app: Flask, post: Post) -> None:
    post(b'[{"event": "unsubscribe", "address": "jane@example.com"}, {"event": "unsubscribe"')
    (event,) = all_events(app)
    life = show(app.extensions["database"], event.id)
    assert life is not None
    assert life.raw is not None

    def events_of(_: object) -> list[Any]:
        return [{"event": "unsubscribe", "address": f"{name}@example.com"} for name in ("jane", "joe")]

    provider = dataclasses.replace(mended(app), events=events_of)
    assert redelivery(app, sendgrid=provider).one(Verb.REPLAY, event) is True
    assert {one.identity_value for one in all_events(app)} == {None, "jane@example.com", "joe@example.com"}


def test_an_event_that_turns_out_to_say_nothing_leaves_the_quarantine(app: Flask, post: Post) -> None:
    post([{"event": "unsubscribe", "email": 1}])
    (event,) = all_events(app)
    with app.extensions["database"].write() as connection:
        connection.execute(update(events).values(raw=b'{"event": "nothing"}'))
    assert redelivery(app, sendgrid=mended(app)).one(Verb.REPLAY, event) is True
    (aside,) = all_events(app)
    assert (aside.state, aside.error) == (State.DISCARDED, "read again: it says nothing about consent")


def test_only_one_of_two_people_who_try_again_at_once_succeeds(app: Flask, post: Post) -> None:
    post([{"event": "unsubscribe", "address": "jane@example.com"}])
    (event,) = all_events(app)
    again = redelivery(app, sendgrid=mended(app))
    assert [again.one(Verb.REPLAY, event), again.one(Verb.REPLAY, event)] == [True, False]
    assert len(all_events(app)) == 2


def test_what_belongs_to_a_provider_that_is_gone_stays_and_says_so(app: Flask, post: Post) -> None:
    post([{"event": "unsubscribe"}])
    (event,) = all_events(app)
    gone = Redelivery(app.extensions["database"], {}, forward_opt_ins=False)
    assert gone.one(Verb.REPLAY, event) is False
    assert all_events(app)[0].error == "there is no provider sendgrid any more"


@pytest.mark.parametrize(
    "raw",
    [
        {"file": "list.csv", "line": 2, "email": "jane@example.com", "time": "2026-01-05"},
        {"file": "list.csv", "line": 2, "external_id": "0042", "reason": "nothing"},
        {"list": "/suppression/unsubscribes", "entry": {"event": "nothing", "email": "jane@example.com"}},
    ],
    ids=["a row", "a row with an id", "an entry"],
)
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_row_of_a_file_and_an_entry_of_a_list_are_no_events_and_keep_their_reason(
    raw: dict[str, Any], is_gone: bool, app: Flask
) -> None:
    database = app.extensions["database"]
    reason = "the condition of section uk failed: ValidationError"
    Intake(database).add("sendgrid", quarantined=[(reason, json.dumps(raw).encode())])

    def says_nothing(_event: Any, _: object) -> None:
        return None

    provider = dataclasses.replace(app.extensions["providers"]["sendgrid"], translate=says_nothing)
    again = Redelivery(database, {} if is_gone else {"sendgrid": provider}, forward_opt_ins=False)
    assert [progress.done for progress in again.run(Verb.REPLAY, Filter())] == [0]
    # Were it read as an event, an opt-out that counts would be set aside as one that says nothing.
    assert [(event.state, event.error) for event in all_events(app)] == [(State.QUARANTINED, reason)]


# ---------------------------------------------------------------- nothing leaves the quarantine unread


EMARSYS = {"EMARSYS_TOKENS": "token-of-the-tests", "EMARSYS_IDENTITY": "email"}


@pytest.mark.parametrize("action", ["opt_out", "opt_in"])
def test_what_the_url_said_is_kept_with_the_event(make_app: MakeApp, database_url: str, action: str) -> None:
    """Emarsys' program may say only in the URL what happened: read again without it, the event would say nothing."""
    app = make_app(DATABASE_URL=database_url, FORWARD_OPT_INS="true", **EMARSYS)
    client, headers = app.test_client(), {"Authorization": "Bearer token-of-the-tests"}
    body = {"e_mail": "jane@example.com", "event_time": "2026-01-05T10:15:30Z"}
    answer = client.post(f"/webhooks/emarsys?action={action}&x=%20y", json=body, headers=headers)
    assert answer.json == {"accepted": 0, "duplicates": 0, "ignored": 0, "quarantined": 1}
    (event,) = all_events(app)
    assert redelivery(app).one(Verb.REPLAY, event) is False
    assert [one.state for one in all_events(app)] == [State.QUARANTINED]

    mended_app = make_app(DATABASE_URL=database_url, FORWARD_OPT_INS="true", EMARSYS_FIELDS="email=e_mail", **EMARSYS)
    again = Redelivery(app.extensions["database"], mended_app.extensions["providers"], forward_opt_ins=True)
    assert again.one(Verb.REPLAY, event) is True
    aside, new = all_events(app)
    assert (aside.state, new.state, new.action) == (State.DISCARDED, State.PENDING, action)
    assert new.identity_value == "jane@example.com"


def test_what_a_sections_condition_could_not_judge_keeps_what_the_url_said(
    make_app: MakeApp, database_url: str
) -> None:
    more = {"DATABASE_URL": database_url, **EMARSYS}
    app = make_app(SECTION_WHEN="contains(event.lists, 'uk')", **more)
    headers = {"Authorization": "Bearer token-of-the-tests"}
    body = {"email": "jane@example.com", "optin": "", "lists": None}
    answer = app.test_client().post("/webhooks/emarsys?action=opt_out", json=body, headers=headers)
    assert answer.json == {"accepted": 0, "duplicates": 0, "ignored": 0, "quarantined": 1}
    (event,) = all_events(app)
    mended_app = make_app(SECTION_WHEN="event.lists == `null`", **more)
    again = Redelivery(
        app.extensions["database"],
        mended_app.extensions["providers"],
        forward_opt_ins=False,
        sections=mended_app.extensions["conditions"],
    )
    assert again.one(Verb.REPLAY, event) is True
    aside, new = all_events(app)
    assert (aside.state, new.state, new.action) == (State.DISCARDED, State.PENDING, "opt_out")


def test_a_body_that_is_no_json_keeps_what_the_url_said_too(make_app: MakeApp, database_url: str) -> None:
    app = make_app(DATABASE_URL=database_url, **EMARSYS)
    app.test_client().post(
        "/webhooks/emarsys?action=opt_out",
        data=b'{"email": "jane@example.com",}',
        headers={"Authorization": "Bearer token-of-the-tests"},
    )
    (event,) = all_events(app)
    provider: Provider = app.extensions["providers"]["emarsys"]
    forgiving = dataclasses.replace(provider, events=lambda request: [json.loads(request.body.replace(b",}", b"}"))])
    assert redelivery(app, emarsys=forgiving).one(Verb.REPLAY, event) is True
    assert [one.identity_value for one in all_events(app)] == [None, "jane@example.com"]


def test_of_more_unreadable_events_than_are_kept_one_by_one_none_vanishes(app: Flask, post: Post) -> None:
    unreadable = [{"event": "unsubscribe", "address": f"u{number}@example.com"} for number in range(1100)]
    post([{"event": "unsubscribe", "address": "jane@example.com", "email": "jane@example.com"}, *unreadable])
    (event,) = [one for one in all_events(app) if one.state is State.QUARANTINED]
    # The mapping is mended for one of them only.
    half = mended(app)
    translate = half.translate

    def first_only(raw: Any, request: Any) -> ConsentChange | None:
        if raw["address"] != "u7@example.com":
            raise ValidationError("is still not understood")
        return translate(raw, request)

    again = redelivery(app, sendgrid=dataclasses.replace(half, translate=first_only))
    assert again.one(Verb.REPLAY, event) is True
    states = [one.state for one in all_events(app)]
    # Seen: discarded and pending only; 1,100 opt-outs were gone.
    assert states.count(State.QUARANTINED) == 1
    (left,) = [one for one in all_events(app) if one.state is State.QUARANTINED]
    assert redelivery(app, sendgrid=mended(app)).one(Verb.REPLAY, left) is True
    people = search(app.extensions["database"], Filter(state=State.PENDING), limit=2000).events
    assert {f"u{number}@example.com" for number in range(1100)} <= {one.identity_value for one in people}


def test_the_same_bytes_after_a_person_has_discarded_them_are_a_new_event(app: Flask, post: Post) -> None:
    body = [{"event": "unsubscribe", "address": "jane@example.com"}]
    for _ in range(2):
        post(body)
    (event,) = all_events(app)
    assert redelivery(app).one(Verb.DISCARD, event) is True
    for _ in range(2):
        post(body)
    old, new = all_events(app)
    assert (old.state, new.state) == (State.DISCARDED, State.QUARANTINED)


def test_a_change_that_a_person_has_discarded_stays_so_when_the_esp_sends_it_again(app: Flask, post: Post) -> None:
    post([unsubscribe(1)])
    (event,) = all_events(app)
    assert redelivery(app).one(Verb.DISCARD, event) is True
    post([unsubscribe(1)])
    assert [one.state for one in all_events(app)] == [State.DISCARDED]
