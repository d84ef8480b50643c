"""Reconciling with each ESP, over real HTTP against its stand-in: one suite for all of them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from click.testing import Result
from flask import Flask
from sqlalchemy import select

from tests import esp_apis
from tests.esp_apis import STAND_INS, StandIn
from tests.processes import wait_until
from webhook_app.outbox import Database
from webhook_app.outbox.reconciliations import Reconciled, Reconciliations
from webhook_app.outbox.tables import events
from webhook_app.settings import ConfigurationError, Settings
from webhook_app.sync import paging
from webhook_app.sync.api import LONGEST_WAIT, ApiError
from webhook_app.sync.aws_signature import AwsSignature
from webhook_app.sync.reconciling import Reconciler, scheduled
from webhook_app.sync.sources import SOURCES

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture(params=STAND_INS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def esp(provider: str) -> Iterator[StandIn]:
    with esp_apis.running(provider) as esp:
        yield esp
    assert esp.complaints == []


class Waiting(list[float]):
    """How long it has waited, without doing so."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waited() -> Waiting:
    return Waiting()


@pytest.fixture
def app(make_app: Callable[..., Flask], esp: StandIn) -> Flask:
    return make_app(**esp.environ)


@pytest.fixture
def reconcile(provider: str, esp: StandIn, app: Flask, waited: Waiting) -> Callable[..., Reconciled]:
    def reconcile(since: datetime | None = None, **environ: str) -> Reconciled:
        settings = Settings.from_environment(esp.environ | environ)
        source = SOURCES[provider](settings, sleep=waited)
        return Reconciler(source, app.extensions["database"], every=0).compare(since, lambda _list, _result: None)

    return reconcile


def stored(app: Flask) -> list[Any]:
    with app.extensions["database"].read() as connection:
        return list(connection.execute(select(events).order_by(events.c.id)).all())


def test_whoever_asked_is_opted_out_as_of_then_and_nobody_else(
    provider: str, esp: StandIn, app: Flask, reconcile: Callable[..., Reconciled]
) -> None:
    for number, kind in enumerate((*esp.opt_outs, *esp.others)):
        esp.suppress(kind, f"{kind}@example.com", NOON + timedelta(minutes=number))
    assert reconcile().drift == len(esp.opt_outs)
    found = {row.identity_value: datetime.fromtimestamp(row.occurred_at / 1e6, UTC) for row in stored(app)}
    assert found == {f"{kind}@example.com": NOON + timedelta(minutes=at) for at, kind in enumerate(esp.opt_outs)}
    assert {(row.provider, row.action, row.state) for row in stored(app)} == {(provider, "opt_out", "pending")}


def test_every_entry_comes_whatever_the_page_breaks_and_a_second_run_adds_nothing(
    esp: StandIn, app: Flask, reconcile: Callable[..., Reconciled]
) -> None:
    count = 2 * min(esp.page, 1000) + 1
    for number in range(count):
        esp.suppress(esp.opt_outs[0], f"u{number:05}@example.com", NOON + timedelta(seconds=number))
    assert reconcile() == Reconciled(checked=count, drift=count)
    assert reconcile() == Reconciled(checked=count)
    assert len(stored(app)) == count


def test_only_entries_from_then_on_are_looked_at(
    esp: StandIn, app: Flask, reconcile: Callable[..., Reconciled]
) -> None:
    esp.suppress(esp.opt_outs[0], "old@example.com", NOON - timedelta(seconds=1))
    esp.suppress(esp.opt_outs[0], "new@example.com", NOON)
    assert reconcile(since=NOON).checked == 1
    assert [row.identity_value for row in stored(app)] == ["new@example.com"]


def run(app: Flask, provider: str, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=["reconcile", provider, *arguments])


def test_the_command_says_what_it_found(provider: str, esp: StandIn, app: Flask) -> None:
    esp.suppress(esp.opt_outs[0], "jane@example.com", NOON)
    assert "1 entry checked: 1 are missing here" in run(app, provider, "--dry-run").output
    assert stored(app) == []
    result = run(app, provider)
    assert result.exit_code == 0, result.output
    assert "1 entry checked: 1 were missing here, and are on their way now" in result.output
    assert [one.name for one in Reconciliations(app.extensions["database"]).all()] == [provider]


def test_a_key_that_does_not_do_costs_one_clear_line(
    provider: str, esp: StandIn, make_app: Callable[..., Flask]
) -> None:
    variable = next(iter(esp.settings))
    wrong = make_app(**(esp.environ | {variable: "of-another-account-us21"}))
    result = run(wrong, provider)
    assert result.exit_code == 1
    assert f"refuses {variable} at {esp.url} with 40" in result.output
    assert "another-account-us21" not in result.output
    missing = make_app(DATABASE_URL=wrong.extensions["settings"].database_url)
    result = run(missing, provider)
    assert result.exit_code == 1
    assert " set" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("86400", LONGEST_WAIT), ("soon", 1), ("-3", 1)])
def test_a_429_is_waited_out_as_it_says(
    header: str, seconds: float, esp: StandIn, waited: Waiting, reconcile: Callable[..., Reconciled]
) -> None:
    esp.faults.append((429, {"Retry-After": header}))
    reconcile()
    assert waited[0] == seconds


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_a_429_that_names_a_moment_is_waited_out(
    zone: str, esp: StandIn, waited: Waiting, reconcile: Callable[..., Reconciled]
) -> None:
    moment = (datetime.now(UTC) + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S")
    esp.faults.append((429, {"Retry-After": f"{moment} {zone}"}))
    reconcile()
    assert 30 < waited[0] <= 90


def test_a_lasting_fault_ends_in_one_error_that_is_written_down(
    provider: str, esp: StandIn, app: Flask, waited: Waiting, reconcile: Callable[..., Reconciled]
) -> None:
    esp.faults.extend([(503, {})] * 100)
    with pytest.raises(ApiError, match="answers 503"):
        reconcile()
    assert len(esp.calls) == 5
    (last,) = Reconciliations(app.extensions["database"]).all()
    assert (last.covered_until, "answers 503" in last.error) == (None, True)


def test_a_redirect_is_not_followed(esp: StandIn, reconcile: Callable[..., Reconciled]) -> None:
    """It would carry the key to whom it names."""
    esp.faults.append((302, {"Location": f"{esp.url}/elsewhere"}))
    with pytest.raises(ApiError):
        reconcile()
    assert len(esp.calls) == 1


@pytest.mark.parametrize("body", [b"<html>log in, please</html>", b"[1, 2", b'"text"', b"{}", b"7"])
def test_what_is_not_the_api_is_said(body: bytes, esp: StandIn, reconcile: Callable[..., Reconciled]) -> None:
    esp.spoil = lambda _body: body
    with pytest.raises(ApiError) as caught:
        reconcile()
    assert caught.value.reason == "unexpected_answer"


def test_an_entry_that_makes_no_sense_is_quarantined_and_costs_nobody_else(
    esp: StandIn, app: Flask, reconcile: Callable[..., Reconciled]
) -> None:
    esp.suppress(esp.opt_outs[0], "no address", NOON)
    esp.suppress(esp.opt_outs[0], "jane@example.com", NOON)
    for _ in range(2):
        assert reconcile().unreadable == 1
    assert sorted(row.state for row in stored(app)) == ["pending", "quarantined"]


def endless(provider: str, url: str, number: int) -> dict[str, Any]:
    """A page that is like no other, and says that there is another one."""
    address = f"u{number}@example.com"
    pages: dict[str, dict[str, Any]] = {
        "mailchimp": {"members": [{"email_address": address}]},
        "klaviyo": {"data": [], "links": {"next": f"{url}/api/profiles?page[cursor]={number}"}},
        "mailgun": {
            "items": [{"address": address, "created_at": "2026-01-05"}],
            "paging": {"next": f"{url}/v3/mg.example.com/unsubscribes?page={number}"},
        },
        "brevo": {"contacts": [{"email": address}]},
        "ses": {"SuppressedDestinationSummaries": [], "NextToken": f"t{number}"},
    }
    return pages[provider]


@pytest.mark.parametrize("provider", sorted(STAND_INS.keys() - {"postmark"}))  # whose list comes whole
def test_a_list_that_pages_for_ever_comes_to_an_end(
    provider: str, esp: StandIn, reconcile: Callable[..., Reconciled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "MOST_PAGES", 20)
    monkeypatch.setattr(esp, "route", lambda _call: endless(provider, esp.url, len(esp.calls)))
    with pytest.raises(ApiError, match="pages for ever"):
        reconcile(MAILCHIMP_AUDIENCE_IDS="a6b5da1054")
    assert len(esp.calls) == 20


@pytest.mark.parametrize("provider", ["klaviyo", "mailgun"])
@pytest.mark.parametrize("link", ["https://elsewhere.example.com/api", "//elsewhere", "{url}.elsewhere.example/", 7])
def test_a_link_to_another_host_is_not_followed(link: Any, esp: StandIn, reconcile: Callable[..., Reconciled]) -> None:
    target = link.format(url=esp.url) if isinstance(link, str) else link

    def spoil(body: Any) -> Any:
        if "paging" in body:
            return {"items": [{"address": "a@example.com", "created_at": "2026-01-05"}], "paging": {"next": target}}
        return body | {"links": {"next": target}}

    esp.spoil = spoil
    with pytest.raises(ApiError, match="leads to another host"):
        reconcile()


@pytest.mark.parametrize("provider", ["klaviyo"])
def test_pages_that_go_in_a_circle_are_left(esp: StandIn, reconcile: Callable[..., Reconciled]) -> None:
    here = f"{esp.url}/api/profiles?additional-fields[profile]=subscriptions&page[cursor]=0&filter="
    here += "greater-or-equal(subscriptions.email.marketing.suppression.timestamp,2012-01-01T00:00:00Z)"
    esp.spoil = lambda body: body | {"links": {"next": here}}
    with pytest.raises(ApiError, match="pages in a circle"):
        reconcile()
    assert len(esp.calls) == 2


@pytest.mark.parametrize("provider", ["mailchimp"])
def test_the_audiences_that_are_named_are_the_ones_that_count(
    esp: StandIn, app: Flask, reconcile: Callable[..., Reconciled]
) -> None:
    esp.suppress("unsubscribed", "jane@example.com", NOON)  # in the first of two
    assert reconcile(MAILCHIMP_AUDIENCE_IDS="b7c6eb2165").checked == 0
    assert reconcile().checked == 1
    with pytest.raises(ApiError, match="is it of another account"):
        reconcile(MAILCHIMP_AUDIENCE_IDS="0000000000")


@pytest.mark.parametrize("provider", ["mailgun"])
def test_a_domain_of_another_account_is_said(esp: StandIn, reconcile: Callable[..., Reconciled]) -> None:
    with pytest.raises(
        ApiError, match=r"knows no /v3/other\.example\.com/unsubscribes in the account of MAILGUN_API_KEY"
    ):
        reconcile(MAILGUN_DOMAINS="other.example.com")


@pytest.mark.parametrize("provider", ["ses"])
def test_amazon_is_asked_once_a_second(esp: StandIn, waited: Waiting, reconcile: Callable[..., Reconciled]) -> None:
    for number in range(1001):
        esp.suppress("COMPLAINT", f"u{number}@example.com", NOON)
    reconcile()
    assert waited == [1.0, 1.0]


@pytest.mark.parametrize("provider", ["brevo"])
def test_who_is_blocked_for_a_reason_that_is_not_known_is_quarantined_and_not_opted_out(
    esp: StandIn, app: Flask, reconcile: Callable[..., Reconciled]
) -> None:
    esp.suppress("dailyQuotaReached", "in@example.com", NOON)
    esp.suppress("unsubscribedViaMA", "out@example.com", NOON)
    found = reconcile()
    assert (found.drift, found.unreadable) == (1, 1)
    with app.extensions["database"].read() as connection:
        rows = connection.execute(select(events).order_by(events.c.id)).all()
    assert {row.identity_value: row.state for row in rows} == {"out@example.com": "pending", None: "quarantined"}
    assert [row.error for row in rows if row.error] == [
        "on Brevo's list Blocked contacts: entry: is of a kind that is not known"
    ]


def test_the_schedule_compares_with_every_esp_that_has_a_key(database: Database, database_url: str) -> None:
    with esp_apis.running("postmark") as postmark, esp_apis.running("brevo") as brevo:
        postmark.suppress("ManualSuppression", "p@example.com", NOON)
        brevo.suppress("unsubscribedViaEmail", "b@example.com", NOON)
        postmark.faults.append((401, {}))  # one that fails stops no other
        environ = postmark.environ | brevo.environ | {"DATABASE_URL": database_url, "RECONCILE_EVERY": "6h"}
        with scheduled(Settings.from_environment(environ), database):
            records = Reconciliations(database)
            wait_until(lambda: len([one for one in records.all() if one.finished_at]) == 2, "both were compared")
    assert {one.name: bool(one.error) for one in records.all()} == {"postmark": True, "brevo": False}


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RECONCILE_EVERY": "6h"}, "RECONCILE_EVERY needs an API key of an ESP"),
        ({"MAILCHIMP_API_KEY": "abc"}, "it ends with the data centre, like -us21"),
        ({"MAILCHIMP_API_KEY": "abc-us21.evil.example.com/"}, "it ends with the data centre, like -us21"),
        ({"MAILGUN_API_KEY": "key"}, "MAILGUN_API_KEY needs MAILGUN_DOMAINS"),
        ({"MAILGUN_DOMAINS": "mg.example.com/../x"}, "MAILGUN_DOMAINS entry 1 of 1 must be a domain"),
        ({"SES_ACCESS_KEY_ID": "AKID"}, "SES_ACCESS_KEY_ID needs SES_SECRET_ACCESS_KEY and SES_REGION"),
        ({"SES_REGION": "eu-central-1.evil.example.com/"}, "SES_REGION must be a region"),
        ({"BREVO_API_URL": "http://10.0.0.1"}, "BREVO_API_URL must begin with https://"),
    ],
)
def test_settings_that_would_lead_elsewhere_are_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Settings.from_environment(environ)


@pytest.mark.parametrize(
    ("url", "signature"),
    [
        # Amazon's own suite of test vectors: get-vanilla, and get-vanilla-query-order-key-case.
        ("https://example.amazonaws.com/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "https://example.amazonaws.com/?Param2=value2&Param1=value1",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
    ],
)
def test_amazons_published_signatures_are_ours(url: str, signature: str) -> None:
    sign = AwsSignature(
        key_id="AKIDEXAMPLE",
        secret_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        region="us-east-1",
        service="service",
        now=lambda: datetime(2015, 8, 30, 12, 36, tzinfo=UTC),
    )
    request = requests.Request("GET", url, auth=sign).prepare()
    assert request.headers["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}"
    )
