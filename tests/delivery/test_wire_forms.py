"""What goes on the wire: every form against its golden file, which was written from Dynamic Yield's pages."""

import dataclasses
from pathlib import Path
from typing import Any

import orjson
import pytest
from marshmallow import ValidationError, fields

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind, PushChannel, Visitor
from webhook_app.delivery import Outcome, Undeliverable
from webhook_app.delivery.client import Client
from webhook_app.delivery.events_api import EmailProperties
from webhook_app.delivery.registry import build_form
from webhook_app.dev.sandbox import Sandbox
from webhook_app.settings import ConfigurationError, Settings

GOLDEN = Path(__file__).parents[1] / "golden"
PSEUDONYM = "5f0c8a1e9d3b47f2a6c4e8d0b1923746"
IDENTIFIER = {
    IdentityKind.EMAIL: "Jane@Example.com",
    IdentityKind.EXTERNAL: "852456456",
    IdentityKind.PUSH: "100",
}
#: More than any section needs: each form must pick what is its own.
KNOWN_VISITOR = Visitor(
    dyid="-4350463893986789401",
    dyid_server="-4350463893986789401",
    session="ohyr6v42l9zd4bpinnvp7urjjx9lrssw",
    user_id="john_123",
    session_id="iquahngaishe2koh",
)


def change(kind: IdentityKind, action: Action = Action.OPT_OUT, **more: Any) -> ConsentChange:
    identity = Identity(kind=kind, value=IDENTIFIER[kind])
    push_channel = PushChannel.WEB if kind is IdentityKind.PUSH and action is Action.OPT_IN else None
    return dataclasses.replace(
        ConsentChange(action=action, identity=identity, reason="unsubscribe", push_channel=push_channel), **more
    )


def assert_arrives_as(golden: str, said: ConsentChange, settings: Settings, client: Client, box: Sandbox) -> None:
    expected = orjson.loads((GOLDEN / golden).read_bytes())
    answer = client.send(build_form(settings).call(said, pseudonym=PSEUDONYM))
    request = box.arrivals[-1].request
    assert f"{request.method} {request.path}" == expected["request"]
    assert request.body == orjson.dumps(expected["body"])  # byte by byte, so the order of the keys counts too
    assert answer.outcome is Outcome.DELIVERED  # the sandbox, which is strict, took it


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("kind", IdentityKind)
@pytest.mark.parametrize("section", ["web", "api"])
@pytest.mark.parametrize("destination", ["events", "reconnect"])
def test_every_form_is_on_the_wire_as_documented(
    destination: str, section: str, kind: IdentityKind, action: Action, client: Client, box: Sandbox
) -> None:
    settings = Settings(destination=destination, section_type=section)
    assert_arrives_as(f"{destination}/{section}/{kind}-{action}.json", change(kind, action), settings, client, box)


@pytest.mark.parametrize("section", ["web", "api"])
@pytest.mark.parametrize("destination", ["events", "reconnect"])
def test_ids_that_the_webhook_carried_are_passed_on_where_the_section_has_a_place_for_them(
    destination: str, section: str, client: Client, box: Sandbox
) -> None:
    settings = Settings(destination=destination, section_type=section)
    said = change(IdentityKind.PUSH, visitor=KNOWN_VISITOR)
    assert_arrives_as(f"{destination}/{section}/push-opt_out-visitor.json", said, settings, client, box)


@pytest.mark.parametrize("section", ["web", "api"])
def test_consent_is_declared_in_every_call_where_the_settings_say_so(
    section: str, client: Client, box: Sandbox
) -> None:
    settings = Settings(section_type=section, active_consent_accepted=True)
    assert_arrives_as(f"events/{section}/email-opt_out-consent.json", change(IdentityKind.EMAIL), settings, client, box)


@pytest.mark.parametrize("section", ["web", "api"])
@pytest.mark.parametrize("action", Action)
def test_the_key_of_a_push_id_is_a_setting(action: Action, section: str, client: Client, box: Sandbox) -> None:
    settings = Settings.from_environment({"SECTION_TYPE": section, "EVENTS_API_PUSH_KEY": "pushId"})
    said = change(IdentityKind.PUSH, action)
    assert_arrives_as(f"events/{section}/push-{action}-pushId.json", said, settings, client, box)


@pytest.mark.parametrize("section", ["web", "api"])
def test_a_context_is_sent_where_the_settings_name_a_channel(section: str, client: Client, box: Sandbox) -> None:
    settings = Settings(section_type=section, events_api_context="EMAIL")
    assert_arrives_as(f"events/{section}/email-opt_out-context.json", change(IdentityKind.EMAIL), settings, client, box)


@pytest.mark.parametrize("section", ["web", "api"])
@pytest.mark.parametrize("destination", ["events", "reconnect"])
def test_an_address_is_sent_in_lower_case_where_the_settings_say_so(
    destination: str, section: str, client: Client, box: Sandbox
) -> None:
    settings = Settings(destination=destination, section_type=section, address_case="lower")
    said = change(IdentityKind.EMAIL)
    assert_arrives_as(f"{destination}/{section}/email-opt_out-lower.json", said, settings, client, box)


@pytest.mark.parametrize("destination", ["events", "reconnect"])
@pytest.mark.parametrize("kind", [IdentityKind.EXTERNAL, IdentityKind.PUSH])
def test_only_addresses_are_ever_written_in_lower_case(destination: str, kind: IdentityKind) -> None:
    said = change(kind, identity=Identity(kind=kind, value="AbC"))
    body = build_form(Settings(destination=destination, address_case="lower")).call(said, pseudonym=PSEUDONYM).body
    assert b'"AbC"' in body


def test_an_address_in_lower_case_is_kept_out_of_messages_too() -> None:
    call = build_form(Settings(address_case="lower")).call(change(IdentityKind.EMAIL), pseudonym=PSEUDONYM)
    assert "jane@example.com" in call.private


def test_an_api_only_section_gets_the_same_made_up_ids_for_the_same_person_and_no_address_in_them() -> None:
    form = build_form(Settings(section_type="api"))
    first, second = (form.call(change(IdentityKind.EMAIL, action), pseudonym=PSEUDONYM).body for action in Action)
    other = form.call(change(IdentityKind.EMAIL), pseudonym="somebody else").body
    ids = [(body["user"]["id"], body["sessionId"]) for body in map(orjson.loads, (first, second, other))]
    assert ids[0] == ids[1]
    assert ids[0][0] != ids[2][0]
    assert ids[0][1] != ids[2][1]
    assert "jane" not in str(ids).lower()


def test_an_address_is_sent_trimmed_and_otherwise_as_the_esp_wrote_it() -> None:
    said = change(IdentityKind.EMAIL, identity=Identity(kind=IdentityKind.EMAIL, value="  Jänë+x@Exämple.COM "))
    body = build_form(Settings()).call(said, pseudonym=PSEUDONYM).body
    assert '"plainTextEmail":"Jänë+x@Exämple.COM"'.encode() in body


def test_the_names_of_events_are_a_setting() -> None:
    settings = Settings(opt_out_event_name="Newsletter stopped ({channel})", opt_in_event_name="Back again")
    form = build_form(settings)
    names = [
        orjson.loads(form.call(change(IdentityKind.PUSH, action), pseudonym=PSEUDONYM).body)["events"][0]["name"]
        for action in (Action.OPT_OUT, Action.OPT_IN)
    ]
    assert names == ["Newsletter stopped (Push)", "Back again"]


def test_what_reconnect_has_not_published_is_a_setting() -> None:
    form = build_form(
        Settings(
            destination="reconnect",
            reconnect_email_channel="mail",
            reconnect_external_type="Customer ID",
            reconnect_app_push_channel="app-push",
            reconnect_push_type="token",
        )
    )
    external = form.call(change(IdentityKind.EXTERNAL), pseudonym=PSEUDONYM)
    assert external.path == "/v2/userdata/channels/mail/opt-out"
    assert orjson.loads(external.body)["identifier"]["type"] == "Customer ID"
    push = form.call(change(IdentityKind.PUSH, push_channel=PushChannel.APP), pseudonym=PSEUDONYM)
    assert push.path == "/v2/userdata/channels/app-push/opt-out"
    assert orjson.loads(push.body)["identifier"]["type"] == "token"


def test_consent_mode_with_the_dedicated_endpoints_is_refused_at_boot() -> None:
    with pytest.raises(ConfigurationError, match="ACTIVE_CONSENT_ACCEPTED must be false with DESTINATION=reconnect"):
        build_form(Settings(destination="reconnect", active_consent_accepted=True))


@pytest.mark.parametrize(
    ("settings", "said", "reason"),
    [
        (Settings(), change(IdentityKind.PUSH, Action.OPT_IN, push_channel=None), "a push opt-in needs its channel"),
        (
            Settings(destination="reconnect"),
            change(IdentityKind.PUSH, push_channel=PushChannel.APP),
            "set RECONNECT_APP_PUSH_CHANNEL",
        ),
        *(
            (
                Settings(destination=destination),
                change(IdentityKind.EMAIL, identity=Identity(kind=IdentityKind.EMAIL, value="\ud800@example.com")),
                "characters that cannot be sent",
            )
            for destination in ("events", "reconnect")
        ),
    ],
    ids=["push opt-in of no channel", "app push without a channel", "surrogate to events", "surrogate to reconnect"],
)
def test_a_change_without_a_form_says_why(settings: Settings, said: ConsentChange, reason: str) -> None:
    with pytest.raises(Undeliverable, match=reason) as caught:
        build_form(settings).call(said, pseudonym=PSEUDONYM)
    assert "example.com" not in caught.value.reason


def test_properties_that_name_two_people_are_not_dumped() -> None:
    class Both(EmailProperties):
        external_id = fields.Constant("852456456", data_key="externalId")

    with pytest.raises(ValidationError, match="exactly one of"):
        Both().dump(change(IdentityKind.EMAIL))


def test_an_empty_identifier_never_becomes_a_change() -> None:
    with pytest.raises(ValueError, match="the push identifier is empty"):
        Identity(kind=IdentityKind.PUSH, value="  ")


@pytest.mark.parametrize("destination", ["events", "reconnect"])
def test_a_probe_names_nobody_and_is_refused(destination: str, client: Client, box: Sandbox) -> None:
    answer = client.send(build_form(Settings(destination=destination)).probe())
    assert answer.outcome is Outcome.REFUSED
    assert box.received[-1]["body"] == {}
