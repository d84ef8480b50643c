"""`flask connect sendgrid`: from an API key to a signed Event Webhook that has proven itself."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from dotenv import dotenv_values, set_key
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from webhook_app.auth.sendgrid import parse_key
from webhook_app.outbox import Database, OutboxUnavailable, schema
from webhook_app.outbox.lookup import newest_test
from webhook_app.sendgrid_api import SendGridApi, SendGridError
from webhook_app.settings import Settings, is_loopback

WEBHOOK_PATH = "/webhooks/sendgrid"
VARIABLE = "SENDGRID_VERIFICATION_KEYS"
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


def webhook_url(given: str) -> str:
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
    path = url.path.rstrip("/")
    return f"{url.scheme}://{url.netloc}{path.removesuffix(WEBHOOK_PATH)}{WEBHOOK_PATH}"


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


def carry_out(api: SendGridApi, plan: Plan) -> tuple[str, str]:
    """The webhook's id and its public key. What was only half done is undone. Raises `SendGridError`."""
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
        with suppress(SendGridError):
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


connect = AppGroup("connect", help="Set up the webhook at an ESP.")


@connect.command("sendgrid")
@click.option("--url", help="The receiver's public address, like https://hooks.example.com.  [default: PUBLIC_URL]")
@click.option("--subuser", help="The subuser whose webhook is meant.  [default: SENDGRID_SUBUSER]")
@click.option("--replace", metavar="ID", default="", help="Change this webhook instead of creating one.")
@click.option("--dry-run", is_flag=True, help="Only show what would be changed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--write-env",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Write {VARIABLE} into this file, like .env.",
)
@click.option("--test/--no-test", default=True, help="Have SendGrid send its test, and wait until it has arrived.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the test.")
@with_appcontext
def connect_sendgrid(
    url: str | None,
    subuser: str | None,
    replace: str,
    dry_run: bool,
    yes: bool,
    write_env: Path | None,
    test: bool,
    timeout: float,
) -> None:
    """Create or update SendGrid's Event Webhook, with the key in SENDGRID_API_KEY.

    Shows what it will change, and asks. Safe to run twice: the second time changes nothing, and has SendGrid send
    its test once the receiver knows the key.
    """
    settings: Settings = current_app.extensions["settings"]
    try:
        target = webhook_url(url or settings.public_url)
        api = SendGridApi.from_settings(settings, **({"subuser": subuser} if subuser else {}))
        webhooks, max_allowed = api.webhooks()
        plan = make_plan(webhooks, max_allowed, url=target, events=settings.sendgrid_events, replace=replace)
        _show(plan, api)
        if dry_run:
            return
        if plan.steps and not yes:
            click.confirm("Do this at SendGrid?", abort=True)
        webhook_id, public_key = carry_out(api, plan)
        if plan.steps:
            click.echo("Done.")
        _hand_over(public_key, settings, write_env)
        if not test:
            return
        if _knows(settings, public_key):
            _test(api, webhook_id, target, timeout)
        else:
            click.echo(
                "Then restart the receiver and run this command again there: it will have SendGrid send its test.\n"
                "Until then SendGrid keeps what is refused, and sends it again for 24 hours."
            )
    except (CannotConnect, SendGridError) as error:
        raise click.ClickException(str(error)) from None
    except OutboxUnavailable as error:
        raise click.ClickException(f"the database cannot be used: {error}") from None


def _show(plan: Plan, api: SendGridApi) -> None:
    account = f"the subuser {api.subuser}" if api.subuser else "the account"
    if not plan.steps:
        click.echo(f"{account[0].upper()}{account[1:]} has the Event Webhook {plan.url}, signed; nothing to change.")
        return
    head = "" if plan.webhook_id is None else f", for the Event Webhook {plan.webhook_id}"
    click.echo("\n".join([f"At SendGrid, in {account}{head}:", *(f"  {step}" for step in plan.steps)]))


def _knows(settings: Settings, public_key: str) -> bool:
    try:
        key = parse_key(public_key).public_numbers()
    except ValueError:
        raise CannotConnect(
            "SendGrid shows a key that is none; look at the webhook's Signature Verification in SendGrid"
        ) from None
    return key in [known.public_numbers() for known in settings.sendgrid_verification_keys]


def _hand_over(public_key: str, settings: Settings, write_env: Path | None) -> None:
    """Tell the person the value of the variable. A public key is no secret."""
    if _knows(settings, public_key):
        click.echo(f"{VARIABLE} holds its key already.")
        return
    # The keys that are there stay: another account's, or the one before a rotation.
    there = (dotenv_values(write_env) if write_env and write_env.exists() else os.environ).get(VARIABLE) or ""
    value = ",".join([*(key.strip() for key in there.split(",") if key.strip()), public_key])
    if write_env:
        set_key(write_env, VARIABLE, value, quote_mode="never")
        write_env.chmod(0o600)
        click.echo(f"Wrote {VARIABLE} to {write_env}.")
    else:
        click.echo(f"Set this for the receiver (on Heroku: heroku config:set {VARIABLE}=…):\n\n{VARIABLE}={value}\n")


def _test(api: SendGridApi, webhook_id: str, url: str, timeout: float) -> None:
    database: Database = current_app.extensions["database"]
    if problem := schema.problem(database):
        raise CannotConnect(problem)
    before = newest_test(database, "sendgrid")
    api.send_test(webhook_id, url)
    click.echo("SendGrid sends its test …")
    if not wait_for_test(database, before, timeout=timeout):
        raise CannotConnect(
            f"the test has not arrived within {timeout:g} seconds. Does the receiver run at {url}, has it been "
            f"restarted since {VARIABLE} was set, and does this command use its database "
            "(on Heroku: heroku run flask connect sendgrid)? The receiver's log has a line for each request."
        )
    click.echo("The test has arrived, was authentic, and is stored. SendGrid is connected.")
