"""A stand-in for Amazon: a certificate of our own, messages signed with it, and a getter that serves both."""

import base64
import datetime
import json
from dataclasses import dataclass, field
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from webhook_app.auth.sns import HASHES, FetchFailed, signed_content

#: 2026-01-05 10:15:31 UTC
NOW = 1_767_608_131.0
TOPIC = "arn:aws:sns:eu-central-1:123456789012:ses-events"
CERTIFICATE_URL = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123abcd.pem"
SUBSCRIBE_URL = f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336"


@cache
def key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def certificate(around: float = NOW) -> bytes:
    """Valid for a day before and after."""
    moment = datetime.datetime.fromtimestamp(around, datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key("amazon").public_key())
        .serial_number(1)
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment + datetime.timedelta(days=1))
    )
    return builder.sign(key("amazon"), SHA256()).public_bytes(Encoding.PEM)


def message(kind: str = "Notification", **fields: str) -> dict[str, str]:
    given = {
        "Type": kind,
        "MessageId": "11111111-2222-4333-8444-555555555555",
        "TopicArn": TOPIC,
        "Message": "{}",
        "Timestamp": "2026-01-05T10:15:31.000Z",
        "SignatureVersion": "1",
        "SigningCertURL": CERTIFICATE_URL,
    }
    if kind != "Notification":
        given |= {"SubscribeURL": SUBSCRIBE_URL, "Token": "2336"}
    return given | fields


def signed(fields: dict[str, str], *, by: str = "amazon") -> bytes:
    """The message's bytes with a signature by the holder of that key."""
    hash_ = HASHES[fields["SignatureVersion"]]
    signature = key(by).sign(signed_content(fields), PKCS1v15(), hash_)
    return json.dumps(fields | {"Signature": base64.b64encode(signature).decode()}).encode()


@dataclass(slots=True)
class Amazon:
    """Answers with the certificate, or with the failure it was given, and remembers who was called."""

    failure: Exception | None = None
    content: bytes | None = None
    #: When the certificate is valid.
    around: float = NOW
    called: list[str] = field(default_factory=list)

    def __call__(self, url: str) -> bytes:
        self.called.append(url)
        if self.failure:
            raise self.failure
        if url not in (CERTIFICATE_URL, SUBSCRIBE_URL):
            raise GONE
        return certificate(self.around) if self.content is None else self.content


DOWN = FetchFailed(permanent=False)
GONE = FetchFailed(permanent=True)
