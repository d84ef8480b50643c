"""`flask connect`: from an API key to a signed webhook that has proven itself."""

import os
from pathlib import Path

import click
from dotenv import dotenv_values, set_key
from flask.cli import AppGroup, with_appcontext

from webhook_app.auth.sendgrid import parse_verification_key
from webhook_app.cli import shared
from webhook_app.outbox import schema
from webhook_app.outbox.lookup import newest_test
from webhook_app.settings import Settings
from webhook_app.sync.api import Api, ApiError
from webhook_app.sync.sendgrid_api import SendGridApi
from webhook_app.sync.sendgrid_webhook import (
    CannotConnect,
    Plan,
    carry_out_plan,
    make_plan,
    wait_for_test,
    webhook_url,
)
from webhook_app.sync.webhooks import CONNECTIONS, Connection, carry_out, new_secret, open_api

VARIABLE = "SENDGRID_VERIFICATION_KEYS"

connect = AppGroup("connect", help="Set up the webhook at an ESP.")


def _writable(_context: click.Context, _option: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that cannot be written before anything is changed at the ESP."""
    if path is None:
        return None
    # The folder, too: the file is replaced by another one, so that it is never half there.
    writable = path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)
    try:
        if path.exists():
            writable = writable and os.access(path, os.W_OK)
            dotenv_values(path)
    except (OSError, ValueError):
        writable = False
    if not writable:
        raise click.BadParameter(f"{path} cannot be written: is its folder there, both yours, and the file UTF-8?")
    return path


_url = click.option(
    "--url", help="The receiver's public address, like https://hooks.example.com.  [default: PUBLIC_URL]"
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only show what would be changed.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_write_env = click.option(
    "--write-env",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_writable,
    help="Write the variable for the receiver into this file, like .env.",
)


@connect.command("sendgrid")
@_url
@click.option("--subuser", help="The subuser whose webhook is meant.  [default: SENDGRID_SUBUSER]")
@click.option("--replace", metavar="ID", default="", help="Change this webhook instead of creating one.")
@_dry_run
@_yes
@_write_env
@click.option("--test/--no-test", default=True, help="Have SendGrid send its test, and wait until it has arrived.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the test.")
@with_appcontext
@shared.report_database_errors
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
    settings = shared.settings()
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
        webhook_id, public_key = carry_out_plan(api, plan)
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
    except (CannotConnect, ApiError) as error:
        raise click.ClickException(str(error)) from None


def _show(plan: Plan, api: SendGridApi) -> None:
    account = f"the subuser {api.subuser}" if api.subuser else "the account"
    if not plan.steps:
        click.echo(f"{account[0].upper()}{account[1:]} has the Event Webhook {plan.url}, signed; nothing to change.")
        return
    head = "" if plan.webhook_id is None else f", for the Event Webhook {plan.webhook_id}"
    click.echo("\n".join([f"At SendGrid, in {account}{head}:", *(f"  {step}" for step in plan.steps)]))


def _knows(settings: Settings, public_key: str) -> bool:
    try:
        key = parse_verification_key(public_key).public_numbers()
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
    _say(VARIABLE, ",".join([*(key.strip() for key in there.split(",") if key.strip()), public_key]), write_env)


def _say(variable: str, value: str, write_env: Path | None) -> None:
    if write_env and _write(variable, value, write_env):
        click.echo(f"Wrote {variable} to {write_env}.")
    else:
        click.echo(f"Set this for the receiver (on Heroku: heroku config:set {variable}=…):\n\n{variable}={value}\n")


def _write(variable: str, value: str, path: Path) -> bool:
    try:
        path.touch(mode=0o600)
        path.chmod(0o600)
        set_key(path, variable, value, quote_mode="never")
    except OSError as error:
        # The ESP may have been changed by now: without the value the receiver would refuse every call.
        click.echo(f"{path} could not be written: {error.strerror}", err=True)
        return False
    return True


def _test(api: SendGridApi, webhook_id: str, url: str, timeout: float) -> None:
    database = shared.database()
    if problem := schema.problem(database):
        raise CannotConnect(str(problem))
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


# ---------------------------------------------------------------- ESPs that call with a secret of ours


def _command(provider: str, connection: Connection) -> click.Command:
    @_url
    @_dry_run
    @_yes
    @_write_env
    @with_appcontext
    @shared.report_database_errors
    def command(url: str | None, dry_run: bool, yes: bool, write_env: Path | None) -> None:
        try:
            _connect(provider, connection, url, dry_run=dry_run, yes=yes, write_env=write_env)
        except (ApiError, CannotConnect) as error:
            raise click.ClickException(str(error)) from None

    about = (
        f"Create or update the webhook at {connection.title}. First gives the receiver its secret "
        f"({connection.variable}); run it again when the receiver has it. Shows what it will change, and asks. Safe to "
        "run twice."
    )
    return click.command(provider, help=about)(command)


for _provider, _connection in CONNECTIONS.items():
    connect.add_command(_command(_provider, _connection))


def _connect(
    provider: str, connection: Connection, url: str | None, *, dry_run: bool, yes: bool, write_env: Path | None
) -> None:
    settings = shared.settings()
    target = webhook_url(url or settings.public_url, provider)
    api = open_api(provider, settings)
    known = [secret.strip() for secret in os.environ.get(connection.variable, "").split(",") if secret.strip()]
    if not known:
        _give_secret(connection, api, dry_run=dry_run, write_env=write_env)
        return
    steps = list(connection.steps(api, settings, target, known[0]))
    if not steps:
        click.echo(f"{connection.title} has the webhook {target}; nothing to change.")
        return
    click.echo("\n".join([f"At {connection.title}:", *(f"  {step.text}" for step in steps)]))
    if dry_run:
        return
    if not yes:
        click.confirm(f"Do this at {connection.title}?", abort=True)
    carry_out(api, steps, lambda: connection.steps(api, settings, target, known[0]))
    click.echo(f"Done: {connection.title} is connected. To see it work: {connection.proof}.")


def _give_secret(connection: Connection, api: Api, *, dry_run: bool, write_env: Path | None) -> None:
    if write_env and write_env.exists() and dotenv_values(write_env).get(connection.variable):
        raise CannotConnect(f"{write_env} holds {connection.variable}, and this command does not: load it first")
    if dry_run:
        click.echo(f"{connection.variable} is not set: the first run gives the receiver a secret.")
        return
    _say(connection.variable, new_secret(connection, api), write_env)
    click.echo(
        f"Nothing was changed at {connection.title} yet. Start the receiver again with it, so that no call is refused; "
        "then run this command again there: it will make the webhook."
    )
