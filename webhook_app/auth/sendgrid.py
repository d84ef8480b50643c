"""SendGrid's Signed Event Webhook: ECDSA over the timestamp header and the raw body.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
"""

import base64
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from webhook_app.auth import AuthenticationError, WebhookRequest
from webhook_app.auth.reading import TimeForm, check_age, decode_base64, header, seconds

SIGNATURE_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"

_OF_DIGEST = ec.ECDSA(Prehashed(SHA256()))


def parse_verification_key(text: str) -> ec.EllipticCurvePublicKey:
    """Read a verification key as SendGrid shows it: base64 of a P-256 SubjectPublicKeyInfo, no armour.

    Raises `ValueError` with a sentence for the person who pasted it.
    """
    advice = 'copy the "Verification Key" of the webhook from SendGrid: it begins with MFkwEwYH'
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"is not a public key; {advice}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(f"is a public key of another kind than SendGrid's; {advice}")
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class SendGridSignature:
    """Authentic when any live key signed the timestamp header followed by the raw body.

    `tolerance` (seconds) bounds the age of the timestamp. SendGrid signs each attempt anew and retries for
    24 h, so the default is generous; the outbox's natural key is what makes a replay harmless.
    """

    keys: tuple[ec.EllipticCurvePublicKey, ...] = field(repr=False)
    tolerance: float
    clock: Callable[[], float] = time.time

    def verify(self, request: WebhookRequest) -> None:
        signature, timestamp = header(request, SIGNATURE_HEADER), header(request, TIMESTAMP_HEADER)
        if not signature or not timestamp:
            raise AuthenticationError("signature_missing")
        moment = seconds(timestamp, TimeForm.UNIX)
        der = decode_base64(signature, "signature_malformed")
        # Piece by piece, and once for all keys: both in one would be a copy of the whole batch.
        signed = hashlib.sha256(timestamp)
        signed.update(request.body)
        if not any(_is_signed_by(key, der, signed.digest()) for key in self.keys):
            raise AuthenticationError("signature_invalid")
        check_age(moment, now=self.clock(), tolerance=self.tolerance)


def _is_signed_by(key: ec.EllipticCurvePublicKey, der: bytes, digest: bytes) -> bool:
    try:
        key.verify(der, digest, _OF_DIGEST)
    except InvalidSignature:
        return False
    return True
