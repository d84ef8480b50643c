"""HTTP Basic: the user and password that were put into the webhook's URL or its settings."""

import base64
from dataclasses import dataclass, field

from webhook_app.auth import AuthenticationError, WebhookRequest, as_senders_encode, matches_any
from webhook_app.auth.reading import header


@dataclass(frozen=True, slots=True, kw_only=True)
class Basic:
    """Authentic when the header holds any live `user:password`."""

    credentials: tuple[bytes, ...] = field(repr=False)

    def verify(self, request: WebhookRequest) -> None:
        given = header(request, "Authorization")
        if not given:
            raise AuthenticationError("credentials_missing")
        kind, _, encoded = given.partition(b" ")
        if kind.lower() != b"basic":
            raise AuthenticationError("credentials_malformed")
        # The encoded texts are compared: whatever is not the base64 of live credentials is simply not equal to one.
        if not matches_any(encoded.strip(), map(base64.b64encode, as_senders_encode(self.credentials))):
            raise AuthenticationError("credentials_wrong")
