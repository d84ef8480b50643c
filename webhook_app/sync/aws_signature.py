"""AWS Signature Version 4, as far as a request to one service of one region needs it.

https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

import requests
from requests.auth import AuthBase

_ALGORITHM = "AWS4-HMAC-SHA256"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSignature(AuthBase):
    """Signs each request anew: a signature is good for some minutes only."""

    key_id: str = field(repr=False)
    secret_key: str = field(repr=False)
    region: str
    service: str
    now: Callable[[], datetime] = _now

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        moment = self.now().strftime("%Y%m%dT%H%M%SZ")
        url = urlsplit(str(request.url))
        body = request.body or b""
        signed = {"host": url.netloc, "x-amz-date": moment}
        canonical = "\n".join(
            [
                str(request.method),
                # Encoded twice, but for S3.
                quote(url.path or "/", safe="/-_.~"),
                _canonical_query(url.query),
                *(f"{name}:{value}" for name, value in signed.items()),
                "",
                ";".join(signed),
                hashlib.sha256(body.encode() if isinstance(body, str) else body).hexdigest(),
            ]
        )
        scope = f"{moment[:8]}/{self.region}/{self.service}/aws4_request"
        to_sign = "\n".join([_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        signature = hmac.digest(self._signing_key(moment[:8]), to_sign.encode(), "sha256").hex()
        request.headers["X-Amz-Date"] = moment
        request.headers["Authorization"] = (
            f"{_ALGORITHM} Credential={self.key_id}/{scope}, SignedHeaders={';'.join(signed)}, Signature={signature}"
        )
        return request

    def _signing_key(self, date: str) -> bytes:
        key = f"AWS4{self.secret_key}".encode()
        for part in (date, self.region, self.service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key


def _canonical_query(query: str) -> str:
    pairs = sorted((_quoted(name), _quoted(value)) for name, value in parse_qsl(query, keep_blank_values=True))
    return "&".join(f"{name}={value}" for name, value in pairs)


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
