"""SendGrid's Event Webhook as it has to be, and the way there from what SendGrid has now."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from webhook_app.outbox import Database
from webhook_app.outbox.lookup import newest_test
from webhook_app.setting_fields import is_loopback
from webhook_app.sync.api import ApiError
from webhook_app.sync.sendgrid_api import SendGridApi

FRIENDLY_NAME = "Opt-outs to Dynamic Yield"
POLL = 0.5  # seconds between two looks for the test

#: Event as `SENDGRID_EVENTS` names it → the webhook's switch that lets it through.
SWITCH_OF = {
    "unsubscribe": "unsubscribe",
    "group_unsubscribe": "group_unsubscribe",
    "spamreport": "spam_report",
    "bounce": "bounce",
    "dropped": "dropped",
}

#: Every switch that SendGrid has. What is on is left on: the customer may have asked for it.
SWITCHES = (
    "processed",
    "deferred",
    "delivered",
    "open",
    "click",
    "bounce",
    "dropped",
    "spam_report",
    "unsubscribe",
    "group_unsubscribe",
    "group_resubscribe",
    "account_status_change",
)
#: Sent back as they are, so that no update can switch them off. SendGrid never shows the secret, and keeps it.
KEPT = ("friendly_name", "oauth_client_id", "oauth_token_url")


class CannotConnect(Exception):
    """The webhook cannot be set up like this. The text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done at SendGrid. Empty `steps` mean: nothing."""

    url: str
    #: None where the webhook has to be created.
    webhook_id: str | None
    #: The webhook as it shall be; None where it is so already.
    webhook: dict[str, Any] | None
    #: The key that SendGrid signs for; empty where signing has to be turned on.
    public_key: str
    #: A line for each change, for the person who has to agree.
    steps: tuple[str, ...]


def webhook_url(given: str, provider: str = "sendgrid") -> str:
    """The webhook's full URL from the receiver's base URL, or from the full URL itself. Raises `CannotConnect`."""
    try:
        url = urlsplit(given)
        host = url.hostname or ""
    except ValueError:
        host = ""
    if not host or url.scheme not in ("http", "https") or url.query or url.fragment or url.username:
        raise CannotConnect(f"--url must be the receiver's public address, like https://hooks.example.com, not {given}")
    if url.scheme == "http" and not is_loopback(host):
        raise CannotConnect("--url must begin with https://: the webhook carries addresses")
    path, ours = url.path.rstrip("/"), f"/webhooks/{provider}"
    return f"{url.scheme}://{url.netloc}{path.removesuffix(ours)}{ours}"


def make_plan(
    webhooks: list[dict[str, Any]], max_allowed: int, *, url: str, events: tuple[str, ...], replace: str = ""
) -> Plan:
    """Compare what SendGrid has with what is needed. Raises `CannotConnect` where there is no room."""
    wanted = {SWITCH_OF[event] for event in events} | {"group_resubscribe"}
    found = _find(webhooks, url, replace)
    if found is None:
        _check_room(webhooks, max_allowed)
        on = ", ".join(sorted(wanted))
        return Plan(
            url=url,
            webhook_id=None,
            webhook={
                **{switch: switch in wanted for switch in SWITCHES},
                "url": url,
                "enabled": True,
                "friendly_name": FRIENDLY_NAME,
            },
            public_key="",
            steps=(f"create the Event Webhook {url}", f"switch on: {on}", "turn its signature on"),
        )
    shall = {
        **{name: found[name] for name in (*SWITCHES, *KEPT) if found.get(name) is not None},
        **dict.fromkeys(sorted(wanted), True),
        "url": url,
        "enabled": True,
    }
    steps = [
        f"{name}: {_said(found.get(name))} → {_said(value)}"
        for name, value in shall.items()
        if found.get(name) != value
    ]
    signed = found.get("public_key", "")
    return Plan(
        url=url,
        webhook_id=found["id"],
        webhook=shall if steps else None,
        public_key=signed,
        steps=(*steps, *(() if signed else ("turn its signature on",))),
    )


def carry_out_plan(api: SendGridApi, plan: Plan) -> tuple[str, str]:
    """The webhook's id and its public key. What was only half done is undone. Raises `ApiError`."""
    if plan.webhook_id is None:
        return _create(api, plan)
    # The signature first: not one event more shall come unsigned.
    public_key = plan.public_key or api.turn_signing_on(plan.webhook_id)
    if plan.webhook is not None:
        api.update_webhook(plan.webhook_id, plan.webhook)
    return plan.webhook_id, public_key


def _create(api: SendGridApi, plan: Plan) -> tuple[str, str]:
    webhook = plan.webhook or {}
    # Enabled only when it is signed: unsigned events would be refused, and sent again for a day.
    webhook_id = api.create_webhook({**webhook, "enabled": False})
    try:
        public_key = api.turn_signing_on(webhook_id)
        api.update_webhook(webhook_id, webhook)
    except BaseException:
        with suppress(ApiError):
            api.delete_webhook(webhook_id)
        raise
    return webhook_id, public_key


def _find(webhooks: list[dict[str, Any]], url: str, replace: str) -> dict[str, Any] | None:
    if replace:
        for webhook in webhooks:
            if webhook["id"] == replace:
                return webhook
        raise CannotConnect(f"there is no Event Webhook with the id {replace}; there are:\n{_listed(webhooks)}")
    return next((webhook for webhook in webhooks if str(webhook.get("url", "")).rstrip("/") == url), None)


def _check_room(webhooks: list[dict[str, Any]], max_allowed: int) -> None:
    enabled = [webhook for webhook in webhooks if webhook.get("enabled")]
    if len(enabled) >= max_allowed:
        raise CannotConnect(
            f"the SendGrid plan allows {max_allowed} Event Webhook{'s' * (max_allowed != 1)}, and no more is free:\n"
            f"{_listed(enabled)}\n"
            "Disable one in SendGrid (Settings > Mail Settings > Event Webhooks), take a larger plan, or point one "
            "here with --replace ID: what it feeds now gets nothing any more"
        )


def _listed(webhooks: list[dict[str, Any]]) -> str:
    # A URL may hold a password: only its host and path are shown.
    lines = []
    for webhook in webhooks:
        url = urlsplit(str(webhook.get("url", "")))
        lines.append(f"  {webhook['id']}  {url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}")
    return "\n".join(lines) or "  none"


def _said(value: Any) -> str:
    return {True: "on", False: "off", None: "off"}.get(value, str(value))


def wait_for_test(
    database: Database, after: int, *, timeout: float, sleep: Callable[[float], object] = time.sleep
) -> bool:
    """Whether a test of SendGrid's newer than the row `after` is stored within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while newest_test(database, "sendgrid") <= after:
        if time.monotonic() > deadline:
            return False
        sleep(POLL)
    return True
