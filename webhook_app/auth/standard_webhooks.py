"""Standard Webhooks, also as Svix sends it: id, timestamp and body signed together, several signatures at once.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from webhook_app.auth import AuthenticationError, WebhookRequest, matches_any
from webhook_app.auth.reading import TimeForm, check_age, decode_base64, header, seconds

#: Seconds. A sender signs each attempt anew, so a retry is as fresh as the first one.
TOLERANCE = 300.0

#: More signatures than a rotation needs; each v1a costs a curve operation.
MAX_SIGNATURES = 16


def parse_key(text: str) -> bytes | Ed25519PublicKey:
    """Read `whsec_…` (a shared secret) or `whpk_…` (the sender's public key), base64 behind the prefix.

    Raises `ValueError` with a sentence for the person who pasted it.
    """
    kind, _, encoded = text.partition("_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if kind == "whsec" and key:
        return key
    if kind == "whpk" and len(key) == 32:
        return Ed25519PublicKey.from_public_bytes(key)
    raise ValueError("must be a secret that begins with whsec_, or a public key that begins with whpk_")


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardWebhooks:
    """Authentic when any live secret made a `v1` signature, or any live public key fits a `v1a` one."""

    secrets: tuple[bytes, ...] = field(repr=False)
    public_keys: tuple[Ed25519PublicKey, ...] = field(default=(), repr=False)
    #: The headers are `webhook-id` …, or `svix-id` … with Svix's own name.
    header_prefix: str = "webhook"
    tolerance: float = TOLERANCE
    clock: Callable[[], float] = time.time

    def verify(self, request: WebhookRequest) -> None:
        names = (f"{self.header_prefix}-{part}" for part in ("id", "timestamp", "signature"))
        message_id, timestamp, signatures = (header(request, name) for name in names)
        if not (message_id and timestamp and signatures):
            raise AuthenticationError("signature_missing")
        moment = seconds(timestamp, TimeForm.UNIX)
        signed = b".".join((message_id, timestamp, request.body))
        given = signatures.split(b" ")[:MAX_SIGNATURES]
        expected = [sign(signed, secret) for secret in self.secrets]
        # A version we do not know is passed over, as the specification wants.
        if not any(matches_any(each, expected) or self._fits_public_key(each, signed) for each in given):
            raise AuthenticationError("signature_invalid")
        check_age(moment, now=self.clock(), tolerance=self.tolerance)

    def _fits_public_key(self, signature: bytes, signed: bytes) -> bool:
        version, _, encoded = signature.partition(b",")
        if version != b"v1a" or not self.public_keys:
            return False
        try:
            raw = decode_base64(encoded, "signature_malformed")
        except AuthenticationError:
            # The next one may be right.
            return False
        return any(_is_signed_by(key, raw, signed) for key in self.public_keys)


def sign(signed: bytes, secret: bytes) -> bytes:
    """A `v1` signature as it stands in the header."""
    return b"v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256))


def _is_signed_by(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True
