"""Conditions of sections: an unsubscribe is not ignored because one was written wrongly."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.delivery.events_api import EventsApi
from webhook_app.delivery.section_conditions import conditions, hints
from webhook_app.delivery.sections import Section
from webhook_app.outbox import Intake
from webhook_app.outbox.routing import ConditionFailed, concerned
from webhook_app.outbox.tables import events
from webhook_app.providers.expressions import Condition

ESPS = ["emarsys", "mailchimp", "sendgrid"]
JANE = ConsentChange(
    action=Action.OPT_OUT, identity=Identity(kind=IdentityKind.EMAIL, value="jane@example.com"), reason="unsubscribe"
)


def sections(**whens: str) -> dict[str, Section]:
    return {name: Section(name=name, form=EventsApi(), when=Condition(when)) for name, when in whens.items()}


def names_of(event: object, provider: str = "sendgrid", **whens: str) -> tuple[str, ...]:
    return concerned(conditions(sections(**whens)), provider, JANE, json.dumps(event).encode())


@pytest.mark.parametrize(
    ("when", "event", "reason"),
    [
        (
            "event.asm_group_id == '4711'",
            {"asm_group_id": 4711},
            "event.asm_group_id: is 4711, compared with the text '4711'; write event.asm_group_id == `4711`",
        ),
        ("provider == 'SendGrid'", {}, "write lower(provider) == 'sendgrid'"),
        ("event.brand == 'uk'", {"brand": "UK"}, "write lower(event.brand) == 'uk'"),
        ("event.lists == 'uk'", {"lists": ["uk", "de"]}, "write contains(event.lists, 'uk')"),
        ("event.is_uk == `true`", {"is_uk": "yes"}, "is the text 'yes', compared with true"),
        ("contains(event.categories || `[]`, 'UK')", {"categories": ["uk"]}, "would hold, were case not looked at"),
    ],
)
def test_what_would_concern_a_section_but_for_the_form_of_a_value_is_set_aside(
    when: str, event: object, reason: str
) -> None:
    for whens in (
        {"uk": when},
        {"uk": when, "de": "provider == 'emarsys'"},
        {"de": "provider == 'emarsys'", "uk": when},
    ):
        with pytest.raises(ConditionFailed) as failed:
            names_of(event, **whens)
        assert str(failed.value).startswith("concerns no section; section uk: ")
        assert reason in str(failed.value)
        assert "@" not in str(failed.value)


def test_what_concerns_a_section_is_not_held_up_by_another_one_that_it_nearly_concerns() -> None:
    assert names_of({"brand": "UK"}, uk="event.brand == 'uk'", all="provider == 'sendgrid'") == ("all",)
    assert names_of({"brand": "UK"}, all="provider == 'sendgrid'", uk="event.brand == 'uk'") == ("all",)


def test_what_is_another_sections_or_nobodys_concerns_none() -> None:
    groups = {"uk": "event.asm_group_id == `4711`", "de": "event.asm_group_id == `4712`"}
    assert names_of({"asm_group_id": 4712}, **groups) == ("de",)
    assert names_of({"asm_group_id": 1}, **groups) == ()
    assert names_of({}, **groups) == ()
    assert names_of("an imported row", **groups) == ()


def test_it_stands_in_quarantine_with_the_reason(make_app: Callable[..., Flask]) -> None:
    app = make_app(SECTION_WHEN="event.asm_group_id == '4711'")
    intake = Intake(app.extensions["database"], sections=app.extensions["conditions"])
    added = intake.add("sendgrid", changes=[(JANE, b'{"asm_group_id":4711}'), (JANE, b'{"asm_group_id":1}')])
    assert (added.accepted, added.quarantined, added.no_section) == (0, 1, 1)
    with app.extensions["database"].read() as connection:
        assert "write event.asm_group_id == `4711`" in connection.execute(select(events.c.error)).scalar_one()


@pytest.mark.parametrize(
    ("when", "hint"),
    [
        ("provider == 'sendgird'", "compares provider with 'sendgird', which it never is; did you mean sendgrid?"),
        ("contains(['sendgrid', 'klavio'], provider)", "there are: emarsys, mailchimp, sendgrid"),
        ("Provider == 'sendgrid'", "looks at Provider, and there are only provider, action, kind, event"),
        ("asm_group_id == `4711`", "what the ESP sent is in event, like event.asm_group_id"),
        ("action == 'optout'", "compares action with 'optout', which it never is; did you mean opt_out?"),
        ("kind != 'mail'", "compares kind with 'mail', which it never is; did you mean email?"),
        ("event.asm_group_id == `4711`", "SendGrid's unsubscribe from everything, which has no asm_group_id"),
    ],
)
def test_a_condition_that_can_hardly_be_meant_starts_with_a_hint(when: str, hint: str) -> None:
    (said,) = hints(sections(uk=when), ["sendgrid"], ESPS)
    assert hint in said


@pytest.mark.parametrize(
    "when",
    [
        "provider == 'sendgrid'",
        "provider != 'emarsys' && action == 'opt_out' && kind == 'email'",
        "event.provider == 'anything'",
        "lower(event.brand) == 'uk' || event == `null`",
        "provider == 'sendgrid' && (event.asm_group_id == `4711` || !(event.asm_group_id))",
    ],
)
def test_a_condition_that_may_be_meant_starts_without_one(when: str) -> None:
    assert list(hints(sections(uk=when), ["sendgrid"], ESPS)) == []


def test_of_groups_there_is_a_hint_only_where_nobody_gets_the_unsubscribe_from_everything() -> None:
    group = "event.asm_group_id == `4711`"
    assert list(hints(sections(uk=group), ["emarsys"], ESPS)) == []
    assert list(hints(sections(uk=group, rest="!(event.asm_group_id)"), ["sendgrid"], ESPS)) == []
    assert len(list(hints(sections(uk=group, de="event.asm_group_id == `4712`"), ["sendgrid"], ESPS))) == 1


def test_hints_are_told_by_flask_check(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    app = make_app(SECTION_WHEN="provider == 'sendgird'")
    output = app.test_cli_runner().invoke(args=["check"]).output
    assert "sections: SECTION_WHEN compares provider with 'sendgird'" in output
