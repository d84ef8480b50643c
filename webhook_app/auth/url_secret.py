"""A secret as the last part of the URL, for ESPs that can prove themselves in no other way."""

import re
from dataclasses import dataclass, field

from webhook_app.auth import AuthenticationError, WebhookRequest, matches_any

_SLASHES = re.compile(b"/{2,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlSecret:
    """Authentic when the path ends in any live secret."""

    secrets: tuple[bytes, ...] = field(repr=False)

    def verify(self, request: WebhookRequest) -> None:
        if not request.url_secret:
            raise AuthenticationError("url_secret_missing")
        given = request.url_secret.encode("utf-8", "surrogatepass")
        if not matches_any(_in_path(given), [left for secret in self.secrets if (left := _in_path(secret))]):
            raise AuthenticationError("url_secret_wrong")


def _in_path(secret: bytes) -> bytes:
    """What a path leaves of a secret: of slashes, as base64 has them, neither doubled ones nor those at its ends."""
    return _SLASHES.sub(b"/", secret).strip(b"/")
