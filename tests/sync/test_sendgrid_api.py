"""The client of SendGrid's API, against the stand-in."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.sendgrid_api import ALL_SCOPES, Account, Call, SendGrid
from webhook_app.sync.api import LONGEST_WAIT, TRIES, ApiError
from webhook_app.sync.paging import Offset
from webhook_app.sync.sendgrid_api import SendGridApi

UNSUBSCRIBES = "/v3/suppression/unsubscribes"


@dataclass
class FakeTime:
    """A clock that only sleeping moves."""

    now: float = field(default_factory=time.time)
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def make_api(sendgrid: SendGrid, fake_time: FakeTime) -> Callable[..., SendGridApi]:
    def make(**more: Any) -> SendGridApi:
        given = {"base": sendgrid.url, "key": "SG.full", "sleep": fake_time.sleep, "clock": lambda: fake_time.now}
        return SendGridApi(**{**given, **more})

    return make


def suppress(account: Account, count: int, which: str = "unsubscribes") -> set[str]:
    for number in range(count):
        account.suppress(which, f"u{number}@example.com", 1_700_000_000 + number)
    return {f"u{number}@example.com" for number in range(count)}


def addresses(api: SendGridApi, path: str = UNSUBSCRIBES, **query: int) -> list[str]:
    return [entry["email"] for page in Offset(limit="limit", size=500)(api, path, query, "") for entry in page]


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1250])
def test_every_entry_of_a_list_comes_whatever_the_page_breaks(
    count: int, sendgrid: SendGrid, make_api: Callable[..., SendGridApi]
) -> None:
    everybody = suppress(sendgrid.account, count)
    found = addresses(make_api())
    assert (len(found), set(found)) == (count, everybody)


def test_a_list_that_ignores_paging_is_read_once(
    sendgrid: SendGrid, make_api: Callable[..., SendGridApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published description knows no paging for group suppressions; an endless loop would be the price."""
    suppress(sendgrid.account, 700, "group_suppressions")
    monkeypatch.setattr(sendgrid, "_page", lambda call, entries: entries)
    assert len(addresses(make_api(), "/v3/asm/suppressions")) == 700


def test_only_the_asked_time_is_read(sendgrid: SendGrid, make_api: Callable[..., SendGridApi]) -> None:
    suppress(sendgrid.account, 10)
    found = addresses(make_api(), start_time=1_700_000_004, end_time=1_700_000_006)
    assert sorted(found) == ["u4@example.com", "u5@example.com", "u6@example.com"]


def test_a_subusers_lists_are_its_own(sendgrid: SendGrid, make_api: Callable[..., SendGridApi]) -> None:
    suppress(sendgrid.account, 3)
    sendgrid.subusers["shop-eu"] = Account()
    sendgrid.subusers["shop-eu"].suppress("unsubscribes", "eu@example.com", 1_700_000_000)
    assert addresses(make_api(subuser="shop-eu")) == ["eu@example.com"]


def test_a_429_is_waited_out_until_the_reset_it_names(sendgrid: SendGrid, make_api: Callable[..., SendGridApi]) -> None:
    suppress(sendgrid.account, 1)
    sendgrid.rate_limit = (1, 1.0)
    sendgrid._window = [time.time() + 1.0, 1]  # somebody else has used the window up
    assert addresses(make_api(sleep=time.sleep, clock=time.time)) == ["u0@example.com"]
    assert len(sendgrid.calls) <= 4, "it asked again and again instead of waiting"


def test_the_last_request_of_a_window_is_followed_by_a_pause_and_never_by_a_429(
    sendgrid: SendGrid, make_api: Callable[..., SendGridApi]
) -> None:
    suppress(sendgrid.account, 600)  # two pages and the empty one
    sendgrid.rate_limit = (2, 0.5)
    assert len(addresses(make_api(sleep=time.sleep, clock=time.time))) == 600
    assert len(sendgrid.calls) == 3, "a fourth call would be one that ran into the limit"


def test_an_absurd_reset_is_cut(sendgrid: SendGrid, make_api: Callable[..., SendGridApi], fake_time: FakeTime) -> None:
    fake_time.now -= 365 * 86400  # our clock is a year behind
    sendgrid.rate_limit = (0, 60.0)
    with pytest.raises(ApiError, match="429"):
        addresses(make_api())
    assert fake_time.slept == [LONGEST_WAIT] * (TRIES - 1)


@pytest.mark.parametrize("fault", [500, 502, 503, None])
def test_a_passing_fault_is_tried_again(
    fault: int | None, sendgrid: SendGrid, make_api: Callable[..., SendGridApi], fake_time: FakeTime
) -> None:
    suppress(sendgrid.account, 1)
    sendgrid.fault(fault, times=3)
    assert addresses(make_api()) == ["u0@example.com"]
    assert fake_time.slept == [1, 2, 4]


def test_a_lasting_fault_ends_in_one_error(
    sendgrid: SendGrid, make_api: Callable[..., SendGridApi], fake_time: FakeTime
) -> None:
    sendgrid.fault(503, times=100)
    with pytest.raises(ApiError, match="answers 503") as caught:
        addresses(make_api())
    assert (caught.value.reason, len(fake_time.slept)) == ("unavailable", TRIES - 1)


def test_a_creation_that_may_have_happened_is_not_repeated(
    sendgrid: SendGrid, make_api: Callable[..., SendGridApi]
) -> None:
    """A second webhook would deliver every event twice."""
    sendgrid.fault(502)
    with pytest.raises(ApiError):
        make_api().create_webhook({"url": "https://hooks.example.com/webhooks/sendgrid"})
    assert len(sendgrid.calls) == 1


@pytest.mark.parametrize(
    ("more", "reason", "said"),
    [
        ({"key": "SG.wrong"}, "key_refused", "does not know SENDGRID_API_KEY"),
        ({"key": "SG.mail-only"}, "scope_missing", "suppression.read"),
        ({"subuser": "nobody"}, "scope_missing", "'nobody'"),
        ({"base": "http://127.0.0.1:9"}, "unavailable", "cannot be reached"),
    ],
)
def test_what_is_wrong_with_the_key_is_said_at_once(
    more: dict[str, str], reason: str, said: str, sendgrid: SendGrid, make_api: Callable[..., SendGridApi]
) -> None:
    sendgrid.keys["SG.mail-only"] = ALL_SCOPES - {"suppression.read"}
    with pytest.raises(ApiError, match=said) as caught:
        addresses(make_api(**more))
    assert caught.value.reason == reason
    assert "SG." not in str(caught.value), "the key is a secret"


def test_an_account_without_webhooks_has_none(make_api: Callable[..., SendGridApi]) -> None:
    """SendGrid describes it as a list with one empty webhook."""
    assert make_api().webhooks() == ([], 5)


def test_entries_that_come_while_we_page_are_no_reason_to_miss_others(
    sendgrid: SendGrid, make_api: Callable[..., SendGridApi]
) -> None:
    everybody = suppress(sendgrid.account, 1200)

    def meanwhile(call: Call) -> None:
        sendgrid.account.suppress("unsubscribes", f"new{len(sendgrid.calls)}@example.com", 1_800_000_000)

    sendgrid.meanwhile = meanwhile
    assert everybody <= set(addresses(make_api()))
