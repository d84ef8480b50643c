"""Emarsys: any key names, any spelling of the opt-in value, any way in."""

import json
from typing import Any

import pytest

from webhook_app.auth import WebhookRequest
from webhook_app.consent import IdentityKind
from webhook_app.providers import Reading, emarsys, read
from webhook_app.settings import ConfigurationError, Settings

CONTACT = {"external_id": "C-1001", "email": "jane@example.com", "event_time": "2026-01-05T10:15:30Z"}


def say(event: Any, query: str = "", **environ: str) -> Reading:
    provider = emarsys.provider(Settings.from_environment(environ))
    request = WebhookRequest(body=json.dumps(event).encode(), query=query)
    return read(provider, request, forward_opt_ins=True)


def outcome(read_: Reading) -> str:
    if read_.changes:
        return read_.changes[0][0].action.value
    return "ignored" if read_.ignored else "quarantined"


@pytest.mark.parametrize("value", [2, "2", False, "False", "false", " FALSE ", "0", 0, "no", "nein"])
def test_values_that_opt_out(value: Any) -> None:
    assert outcome(say(CONTACT | {"optin": value})) == "opt_out"


@pytest.mark.parametrize("value", [1, "1", True, "True", "true", "yes", "ja"])
def test_values_that_opt_in(value: Any) -> None:
    assert outcome(say(CONTACT | {"optin": value})) == "opt_in"


@pytest.mark.parametrize("value", [3, "maybe", 1.5, [], {}, "None"])
def test_values_that_are_none_of_emarsys_are_quarantined(value: Any) -> None:
    read_ = say(CONTACT | {"optin": value})
    assert [reason for reason, _ in read_.quarantined] == ["optin: is none of 1, 2, true, false or empty"]


#: The body's opt-in value (… for none), the URL's query → without and with EMARSYS_UNKNOWN_OPT_IN=opt_out.
UNKNOWN = [
    # Misspelt, most likely: what the person wants may stand there under another name.
    (..., "", "quarantined", "quarantined"),
    (None, "", "ignored", "opt_out"),
    ("", "", "ignored", "opt_out"),
    (" ", "", "ignored", "opt_out"),
    (..., "action=opt_out", "opt_out", "opt_out"),
    (..., "action=opt_in", "opt_in", "opt_in"),
    (None, "action=opt_out", "opt_out", "opt_out"),
    # An empty value is never an opt-in, whatever the URL says.
    (None, "action=opt_in", "ignored", "opt_out"),
    # A value in the body says it more exactly than the URL.
    ("2", "action=opt_in", "opt_out", "opt_out"),
    # Or it is the value from before: forwarding it, or dropping it as an opt-in, would lose an opt-out.
    ("1", "x=1&action=opt_out", "quarantined", "quarantined"),
    (..., "action=optout", "quarantined", "quarantined"),
]


@pytest.mark.parametrize(("value", "query", "by_default", "as_opt_out"), UNKNOWN)
def test_who_says_it_where_the_body_does_not(value: Any, query: str, by_default: str, as_opt_out: str) -> None:
    event = CONTACT if value is ... else CONTACT | {"optin": value}
    assert outcome(say(event, query)) == by_default
    assert outcome(say(event, query, EMARSYS_UNKNOWN_OPT_IN="opt_out")) == as_opt_out


def test_a_misspelt_key_is_named_with_those_that_are_there() -> None:
    event = CONTACT | {"opt_in": "2", "jane@example.com": 1}
    ((reason, _),) = say(event).quarantined
    assert reason == (
        "optin: is missing, and the URL names no action; there are: external_id, email, event_time, opt_in …"
    )
    ((reason, _),) = say({}, EMARSYS_FIELDS="opt_in=Newsletter").quarantined
    assert reason == "Newsletter: is missing, and the URL names no action; there is no other key"


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_an_opt_out_does_not_wait_for_its_time_or_its_number(empty: Any) -> None:
    ((change, _),) = say(CONTACT | {"optin": "2", "event_time": empty, "deduplication_id": [7]}).changes
    assert (change.occurred_at, change.event_id) == (None, "")
    ((change, _),) = say(CONTACT | {"optin": "2", "deduplication_id": "null"}).changes
    assert change.event_id == ""


@pytest.mark.parametrize("absent", ["null", "NULL", "undefined", "None", "[object Object]", "{{contact.id}}", "${id}"])
def test_an_id_that_says_there_is_none_is_nobodys(absent: str) -> None:
    ((reason, _),) = say(CONTACT | {"optin": "2", "external_id": absent}).quarantined
    assert reason == "external_id: is what stands where there was no id"


def test_a_contact_whose_will_is_not_known_needs_no_identifier_to_be_ignored() -> None:
    assert outcome(say({"external_id": None, "optin": None})) == "ignored"


def test_the_key_names_are_the_customers() -> None:
    fields = "email=E-Mail, opt_in=Newsletter,event_time=when,event_id=nr"
    event = {"E-Mail": "Jane@Example.com", "Newsletter": "2", "when": 1767607200, "nr": 7, "external_id": "C-1"}
    ((change, _),) = say(event, EMARSYS_FIELDS=fields, EMARSYS_IDENTITY="email").changes
    assert (change.identity.value, str(change.occurred_at), change.event_id) == (
        "Jane@Example.com",
        "2026-01-05 10:00:00+00:00",
        "7",
    )


def test_a_key_may_stand_in_the_trigger_events_payload() -> None:
    inner = {"event_data": {"mail": "a@b.de"}, "optin": 2}
    flat = {"event_data.mail": "c@d.de", "optin": 2, "event_data": "text"}
    for event, address in ((inner, "a@b.de"), (flat, "c@d.de")):
        ((change, _),) = say(event, EMARSYS_FIELDS="email=event_data.mail", EMARSYS_IDENTITY="email").changes
        assert change.identity.value == address


#: EMARSYS_IDENTITY, EMARSYS_IDENTITY_FALLBACK, the contact's ids → who it is, or why nobody.
IDENTITIES = [
    ("external", "false", {"external_id": 7, "email": "a@b.de"}, IdentityKind.EXTERNAL),
    ("external", "false", {"email": "a@b.de"}, "external_id: is missing"),
    ("external", "false", {"external_id": None, "email": "a@b.de"}, "external_id: is missing"),
    ("external", "true", {"external_id": "", "email": "a@b.de"}, IdentityKind.EMAIL),
    ("external", "true", {"external_id": "C-1", "email": "rubbish"}, IdentityKind.EXTERNAL),
    ("external", "true", {}, "external_id: is missing"),
    ("email", "false", {"external_id": "C-1"}, "email: is missing"),
    ("email", "false", {"external_id": "C-1", "email": None}, "email: is missing"),
    ("email", "true", {"external_id": "C-1", "email": " "}, IdentityKind.EXTERNAL),
    ("email", "true", {"external_id": "C-1", "email": "rubbish"}, "email: is not an email address"),
]


@pytest.mark.parametrize(("wanted", "fallback", "ids", "expected"), IDENTITIES)
def test_which_identifier_wins(wanted: str, fallback: str, ids: dict[str, Any], expected: Any) -> None:
    read_ = say({"optin": 2} | ids, EMARSYS_IDENTITY=wanted, EMARSYS_IDENTITY_FALLBACK=fallback)
    if isinstance(expected, IdentityKind):
        assert [change.identity.kind for change, _ in read_.changes] == [expected]
    else:
        assert [reason for reason, _ in read_.quarantined] == [expected]


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        (
            "EMARSYS_FIELDS",
            "mail=x",
            "EMARSYS_FIELDS must be pairs like email=email; the names are: email, external_id",
        ),
        ("EMARSYS_FIELDS", "email", "EMARSYS_FIELDS must be pairs like email=email"),
        ("EMARSYS_BASIC_AUTH", "a:b,s3cret", "EMARSYS_BASIC_AUTH entry 2 of 2 must be written user:password"),
        ("EMARSYS_IDENTITY", "id", "EMARSYS_IDENTITY must be one of: external, email"),
        ("EMARSYS_UNKNOWN_OPT_IN", "opt_in", "EMARSYS_UNKNOWN_OPT_IN must be one of: ignore, opt_out"),
    ],
)
def test_a_mistake_in_the_settings_is_named_but_no_secret_shown(variable: str, value: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_environment({variable: value})
    (line,) = refused.value.problems
    assert line.startswith(problem)
    assert "s3cret" not in line


def test_no_repr_of_the_settings_shows_a_secret() -> None:
    names = ("EMARSYS_TOKENS", "EMARSYS_JWT_SECRETS", "EMARSYS_URL_SECRETS")
    settings = Settings.from_environment(
        dict.fromkeys(names, "canary-1-long-enough") | {"EMARSYS_BASIC_AUTH": "esp:canary-1"}
    )
    assert "canary" not in repr(settings)
