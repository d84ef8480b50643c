"""Amazon SNS: each message is signed with a certificate of Amazon's, which the message points to.

Amazon signs for everybody's topics alike, so the signature alone proves nothing: the topic must be ours.
https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.x509 import Certificate, load_pem_x509_certificate

from webhook_app.auth import AuthenticationError, CannotVerify, WebhookRequest
from webhook_app.auth.reading import check_age, decode_base64
from webhook_app.egress import DIRECT, Egress

#: Amazon's own hosts, and nothing that only looks like one: this is what keeps a forged message from
#: naming a certificate of its own, and our server from calling addresses a stranger chose.
#: A region has parts, and a number in the end: `sns.s3.amazonaws.com` would be anybody's bucket.
_HOST = r"https://sns\.[a-z]{2,8}(?:-[a-z]{2,16}){1,3}-\d{1,2}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE_URL = re.compile(_HOST + r"/SimpleNotificationService-[A-Za-z0-9]{1,64}\.pem")
#: Printable ASCII without a backslash: two parsers of such a URL cannot disagree on its host.
_SUBSCRIBE_URL = re.compile(_HOST + r"/[!-\[\]-~]{0,2000}")

#: `SignatureVersion` → the hash that was signed.
HASHES: dict[str, HashAlgorithm] = {"1": SHA1(), "2": SHA256()}  # noqa: S303 - version 1 is Amazon's default

#: Type of message → the fields that are signed, in this order.
SIGNED_FIELDS = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}

#: Amazon has one certificate a region at a time; the bound is for who makes up names.
MAX_CERTIFICATES = 32
MAX_ANSWER_BYTES = 64 * 1024
FETCH_TIMEOUT = 3.0  # seconds to connect, and again between two pieces of the answer
FETCH_DEADLINE = 6.0  # seconds in all


class FetchFailed(Exception):
    """Amazon did not answer, or not as hoped. `permanent`: asking again will not help."""

    def __init__(self, *, permanent: bool) -> None:
        super().__init__("permanent" if permanent else "transient")
        self.permanent = permanent


#: Gets what stands at a URL. Raises `FetchFailed`.
Fetch = Callable[[str], bytes]


def fetch(url: str, egress: Egress = DIRECT) -> bytes:
    """Get a small answer from Amazon, following no redirect: it could lead anywhere. Raises `FetchFailed`."""
    # Only now: few ESPs sign so, and an HTTP client takes long to load.
    import requests

    deadline = time.monotonic() + FETCH_DEADLINE
    try:
        with (
            egress.session() as session,
            session.get(url, timeout=FETCH_TIMEOUT, allow_redirects=False, stream=True) as answer,
        ):
            if answer.status_code != 200:
                raise FetchFailed(permanent=400 <= answer.status_code < 500 and answer.status_code != 429)
            content = b""
            for chunk in answer.iter_content(8192):
                content += chunk
                if len(content) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                    raise FetchFailed(permanent=False)
            return content
    except requests.RequestException:
        raise FetchFailed(permanent=False) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sns:
    """Authentic when Amazon signed the message and it belongs to one of our topics.

    `tolerance` (seconds) bounds the age of the message; a retry keeps its time. Raises `CannotVerify` when the
    certificate cannot be fetched.
    """

    topics: frozenset[str]
    tolerance: float
    fetch: Fetch = field(default=fetch, repr=False)
    clock: Callable[[], float] = time.time
    _certificates: dict[str, Certificate] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def verify(self, request: WebhookRequest) -> None:
        message = read_message(request)
        # First: a stranger's message costs no call to Amazon.
        if message.get("TopicArn") not in self.topics:
            raise AuthenticationError("topic_unknown")
        hash_ = HASHES.get(message.get("SignatureVersion", ""))
        signature = decode_base64(message.get("Signature", "").encode("utf-8", "replace"), "signature_malformed")
        if not signature:
            raise AuthenticationError("signature_missing")
        if hash_ is None:
            raise AuthenticationError("signature_version")
        certificate = self._certificate(message.get("SigningCertURL", ""))
        if not _is_signed_by(certificate, signature, signed_content(message), hash_):
            raise AuthenticationError("signature_invalid")
        now = self.clock()
        if not certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp():
            raise AuthenticationError("certificate_expired")
        check_age(_moment(message["Timestamp"]), now=now, tolerance=self.tolerance)

    def confirm_subscription(self, request: WebhookRequest) -> str | None:
        """Complete a verified subscription; None where the message asks for none, else what was done.

        Raises `CannotVerify` when Amazon could not be reached.
        """
        message = read_message(request)
        if message["Type"] == "Notification":
            return None
        if message["Type"] == "UnsubscribeConfirmation":
            return f"Amazon says that {message['TopicArn']} no longer sends here"
        url = message.get("SubscribeURL", "")
        if not _SUBSCRIBE_URL.fullmatch(url):
            raise AuthenticationError("subscribe_url_foreign")
        try:
            self.fetch(url)
        except FetchFailed:
            raise CannotVerify("subscription_not_confirmed") from None
        return f"confirmed the subscription to {message['TopicArn']}"

    def _certificate(self, url: str) -> Certificate:
        if not _CERTIFICATE_URL.fullmatch(url):
            raise AuthenticationError("certificate_foreign")
        with self._lock:
            known = self._certificates.get(url)
        if known:
            return known
        try:
            certificate = load_pem_x509_certificate(self.fetch(url))
            if not isinstance(certificate.public_key(), RSAPublicKey):
                raise ValueError
        except FetchFailed as error:
            if error.permanent:
                raise AuthenticationError("certificate_unknown") from None
            raise CannotVerify("certificate_unavailable") from None
        except (ValueError, UnsupportedAlgorithm):
            raise CannotVerify("certificate_unreadable") from None
        with self._lock:
            if len(self._certificates) >= MAX_CERTIFICATES:
                self._certificates.clear()
            self._certificates[url] = certificate
        return certificate


def read_message(request: WebhookRequest) -> dict[str, str]:
    """An SNS message's text fields. Raises `AuthenticationError` for anything else."""
    try:
        loaded: Any = request.parsed(orjson.loads)
    except ValueError:
        raise AuthenticationError("message_malformed") from None
    if not isinstance(loaded, dict):
        raise AuthenticationError("message_malformed")
    message = {name: value for name, value in loaded.items() if isinstance(value, str)}
    if message.get("Type") not in SIGNED_FIELDS:
        raise AuthenticationError("message_malformed")
    return message


def signed_content(message: dict[str, str]) -> bytes:
    """What Amazon signs: names and values, a line each. Raises `AuthenticationError` where a field is missing."""
    lines = []
    for name in SIGNED_FIELDS[message["Type"]]:
        if name in message:
            lines.append(f"{name}\n{message[name]}\n")
        elif name != "Subject":
            raise AuthenticationError("message_malformed")
    return "".join(lines).encode()


def _is_signed_by(certificate: Certificate, signature: bytes, signed: bytes, hash_: HashAlgorithm) -> bool:
    key = certificate.public_key()
    assert isinstance(key, RSAPublicKey)  # noqa: S101 - _certificate() keeps no other; for mypy
    try:
        key.verify(signature, signed, PKCS1v15(), hash_)
    except InvalidSignature:
        return False
    return True


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise AuthenticationError("timestamp_malformed") from None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        raise AuthenticationError("timestamp_malformed") from None
