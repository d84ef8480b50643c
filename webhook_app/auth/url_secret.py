"""A secret as the last part of the URL, for ESPs that can prove themselves in no other way."""

from dataclasses import dataclass, field

from webhook_app.auth import AuthenticationError, WebhookRequest, matches_any


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlSecret:
    """Authentic when the path ends in any live secret."""

    secrets: tuple[bytes, ...] = field(repr=False)

    def verify(self, request: WebhookRequest) -> None:
        if not request.url_secret:
            raise AuthenticationError("url_secret_missing")
        if not matches_any(request.url_secret.encode("utf-8", "surrogatepass"), self.secrets):
            raise AuthenticationError("url_secret_wrong")
