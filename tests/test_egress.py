"""Egress, through a real proxy that wants a password, to a real TLS server with an authority of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests import authority, proxy
from tests.proxy import Proxy
from webhook_app.auth import sns
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.delivery import Call, Outcome
from webhook_app.delivery.client import Client
from webhook_app.delivery.events_api import EventsApi
from webhook_app.dev import sandbox
from webhook_app.dev.sandbox import Sandbox
from webhook_app.egress import Egress
from webhook_app.settings import ConfigurationError, Settings
from webhook_app.sync.sendgrid_api import SendGridApi

KEY = "server-side-key"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> authority.Authority:
    return authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def box(ca: authority.Authority) -> Iterator[Sandbox]:
    with sandbox.running(KEY, tls=ca.tls()) as box:
        yield box


@pytest.fixture
def way_out() -> Iterator[Proxy]:
    with proxy.running() as way_out:
        yield way_out


def call() -> Call:
    identity = Identity(kind=IdentityKind.EMAIL, value="jane@example.com")
    return EventsApi().call(
        ConsentChange(action=Action.OPT_OUT, identity=identity, reason="unsubscribe"), pseudonym="p"
    )


def host(box: Sandbox) -> str:
    return box.url.removeprefix("https://")


def test_an_opt_out_goes_through_the_proxy_to_a_host_of_the_own_authority(
    box: Sandbox, way_out: Proxy, ca: authority.Authority
) -> None:
    client = Client(box.url, KEY, egress=Egress(proxy=way_out.url(), ca_file=str(ca.ca_file)))
    assert [client.send(call()).outcome for _ in range(3)] == [Outcome.DELIVERED] * 3
    client.close()
    # More than one: the connection was not kept.
    assert way_out.log == [(f"CONNECT {host(box)}", 200)]


def test_amazons_certificates_and_sendgrids_api_go_the_same_way(
    box: Sandbox, way_out: Proxy, ca: authority.Authority
) -> None:
    settings = Settings.from_environment(
        {
            "EGRESS_PROXY": way_out.url(),
            "EGRESS_CA_FILE": str(ca.ca_file),
            "SENDGRID_API_KEY": "key",
            "SENDGRID_API_URL": box.url,
        }
    )
    assert b"arrived" in sns.fetch(f"{box.url}/sandbox/counts", egress=settings.egress)
    api = SendGridApi.from_settings(settings)
    assert api.session.get(f"{box.url}/sandbox/counts", timeout=30).ok
    api.session.close()
    assert way_out.log == [(f"CONNECT {host(box)}", 200)] * 2


def test_plain_http_to_this_machine_goes_through_the_proxy_too(way_out: Proxy) -> None:
    with sandbox.running(KEY) as box:
        client = Client(box.url, KEY, egress=Egress(proxy=way_out.url()))
        assert client.send(call()).outcome is Outcome.DELIVERED
        wrong = Client(box.url, KEY, egress=Egress(proxy=way_out.url("wrong")))
        assert (wrong.send(call()).outcome, wrong.send(call()).status) == (Outcome.MISCONFIGURED, 407)
        client.close()
        wrong.close()
    assert [status for _, status in way_out.log] == [200, 407, 407]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (403, Outcome.MISCONFIGURED),
        (404, Outcome.MISCONFIGURED),
        (407, Outcome.MISCONFIGURED),
        (429, Outcome.RETRY),
        (502, Outcome.RETRY),
        (503, Outcome.RETRY),
        (504, Outcome.RETRY),
    ],
)
def test_a_proxy_that_does_not_connect_us_says_nothing_about_the_change(
    status: int, outcome: Outcome, box: Sandbox, way_out: Proxy, ca: authority.Authority
) -> None:
    way_out.refuses_with = status
    client = Client(box.url, KEY, egress=Egress(proxy=way_out.url(), ca_file=str(ca.ca_file)))
    answer = client.send(call())
    client.close()
    assert (answer.outcome, answer.status, answer.reason) == (outcome, status, f"proxy_{status}")
    # It never got to the host: nothing can take effect late.
    assert not answer.lost
    assert box.received == []
    if outcome is Outcome.MISCONFIGURED:
        assert "EGRESS_PROXY" in answer.message


def test_a_wrong_password_of_the_proxy_is_a_wrong_set_up_and_is_said_nowhere(
    box: Sandbox, way_out: Proxy, ca: authority.Authority
) -> None:
    egress = Egress(proxy=way_out.url("wr0ng-password"), ca_file=str(ca.ca_file))
    client = Client(box.url, KEY, egress=egress)
    answer = client.send(call())
    client.close()
    assert (answer.outcome, answer.status) == (Outcome.MISCONFIGURED, 407)
    assert "EGRESS_PROXY" in answer.message
    assert "wr0ng" not in f"{answer!r} {egress!r} {client!r}"


def test_a_proxy_that_is_away_is_passing_and_is_named() -> None:
    client = Client("https://dy-api.example", KEY, egress=Egress(proxy="http://u:p4ss@127.0.0.1:9"))
    answer = client.send(call())
    client.close()
    assert (answer.outcome, answer.reason, answer.lost) == (Outcome.RETRY, "proxy", False)
    assert "EGRESS_PROXY" in answer.message
    assert "p4ss" not in repr(answer)


def test_a_host_of_the_own_authority_is_not_trusted_without_it(box: Sandbox) -> None:
    client = Client(box.url, KEY)
    answer = client.send(call())
    client.close()
    assert (answer.outcome, answer.reason) == (Outcome.RETRY, "tls")
    assert box.received == []


def test_what_the_environment_says_to_other_programs_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with sandbox.running(KEY) as box, Egress().session() as session:
        assert session.get(f"{box.url}/sandbox/counts", timeout=30).ok


def test_a_session_keeps_no_cookies() -> None:
    with sandbox.running(KEY) as box, Egress().session() as session:
        box.fault("status", status=200, headers={"Set-Cookie": "tracked=1"}, body="{}")
        session.post(f"{box.url}/v2/collect/user/event", timeout=30)
        assert list(session.cookies) == []


# ---------------------------------------------------------------- mistakes, at boot


def problems(**environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment(environ)
    return caught.value.problems


@pytest.mark.parametrize(
    "proxy_url",
    [
        "proxy.example.com:3128",
        "shop:s3cret@proxy.example.com",
        "https://shop:s3cret@proxy.example.com",
        "socks5://shop:s3cret@proxy.example.com:1080",
        "http://",
        "http://shop:s3cret@",
        "http://shop:s3/cret@proxy.example.com:3128",
        "http://shop:s3#cret@proxy.example.com:3128",
        "http://proxy.example.com:99999",
        "http://proxy.example.com:3128/path",
    ],
)
def test_a_proxy_that_cannot_be_one_is_told_at_boot_without_its_password(proxy_url: str) -> None:
    (problem,) = problems(EGRESS_PROXY=proxy_url)
    assert problem.startswith("EGRESS_PROXY ")
    assert "http://user:password@proxy.example.com:3128" in problem
    assert "cret" not in problem


def test_a_file_of_authorities_that_cannot_be_used_is_told_at_boot(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.write_text("no certificate in here\n")
    assert problems(EGRESS_CA_FILE=str(missing)) == [
        f"EGRESS_CA_FILE cannot be read: {missing}: No such file or directory; give the path of a PEM file"
    ]
    assert problems(EGRESS_CA_FILE=str(tmp_path)) == [
        f"EGRESS_CA_FILE cannot be read: {tmp_path}: Is a directory; give the path of a PEM file"
    ]
    assert problems(EGRESS_CA_FILE=str(empty)) == [
        f"EGRESS_CA_FILE holds no certificate that can be read: {empty}; it must be PEM, -----BEGIN CERTIFICATE-----"
    ]


def test_the_settings_hide_the_proxys_password() -> None:
    settings = Settings.from_environment({"EGRESS_PROXY": "http://shop:s3cret@proxy.example.com:3128"})
    assert settings.egress.proxies["https"] == "http://shop:s3cret@proxy.example.com:3128"
    assert "s3cret" not in f"{settings!r} {settings.egress!r}"


def test_the_words_by_which_a_refusal_is_known_are_those_of_the_installed_python(way_out: Proxy) -> None:
    """`http.client` gives the status of a refused CONNECT as a text only."""
    with (
        Egress(proxy=way_out.url("wrong")).session() as session,
        pytest.raises(requests.exceptions.ProxyError) as caught,
    ):
        session.get("https://127.0.0.1:9/", timeout=30)
    assert "Tunnel connection failed: 407 " in str(caught.value)
