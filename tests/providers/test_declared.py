"""The language of a providers file: what a customer can say, and what they are told when it is wrong."""

import base64
import codecs
import hmac
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from webhook_app.auth import AuthenticationError, WebhookRequest
from webhook_app.consent import Action, IdentityKind, PushChannel, Visitor
from webhook_app.providers import Provider, Reading, read, registry
from webhook_app.providers.auth_config import TABLES
from webhook_app.providers.declaration import DeclarationError, ProviderTable, compile_declaration
from webhook_app.providers.opening import entry_with_changes
from webhook_app.settings import ConfigurationError, Settings

Declare = Callable[..., Provider]

#: The least that a provider needs; the tests add to it.
LEAST = """
[acme]
auth = { scheme = "token", secrets = "ACME_TOKENS" }
opt_out = "type == 'unsubscribed'"
"""


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Mapping[str, Provider]]:
    def build(toml: str, **environ: str) -> Mapping[str, Provider]:
        file = tmp_path / "providers.toml"
        file.write_text(toml)
        given = {"PROVIDERS_FILE": str(file), "ACME_TOKENS": "a-token-of-acme-0"} | environ
        return registry.build_providers(Settings.from_environment(given), given)

    return build


@pytest.fixture
def declare(build: Callable[..., Mapping[str, Provider]]) -> Declare:
    return lambda toml, **environ: build(toml, **environ)["acme"]


@pytest.fixture
def mistakes(build: Callable[..., Mapping[str, Provider]]) -> Callable[..., list[str]]:
    def mistakes(toml: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigurationError) as refused:
            build(toml, **environ)
        return refused.value.problems

    return mistakes


def say(provider: Provider, event: Any) -> Reading:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return read(provider, WebhookRequest(body=body), forward_opt_ins=True)


def test_a_single_event_or_a_list_of_them(declare: Declare) -> None:
    acme = declare(LEAST + 'email = "who"\n')
    one = {"type": "unsubscribed", "who": "jane@example.com"}
    for body, changes, ignored in ((one, 1, 0), ([one, one, {"type": "x"}], 2, 1), ([], 0, 0)):
        read_ = say(acme, body)
        assert (len(read_.changes), read_.ignored, read_.quarantined) == (changes, ignored, [])


def test_everything_that_can_be_said_of_an_event(declare: Declare) -> None:
    acme = declare(
        LEAST
        + """
        opt_in = "type == 'subscribed'"
        push_id = "device"
        push_channel = "kind"
        reason = "why"
        time = "at"
        time_format = "%d.%m.%Y %H:%M"
        time_zone = "Europe/Berlin"
        event_id = "id"
        message_id = "mail"
        is_test = "test"
        visitor = { dyid = "dy.id", dyid_server = "dy.server", dy = "dy.session", user_id = "u", session_id = "s" }
        """
    )
    event = {"type": "subscribed", "device": 100, "kind": "WEB_PUSH", "why": "button", "at": "05.01.2026 11:00"}
    event |= {"id": "e1", "mail": "m1", "test": True, "u": "john_123", "s": "s1"}
    ((change, raw),) = say(acme, event | {"dy": {"id": "d", "server": "ds", "session": "dys"}}).changes
    assert (change.action, change.identity.kind, change.identity.value) == (Action.OPT_IN, IdentityKind.PUSH, "100")
    # 11:00 in Berlin in winter is 10:00 UTC.
    assert str(change.occurred_at) == "2026-01-05 10:00:00+00:00"
    assert (change.reason, change.event_id, change.message_id, change.is_test) == ("button", "e1", "m1", True)
    assert change.visitor == Visitor(dyid="d", dyid_server="ds", session="dys", user_id="john_123", session_id="s1")
    assert change.push_channel is PushChannel.WEB
    assert json.loads(raw)["device"] == 100


def test_the_events_that_for_each_makes_keep_nobody_elses_part_of_their_own_list(declare: Declare) -> None:
    acme = declare(LEAST + 'for_each = "people"\nemail = "each.mail"\n')
    people = [{"mail": "a@b.de"}, {"mail": "c@d.de"}]
    (_, first), (_, second) = say(acme, {"type": "unsubscribed", "people": people}).changes
    assert json.loads(first) == {"type": "unsubscribed", "each": people[0]}
    assert json.loads(second) == {"type": "unsubscribed", "each": people[1]}


def test_a_change_that_is_in_doubt_is_quarantined_with_the_reason(declare: Declare) -> None:
    toml = LEAST + 'email = "who"\n[acme.quarantine]\n"names several people" = "length(to) > `1`"\n'
    acme = declare(toml)
    one = {"type": "unsubscribed", "who": "a@b.de", "to": ["a@b.de"]}
    read_ = say(acme, [one, one | {"to": ["a@b.de", "c@d.de"]}, {"type": "opened", "to": [1, 2]}])
    assert (len(read_.changes), read_.ignored) == (1, 1)
    assert [reason for reason, _ in read_.quarantined] == ["event: names several people"]


def test_a_body_of_any_form_is_told_apart_by_how_it_begins(declare: Declare) -> None:
    acme = declare(LEAST + 'email = "who.mail"\nbody = "any"\n')
    form, single = b"type=unsubscribed&who%5Bmail%5D=a%40b.de", b'{"type": "unsubscribed", "who": {"mail": "a@b.de"}}'
    wide = single.decode().encode("utf-16")
    for body in (form, single, b" [" + single + b"]", codecs.BOM_UTF8 + single, wide, wide[2:], single + b"\n"):
        ((change, _),) = say(acme, body).changes
        assert change.identity.value == "a@b.de"


def test_what_is_absent_has_a_sensible_default(declare: Declare) -> None:
    acme = declare(LEAST + 'email = "who"\nreason = "why"\ntime = "at"\nevent_id = "id"\n')
    ((change, _),) = say(acme, {"type": "unsubscribed", "who": "a@b.de", "at": None}).changes
    assert (change.reason, change.occurred_at, change.event_id) == ("opt_out", None, "")


NO_IDS = ["null", "undefined", 0, "n/a", " N/A ", "{event_id}", "[ID]", "@EVENTID@", "%ID%", "{{id}}", "none", "-", ""]


@pytest.mark.parametrize("odd", NO_IDS)
def test_what_stands_where_there_was_no_event_id_is_none(declare: Declare, odd: Any) -> None:
    acme = declare(LEAST + 'email = "who"\nevent_id = "id"\n')
    ((change, _),) = say(acme, {"type": "unsubscribed", "who": "a@b.de", "id": odd}).changes
    assert change.event_id == ""


@pytest.mark.parametrize("event_id", ["null", "{event_id}"])
def test_a_placeholder_as_event_id_swallows_no_later_opt_out(make_app: Callable[..., Flask], event_id: str) -> None:
    client, headers = make_app(GENERIC_TOKENS="a-token-of-generic").test_client(), {"X-Api-Key": "a-token-of-generic"}
    event = {"action": "opt_out", "email": "jane@example.com", "id": event_id}
    for _ in range(2):
        answer = client.post("/webhooks/generic", json=event, headers=headers)
        assert answer.json == {"accepted": 1, "duplicates": 0, "ignored": 0, "quarantined": 0}


@pytest.mark.parametrize(
    "pattern",
    ["%d.%m.%Y", "%y%m%d", "%j %Y", "%G-W%V-%u", "%Y-%m-%dT%H:%M:%S.%fZ", "%m/%d/%Y %I:%M %p", "%c", "%Y-%m-%d %Z%%s"],
)
def test_a_time_format_that_says_the_day_starts_without_a_hint(declare: Declare, pattern: str) -> None:
    assert declare(LEAST + f'email = "who"\ntime = "at"\ntime_format = "{pattern}"\n').hints == ()


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("%e.%m.%Y", "counts for nothing: %e is %d"),
        ("%FT%TZ", "counts for nothing: %F is %Y-%m-%d; %T is %H:%M:%S"),
        ("%D", "counts for nothing: %D is %m/%d/%y"),
        ("%s", "counts for nothing: %s is read without a time_format"),
        ("%Y-%m-%d %H:%M:%S.%L", "counts for nothing: %L is %f"),
        ("%Y-%m-%d %Q", "counts for nothing: 'Q' is a bad directive"),
        ("%d.%d.%Y", "counts for nothing: redefinition of group name"),
        ("100%", "counts for nothing: stray %"),
        ("%d.%m. %H:%M", "does not say the day with its year"),
        ("%Y-%m", "does not say the day with its year"),
        ("%d.%m.%Y %I:%M", "does not tell the morning from the evening"),
    ],
)
def test_a_time_format_that_may_be_wrong_starts_with_a_hint_and_other_forms_are_read(
    declare: Declare, pattern: str, hint: str
) -> None:
    acme = declare(LEAST + f'email = "who"\ntime = "at"\ntime_format = "{pattern}"\n')
    (said,) = acme.hints
    assert said.startswith("time_format ")
    assert hint in said
    for at in ("2026-01-05T20:00:00Z", 1767643200, "1767643200"):
        ((change, _),) = say(acme, {"type": "unsubscribed", "who": "a@b.de", "at": at}).changes
        assert str(change.occurred_at) == "2026-01-05 20:00:00+00:00"


def test_an_event_that_says_both_is_an_opt_out(declare: Declare) -> None:
    acme = declare(LEAST + 'opt_in = "given(type)"\nemail = "who"\n')
    ((change, _),) = say(acme, {"type": "unsubscribed", "who": "a@b.de"}).changes
    assert change.action is Action.OPT_OUT


def test_which_identifier_wins_is_said(declare: Declare) -> None:
    acme = declare(LEAST + 'email = "e"\nexternal_id = "x"\nidentify_by = ["external_id", "email"]\n')
    for event, kind in (
        ({"e": "a@b.de", "x": "C-1"}, IdentityKind.EXTERNAL),
        ({"e": "a@b.de", "x": " "}, IdentityKind.EMAIL),
        ({"e": "a@b.de"}, IdentityKind.EMAIL),
        # The address that is not needed may be rubbish.
        ({"e": 7, "x": "C-1"}, IdentityKind.EXTERNAL),
    ):
        ((change, _),) = say(acme, {"type": "unsubscribed"} | event).changes
        assert change.identity.kind is kind
    assert say(acme, {"type": "unsubscribed"}).quarantined[0][0] == "external_id (x): is missing"


def test_json_in_json_and_one_event_for_each_recipient(declare: Declare) -> None:
    acme = declare(LEAST + 'json_in = "inner"\nevents = "list"\nfor_each = "to[].mail"\nemail = "each"\n')
    inner = {"list": [{"type": "unsubscribed", "to": [{"mail": "a@b.de"}, {"mail": "c@d.de"}]}]}
    assert [change.identity.value for change, _ in say(acme, {"inner": json.dumps(inner)}).changes] == [
        "a@b.de",
        "c@d.de",
    ]
    for body in ({"inner": inner}, {"inner": "{"}, {}, {"inner": json.dumps({"list": None})}):
        assert len(say(acme, body).quarantined) == 1


CONDITIONS = "[acme]\nauth = { scheme = 'token', secrets = 'A' }\nemail = 'who'\nopt_out = "


@pytest.mark.parametrize(
    ("condition", "event", "outcome"),
    [
        ("type == 'unsub'", {"type": "open"}, "ignored"),
        ("type == 'unsub'", {"type": None}, "ignored"),
        ("type == 'unsub'", {"typ": "unsub"}, "quarantined"),
        ("type == 'unsub'", {}, "quarantined"),
        ("type == 'unsub' || kind == 'out'", {"kind": "in"}, "ignored"),
        ("type == 'unsub' || kind == 'out'", {"name": "out"}, "quarantined"),
        ("a.b == 'unsub'", {"a": {"c": 1}}, "quarantined"),
        ("a.b == 'unsub'", {"a": {"b": 1}}, "ignored"),
        ("a.b == 'unsub'", {"a": "unsub"}, "quarantined"),
        ("contains(['x'], type)", {"typ": "x"}, "quarantined"),
        ("lower(type) == 'unsub'", {"typ": "x"}, "quarantined"),
        ("contains(tags[].name || `[]`, 'unsub')", {"labels": []}, "quarantined"),
        # Whether something is there is the question itself.
        ("given(unsubscribed_at)", {"opened_at": 1}, "ignored"),
        ("given(msys.unsubscribe_event) || type == 'x'", {"msys": {}}, "ignored"),
    ],
)
def test_an_event_of_which_no_condition_can_be_asked_is_quarantined(
    declare: Declare, condition: str, event: dict[str, Any], outcome: str
) -> None:
    """A misspelt key in the file would otherwise ignore every opt-out, and nobody would hear of it."""
    read_ = say(declare(CONDITIONS + f'"""{condition}"""\n'), event)
    assert (read_.ignored, len(read_.quarantined)) == ((1, 0) if outcome == "ignored" else (0, 1)), read_


@pytest.mark.parametrize(
    ("condition", "event", "reason"),
    [
        ("subscribed == `false`", {"subscribed": "false"}, "subscribed: is the text 'false', compared with false;"),
        ("subscribed == `false`", {"subscribed": "False"}, "write subscribed == 'False'"),
        ("subscribed == `false`", {"subscribed": 0}, "subscribed: is 0, compared with false; write subscribed == `0`"),
        ("subscribed == `false`", {"subscribed": "0"}, "subscribed: is the text '0', compared with false"),
        ("status == '2'", {"status": 2}, "status: is 2, compared with the text '2'; write status == `2`"),
        ("status == `2`", {"status": "2"}, "status: is the text '2', compared with 2; write status == '2'"),
        ("a == 'x' || b.type == 'unsub'", {"a": 1, "b": {"type": " Unsub"}}, "write lower(b.type) == 'unsub'"),
        ("contains(['unsub', 'out'], type)", {"type": "OUT"}, "type: is the text 'OUT', compared with the text 'out'"),
        ("status == `1`", {"status": True}, "status: is true, compared with 1"),
        ("type == 'unsub' && list == 'a'", {"type": "Unsub", "list": "a"}, "type: is the text 'Unsub'"),
        ("type == 'unsub' && list == 'a'", {"type": "Unsub", "list": "A"}, "type: is the text 'Unsub'"),
        ("contains(['Unsub', 'unsub'], type) && list == 'a'", {"type": "Unsub", "list": "A"}, "list: is the text 'A'"),
        (
            "(type == 'Unsub' && list == 'a') || (type == 'unsub' && list == 'b')",
            {"type": "UNSUB", "list": "a"},
            "type: is the text 'UNSUB', compared with the text 'Unsub'",
        ),
        (
            "type == 'updated' && subscribed == `false`",
            {"type": "Updated", "subscribed": "false"},
            "type: is the text 'Updated'",
        ),
        ("type == 'unsub' && channel != 'sms'", {"type": "Unsub", "channel": "email"}, "type: is the text 'Unsub'"),
        (
            "type == 'unsub' && !(user.ok != `false`)",
            {"type": "unsub", "user": {"ok": "false"}},
            "user.ok: is the text",
        ),
        # One value in a list of one, as a form that repeats a field has it, too.
        ("type == 'unsub'", {"type": ["unsub"]}, "type: is a list, compared with the text 'unsub'; write contains("),
        ("subscribed == `false`", {"subscribed": ["false"]}, "write contains(subscribed, 'false')"),
        ("type == 'unsub' && list == 'a'", {"type": ["open", "Unsub"], "list": "a"}, "write contains(type, 'Unsub')"),
        # A yes and a no, in the words that programs have for it.
        (
            "subscribed == `false`",
            {"subscribed": "no"},
            "is the text 'no', compared with false; write subscribed == 'no'",
        ),
        ("subscribed == `false`", {"subscribed": "Off"}, "write subscribed == 'Off'"),
        ("unsubscribed == 'yes'", {"unsubscribed": True}, "is true, compared with the text 'yes'"),
        ("unsubscribed == 'yes'", {"unsubscribed": "Y"}, "write unsubscribed == 'Y'"),
        ("unsubscribed == `1`", {"unsubscribed": "true"}, "is the text 'true', compared with 1"),
        # Where it is no plain comparison: in a filter, a part of a text, a list.
        (
            "length(lists[?name == 'news' && status == 'unsubscribed'] || `[]`) > `0`",
            {"lists": [{"name": "news", "status": "Unsubscribed"}]},
            "would hold, were case not looked at",
        ),
        ("given(lists[?subscribed == `false`])", {"lists": [{"subscribed": "False"}]}, "would hold, were case not"),
        ("starts_with(type, 'unsub')", {"type": "UNSUBSCRIBED"}, "would hold, were case not looked at"),
        ("contains(type, 'Opt-Out')", {"type": "opt-out of email"}, "would hold, were case not looked at"),
        ("contains(tags, 'unsub')", {"tags": ["Unsub"]}, "would hold, were case not looked at"),
    ],
)
def test_the_right_value_in_another_case_or_of_another_type_is_quarantined(
    declare: Declare, condition: str, event: dict[str, Any], reason: str
) -> None:
    read_ = say(declare(CONDITIONS + f'"""{condition}"""\n'), event)
    assert (read_.changes, read_.ignored, len(read_.quarantined)) == ([], 0, 1)
    assert reason in read_.quarantined[0][0]


@pytest.mark.parametrize(
    ("condition", "event"),
    [
        ("subscribed == `false`", {"subscribed": True}),
        ("subscribed == `false`", {"subscribed": None}),
        ("subscribed == `false`", {"subscribed": 10**30}),
        ("subscribed == `false`", {"subscribed": ["true"]}),
        ("subscribed == `false`", {"subscribed": []}),
        ("consent == 'no'", {"consent": "on"}),
        ("tags[?name == 'unsub'] | length(@) > `0`", {"tags": [{"name": "open"}]}),
        ("status == '2'", {"status": 22}),
        ("status != `2` && status == '3'", {"status": "2"}),
        ("type == 'unsub' && list == 'main'", {"type": "unsub", "list": "other"}),
        ("tags[?name == 'unsub'] == `1`", {"tags": [], "name": "UNSUB"}),
        ("given(at) && subscribed == `false`", {"subscribed": "false"}),
        # The condition would not hold either if the value were as it is asked for.
        ("contains(['Unsub', 'unsub'], type) && list == 'a'", {"type": "Unsub", "list": "b"}),
        ("(on == `false` || on == 'false') && channel == 'email'", {"on": False, "channel": "sms"}),
        ("type == 'unsub' && !(channel == 'SMS' || channel == 'sms')", {"type": "open", "channel": "SMS"}),
        ("type == 'unsub' && !(channel == 'sms')", {"type": "Unsub", "channel": "SMS"}),
        ("type == 'unsub' && channel != 'sms'", {"type": "Unsub", "channel": "SMS"}),
        ("type == 'updated' && subscribed == `false`", {"type": "created", "subscribed": "false"}),
        ("type == 'unsub' && contains(tags, 'x')", {"type": "Open", "list": "A"}),
    ],
)
def test_what_only_resembles_the_right_value_is_ignored(
    declare: Declare, condition: str, event: dict[str, Any]
) -> None:
    read_ = say(declare(CONDITIONS + f'"""{condition}"""\n'), event)
    assert (read_.changes, read_.ignored, read_.quarantined) == ([], 1, [])


def test_an_event_that_is_nested_deeper_than_any_is_no_error(declare: Declare) -> None:
    acme = declare(CONDITIONS + "\"type == 'unsub'\"\n")
    deep = '{"type": "open", "a": ' + "[" * 900 + "]" * 900 + "}"
    read_ = read(acme, WebhookRequest(body=deep.encode()), forward_opt_ins=True)
    assert read_.ignored + len(read_.quarantined) == 1


def test_the_fields_that_are_looked_for_and_those_that_are_there_are_named(declare: Declare) -> None:
    acme = declare(CONDITIONS + "\"a.b == 'x' || type == 'y'\"\nopt_in = \"type == 'z'\"\n")
    ((reason, _),) = say(acme, {"typ": "y", "jane@example.com": 1}).quarantined
    assert reason == "event: opt_out looks at a.b, type, none of which is there; there are: typ …"


def test_a_misspelt_key_of_the_opt_out_is_not_hidden_by_a_right_opt_in(declare: Declare) -> None:
    acme = declare(CONDITIONS + "\"typ == 'out'\"\nopt_in = \"type == 'in'\"\n")
    read_ = say(acme, [{"type": "out", "who": "a@b.de"}, {"type": "in", "who": "a@b.de"}, {"typ": "open"}])
    assert (len(read_.changes), read_.ignored) == (1, 1)
    assert [reason for reason, _ in read_.quarantined] == [
        "event: opt_out looks at typ, none of which is there; there are: type, who"
    ]


def test_an_opt_in_alone_is_asked_by_itself(declare: Declare) -> None:
    acme = declare(CONDITIONS.replace("opt_out", "opt_in") + "\"type == 'in'\"\n")
    ((reason, _),) = say(acme, {"typ": "in"}).quarantined
    assert reason.startswith("event: opt_in looks at type, none of which is there")


def test_more_recipients_than_an_esp_ever_names_are_looked_at_by_a_person(declare: Declare) -> None:
    acme = declare(LEAST + 'for_each = "to"\nemail = "each"\n')
    read_ = say(acme, {"type": "unsubscribed", "to": ["a@b.de"] * 1001})
    assert [reason for reason, _ in read_.quarantined] == ["for_each (to) finds 1001 values, more than 1000"]


def test_forms_are_nested_by_their_brackets(declare: Declare) -> None:
    acme = declare(LEAST + 'body = "form"\nemail = "data.merges.EMAIL"\n')
    ((change, _),) = say(acme, b"type=unsubscribed&data%5Bmerges%5D%5BEMAIL%5D=jane%2Bx%40example.com").changes
    assert change.identity.value == "jane+x@example.com"
    for odd in (b"type=unsubscribed&data=1&data[merges][EMAIL]=a", b"type=unsubscribed&data[merges]=1"):
        assert len(say(acme, odd).quarantined) == 1
    # The same fields as JSON.
    body = {"type": "unsubscribed", "data": {"merges": {"EMAIL": "a@b.de"}}}
    assert len(say(acme, body).changes) == 1
    # Repeated names become a list. Of two addresses nobody can tell which is meant.
    assert len(say(acme, b"type=unsubscribed&" + b"data[merges][EMAIL]=a@b.de&" * 2).changes) == 1
    ((reason, _),) = say(acme, b"type=unsubscribed&data[merges][EMAIL]=a@b.de&data[merges][EMAIL]=c@d.de").quarantined
    assert reason.endswith("names 2 recipients, and not which of them is meant")
    assert len(say(acme, b"%ff=%ff&\xff=\xff&&&=").quarantined) == 1


@pytest.mark.parametrize(
    ("addition", "mistake"),
    [
        ("", "email: is missing: the path of the address (or external_id, or push_id)"),
        ('email = "a"\nexternal_id = "b"\n', "identify_by: is missing"),
        ('email = "a"\nidentify_by = "push_id"\n', "identify_by: names push_id, but no path is given for it"),
        ('email = "a"\nidentify_by = "name"\n', "identify_by: must be one or more of: email, external_id, push_id"),
        ('email = ""\n', "email: must be a text in quotes that is not empty"),
        ("email = 5\n", "email: must be a text in quotes that is not empty"),
        ('email = "a"\nopt_in = "foo(@)"\n', "opt_in: calls foo()"),
        ('email = "a"\nopt_int = "b"\n', "opt_int: is not known; did you mean opt_in?"),
        ('email = "a"\nknown = ["open"]\n', "type: is missing: known has no meaning without it"),
        ('email = "a"\ntype = "t"\n', "known: is missing: type has no meaning without it"),
        ('email = "a"\ntype = "t"\nknown = "open"\n', 'known: must be a list of types like ["delivered", "open*"]'),
        ('email = "a"\nquarantine = "b"\n', "quarantine: must be a table of reasons"),
        ('email = "a"\nquarantine = { odd = "b ==" }\n', "quarantine.odd: is no JMESPath expression"),
        ("email = []\n", "email: must be a text in quotes, or a list of them"),
        ('email = ["a", 5]\n', "email: must be a text in quotes that is not empty"),
        ('email = ["a", "b c"]\n', "email: is no JMESPath expression"),
        ('email = "a"\nbody = "xml"\n', "body: must be one of: json, form, any"),
        ('email = "a"\ntime_zone = "Europe/Berlin"\n', "time_zone: has no meaning without time"),
        ('email = "a"\ntime = "t"\ntime_zone = "Mars"\n', "time_zone: is no time zone; write it like Europe/Berlin"),
        ('email = "a"\ntime = "t"\ntime_format = "ISO"\n', "time_format: must be a strptime pattern"),
        ('email = "a"\nvisitor = { dyidd = "b" }\n', "visitor.dyidd: is not known; did you mean dyid?"),
        ('email = "a"\nlargest_body = 0\n', "largest_body: must be a whole number of MiB, from 1 to 64"),
        ('email = "a"\nlargest_body = 65\n', "largest_body: must be a whole number of MiB, from 1 to 64"),
        ('email = "a"\nlargest_body = "8 MB"\n', "largest_body: must be a whole number of MiB, from 1 to 64"),
        ('email = "a"\nlargest_body = 2.5\n', "largest_body: must be a whole number of MiB, from 1 to 64"),
        ('email = "a"\nprobed_with = ["PUT"]\n', "probed_with.0: must be GET or HEAD"),
        ('email = "a"\ngreeting = { show = "b" }\n', "greeting.when: is missing"),
        ('email = "a"\nvisitor = "dyid"\n', "visitor: must be a table like"),
        ("email = \"'jane@example.com'\"\n", "email: is a text that would be the same for everybody"),
        ('email = "a"\ntime = "\'2026-01-05\'"\n', "time: is a text that would be the same for everybody"),
        ('email = "a"\nopt_in = "type != \'unsubscribed\'"\n', "opt_in: holds wherever what it looks at is absent"),
        ('email = "a"\nignore = "!(real)"\n', "ignore: holds wherever what it looks at is absent"),
        ('email = "a"\nalso_ignore = "!(real)"\n', "also_ignore: holds wherever what it looks at is absent"),
        ('email = "a"\nis_test = "live != `true`"\n', "is_test: holds wherever what it looks at is absent"),
        (
            'email = "a"\ngreeting = { when = "a != \'b\'" }\n',
            "greeting.when: holds wherever what it looks at is absent",
        ),
        ('email = "a"\nopt_in = "type == \'unsubscribed\'"\n', "opt_in: says the same as opt_out"),
        ('email = "a"\nignore = "type == \'unsubscribed\'"\n', "opt_out: says the same as ignore"),
        ('email = "a"\nsample = "{"\n', "sample: is no JSON: "),
        ('email = "a"\nsample = \'{"mail": $mail}\'\n', "sample: is no JSON: "),
        ('email = "a"\nlike = "mailgone"\n', "like: must be one of: "),
        ('email = "a"\nlike = ["mailgun"]\n', "like: must be one of: "),
    ],
)
def test_a_mistake_is_named_with_provider_key_and_cure(
    mistakes: Callable[..., list[str]], addition: str, mistake: str
) -> None:
    (line,) = mistakes(LEAST + addition)
    assert line.startswith(f"providers.toml: [acme] {mistake}")


@pytest.mark.parametrize(
    ("auth", "mistake"),
    [
        ('"token"', "auth: must be a table like"),
        ("{}", "auth.scheme: must be one of: hmac, basic, token, url_secret, jwt, standard_webhooks, sns"),
        ('{ scheme = "token" }', "auth.secrets: is missing"),
        ('{ scheme = "token", secrets = "s3cr3t-value" }', "auth.secrets: must be the NAME of an environment variable"),
        ('[{ scheme = "basic", secrets = "A" }, { scheme = "jwt" }]', "auth.1.secrets: is missing"),
        ('{ scheme = "hmac", secrets = "A" }', "auth.signature: is missing"),
        (
            '{ scheme = "hmac", secrets = "A", signature = "header:X#" }',
            "auth.signature: must be like header:X-Signature",
        ),
        ('{ scheme = "hmac", secrets = "A", signature = ["header:X", "Y"] }', "auth.signature: must be like header:X"),
        ('{ scheme = "hmac", secrets = "A", signature = "X-Sig" }', "auth.signature: must be like header:X-Signature"),
        (
            '{ scheme = "hmac", secrets = "A", signature = "header:X", signed = "{bod}" }',
            "auth.signed: names {bod}, which no request has",
        ),
        ('{ scheme = "hmac", secrets = "A", signature = "header:X", signed = "x" }', "auth.signed: names no part"),
        (
            '{ scheme = "hmac", secrets = "A", signature = "header:X", signed = "{timestamp}{body}" }',
            "auth.timestamp: is missing: `signed` names it",
        ),
        (
            '{ scheme = "hmac", secrets = "A", signature = "header:X", timestamp = "header:T" }',
            "auth.timestamp: is not part of `signed`",
        ),
        (
            '{ scheme = "hmac", secrets = "A", signature = "header:X", signed = "{url}" }',
            "auth.signed: covers neither {body} nor {form}",
        ),
        # No header of these names ever arrives, so the ESP would get 401 for ever.
        (
            '{ scheme = "token", secrets = "A", header = "api_key" }',
            "auth.header: cannot arrive: servers drop headers with an underscore; write api-key, here and at the ESP",
        ),
        ('{ scheme = "jwt", secrets = "A", header = "X Key" }', "auth.header: is no header's name; write it like"),
        ('{ scheme = "token", secrets = "A", header = "X-Key:" }', "auth.header: is no header's name"),
        ('{ scheme = "token", secrets = "A", header = "Schlüssel" }', "auth.header: is no header's name"),
        (
            '{ scheme = "hmac", secrets = "A", signature = "header:X-Sig:v1" }',
            "auth.signature: is no header's name; write it like X-Signature (a part of it like header:X-Signature#v1)",
        ),
        (
            '{ scheme = "hmac", secrets = "A", signature = "header:x_sig" }',
            "auth.signature: cannot arrive: servers drop headers with an underscore; write x-sig",
        ),
        (
            '{ scheme = "hmac", secrets = "A", signature = "header:X-Sig#v1", timestamp = "header:x_t#t", '
            'signed = "{timestamp}{body}" }',
            "auth.timestamp: cannot arrive",
        ),
        (
            '{ scheme = "standard_webhooks", secrets = "A", tolerance = 0 }',
            "auth.tolerance: must be a whole number of seconds above 0",
        ),
    ],
)
def test_a_mistake_in_auth(mistakes: Callable[..., list[str]], auth: str, mistake: str) -> None:
    (line,) = mistakes(f"[acme]\nauth = {auth}\nopt_out = \"a == 'b'\"\nemail = 'e'\n")
    assert line.startswith(f"providers.toml: [acme] {mistake}")
    assert "s3cr3t-value" not in line


def test_all_mistakes_of_all_providers_come_at_once(mistakes: Callable[..., list[str]]) -> None:
    lines = mistakes("[one]\n[Two]\n[sendgrid]\n[three]\nauth = 1\nemial = 'x'\n")
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == [
        "[one] auth",
        "[one] email",
        "[one] opt_out",
        "[Two] must have a name of its own, in lower case, like acme-mail",
        "[sendgrid] must have a name of its own, in lower case, like acme-mail",
        "[three] auth",
        "[three] email",
        "[three] emial",
        "[three] opt_out",
    ]


@pytest.mark.parametrize(
    ("environ", "mistake"),
    [
        (
            {"POSTMARK_BASIC_AUTH": "esp:s3cret,nocolon"},
            "POSTMARK_BASIC_AUTH entry 2 of 2 must be written user:password",
        ),
        ({"RESEND_SIGNING_SECRETS": "s3cret"}, "RESEND_SIGNING_SECRETS entry 1 of 1 must be a secret that begins with"),
        ({"SES_TOPIC_ARNS": "s3cret"}, "SES_TOPIC_ARNS entry 1 of 1 must be a topic's ARN"),
        ({"MANDRILL_WEBHOOK_KEYS": "s3cret"}, "PUBLIC_URL must be set, for MANDRILL_WEBHOOK_KEYS is"),
    ],
)
def test_a_secret_of_the_wrong_form_is_named_but_not_shown(
    mistakes: Callable[..., list[str]], environ: dict[str, str], mistake: str
) -> None:
    (line,) = mistakes("", **environ)
    assert line.startswith(mistake)
    assert "s3cret" not in line


def test_a_file_that_cannot_be_read(mistakes: Callable[..., list[str]]) -> None:
    (line,) = mistakes("[acme\n")
    assert line.startswith("providers.toml: is no TOML: ")
    (line,) = mistakes("", PROVIDERS_FILE="nowhere.toml")
    assert line == "PROVIDERS_FILE cannot be read: nowhere.toml: No such file or directory"


def test_a_file_as_notepad_saves_it(mistakes: Callable[..., list[str]], tmp_path: Path) -> None:
    """With a byte order mark it is read; in another encoding the cure is said."""
    file = tmp_path / "own.toml"
    file.write_text('[acme]\ntitle = "Bücher"\n', "utf-8-sig")
    assert "own.toml: [acme] opt_out: is missing" in "\n".join(mistakes("", PROVIDERS_FILE=str(file)))
    file.write_text('[acme]\ntitle = "Bücher"\n', "cp1252")
    assert mistakes("", PROVIDERS_FILE=str(file)) == ["own.toml: is no TOML: it is not UTF-8 text; save it as UTF-8"]


toml_values: Any = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(["type", "a == 'b'", "UTC"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(ProviderTable().fields)), inner),
    max_leaves=6,
)
auth_tables = st.fixed_dictionaries(
    {"scheme": st.sampled_from([*TABLES, "none"]) | toml_values},
    optional={key: toml_values for table in TABLES.values() for key in table.fields if key != "scheme"},
)


@settings(deadline=None)  # a busy machine is no failure
@given(
    table=st.dictionaries(st.sampled_from([*ProviderTable().fields, "unknown"]), toml_values)
    | st.fixed_dictionaries({"auth": auth_tables | st.lists(auth_tables), "opt_out": toml_values, "email": toml_values})
    | toml_values
)
def test_any_table_is_a_declaration_or_a_list_of_mistakes(table: Any) -> None:
    try:
        compile_declaration(table, external_ids=False)
    except DeclarationError as mistakes:
        assert mistakes.lines
        assert all(line.strip() for line in mistakes.lines)


class TestExternalIds:
    """Dynamic Yield takes them from custom ESPs and Emarsys only."""

    def test_a_custom_esp_may_send_them(self, declare: Declare) -> None:
        ((change, _),) = say(declare(LEAST + 'external_id = "id"\n'), {"type": "unsubscribed", "id": 852456456}).changes
        assert (change.identity.kind, change.identity.value) == (IdentityKind.EXTERNAL, "852456456")

    @pytest.mark.parametrize("toml", ["[mailgun]\nauth = {0}\nopt_out = 'a'\n", "[shop]\nlike = 'mailgun'\n"])
    def test_an_esp_of_the_catalogue_may_not(self, mistakes: Callable[..., list[str]], toml: str) -> None:
        auth = '{ scheme = "token", secrets = "A" }'
        (line,) = mistakes(toml.replace("{0}", auth) + "external_id = 'id'\nidentify_by = 'external_id'\n")
        assert "external_id: Dynamic Yield takes external ids from custom ESPs and Emarsys only" in line


class TestCatalogueAndOwnFile:
    def test_like_takes_the_catalogues_entry_with_a_difference(
        self, build: Callable[..., Mapping[str, Provider]]
    ) -> None:
        toml = "[sydney]\nlike = 'campaign_monitor'\ntime_zone = 'Australia/Sydney'\n"
        toml += "auth = { scheme = 'url_secret', secrets = 'SYDNEY' }\n"
        provider = build(toml, SYDNEY="a-secret-of-sydney")["sydney"]
        event = {"Type": "Deactivate", "State": "Unsubscribed", "EmailAddress": "a@b.de", "Date": "2026-01-05 21:00:00"}
        ((change, _),) = say(provider, {"Events": [event]}).changes
        # Sydney is eleven hours ahead in its summer.
        assert str(change.occurred_at) == "2026-01-05 10:00:00+00:00"
        assert (provider.declared_in, provider.opened_by) == ("providers.toml", "SYDNEY")

    def test_a_table_of_the_same_name_takes_the_place_of_the_catalogues(
        self, build: Callable[..., Mapping[str, Provider]]
    ) -> None:
        assert build("")["mailgun"].declared_in == "catalog/mailgun.toml"
        own = build(LEAST.replace("acme", "mailgun") + 'email = "who"\n')["mailgun"]
        assert (own.declared_in, own.opened_by) == ("providers.toml", "ACME_TOKENS")

    def test_an_entry_like_generic_may_know_people_by_an_id(self, tmp_path: Path) -> None:
        """Several journeys of several ESPs, each with a secret of its own."""
        file = tmp_path / "providers.toml"
        file.write_text('[dotdigital]\nlike = "generic"\nauth = { scheme = "basic", secrets = "DOTDIGITAL" }\n')
        providers = registry.build_providers(Settings(providers_file=str(file)), {"DOTDIGITAL": "esp:pw"})
        ((change, _),) = say(providers["dotdigital"], {"action": "opt_out", "external_id": "C-1001"}).changes
        assert change.identity.kind is IdentityKind.EXTERNAL
        assert (providers["dotdigital"].scheme is None, providers["generic"].scheme is None) == (False, True)

    def test_like_keeps_the_reasons_for_the_quarantine_beside_those_of_the_table(self, declare: Declare) -> None:
        toml = "[acme]\nlike = 'generic'\nauth = { scheme = 'token', secrets = 'ACME_TOKENS' }\n"
        acme = declare(toml + "[acme.quarantine]\n'is of staff' = \"staff == `true`\"\n")
        one = {"action": "opt_out", "email": "jane@example.com"}
        read_ = say(acme, [one, one | {"staff": True}, one | {"channel": "sms"}, one | {"external_id": "C-1"}])
        assert [reason for reason, _ in read_.quarantined] == [
            "event: is of staff",
            "event: speaks of another channel than email",
            "event: names more than one identifier: two may be two people",
        ]
        assert len(read_.changes) == 1

    def test_like_may_replace_a_reason_of_the_entry_and_keeps_the_other_ids_of_a_visitor(self) -> None:
        catalog = {"base": {"quarantine": {"a": "x", "b": "y"}, "visitor": {"dyid": "p", "dy": "q"}}}
        table = {"like": "base", "quarantine": {"a": "z"}, "visitor": {"dy": "r"}}
        merged = entry_with_changes(catalog["base"], table)
        assert merged == {"quarantine": {"a": "z", "b": "y"}, "visitor": {"dyid": "p", "dy": "r"}}
        assert entry_with_changes(catalog["base"], {"quarantine": {}, "visitor": {}}) == {
            "quarantine": {},
            "visitor": {},
        }

    @pytest.mark.parametrize(
        ("source", "channel", "outcome"),
        [("SMS", 1, "ignored"), ("HardBounce", 1, "ignored"), ("EmailLink", 27448, "ignored"), ("EmailLink", 1, "out")],
    )
    def test_also_ignore_adds_to_the_ignore_of_the_entry(
        self, declare: Declare, source: str, channel: int, outcome: str
    ) -> None:
        toml = "[acme]\nlike = 'iterable'\nauth = { scheme = 'token', secrets = 'ACME_TOKENS' }\n"
        acme = declare(toml + 'also_ignore = "contains(dataFields.channelIds || `[]`, `27448`)"\n')
        fields = {"unsubSource": source, "channelIds": [channel]}
        read_ = say(acme, {"eventName": "emailUnSubscribe", "email": "a@b.de", "dataFields": fields})
        assert (len(read_.changes), read_.ignored) == ((1, 0) if outcome == "out" else (0, 1))

    def test_a_part_that_holds_of_what_is_absent_starts_with_a_hint(self, declare: Declare) -> None:
        toml = "[acme]\nlike = 'ses'\nauth = { scheme = 'token', secrets = 'ACME_TOKENS' }\n"
        assert declare(toml).hints == ()
        (hint,) = declare(toml + "opt_out = \"a == 'x' && b != 'y'\"\n").hints
        assert hint.startswith("opt_out holds in part wherever b is absent; where that is not meant, ")
        (hint,) = declare(toml + 'opt_in = "at != `null`"\n').hints
        assert hint == "opt_in holds of '', 0, 'null' and 0000-00-00, too, which are not null; write given(at)"

    @pytest.mark.filterwarnings("ignore:deprecated string literal syntax")
    def test_a_word_of_json_in_another_case_starts_with_a_hint(self, declare: Declare) -> None:
        acme = declare(CONDITIONS + "'optout == `True`'\nquarantine = { odd = 'staff == `False`' }\n")
        assert acme.hints == (
            "opt_out compares with the text 'True'; for JSON's true write `true`",
            "quarantine (odd) compares with the text 'False'; for JSON's false write `false`",
        )
        assert len(say(acme, {"optout": "True", "who": "a@b.de"}).changes) == 1

    def test_what_no_form_holds_but_json_may_starts_with_a_hint(self, declare: Declare) -> None:
        toml = CONDITIONS + "'optin == `0`'\nignore = 'a.list > `2`'\n"
        assert declare(toml).hints == declare(toml + "body = 'any'\n").hints == ()
        acme = declare(toml + "body = 'form'\n")
        assert acme.hints == (
            "ignore compares a.list with `2`, but everything in a form is a text; for that write '2'",
            "opt_out compares optin with `0`, but everything in a form is a text; for that write '0'",
        )
        assert len(say(acme, {"optin": 0, "who": "a@b.de"}).changes) == 1

    def test_what_is_said_of_a_closed_entry_is_what_it_says_once_it_is_compiled(self) -> None:
        """It is compiled when somebody asks for it, by its webhooks from before, or by `flask try`."""
        providers = registry.build_providers(Settings(), {})
        closed = {name: entry for name, entry in providers.entries.items() if isinstance(entry, registry.Closed)}
        assert len(closed) == len(list(registry.CATALOG.glob("*.toml")))
        for name, entry in closed.items():
            said = (entry.name, entry.title, entry.opened_by, entry.declared_in, entry.scheme)
            compiled = providers[name]
            assert said == (name, compiled.title, compiled.opened_by, compiled.declared_in, compiled.scheme)
            assert providers.entries[name] is compiled is providers[name]
            # A start writes the hints of open ones into the log, and need not compile a closed one for that.
            assert compiled.hints == ()

    def test_without_any_secret_everything_is_closed(self) -> None:
        providers = registry.build_providers(Settings(), {})
        assert len(providers) >= 23
        assert all(provider.scheme is None and provider.opened_by for provider in providers.values())


def test_several_ways_in_are_open_as_their_variables_are_set(declare: Declare) -> None:
    ways = '[{ scheme = "basic", secrets = "ACME_BASIC" }, { scheme = "jwt", secrets = "ACME_JWT" }]'
    toml = f"[acme]\nauth = {ways}\nopt_out = \"a == 'b'\"\nemail = 'e'\n"
    assert declare(toml).scheme is None
    assert declare(toml).opened_by == "ACME_BASIC or ACME_JWT"
    scheme = declare(toml, ACME_BASIC="esp:pw").scheme
    assert scheme is not None
    credentials = "Basic " + base64.b64encode(b"esp:pw").decode()
    scheme.verify(WebhookRequest(headers=Headers({"Authorization": credentials})))


KNOWN = LEAST + 'email = "who"\ntype = "type"\nknown = ["open*", "Delivered"]\n'


class TestKnownTypes:
    """An event that says nothing is ignored only where the entry says so; an ESP's new event must be seen."""

    def test_what_is_on_the_list_is_ignored_and_any_other_type_is_quarantined_and_counted(
        self, declare: Declare
    ) -> None:
        read_ = say(
            declare(KNOWN), [{"type": type_} for type_ in ("opened", "delivered", "OPEN", "resigned", "resigned")]
        )
        assert (read_.ignored, read_.unknown_types) == (3, {"resigned": 2})
        assert [reason for reason, _ in read_.quarantined] == [
            "type (type): resigned is not known to this entry, or not in this form"
        ] * 2

    def test_an_event_without_a_type_is_quarantined(self, declare: Declare) -> None:
        read_ = say(declare(KNOWN), {"who": "jane@example.com"})
        assert [reason for reason, _ in read_.quarantined] == ["type (type): is missing"]

    @pytest.mark.parametrize("odd", ["jane@example.com", "order-20260105", "x" * 61, 7, ["a"], {"a": 1}, "\x00", ""])
    def test_what_does_not_look_like_a_type_is_not_repeated(self, declare: Declare, odd: Any) -> None:
        read_ = say(declare(KNOWN), {"type": odd})
        assert (read_.unknown_types, read_.quarantined[0][0]) == (
            {"other": 1},
            "type (type): other is not known to this entry, or not in this form",
        )

    def test_only_so_many_types_are_told_apart(self, declare: Declare) -> None:
        numbers = [first + second for first in "abcdefghij" for second in "abcdefghij"]
        read_ = say(declare(KNOWN), [{"type": f"new-{number}"} for number in numbers])
        assert len(read_.unknown_types) == 51
        assert read_.unknown_types["other"] == 50

    def test_what_is_to_be_ignored_is_so_whatever_else_holds(self, declare: Declare) -> None:
        acme = declare(KNOWN + "ignore = \"channel == 'sms'\"\n")
        one = {"type": "unsubscribed", "who": "jane@example.com"}
        read_ = say(acme, [one, one | {"channel": "sms"}])
        assert (len(read_.changes), read_.ignored) == (1, 1)

    def test_unknown_types_are_counted_by_name_and_listed(self, make_app: Callable[..., Flask], tmp_path: Path) -> None:
        file = tmp_path / "providers.toml"
        file.write_text(KNOWN)
        app = make_app(PROVIDERS_FILE=str(file), ACME_TOKENS="a-token-of-acme-0")
        client, headers = app.test_client(), {"Authorization": "Bearer a-token-of-acme-0"}
        answer = client.post("/webhooks/acme", json={"type": "resigned"}, headers=headers)
        assert answer.json == {"accepted": 0, "duplicates": 0, "ignored": 0, "quarantined": 1}
        app.extensions["counters"].flush()
        assert 'unknown_types_total{provider="acme",type="resigned"} 1.0' in client.get("/metrics").text
        listed = app.test_cli_runner().invoke(args=["providers"]).output
        assert "1 of an unknown type in quarantine so far: resigned" in listed


def test_a_path_may_be_a_list_of_which_the_first_that_finds_something_counts(declare: Declare) -> None:
    acme = declare(LEAST + 'email = ["a.mail", "max(b)", "c"]\n')
    for event, address in (
        ({"a": {"mail": "a@b.de"}, "c": "c@d.de"}, "a@b.de"),
        ({"a": {"mail": " "}, "c": "c@d.de"}, "c@d.de"),
        ({"a": {"mail": []}, "c": "c@d.de"}, "c@d.de"),
        ({"b": "a text", "c": "c@d.de"}, "c@d.de"),
    ):
        ((change, _),) = say(acme, {"type": "unsubscribed"} | event).changes
        assert change.identity.value == address
    assert (
        say(acme, {"type": "unsubscribed", "b": [], "c": None}).quarantined[0][0]
        == "email (a.mail or max(b) or c): is missing"
    )


class TestTimesWithoutAZone:
    toml = LEAST + 'email = "who"\nopt_in = "type == \'back\'"\ntime = "at"\ntime_zone = "unknown"\n'

    def test_an_opt_out_counts_from_its_receipt_and_a_repetition_is_known_by_its_time(self, declare: Declare) -> None:
        event = {"type": "unsubscribed", "who": "a@b.de", "at": "2026-01-05 10:00:00"}
        ((change, _),) = say(declare(self.toml), event).changes
        assert (change.occurred_at, change.event_id) == (None, "2026-01-05T10:00:00")

    def test_an_opt_in_is_taken_as_early_as_it_can_be_and_never_wins_by_a_guess(self, declare: Declare) -> None:
        ((change, _),) = say(declare(self.toml), {"type": "back", "who": "a@b.de", "at": "2026-01-05 10:00:00"}).changes
        # 10:00 on the Line Islands, fourteen hours ahead, where each day begins.
        assert change.occurred_at == datetime(2026, 1, 4, 20, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("pattern", "written"), [("", "2026-01-05"), ("%d.%m.%Y", "05.01.2026"), ("%d.%m.%Y", "2026-01-05")]
    )
    def test_a_date_alone_is_no_moment_where_no_zone_is_said(
        self, declare: Declare, pattern: str, written: str
    ) -> None:
        toml = self.toml.replace('time_zone = "unknown"', f'time_format = "{pattern}"' if pattern else "")
        events = [{"type": type_, "who": "a@b.de", "at": written} for type_ in ("unsubscribed", "back")]
        (out, _), (back, _) = say(declare(toml), events).changes
        assert (out.occurred_at, out.event_id) == (None, "2026-01-05T00:00:00")
        assert back.occurred_at == datetime(2026, 1, 4, 10, tzinfo=UTC)

    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
    def test_a_date_alone_is_its_midnight_in_the_zone_that_is_said(self, declare: Declare, zone: str) -> None:
        toml = self.toml.replace("unknown", zone)
        ((change, _),) = say(declare(toml), {"type": "unsubscribed", "who": "a@b.de", "at": "2026-01-05"}).changes
        assert change.occurred_at == datetime(2026, 1, 5, tzinfo=ZoneInfo(zone))

    def test_a_time_with_its_hour_is_utc_where_no_zone_is_said(self, declare: Declare) -> None:
        toml = self.toml.replace('time_zone = "unknown"', 'time_format = "%d.%m.%Y %H:%M"')
        for written in ("05.01.2026 00:00", "2026-01-05 00:00", "2026-01-05T00"):
            ((change, _),) = say(declare(toml), {"type": "unsubscribed", "who": "a@b.de", "at": written}).changes
            assert change.occurred_at == datetime(2026, 1, 5, tzinfo=UTC)

    @pytest.mark.parametrize("exact", ["2026-01-05T11:00:00+01:00", 1767607200, "1767607200"])
    def test_a_time_that_names_its_zone_is_believed(self, declare: Declare, exact: Any) -> None:
        ((change, _),) = say(declare(self.toml), {"type": "unsubscribed", "who": "a@b.de", "at": exact}).changes
        assert str(change.occurred_at) == "2026-01-05 10:00:00+00:00"


class TestPartsOfAHeader:
    toml = LEAST.replace(
        '{ scheme = "token", secrets = "ACME_TOKENS" }',
        '{ scheme = "hmac", secrets = "ACME_KEYS", signature = ["header:X-Sig#v1", "header:X-Old"], '
        'timestamp = "header:X-Sig#t", signed = "{timestamp}.{body}", tolerance = 300 }',
    )

    def verify(self, declare: Declare, **headers: str) -> None:
        scheme = declare(self.toml + 'email = "who"\n', ACME_KEYS="new,old").scheme
        assert scheme is not None
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        scheme.verify(WebhookRequest(headers=Headers(named), body=b"{}"))

    def sign(self, key: str, at: int) -> str:
        return hmac.digest(key.encode(), b"%d.{}" % at, "sha256").hex()

    def test_any_of_several_signatures_under_any_live_secret_opens(self, declare: Declare) -> None:
        now = int(time.time())
        right = self.sign("old", now)
        for value in (f"t={now},v1={right}", f"t={now}, v1={'0' * 64}, v1={right},v0=x", f"v1={right};t={now}"):
            self.verify(declare, X_Sig=value)
        # The second place counts where the first has none.
        self.verify(declare, X_Sig=f"t={now}", X_Old=right)

    def test_anything_else_does_not(self, declare: Declare) -> None:
        now = int(time.time())
        right, stale = self.sign("old", now), self.sign("old", now - 1000)
        for value, reason in (
            (f"t={now},v1={self.sign('forged', now)}", "signature_invalid"),
            (f"t={now - 1000},v1={stale}", "timestamp_stale"),
            (f"v1={right}", "timestamp_missing"),
            (f"t={now},v2={right}", "signature_missing"),
            (f"t={now},v1=", "signature_missing"),
            (f"t={now}," + f"v1={'0' * 64}," * 16 + f"v1={right}", "signature_invalid"),
        ):
            with pytest.raises(AuthenticationError, match=reason):
                self.verify(declare, X_Sig=value)
