"""SendGrid's v3 API, as far as connecting and reconciling need it.

https://www.twilio.com/docs/sendgrid/api-reference
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from webhook_app.auth.sendgrid import parse_verification_key
from webhook_app.settings import Settings
from webhook_app.sync.api import Api, ApiError, Headers

WEBHOOKS = "/v3/user/webhooks/event/settings"

#: Beginning of a path → the permission it needs, as SendGrid's page for API keys calls it.
PERMISSIONS = {
    "/v3/user/webhooks/event/test": "Mail Settings > Event Notification (scope user.webhooks.event.test.create)",
    "/v3/user/webhooks": "Mail Settings > Event Notification (scopes user.webhooks.event.settings.*)",
    "/v3/asm": "Suppressions > Unsubscribe Groups, read (scope asm.groups.suppressions.read)",
    "/v3/suppression": "Suppressions, read (scope suppression.read)",
}


@dataclass(slots=True, kw_only=True)
class SendGridApi(Api):
    """One account, or one subuser of it."""

    title: str = "SendGrid"
    variable: str = "SENDGRID_API_KEY"
    key: str = field(repr=False)
    auth: Headers = field(init=False, repr=False)
    subuser: str = ""

    def __post_init__(self) -> None:
        self.auth = Headers(Authorization=f"Bearer {self.key}")
        if self.subuser:
            self.headers = {"on-behalf-of": self.subuser}

    @classmethod
    def from_settings(cls, settings: Settings, **more: Any) -> "SendGridApi":
        """Raises `ApiError` where there is no key."""
        if not settings.sendgrid_api_key:
            raise ApiError("key_missing", "SENDGRID_API_KEY is not set: make a key in SendGrid, Settings > API Keys")
        if not (settings.sendgrid_api_key.isascii() and settings.sendgrid_api_key.isprintable()):
            raise ApiError("key_malformed", "SENDGRID_API_KEY holds characters that no key has: copy it again")
        return cls(
            **{
                "base": settings.sendgrid_api_url,
                "key": settings.sendgrid_api_key,
                "subuser": settings.sendgrid_subuser,
                "session": settings.egress.session(),
                **more,
            }
        )

    def webhooks(self) -> tuple[list[dict[str, Any]], int]:
        """Every Event Webhook of the account, and how many its plan allows to be enabled."""
        answer = self._object(self.ask("GET", f"{WEBHOOKS}/all", query={"include": "account_status_change"}))
        # An account without any webhook is described as one that is empty.
        webhooks = [webhook for webhook in answer.get("webhooks", []) if webhook.get("id")]
        return webhooks, int(answer.get("max_allowed", 1))

    def create_webhook(self, webhook: dict[str, Any]) -> str:
        """The id of the new webhook."""
        return str(self._object(self.ask("POST", WEBHOOKS, json=webhook))["id"])

    def update_webhook(self, webhook_id: str, webhook: dict[str, Any]) -> None:
        self.ask("PATCH", f"{WEBHOOKS}/{webhook_id}", json=webhook)

    def delete_webhook(self, webhook_id: str) -> None:
        self.ask("DELETE", f"{WEBHOOKS}/{webhook_id}")

    def turn_signing_on(self, webhook_id: str) -> str:
        """The public key that belongs to the signature. Where signing is on already, nothing changes."""
        answer = self._object(self.ask("PATCH", f"{WEBHOOKS}/signed/{webhook_id}", json={"enabled": True}))
        public_key = str(answer.get("public_key", ""))
        try:
            parse_verification_key(public_key)
        except ValueError:
            raise ApiError("unexpected_answer", "SendGrid turned the signature on and gave no key") from None
        return public_key

    def send_test(self, webhook_id: str, url: str) -> None:
        """Have SendGrid send its test batch."""
        self.ask("POST", "/v3/user/webhooks/event/test", json={"id": webhook_id, "url": url})

    def _object(self, answer: Any) -> dict[str, Any]:
        if not isinstance(answer, dict):
            raise ApiError("unexpected_answer", "SendGrid's answer is not the one its documentation describes")
        return answer

    def refusal(self, status: int, content: bytes, path: str) -> ApiError:
        said = _messages(content)
        match status:
            case 401:
                return ApiError(
                    "key_refused",
                    f"SendGrid does not know SENDGRID_API_KEY at {self.base}: is it whole, alive and of this region? "
                    f"(it said: {said})",
                )
            case 403:
                permission = next(needed for start, needed in PERMISSIONS.items() if path.startswith(start))
                account = f", on behalf of the subuser {self.subuser!r}" if self.subuser else ""
                return ApiError("scope_missing", f"SENDGRID_API_KEY may not do this{account}; it needs: {permission}")
            case _:
                return ApiError("refused", f"SendGrid refused {path} with {status}: {said}")


def _messages(content: bytes) -> str:
    try:
        return "; ".join(str(error["message"]) for error in orjson.loads(content)["errors"])[:500]
    except (ValueError, KeyError, TypeError):
        return "nothing readable"
