"""Connecting an ESP with the console's help, and looking at what it calls with."""

import json
import re
from collections.abc import Callable

import pytest
from flask import Flask

from tests.console.person import PASSWORD, Person
from webhook_app.consent import Action
from webhook_app.console import guides, setup
from webhook_app.console.words import in_words

MakeApp = Callable[..., Flask]


def made_on(page: str) -> tuple[str, str]:
    """The variable with its value, and the URL."""
    variable, url = (re.search(rf'id="{name}">([^<]+)<', page) for name in ("variable", "url"))
    assert variable
    assert url
    return variable[1], url[1]


@pytest.mark.parametrize(
    ("name", "variable"),
    [("mailchimp", "MAILCHIMP_URL_SECRETS"), ("postmark", "POSTMARK_BASIC_AUTH"), ("braze", "BRAZE_TOKENS")],
)
def test_the_secret_that_is_made_opens_the_url_that_is_shown(
    make_app: MakeApp, person: Person, name: str, variable: str
) -> None:
    path = f"/console/esps/{name}"
    given, url = made_on(person.post(path, form_on=path, variable=variable).text)
    key, _, secret = given.partition("=")
    assert (key, len(secret) >= 40) == (variable, True)
    app = make_app(CONSOLE_PASSWORD=PASSWORD, PUBLIC_URL="http://localhost", **{key: secret})
    user, _, password = secret.partition(":")
    auth = (user, password) if variable.endswith("BASIC_AUTH") else None
    headers = {"Authorization": f"Bearer {secret}"} if variable.endswith("TOKENS") else {}
    answer = app.test_client().post(url, data=b"{}", auth=auth, headers=headers)
    assert answer.status_code == 200
    # Shown once, and stored nowhere.
    assert secret not in person.get(path).text


def test_a_secret_is_made_only_where_it_is_ours_to_make(person: Person) -> None:
    path = "/console/esps/mailgun"
    for name, variable in (("sendgrid", "SENDGRID_VERIFICATION_KEYS"), ("mailgun", "PATH"), ("ses", "SES_TOPIC_ARNS")):
        assert person.post(f"/console/esps/{name}", form_on=path, variable=variable).status_code == 400


def test_every_esp_has_a_page_that_says_what_to_choose_and_a_closed_one_no_url(app: Flask, person: Person) -> None:
    for provider in app.extensions["providers"].values():
        page = person.get(f"/console/esps/{provider.name}")
        assert page.status_code == 200, provider.name
        assert all(way.meaning for way in setup.auth_options(provider)), provider.name
        for way in setup.auth_options(provider):
            assert way.variable in page.text, provider.name
        for mark in ("**", "```", "](", "<!--"):
            assert mark not in page.text, provider.name
        assert "hooks.example.com" not in page.text, provider.name
        if not provider.scheme:
            assert f'id="url">http://localhost/webhooks/{provider.name}<' not in page.text
    assert person.get("/console/esps/nobody").status_code == 404


def test_a_guide_is_written_as_the_console_can_show_it() -> None:
    """The library reads no code block within a list."""
    for page in guides.PAGES.glob("*.md"):
        assert not re.search(r"^ +```", page.read_text("utf-8"), re.MULTILINE), page.name


def test_nothing_in_a_guide_is_taken_for_html_or_leads_anywhere_else() -> None:
    shown = guides.render(
        "<b onclick=x>1</b>\n\n<script>2</script>\n\n[3](javascript:x) [4](https://a.example) [5](emarsys.md#limits)"
    )
    for tag in ("<b", "<script", "javascript"):
        assert tag not in shown
    assert '<a href="https://a.example" rel="noreferrer">4</a> <a href="emarsys">5</a>' in shown


def test_the_page_tells_what_came_and_what_became_of_it(app: Flask, person: Person, post: Callable[..., None]) -> None:
    assert "Waiting for the first webhook" in person.get("/console/esps/sendgrid").text
    app.test_client().post("/webhooks/sendgrid", data=b'[{"email": "stranger@example.com"}]')
    app.extensions["counters"].flush()
    page = person.get("/console/esps/sendgrid").text
    assert "was refused: signature missing" in page
    assert "stranger@example.com" not in page
    post(
        {"event": "group_unsubscribe", "email": "jane@example.com", "timestamp": 1760000000, "asm_group_id": 1},
        {"event": "open", "email": "joe@example.com", "timestamp": 1760000000},
    )
    app.extensions["counters"].flush()
    page = person.get("/console/esps/sendgrid").text
    assert "understood as 1 new change, 1 without a consent change" in page
    assert "joe@example.com" in page  # the body, for it was authentic
    assert "left a group" in page


def test_a_closed_esp_that_calls_is_said_to_be_refused(app: Flask, person: Person) -> None:
    app.test_client().post("/webhooks/mailgun", data=json.dumps({}))
    app.extensions["counters"].flush()
    assert "calls, and is refused" in person.get("/console/esps").text
    assert "and was refused" in person.get("/console/esps/mailgun").text


@pytest.mark.parametrize(
    ("reason", "action", "words"),
    [
        ("group_unsubscribe", Action.OPT_OUT, "left a group"),
        ("group_resubscribe", Action.OPT_IN, "joined a group again"),
        ("event:klaviyo.unsubscribed_from_email_marketing", Action.OPT_OUT, "unsubscribed"),
        ("users.behaviors.subscription.GlobalStateChange", Action.OPT_OUT, "opted out"),
        ("SubscriptionChange", Action.OPT_IN, "subscribed"),
        ("SpamComplaint", Action.OPT_OUT, "reported spam"),
        ("resigned", None, "resigned"),
    ],
)
def test_an_esps_word_is_said_in_a_persons(reason: str, action: Action | None, words: str) -> None:
    assert in_words(reason, action) == words


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"EVENTS_API_URL": "http://127.0.0.1:8001"}, True),
        ({"EVENTS_API_URL": "http://[::1]:8001"}, True),
        ({"EVENTS_API_URL": "https://gateway.example.com"}, False),
        ({}, False),
    ],
)
def test_a_badge_stays_while_nothing_reaches_dynamic_yield(
    make_app: MakeApp, settings: dict[str, str], shown: bool
) -> None:
    person = Person(make_app(CONSOLE_PASSWORD=PASSWORD, **settings).test_client())
    person.log_in()
    for path in ("", "events", "esps/sendgrid"):
        assert (">Sandbox</a>" in person.get(f"/console/{path}").text) is shown
