"""Sections: what their file may say, what every mistake in it is told as, and which events concern whom."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from marshmallow import ValidationError

from webhook_app import build_app
from webhook_app.consent import Action, IdentityKind
from webhook_app.delivery.events_api import EventsApi
from webhook_app.delivery.reconnect import Reconnect
from webhook_app.delivery.sections import Section, build_sections
from webhook_app.outbox.tables import DEFAULT_SECTION
from webhook_app.providers.expressions import Condition
from webhook_app.settings import ConfigurationError, Settings

UK = """
[uk]
api_key = "UK_DY_KEY"
region = "eu"
when = "provider == 'sendgrid' && event.asm_group_id == `4711`"
"""
TWO = f"""
{UK}
[app]
api_key = "APP_DY_KEY"
url = "http://127.0.0.1:9000"
type = "api"
destination = "reconnect"
requests_per_second = 20
"""
KEYS = {"UK_DY_KEY": "uk-key", "APP_DY_KEY": "app-key"}

Read = Callable[..., dict[str, Section]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str, **environ: str) -> dict[str, Section]:
        file = tmp_path / "sections.toml"
        file.write_text(text)
        environ = KEYS | {"SECTIONS_FILE": str(file)} | environ
        return build_sections(Settings.from_environment(environ), environ)

    return read


def problems(read: Read, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text, **environ)
    return caught.value.problems


# ---------------------------------------------------------------- what the file says


def test_a_section_has_a_key_a_host_a_form_and_a_ceiling_of_its_own(read: Read) -> None:
    sections = read(TWO)
    assert list(sections) == ["uk", "app"]
    uk, app = sections["uk"], sections["app"]
    assert (uk.name, uk.api_key, uk.base, uk.requests_per_second) == ("uk", "uk-key", "https://dy-api.eu", 0)
    assert (app.name, app.api_key, app.base, app.requests_per_second) == ("app", "app-key", "http://127.0.0.1:9000", 20)
    assert isinstance(uk.form, EventsApi)
    assert uk.form.section_type == "web"
    assert isinstance(app.form, Reconnect)
    assert app.form.section_type == "api"
    assert app.when is None


def test_what_a_section_does_not_say_is_as_in_the_environment_but_key_and_url(read: Read) -> None:
    (section,) = read(
        '[uk]\napi_key = "UK_DY_KEY"',
        EVENTS_API_KEY="no-section-of-its-own",
        EVENTS_API_URL="https://neither.example",
        EVENTS_API_REGION="eu",
        SECTION_TYPE="api",
        ACTIVE_CONSENT_ACCEPTED="true",
        REQUESTS_PER_SECOND="7",
    ).values()
    assert (section.name, section.api_key, section.base) == ("uk", "uk-key", "https://dy-api.eu")
    assert isinstance(section.form, EventsApi)
    assert (section.form.section_type, section.form.active_consent_accepted) == ("api", True)
    assert section.requests_per_second == 7


def test_without_a_file_there_is_one_section_of_the_environments_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"EVENTS_API_KEY": "key", "SECTION_WHEN": "provider == 'emarsys'"}
    sections = build_sections(Settings.from_environment(environ), environ)
    assert list(sections) == [DEFAULT_SECTION]
    section = sections[DEFAULT_SECTION]
    assert (section.api_key, section.base) == ("key", "https://dy-api.com")
    assert section.when == Condition("provider == 'emarsys'")


def test_a_file_of_that_name_counts_without_being_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sections.toml").write_text(UK)
    monkeypatch.chdir(tmp_path)
    assert list(build_sections(Settings.from_environment({}), KEYS)) == ["uk"]


def test_no_section_shows_its_key(read: Read) -> None:
    assert "uk-key" not in repr(read(TWO))


# ---------------------------------------------------------------- mistakes, all at once


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "declares no section; write one like [uk], or remove the file"),
        ("[uk", "is no TOML: Expected ']' at the end of a table declaration (at end of document)"),
        (UK + UK, "is no TOML: Cannot declare ('uk',) twice (at line 7, column 4)"),
        ('api_key = "UK_DY_KEY"', "[api_key] must be a table: its name in brackets on a line of its own"),
        ('[UK]\napi_key = "UK_DY_KEY"', "[UK] must have a name in lower case, like uk or app-eu"),
        ("[uk]", "[uk] api_key: is missing: the NAME of an environment variable"),
        ('[uk]\napi_key = "s3cret-key"', "[uk] api_key: must be the NAME of an environment variable"),
        ('[uk]\napi_key = "US_DY_KEY"', "[uk] api_key: US_DY_KEY is not set: copy this section's server-side API key"),
        ('[uk]\napi_key = "UK_DY_KEY"\nregion = "EMEA"', "[uk] region: must be one of: us, eu"),
        ('[uk]\napi_key = "UK_DY_KEY"\nurl = "dy-api.com"', "[uk] url: is not a URL; write it like https://"),
        ('[uk]\napi_key = "UK_DY_KEY"\nurl = "http://dy-api.com"', "[uk] url: must begin with https://"),
        (
            '[uk]\napi_key = "UK_DY_KEY"\nregion = "eu"\nurl = "https://dy-api.eu"',
            "[uk] url: stands beside region: keep one of the two",
        ),
        ('[uk]\napi_key = "UK_DY_KEY"\ntype = "mobile"', "[uk] type: must be one of: web, api"),
        ('[uk]\napi_key = "UK_DY_KEY"\ndestination = "x"', "[uk] destination: must be one of: events, reconnect"),
        ('[uk]\napi_key = "UK_DY_KEY"\nactive_consent_accepted = "yes"', "must be true or false, without quotes"),
        (
            '[uk]\napi_key = "UK_DY_KEY"\nactive_consent_accepted = true\ndestination = "reconnect"',
            '[uk] active_consent_accepted: must be false with destination = "reconnect"',
        ),
        ('[uk]\napi_key = "UK_DY_KEY"\nrequests_per_second = -1', "must be a whole number from 0 to 100000"),
        ('[uk]\napi_key = "UK_DY_KEY"\nrequests_per_second = 1.5', "must be a whole number from 0 to 100000"),
        ('[uk]\napi_key = "UK_DY_KEY"\nrequest_per_second = 1', "is not known; did you mean requests_per_second?"),
        ('[uk]\napi_key = "UK_DY_KEY"\nwhen = "event.["', "[uk] when: is no JMESPath expression"),
        (
            '[uk]\napi_key = "UK_DY_KEY"\nwhen = \'provider == "sendgrid"\'',
            "[uk] when: compares with a field named sendgrid; for the value write 'sendgrid'",
        ),
    ],
)
def test_a_mistake_names_the_file_the_section_the_key_and_what_would_be_right(
    text: str, problem: str, read: Read
) -> None:
    (found,) = problems(read, text)
    assert found.startswith("sections.toml: ")
    assert problem in found
    assert "s3cret" not in found


def test_all_mistakes_are_told_at_once(read: Read) -> None:
    found = problems(
        read,
        '[uk]\ntype = "x"\n[app]\napi_key = "NOBODY"\n[us]\napi_key = "BAD_KEY"',
        BAD_KEY="two words",
        SECTION_WHEN="provider == 'x'",
    )
    assert len(found) == 5
    assert found[0] == "SECTION_WHEN counts only where there is no sections.toml: write it as `when` in there"
    assert found[-1].startswith("sections.toml: [us] api_key: BAD_KEY holds characters that no key has, like a space")


@pytest.mark.parametrize(
    "key", ['"0123456789abcdef"', "'0123456789abcdef'", "two words", "schlüssel", "0123456789abcdef"]
)
def test_a_key_is_refused_for_the_same_reason_wherever_it_stands(key: str, read: Read) -> None:
    def refused(load: Callable[[], object]) -> str:
        try:
            load()
        except ConfigurationError as error:
            (line,) = error.problems
            return line.partition("_KEY ")[2]
        return ""

    of_section = refused(lambda: read('[uk]\napi_key = "UK_DY_KEY"', UK_DY_KEY=key))
    assert of_section == refused(lambda: Settings.from_environment({"EVENTS_API_KEY": key}))
    assert bool(of_section) is (key != "0123456789abcdef")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    settings = Settings.from_environment({"SECTIONS_FILE": str(tmp_path / "none.toml")})
    with pytest.raises(ConfigurationError) as caught:
        build_sections(settings, {})
    assert caught.value.problems == [f"SECTIONS_FILE cannot be read: {tmp_path}/none.toml: No such file or directory"]


def test_boot_tells_a_wrong_condition_of_the_one_section_beside_other_mistakes(sqlite_url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_app({"DATABASE_URL": sqlite_url, "SECTION_WHEN": "event.a == 'x", "MAILGUN_SIGNING_KEYS": "k" * 32})
    (problem,) = caught.value.problems
    assert problem.startswith("SECTION_WHEN is no JMESPath expression")


# ---------------------------------------------------------------- whom an event concerns


def concerns(when: str | None, event: object, provider: str = "sendgrid") -> bool:
    section = Section(form=EventsApi(), when=Condition(when) if when else None)
    raw = event if isinstance(event, bytes) else orjson.dumps(event)
    return section.concerns(raw, provider, Action.OPT_OUT, IdentityKind.EMAIL)


@pytest.mark.parametrize(
    ("when", "event", "expected"),
    [
        (None, {}, True),
        (None, b"no JSON at all", True),
        ("provider == 'sendgrid'", {}, True),
        ("provider == 'emarsys'", {}, False),
        ("action == 'opt_out' && kind == 'email'", {}, True),
        ("action == 'opt_in'", {}, False),
        ("event.asm_group_id == `4711`", {"asm_group_id": 4711}, True),
        ("event.asm_group_id == `4711`", {"asm_group_id": 1}, False),
        # What is absent is null: of an imported row, of an event of another ESP.
        ("event.asm_group_id == `4711`", {}, False),
        ("event.asm_group_id == `4711`", b"no JSON at all", False),
        # A name that was cut within an emoji, and bytes that are no UTF-8: read as the webhook itself was.
        ("event.asm_group_id == `4711`", rb'{"asm_group_id":4711,"name":"Jane \ud83d"}', True),
        ("event.asm_group_id == `4711`", b'{"asm_group_id":4711,"name":"J\xf6rg"}', True),
        # Behind it, the query of the URL.
        ("event.asm_group_id == `4711`", b'{"asm_group_id":4711}\n?action=opt_out', True),
        ("event == `null`", b"no JSON at all", True),
        ("contains(event.lists, 'uk')", {"lists": ["uk", "de"]}, True),
        ("event.is_uk", {"is_uk": True}, True),
        ("event.is_uk", {}, False),
    ],
)
def test_a_condition_says_which_events_concern_a_section(when: str | None, event: object, expected: bool) -> None:
    assert concerns(when, event) is expected


@pytest.mark.parametrize(("when", "event"), [("contains(event.lists, 'uk')", {}), ("event.brand", {"brand": "uk"})])
def test_a_condition_that_does_not_fit_the_event_is_a_mistake_and_no_answer(when: str, event: object) -> None:
    with pytest.raises(ValidationError):
        concerns(when, event)
