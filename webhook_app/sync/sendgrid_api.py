"""SendGrid's v3 API, as far as connecting and reconciling need it.

https://www.twilio.com/docs/sendgrid/api-reference
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import requests
import structlog

from webhook_app.auth.sendgrid import parse_key
from webhook_app.egress import DIRECT
from webhook_app.settings import Settings

TIMEOUT = (5.0, 30.0)  # seconds: to connect, between two pieces of an answer
TRIES = 5
BACKOFF = 1.0  # seconds before the second try; doubled for each further one
#: Seconds. SendGrid's windows last a minute; a longer wish is a wrong clock, theirs or ours.
LONGEST_WAIT = 90.0
PAGE = 500  # entries; the most that SendGrid gives at once

WEBHOOKS = "/v3/user/webhooks/event/settings"

#: Beginning of a path → the permission it needs, as SendGrid's page for API keys calls it.
PERMISSIONS = {
    "/v3/user/webhooks/event/test": "Mail Settings > Event Notification (scope user.webhooks.event.test.create)",
    "/v3/user/webhooks": "Mail Settings > Event Notification (scopes user.webhooks.event.settings.*)",
    "/v3/asm": "Suppressions > Unsubscribe Groups, read (scope asm.groups.suppressions.read)",
    "/v3/suppression": "Suppressions, read (scope suppression.read)",
}

log = structlog.get_logger()


class SendGridError(Exception):
    """SendGrid's API did not do what it was asked to. The text is for a person, `reason` for logs."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(slots=True, kw_only=True)
class SendGridApi:
    """One account, or one subuser of it. `sleep` waits so many seconds; what it raises ends the call."""

    base: str
    key: str = field(repr=False)
    subuser: str = ""
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.time
    session: requests.Session = field(default_factory=DIRECT.session, repr=False)

    @classmethod
    def from_settings(cls, settings: Settings, **more: Any) -> "SendGridApi":
        """Raises `SendGridError` where there is no key."""
        if not settings.sendgrid_api_key:
            raise SendGridError(
                "key_missing", "SENDGRID_API_KEY is not set: make a key in SendGrid, Settings > API Keys"
            )
        if not (settings.sendgrid_api_key.isascii() and settings.sendgrid_api_key.isprintable()):
            raise SendGridError("key_malformed", "SENDGRID_API_KEY holds characters that no key has: copy it again")
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
        answer = self._object(self._ask("GET", f"{WEBHOOKS}/all", query={"include": "account_status_change"}))
        # An account without any webhook is described as one that is empty.
        webhooks = [webhook for webhook in answer.get("webhooks", []) if webhook.get("id")]
        return webhooks, int(answer.get("max_allowed", 1))

    def create_webhook(self, webhook: dict[str, Any]) -> str:
        """The id of the new webhook."""
        return str(self._object(self._ask("POST", WEBHOOKS, body=webhook))["id"])

    def update_webhook(self, webhook_id: str, webhook: dict[str, Any]) -> None:
        self._ask("PATCH", f"{WEBHOOKS}/{webhook_id}", body=webhook)

    def delete_webhook(self, webhook_id: str) -> None:
        self._ask("DELETE", f"{WEBHOOKS}/{webhook_id}")

    def turn_signing_on(self, webhook_id: str) -> str:
        """The public key that belongs to the signature. Where signing is on already, nothing changes."""
        answer = self._object(self._ask("PATCH", f"{WEBHOOKS}/signed/{webhook_id}", body={"enabled": True}))
        public_key = str(answer.get("public_key", ""))
        try:
            parse_key(public_key)
        except ValueError:
            raise SendGridError("unexpected_answer", "SendGrid turned the signature on and gave no key") from None
        return public_key

    def send_test(self, webhook_id: str, url: str) -> None:
        """Have SendGrid send its test batch."""
        self._ask("POST", "/v3/user/webhooks/event/test", body={"id": webhook_id, "url": url})

    def pages(self, path: str, **query: int) -> Iterator[list[Any]]:
        """A list, page by page, to its end.

        The end is an empty page: a short one may only be a smaller limit than we asked for. A page that comes twice
        means that the list does not page at all.
        """
        offset, previous = 0, None
        while True:
            page = self._ask("GET", path, query={**query, "limit": PAGE, "offset": offset})
            if not isinstance(page, list):
                raise SendGridError("unexpected_answer", f"SendGrid's answer to {path} is not a list")
            if not page or page == previous:
                return
            yield page
            offset, previous = offset + len(page), page

    def _object(self, answer: Any) -> dict[str, Any]:
        if not isinstance(answer, dict):
            raise SendGridError("unexpected_answer", "SendGrid's answer is not the one its documentation describes")
        return answer

    def _ask(self, method: str, path: str, *, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        for attempt in range(1, TRIES + 1):
            try:
                response = self.session.request(
                    method,
                    self.base + path,
                    params=query,
                    json=body,
                    headers=self._headers(),
                    timeout=TIMEOUT,
                    # A redirect would carry the key to another host.
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                wait, problem = self._backoff(attempt), f"cannot be reached ({type(error).__name__})"
                may_have_happened = not isinstance(error, requests.ConnectTimeout)
            else:
                if response.status_code < 300:
                    self._slow_down(response)
                    return self._parsed(response, path)
                if response.status_code != 429 and response.status_code < 500:
                    raise self._refusal(response, path)
                wait, problem = self._wait_after(response, attempt), f"answers {response.status_code}"
                may_have_happened = response.status_code != 429
            # A second webhook would deliver everything twice; the person looks, and runs the command again.
            if attempt == TRIES or (method == "POST" and may_have_happened):
                break
            log.info("sendgrid_busy", path=path, problem=problem, wait_seconds=round(wait, 1))
            self.sleep(wait)
        raise SendGridError("unavailable", f"SendGrid's API {problem}: try again later ({self.base}{path})")

    def _headers(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.key}", "User-Agent": "esp-webhook-receiver"}
        if self.subuser:
            headers["on-behalf-of"] = self.subuser
        return headers

    def _backoff(self, attempt: int) -> float:
        return BACKOFF * 2.0 ** (attempt - 1)

    def _wait_after(self, response: requests.Response, attempt: int) -> float:
        if response.status_code != 429:
            return self._backoff(attempt)
        try:
            reset = float(response.headers["X-RateLimit-Reset"]) - self.clock()
        except (KeyError, ValueError):
            reset = 0.0
        # A reset that has passed comes from a clock that goes wrong: go on slowly then.
        return min(max(reset, self._backoff(attempt)), LONGEST_WAIT)

    def _slow_down(self, response: requests.Response) -> None:
        """The last request of a window was answered: wait for the next window instead of running into a 429."""
        try:
            left = int(response.headers["X-RateLimit-Remaining"])
            seconds = float(response.headers["X-RateLimit-Reset"]) - self.clock()
        except (KeyError, ValueError):
            return
        if left == 0 and seconds > 0:
            self.sleep(min(seconds, LONGEST_WAIT))

    def _parsed(self, response: requests.Response, path: str) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise SendGridError(
                "unexpected_answer", f"what answers at {self.base}{path} is not SendGrid's API: is there a proxy?"
            ) from None

    def _refusal(self, response: requests.Response, path: str) -> SendGridError:
        said = _messages(response)
        match response.status_code:
            case 401:
                return SendGridError(
                    "key_refused",
                    f"SendGrid does not know SENDGRID_API_KEY at {self.base}: is it whole, alive and of this region? "
                    f"(it said: {said})",
                )
            case 403:
                permission = next(needed for start, needed in PERMISSIONS.items() if path.startswith(start))
                account = f", on behalf of the subuser {self.subuser!r}" if self.subuser else ""
                return SendGridError(
                    "scope_missing", f"SENDGRID_API_KEY may not do this{account}; it needs: {permission}"
                )
            case status:
                return SendGridError("refused", f"SendGrid refused {path} with {status}: {said}")


def _messages(response: requests.Response) -> str:
    try:
        return "; ".join(str(error["message"]) for error in response.json()["errors"])[:500]
    except (ValueError, KeyError, TypeError):
        return "nothing readable"
