"""The setup pages: what they tell a person to do works, and none is missing."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.providers import event_table
from tests.providers.cases import Payload, cases, one_case_each, payloads
from webhook_app.auth import WebhookRequest
from webhook_app.consent import Action
from webhook_app.providers import Provider, Reading, read, registry
from webhook_app.providers.auth_config import TABLES
from webhook_app.providers.declaration import ProviderTable, VisitorTable
from webhook_app.settings import Settings

PAGES = Path(__file__).parents[2] / "docs" / "esps"
NO_PROVIDER = {"README", "custom", "hubspot"}


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / f"{page}.md").read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    return ["\n".join(line.removeprefix(indent) for line in block.splitlines()) for indent, block in found]


def build(tmp_path: Path, toml: str, **environ: str) -> Mapping[str, Provider]:
    file = tmp_path / "providers.toml"
    file.write_text(toml)
    given = environ | {"PROVIDERS_FILE": str(file)}
    return registry.build_providers(Settings.from_environment(given), given)


def test_every_provider_has_its_page_and_the_index_names_it() -> None:
    providers = registry.build_providers(Settings(), {}).keys()
    assert {page.stem for page in PAGES.glob("*.md")} - NO_PROVIDER == providers
    index = (PAGES / "README.md").read_text()
    for name in providers:
        assert re.search(rf"^\| .*\({name}\.md\).* \| `/webhooks/{name}` \|$", index, re.MULTILINE), name


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.provider}-{case.variable}")
def test_a_page_names_its_url_and_every_variable_that_opens_it(case: Any) -> None:
    page = (PAGES / f"{case.provider}.md").read_text()
    assert f"/webhooks/{case.provider}" in page
    assert f"`{case.variable}`" in page


def read_by_table_of(page: str, name: str, event: Any, tmp_path: Path) -> Reading:
    """By the table of that name on a page."""
    (toml,) = [block for block in blocks(page, "toml") if name in tomllib.loads(block)]
    provider = build(tmp_path, toml)[name]
    assert provider.hints == ()
    return read(provider, WebhookRequest(body=json.dumps(event).encode()), forward_opt_ins=True)


@pytest.mark.parametrize(("flag", "taken"), [(True, ["a@b.de"]), ("true", ["a@b.de"]), (False, [])])
def test_brevos_blocklist_is_taken_by_the_table_of_its_page(flag: Any, taken: list[str], tmp_path: Path) -> None:
    contact = {"email": "a@b.de", "emailBlacklist": flag}
    for content in (contact, [contact]):
        event = {"event": "contact_updated", "content": content}
        read_ = read_by_table_of("brevo", "brevo-contacts", event, tmp_path)
        assert [change.identity.value for change, _ in read_.changes if change.action is Action.OPT_OUT] == taken
        assert (len(read_.changes), read_.ignored) == (len(taken), 1 - len(taken))


@pytest.mark.parametrize(("channels", "ignored"), [([27448], 1), ([100], 0), ([100, 27448], 0), ([], 0), (None, 0)])
def test_whoever_leaves_email_beside_another_channel_is_opted_out_by_the_table_of_iterables_page(
    channels: list[int] | None, ignored: int, tmp_path: Path
) -> None:
    fields = {"unsubSource": "EmailLink", "channelIds": channels}
    event = {"eventName": "emailUnSubscribe", "email": "a@b.de", "dataFields": fields}
    read_ = read_by_table_of("iterable", "iterable-email", event, tmp_path)
    assert (read_.ignored, len(read_.changes)) == (ignored, 1 - ignored)


@pytest.mark.parametrize("page", sorted(page.stem for page in PAGES.glob("*.md")))
def test_every_toml_on_a_page_can_be_used_as_it_stands(page: str, tmp_path: Path) -> None:
    for toml in blocks(page, "toml"):
        names = tomllib.loads(toml)
        assert names.keys() <= build(tmp_path, toml).keys()


def test_the_page_on_the_language_names_every_key() -> None:
    page = (PAGES / "custom.md").read_text()
    tables = [ProviderTable(), VisitorTable(), *TABLES.values()]
    keys = {field.data_key or key for table in tables for key, field in table.fields.items()} - {"scheme"}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
    assert [scheme for scheme in TABLES if f"| `{scheme}` |" not in page] == []


@pytest.mark.parametrize("case", one_case_each(), ids=lambda case: case.provider)
def test_a_page_says_what_becomes_of_each_event(case: Any) -> None:
    right = event_table.page_with_table(case)
    assert right == (PAGES / f"{case.provider}.md").read_text(), "stale; run: make docs"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.parametrize("body", blocks("generic", "json"))
def test_a_body_for_a_webhook_step_works_when_it_is_filled_in_and_opts_nobody_out_before(body: str) -> None:
    generic = registry.build_providers(Settings(), {})["generic"]

    def said(body: str) -> Reading:
        return read(generic, WebhookRequest(body=body.encode()), forward_opt_ins=False)

    unfilled = said(body)
    assert (unfilled.changes, len(unfilled.quarantined)) == ([], 1)
    placeholder = json.loads(body)["email"]
    ((change, _),) = said(body.replace(placeholder, "jane@example.com")).changes
    assert (change.action, change.identity.value) == ("opt_out", "jane@example.com")


def test_a_sender_with_names_of_its_own_opts_out_by_the_page_of_standard_webhooks(tmp_path: Path) -> None:
    """Were the entry's `ignore` still asked, it would drop the event: no word of consent stands in its type."""
    (acme,) = (build(tmp_path, toml)["acme"] for toml in blocks("standard_webhooks", "toml"))
    body = json.dumps({"type": "member.goodbye", "data": {"member": {"address": "jane@example.com"}}}).encode()
    ((change, _),) = read(acme, WebhookRequest(body=body), forward_opt_ins=True).changes
    assert (change.action, change.identity.value) == ("opt_out", "jane@example.com")


def said(provider: Provider, payload: Payload) -> Any:
    read_ = read(provider, WebhookRequest(body=payload.body), forward_opt_ins=True)
    changes = [(change.action.value, change.identity.value) for change, _ in read_.changes]
    return changes, read_.ignored, [reason for reason, _ in read_.quarantined]


@pytest.mark.parametrize("stem", payloads("klaviyo"))
def test_leaving_a_single_list_of_klaviyos_counts_by_the_table_on_its_page_and_nothing_else_changes(
    stem: str, tmp_path: Path
) -> None:
    payload = payloads("klaviyo")[stem]
    theirs = build(tmp_path, blocks("klaviyo", "toml")[0])["klaviyo"]
    if stem == "lists":
        assert said(theirs, payload) == ([("opt_out", "jane@example.com")], 1, [])
    else:
        assert said(theirs, payload) == said(registry.build_providers(Settings(), {})["klaviyo"], payload)


@pytest.mark.parametrize(
    ("stem", "changes"),
    [
        ("preferences", [("opt_out", "jane@example.com")]),
        ("preferences_by_older_names", [("opt_out", "jane@example.com")]),
        ("subscribed_to_topics", []),
        ("left_the_channel_sms", []),
        ("sms_unsubscribed", []),
    ],
)
def test_leaving_a_topic_of_customerios_counts_by_the_table_on_its_page(
    stem: str, changes: list[tuple[str, str]], tmp_path: Path
) -> None:
    topics = build(tmp_path, blocks("customerio", "toml")[0])["customerio-topics"]
    assert said(topics, payloads("customerio")[stem])[::2] == (changes, [])


def test_ten_lines_of_toml_connect_an_esp(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """The page's own example, from nothing to a stored opt-out, with the page's own curl."""
    toml = blocks("custom", "toml")[0]
    assert len(toml.splitlines()) <= 10
    file = tmp_path / "providers.toml"
    file.write_text(toml)
    client = make_app(PROVIDERS_FILE=str(file), ACME_TOKENS="YOUR-LONG-RANDOM-TEXT").test_client()

    console = blocks("custom", "console")[0]
    command, answer = console.rsplit("\n", 1)
    _, _curl, url, _, header, _, body = shlex.split(command.replace("\\\n", ""))
    name, _, value = header.partition(": ")
    got = client.post(url.removeprefix("https://hooks.example.com"), data=body, headers={name: value})
    assert (got.status_code, got.json) == (200, json.loads(answer))
