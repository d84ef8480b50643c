"""Helpers of the commands: settings, database, journal, errors, JSON."""

import dataclasses
import getpass
import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click
import orjson
from flask import current_app
from marshmallow import ValidationError

from webhook_app.outbox import Database, OutboxUnavailable
from webhook_app.outbox.journal import Journal
from webhook_app.outbox.maintenance import TOKEN_LIFETIME, Maintenance
from webhook_app.outbox.queries import Attempt, Filter, search
from webhook_app.outbox.recent import recent
from webhook_app.providers import Provider
from webhook_app.providers.fields import Timestamp
from webhook_app.providers.registry import Providers, open_names
from webhook_app.providers.registry import variables as variables_of_providers
from webhook_app.setting_fields import SECONDS
from webhook_app.settings import Settings, variables

P = ParamSpec("P")
T = TypeVar("T")


def settings() -> Settings:
    found: Settings = current_app.extensions["settings"]
    return found


def database() -> Database:
    found: Database = current_app.extensions["database"]
    return found


def providers() -> Providers:
    found: Providers = current_app.extensions["providers"]
    return found


def secret_variables() -> set[str]:
    """The environment variables that hold, or may hold, secrets: our settings, and those of providers and sections."""
    keys = {section.api_key for section in current_app.extensions["sections"].values() if section.api_key}
    of_sections = {name for name, value in os.environ.items() if value.strip() in keys}
    return {*variables(), *variables_of_providers(providers().entries.values()), *of_sections}


def find_provider(name: str) -> Provider:
    """The provider of this name; where there is none, the command ends with the names there are."""
    known = providers()
    if name not in known:
        raise click.ClickException(f"there is no provider {name}; there are: {', '.join(sorted(known))}")
    return known[name]


def open_esps() -> list[str]:
    """The names of the ESPs that have a secret."""
    return open_names(providers().entries.values())


def check_name_of_provider(name: str) -> None:
    """Of what came in: a provider that is declared no more is known by that. Raises `OutboxUnavailable`."""
    if name in providers():
        return
    if not recent(database(), name, limit=1) and not search(database(), Filter(provider=name), limit=1).events:
        find_provider(name)


def maintenance() -> Maintenance:
    """One-time tokens are kept for longer than anybody could use them again."""
    tolerance = timedelta(seconds=settings().signature_tolerance_seconds)
    return Maintenance(database(), token_lifetime=max(TOKEN_LIFETIME, 2 * tolerance))


def record(what: str, **details: Any) -> None:
    """Write into the journal what is about to be done. Raises `OutboxUnavailable`."""
    try:
        account = getpass.getuser()
    except (OSError, KeyError):
        account = f"uid {os.getuid()}"  # a container need not have names for its users
    Journal(database()).record(f"flask ({account})", what, **details)


def report_database_errors(command: Callable[P, T]) -> Callable[P, T]:
    """A database that cannot be used ends the command with status 1 and a line, not with a traceback."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except OutboxUnavailable as error:
            raise click.ClickException(f"the database cannot be used: {error}") from None

    return wrapped


def print_json(value: object) -> None:
    """One object on one line, so that `jq` and `while read` can take them one by one."""
    click.echo(orjson.dumps(value, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS).decode())


def not_blank(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """An unset variable of a script must not count as an option that was not given: it would widen an order."""
    if value is not None and not value.strip():
        raise click.BadParameter("is blank")
    return value


class PointInTime(click.ParamType[datetime]):
    """A time, in UTC where it names no zone, or how long ago: `2026-01-31`, `2026-01-31T08:00+01:00`, `30d`, `48h`."""

    name = "time"

    #: Further back than any setting's `Duration`.
    _SPAN = re.compile(r"(\d{1,7})\s*([smhd])", re.ASCII | re.IGNORECASE)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        text = str(value).strip()
        try:
            if found := self._SPAN.fullmatch(text):
                return datetime.now(UTC) - timedelta(seconds=int(found[1]) * SECONDS[found[2].lower()])
            if "-" in text or len(text) == len("20260131"):  # other digits alone are Unix time
                with suppress(ValueError):
                    # Any year: nothing is older than the first one that an event's own time may have.
                    moment = datetime.fromisoformat(text)
                    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return Timestamp().deserialize(text)
        except (ValidationError, OverflowError):
            self.fail("must be a time like 2026-01-31, or a span like 30d or 48h", param, ctx)


def plain_attempt(attempt: Attempt) -> dict[str, Any]:
    """As it goes into JSON, what was sent as text."""
    return dataclasses.asdict(attempt) | {"sent": attempt.sent and plain_request(*attempt.sent)}


def plain_request(method: str, url: str, body: bytes) -> dict[str, str]:
    return {"method": method, "url": url, "body": body.decode(errors="replace")}


as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for scripts.")
