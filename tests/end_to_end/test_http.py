"""The HTTP around a webhook: methods, slashes, encodings, proxies' headers and IPv6, over real gunicorn."""

import base64
import gzip
import hmac
import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.product import Product, opt_out, people, running_product
from tests.signing import SendGridSigner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SETTINGS = {
    "EMARSYS_URL_SECRETS": "a-secret-in-the-url,c2Vj/cmV0+in/base64==",
    "MANDRILL_WEBHOOK_KEYS": "a-key-of-mandrill",
    "PUBLIC_URL": "https://hooks.example.net",
    "MAILCHIMP_URL_SECRETS": "a-secret-in-the-url",
    # As Heroku's buildpack exports it: anybody's word about scheme and place would count.
    "FORWARDED_ALLOW_IPS": "*",
}


@pytest.fixture(scope="module")
def product(
    new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, sendgrid_signer: SendGridSigner
) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("http")
    with running_product(folder, new_database("sqlite"), sendgrid_signer, workers=0, settings=SETTINGS) as product:
        yield product


Answer = tuple[int, Mapping[str, str], bytes]


def ask(
    product: Product,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] = {},
    host: str = "127.0.0.1",
) -> Answer:
    """Exactly these headers, and nothing that a friendlier client would mend."""
    connection = http.client.HTTPConnection(host, product.port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def send(product: Product, name: str, more: Mapping[str, str] = {}, path: str = "/webhooks/sendgrid") -> Answer:
    """One signed opt-out of somebody new."""
    body = json.dumps([opt_out(address) for address in people(1, name)]).encode()
    return ask(product, "POST", path, body, {**product.signer.headers(body), **more})


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/webhooks/sendgrid", "/webhooks/emarsys/a-secret-in-the-url"])
def test_another_method_is_405_and_says_which_is_allowed(product: Product, method: str, path: str) -> None:
    status, headers, body = ask(product, method, path)
    assert (status, headers["Allow"]) == (405, "POST")
    if method != "HEAD":
        assert json.loads(body) == {"error": "method not allowed"}


def test_an_esp_that_probes_by_get_is_answered_and_may_ask_by_head(product: Product) -> None:
    path = "/webhooks/mailchimp/a-secret-in-the-url"
    assert [ask(product, method, path)[0] for method in ("GET", "HEAD", "DELETE")] == [200, 200, 405]
    assert ask(product, "DELETE", path)[1]["Allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_a_closed_provider_is_404_whatever_is_asked(product: Product, method: str) -> None:
    for path in ("/webhooks/braze", "/webhooks/braze/", "/webhooks/braze/secret", "/webhooks/nobody"):
        assert ask(product, method, path, b"{}" if method == "POST" else None)[0] == 404


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_what_machines_read_is_405_for_other_methods_and_says_which_is_allowed(product: Product, path: str) -> None:
    status, headers, _ = ask(product, "POST", path, b"")
    assert status == 405
    assert "GET" in headers["Allow"]


def test_a_slash_at_the_end_is_the_same_url(product: Product) -> None:
    assert send(product, "slash", path="/webhooks/sendgrid/")[0] == 200
    event = b'{"external_id": "C-1", "optin": "2"}'
    for path in ("/webhooks/emarsys/a-secret-in-the-url", "/webhooks/emarsys/a-secret-in-the-url/"):
        assert ask(product, "POST", path, event)[0] == 200
    assert ask(product, "GET", "/webhooks/mailchimp/a-secret-in-the-url/")[0] == 200
    # It is no way around the secret either.
    assert ask(product, "POST", "/webhooks/emarsys/", event)[0] == 401


@pytest.mark.parametrize(
    "path", ["//webhooks/emarsys/a-secret-in-the-url", "/webhooks//emarsys//a-secret-in-the-url//"]
)
def test_a_doubled_slash_counts_once_because_no_esp_follows_a_redirect(product: Product, path: str) -> None:
    assert ask(product, "POST", path, b'{"external_id": "C-2", "optin": "2"}')[0] == 200
    assert ask(product, "POST", path.replace("url", "urn"), b'{"external_id": "C-2", "optin": "2"}')[0] == 401


@pytest.mark.parametrize("secret", ["c2Vj/cmV0+in/base64==", "c2Vj%2FcmV0%2Bin%2fbase64%3D%3D"])
def test_a_secret_in_the_url_may_hold_slashes(product: Product, secret: str) -> None:
    event = b'{"external_id": "C-3", "optin": "2"}'
    assert ask(product, "POST", f"/webhooks/emarsys/{secret}", event)[0] == 200
    assert ask(product, "POST", f"/webhooks/emarsys/{secret}/x", event)[0] == 401


def signed_by_mandrill(events: list[Any], url: str) -> tuple[bytes, Mapping[str, str]]:
    """A body and its headers."""
    text = json.dumps(events)
    digest = hmac.digest(b"a-key-of-mandrill", f"{url}mandrill_events{text}".encode(), "sha1")
    body = urlencode({"mandrill_events": text}).encode()
    return body, {
        "X-Mandrill-Signature": base64.b64encode(digest).decode(),
        "Content-Type": "application/x-www-form-urlencoded",
    }


@pytest.mark.parametrize("form", ["", "http://127.0.0.1", "https://evil.example"])
def test_a_url_that_is_signed_may_be_asked_for_in_absolute_form(product: Product, form: str) -> None:
    event = {"event": "unsub", "_id": form, "ts": 1767607200, "msg": {"email": "absolute@example.com"}}
    body, headers = signed_by_mandrill([event], "https://hooks.example.net/webhooks/mandrill?a=b")
    assert ask(product, "POST", f"{form}/webhooks/mandrill?a=b", body, headers)[0] == 200
    assert ask(product, "POST", f"{form}/webhooks/mandrill?a=c", body, headers)[0] == 401


def test_a_compressed_transfer_is_415_as_well(product: Product) -> None:
    body = gzip.compress(b'{"external_id": "C-4", "optin": "2"}')
    with socket.create_connection(("127.0.0.1", product.port), timeout=60) as connection:
        connection.sendall(
            b"POST /webhooks/emarsys/a-secret-in-the-url HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Transfer-Encoding: gzip, chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        )
        assert connection.makefile("rb").readline().split()[1] == b"415"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, identity", "GZIP"])
def test_a_compressed_body_is_415_and_nothing_of_it_is_stored(product: Product, encoding: str) -> None:
    before = product.sql("SELECT count(*) FROM events")
    body = gzip.compress(json.dumps([opt_out("compressed@example.com")]).encode())
    headers = {**product.signer.headers(body), "Content-Encoding": encoding}
    status, answer, text = ask(product, "POST", "/webhooks/sendgrid", body, headers)
    assert (status, answer["Accept-Encoding"]) == (415, "identity")
    assert json.loads(text) == {"error": "send it without Content-Encoding"}
    assert product.sql("SELECT count(*) FROM events") == before


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_identity_is_no_encoding(product: Product, encoding: str) -> None:
    assert send(product, f"identity-{encoding}", {"Content-Encoding": encoding})[0] == 200


PROXIES: dict[str, dict[str, str]] = {
    "contradictory schemes": {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "off"},
    "contradictory schemes the other way round": {"X-Forwarded-Proto": "http", "X-Forwarded-Ssl": "on"},
    "a list of schemes": {"X-Forwarded-Proto": "https,http", "X-Forwarded-Protocol": "ssl"},
    "three of them": {"X-Forwarded-Proto": "https", "X-Forwarded-Protocol": "http", "X-Forwarded-Ssl": "on"},
    "a script name": {"SCRIPT_NAME": "/elsewhere"},
    "a script name in lower case": {"script_name": "/webhooks"},
    "a script name with a dash": {"Script-Name": "/webhooks"},
    "a path": {"PATH_INFO": "/healthz"},
    "a prefix": {"X-Forwarded-Prefix": "/elsewhere", "X-Script-Name": "/elsewhere"},
    "another host": {"X-Forwarded-Host": "evil.example", "X-Forwarded-Port": "1", "X-Forwarded-For": "1.2.3.4, evil"},
    "the standard": {"Forwarded": "for=1.2.3.4;proto=https;host=evil.example"},
    "another method": {"X-HTTP-Method-Override": "GET", "X-Method-Override": "DELETE"},
    "another URL": {"X-Original-URL": "/healthz", "X-Rewrite-URL": "/healthz"},
    "another host in Host": {"Host": "evil.example"},
    "no host at all": {"Host": ""},
}


@pytest.mark.parametrize("name", PROXIES)
def test_what_proxies_say_changes_nothing(product: Product, name: str) -> None:
    status, headers, body = send(product, name.replace(" ", "-"), PROXIES[name])
    assert (status, json.loads(body)["accepted"]) == (200, 1)
    assert "Location" not in headers


#: How this machine can be reached.
HOSTS = ["127.0.0.1", "::1"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]


@pytest.mark.parametrize("host", HOSTS)
def test_ipv6_is_as_good_as_ipv4(product: Product, host: str) -> None:
    assert ask(product, "GET", "/healthz", host=host)[0] == 200


def full_batch_of_mandrill(size: int) -> list[Any]:
    """1,000 unsubscribes, as many as Mandrill puts into one webhook, each with so many bytes of details."""
    return [
        {
            "event": "unsub",
            "_id": f"{size}-{address}",
            "ts": 1767607200,
            "msg": {"email": address, "subject": "News", "user_agent": "Mozilla/5.0 " + "(X11; Linux) " * (size // 13)},
        }
        for address in people(1000, f"mandrill-{size}")
    ]


def test_an_esp_of_larger_batches_has_a_limit_of_its_own(product: Product) -> None:
    url = "https://hooks.example.net/webhooks/mandrill"
    for size, status in ((1500, 200), (6000, 413)):
        body, headers = signed_by_mandrill(full_batch_of_mandrill(size), url)
        answer = ask(product, "POST", "/webhooks/mandrill", body, headers)
        assert answer[0] == status, (size, len(body))
        assert (len(body) > 8 * 2**20) == (status == 413)
        assert len(body) > 2 * 2**20
        assert json.loads(answer[2]) == (
            {"error": f"larger than {8 * 2**20} bytes"}
            if status == 413
            else {"accepted": 1000, "duplicates": 0, "ignored": 0, "quarantined": 0}
        )
    body = json.dumps([opt_out("one-of-sendgrid@example.com")]).encode().ljust(2 * 2**20 + 1)
    answer = ask(product, "POST", "/webhooks/sendgrid", body, product.signer.headers(body))
    assert (answer[0], json.loads(answer[2])) == (413, {"error": f"larger than {2 * 2**20} bytes"})
