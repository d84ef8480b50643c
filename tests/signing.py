"""Signs as the ESPs do, written from their documentation and not with the code under test."""

import base64
import time

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class SendGridSigner:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.public_key = base64.b64encode(public).decode()

    def headers(self, body: bytes, timestamp: float | None = None) -> dict[str, str]:
        signed_at = str(int(time.time() if timestamp is None else timestamp))
        signature = self._key.sign(signed_at.encode() + body, ec.ECDSA(SHA256()))
        return {
            "Content-Type": "application/json;charset=utf-8",
            "User-Agent": "SendGrid Event API",
            "X-Twilio-Email-Event-Webhook-Timestamp": signed_at,
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        }
