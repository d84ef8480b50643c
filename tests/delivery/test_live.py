"""`flask check --live`: what an empty request's refusal proves, and what it does not."""

from typing import Any

import pytest

from webhook_app.delivery.client import Client, Timeouts
from webhook_app.delivery.events_api import EventsApi
from webhook_app.delivery.live import check_live
from webhook_app.dev.sandbox import Sandbox


def findings(client: Client) -> dict[str, bool | None]:
    return {finding.subject: finding.works for finding in check_live(client, EventsApi())}


def test_a_right_set_up_is_told_without_naming_anybody(client: Client, box: Sandbox) -> None:
    assert findings(client) == {"host": True, "TLS": None, "key": True, "section and events": None}
    assert [one["body"] for one in box.received] == [{}]
    assert box.taken == []


def test_a_wrong_key_is_told_from_a_wrong_host(box: Sandbox) -> None:
    client = Client(box.url, "another")
    found = check_live(client, EventsApi())
    client.close()
    assert {one.subject: one.works for one in found} | {"TLS": None} == {
        "host": True,
        "TLS": None,
        "key": False,
        "section and events": None,
    }
    assert "EVENTS_API_KEY" in next(one.said for one in found if one.subject == "key")


@pytest.mark.parametrize(
    ("kind", "options", "host", "key"),
    [
        ("status", {"status": 404}, False, None),
        ("status", {"status": 407}, False, None),
        ("redirect", {}, False, None),
        ("html", {}, False, None),
        ("timeout", {}, False, None),
        ("reset", {}, False, None),
        ("status", {"status": 503}, True, None),
        ("status", {"status": 200, "body": "{}"}, True, None),
        ("status", {"status": 403}, True, False),
    ],
)
def test_what_an_answer_does_not_tell_is_said_to_be_unknown(
    kind: str, options: dict[str, Any], host: bool, key: bool | None, client: Client, box: Sandbox
) -> None:
    box.fault(kind, **options)
    if kind == "timeout":
        client.timeouts = Timeouts(read=0.3)
    found = findings(client)
    assert (found["host"], found["key"]) == (host, key)


def test_a_host_without_valid_tls_is_told_from_one_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from webhook_app.delivery import Answer, Outcome

    client = Client("https://dy-api.example", "k")
    tls = Answer(outcome=Outcome.RETRY, reason="tls", message="the host's certificate is not valid for it")
    monkeypatch.setattr(client, "send", lambda _call: tls)
    assert findings(client) == {"host": True, "TLS": False, "key": None, "section and events": None}
    monkeypatch.setattr(client, "send", lambda _call: Answer(outcome=Outcome.RETRY, reason="dns"))
    assert findings(client) == {"host": False, "TLS": None, "key": None, "section and events": None}
