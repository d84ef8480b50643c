"""Replaying, reading again and discarding, one and many, on both engines."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update

from tests.signing import SendGridSigner
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox import State
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
    return Redelivery(app.extensions["database"], app.extensions["providers"] | providers, forward_opt_ins=False)


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


def set_state(app: Flask, state: State) -> None:
    with app.extensions["database"].write() as connection:
        connection.execute(update(events).values(state=state))


def unsubscribe(number: int) -> dict[str, Any]:
    return {"event": "unsubscribe", "email": f"u{number}@example.com", "timestamp": 1760000000}


def test_all_filtered_are_replayed_in_batches_and_counted_before(app: Flask, post: Post) -> None:
    post([unsubscribe(number) for number in range(1500)])
    set_state(app, State.DEAD)
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
