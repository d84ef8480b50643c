"""Amazon SNS: whose certificate, whose topic, and whom we call."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.auth.amazon import CERTIFICATE_URL, DOWN, GONE, NOW, SUBSCRIBE_URL, TOPIC, Amazon, message, signed
from webhook_app.auth import AuthenticationError, CannotVerify, WebhookRequest
from webhook_app.auth.sns import Fetch, FetchFailed, Sns, fetch


def scheme(fetch: Fetch) -> Sns:
    return Sns(topics=frozenset({TOPIC}), tolerance=300, fetch=fetch, clock=lambda: NOW)


def request(body: bytes) -> WebhookRequest:
    return WebhookRequest(body=body)


def reason(body: bytes, fetch: Fetch) -> str:
    with pytest.raises(AuthenticationError) as refused:
        scheme(fetch).verify(request(body))
    return refused.value.reason


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("kind", ["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_a_message_of_ours_is_taken(kind: str, version: str) -> None:
    scheme(Amazon()).verify(request(signed(message(kind, SignatureVersion=version))))


def test_the_subject_is_signed_where_there_is_one() -> None:
    body = signed(message(Subject="Amazon SES Email Event Notification"))
    scheme(Amazon()).verify(request(body))
    assert reason(body.replace(b"Amazon SES", b"Amazon XES"), Amazon()) == "signature_invalid"


def test_the_certificate_is_fetched_once() -> None:
    amazon = Amazon()
    sns = scheme(amazon)
    for number in range(3):
        sns.verify(request(signed(message(MessageId=str(number)))))
    assert amazon.called == [CERTIFICATE_URL]


def test_each_changed_byte_of_a_signed_value_fails() -> None:
    loaded = json.loads(signed(message()))
    sns = scheme(Amazon())
    for name in ("Message", "MessageId", "Timestamp", "TopicArn", "Type", "Signature"):
        for place in range(len(loaded[name])):
            value = loaded[name]
            changed = value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :]
            with pytest.raises(AuthenticationError):
                sns.verify(request(json.dumps(loaded | {name: changed}).encode()))


def test_amazons_signature_for_somebody_elses_topic_proves_nothing_and_costs_no_call() -> None:
    amazon = Amazon()
    assert reason(signed(message(TopicArn=TOPIC + "-evil")), amazon) == "topic_unknown"
    assert amazon.called == []


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-a.pem",
        "https://sns.s3.amazonaws.com/SimpleNotificationService-a.pem",  # anybody's bucket
        "https://sns.s3-eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://evil.example/sns.eu-central-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-central-1.amazonaws.com@evil.example/SimpleNotificationService-a.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-a.pem",
        "https://bucket.s3.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-central-1.amazonaws.com/../SimpleNotificationService-a.pem",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-a.pem?x=1",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-a.pem\n",
        "https://snsXeu.amazonaws.com/SimpleNotificationService-a.pem",
        "",
    ],
)
def test_a_certificate_from_elsewhere_is_never_fetched(url: str) -> None:
    amazon = Amazon()
    assert reason(signed(message(SigningCertURL=url), by="forger"), amazon) == "certificate_foreign"
    assert amazon.called == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"SignatureVersion": "3"}, "signature_version"),
        ({"Signature": ""}, "signature_missing"),
        ({"Signature": "%%"}, "signature_malformed"),
        ({"Signature": "bm8="}, "signature_invalid"),
        ({"Timestamp": "2026-01-05T10:15:30.000Z"}, "signature_invalid"),
        ({"Type": "Other"}, "message_malformed"),
    ],
)
def test_a_faulty_signature(changes: dict[str, str], why: str) -> None:
    body = json.dumps(json.loads(signed(message())) | changes).encode()
    assert reason(body, Amazon()) == why


def test_a_forged_signature_and_an_old_message() -> None:
    assert reason(signed(message(), by="forger"), Amazon()) == "signature_invalid"
    # 301 s before NOW; the tolerance here is 300.
    assert reason(signed(message(Timestamp="2026-01-05T10:10:30.000Z")), Amazon()) == "timestamp_stale"
    assert reason(signed(message(Timestamp="yesterday")), Amazon()) == "timestamp_malformed"
    with pytest.raises(AuthenticationError, match="certificate_expired"):
        late = replace(scheme(Amazon()), tolerance=1e9, clock=lambda: NOW + 2 * 86400)
        late.verify(request(signed(message())))


def test_an_amazon_that_does_not_answer_is_no_forgery() -> None:
    """503 for the caller: SNS sends it again."""
    for amazon in (Amazon(failure=DOWN), Amazon(content=b"<html>")):
        with pytest.raises(CannotVerify):
            scheme(amazon).verify(request(signed(message())))
    assert reason(signed(message()), Amazon(failure=GONE)) == "certificate_unknown"


class TestSubscription:
    def test_a_verified_subscription_is_confirmed(self) -> None:
        amazon = Amazon()
        body = request(signed(message("SubscriptionConfirmation")))
        scheme(amazon).verify(body)
        assert scheme(amazon).confirm_subscription(body) == f"confirmed the subscription to {TOPIC}"
        assert amazon.called == [CERTIFICATE_URL, SUBSCRIBE_URL]

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/?Action=ConfirmSubscription",
            "https://sns.eu-central-1.amazonaws.com\\@evil.example/",
            "https://sns.eu-central-1.amazonaws.com",
            "http://169.254.169.254/latest/meta-data/",
        ],
    )
    def test_no_other_host_is_ever_called(self, url: str) -> None:
        amazon = Amazon()
        with pytest.raises(AuthenticationError, match="subscribe_url_foreign"):
            scheme(amazon).confirm_subscription(request(signed(message("SubscriptionConfirmation", SubscribeURL=url))))
        assert amazon.called == []

    def test_an_amazon_that_is_down_sends_the_request_again(self) -> None:
        with pytest.raises(CannotVerify):
            scheme(Amazon(failure=DOWN)).confirm_subscription(request(signed(message("SubscriptionConfirmation"))))

    def test_an_ended_subscription_calls_nobody(self) -> None:
        """Its SubscribeURL would subscribe again."""
        amazon = Amazon()
        assert scheme(amazon).confirm_subscription(request(signed(message("UnsubscribeConfirmation"))))
        assert scheme(amazon).confirm_subscription(request(signed(message()))) is None
        assert amazon.called == []


class Server(BaseHTTPRequestHandler):
    """Stands in for a host that answers in odd ways."""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/ok")
            self.end_headers()
            return
        self.send_response(200 if self.path in ("/ok", "/endless") else int(self.path[1:]))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(b"x")
            while self.path == "/endless":
                self.wfile.write(b"x" * 8192)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class TestFetch:
    def test_a_small_answer_is_returned(self, base: str) -> None:
        assert fetch(f"{base}/ok") == b"x"

    @pytest.mark.parametrize(
        ("path", "permanent"),
        [("/moved", False), ("/endless", False), ("/500", False), ("/429", False), ("/404", True), ("/403", True)],
    )
    def test_no_redirect_is_followed_and_no_endless_answer_read(self, base: str, path: str, permanent: bool) -> None:
        with pytest.raises(FetchFailed) as failed:
            fetch(base + path)
        assert failed.value.permanent is permanent

    def test_a_host_that_is_not_there(self) -> None:
        with pytest.raises(FetchFailed):
            fetch("http://127.0.0.1:1/")
