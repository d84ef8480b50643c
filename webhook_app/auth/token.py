"""A secret in a header: `Authorization: Bearer …`, or any header the ESP lets one set."""

from dataclasses import dataclass, field

from webhook_app.auth import AuthenticationError, WebhookRequest, as_senders_encode, matches_any
from webhook_app.auth.reading import header


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Authentic when the header holds `prefix` and any live token."""

    tokens: tuple[bytes, ...] = field(repr=False)
    header: str = "Authorization"
    prefix: str = "Bearer "

    def verify(self, request: WebhookRequest) -> None:
        if not matches_any(bearer(request, self.header, self.prefix), as_senders_encode(self.tokens)):
            raise AuthenticationError("token_wrong")


def bearer(request: WebhookRequest, name: str, prefix: str) -> bytes:
    """What stands in a header behind its prefix, which is compared without case.

    Raises `AuthenticationError` where there is nothing.
    """
    given = header(request, name)
    if not given:
        raise AuthenticationError("token_missing")
    kind = prefix.encode()
    token = given[len(kind) :].strip()
    if given[: len(kind)].lower() != kind.lower() or not token:
        raise AuthenticationError("token_malformed")
    return token
