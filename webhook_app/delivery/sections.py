"""Sections of Dynamic Yield: each with a key, a host and a form of its own, and a condition on what concerns it.

Without a file there is one, `default`, made of the environment's variables.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marshmallow import ValidationError, fields, validate, validates_schema

from webhook_app.consent import Action, IdentityKind
from webhook_app.delivery import WireForm
from webhook_app.delivery.registry import DESTINATIONS, build_form
from webhook_app.egress import Egress
from webhook_app.outbox.routing import Condition as RoutingCondition
from webhook_app.providers import Unreadable, flatten, load_json
from webhook_app.providers.expressions import Condition
from webhook_app.providers.kept import kept
from webhook_app.providers.toml_fields import Made, Table, Variable, condition, load_toml, one_of
from webhook_app.settings import EVENTS_API_BASES, BaseUrl, ConfigurationError, Settings, api_key_field

if TYPE_CHECKING:
    from webhook_app.delivery.client import Client

DEFAULT = "default"
DEFAULT_FILE = Path("sections.toml")

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Section:
    """One section: where its changes go, in which form, and which events concern it."""

    name: str = DEFAULT
    #: Scheme and host.
    base: str = ""
    api_key: str = dataclasses.field(default="", repr=False)
    form: WireForm
    #: Ceiling for each worker; 0 is none.
    requests_per_second: float = 0
    #: None: every event.
    when: Condition | None = None

    def concerns(self, raw: bytes, provider: str, action: Action, kind: IdentityKind) -> bool:
        """Whether an event is this section's. `raw` is the event as its ESP sent it and as it is kept.

        Raises `ValidationError` where the condition does not fit the event.
        """
        if self.when is None:
            return True
        try:
            event = load_json(kept(raw)[0])
        except Unreadable:
            # As of an imported row: what is absent is null.
            event = None
        return self.when.holds({"provider": provider, "action": str(action), "kind": str(kind), "event": event})

    def client(self, egress: Egress) -> "Client":
        # Only now: the web process and most commands send nothing, and start sooner without an HTTP client.
        from webhook_app.delivery.client import Client

        return Client(self.base, self.api_key, egress=egress)


def conditions(sections: Mapping[str, Section]) -> dict[str, RoutingCondition]:
    """By which the outbox knows which sections an event concerns; none where everything is for the default one."""
    if list(sections) == [DEFAULT] and sections[DEFAULT].when is None:
        return {}
    return {name: section.concerns for name, section in sections.items()}


def build_sections(settings: Settings, environ: Mapping[str, str]) -> dict[str, Section]:
    """Every section by its name. Raises `ConfigurationError` with all problems."""
    path = Path(settings.sections_file) if settings.sections_file else DEFAULT_FILE
    if not settings.sections_file and not path.exists():
        return {DEFAULT: _of_environment(settings)}
    tables = _load(path)
    sections: dict[str, Section] = {}
    problems = []
    if settings.section_when:
        problems.append(f"SECTION_WHEN counts only where there is no {path.name}: write it as `when` in there")
    for name, table in tables.items():
        try:
            sections[name] = _section(name, table, settings, environ)
        except ValidationError as error:
            lines = flatten(error.messages_dict) if isinstance(error.messages, dict) else [("", error.messages[0])]
            problems += [f"{path.name}: [{name}] {f'{key}: {line}' if key else line}" for key, line in lines]
    if problems:
        raise ConfigurationError(problems)
    return sections


def _of_environment(settings: Settings) -> Section:
    try:
        when = Condition(settings.section_when) if settings.section_when else None
    except ValueError as error:
        raise ConfigurationError([f"SECTION_WHEN {error}"]) from None
    return Section(
        base=settings.events_api_base,
        api_key=settings.events_api_key,
        form=build_form(settings),
        requests_per_second=settings.requests_per_second,
        when=when,
    )


def _load(path: Path) -> dict[str, Any]:
    tables = load_toml(path, "SECTIONS_FILE")
    if not tables:
        raise ConfigurationError([f"{path.name}: declares no section; write one like [uk], or remove the file"])
    return tables


class Flag(fields.Field[bool]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false, without quotes")
        return value


class SectionTable(Table):
    """A section's table. What it does not say is as in the environment; the key is its own."""

    api_key = Variable(required=True, error_messages={"required": "is missing: the NAME of an environment variable"})
    region = one_of(*EVENTS_API_BASES)
    url = Made(BaseUrl().deserialize)
    type = one_of("web", "api")
    destination = one_of(*DESTINATIONS)
    when = condition()
    active_consent_accepted = Flag()
    requests_per_second = fields.Integer(
        strict=True,
        validate=validate.Range(0, 100_000, error="must be a whole number from {min} to {max}"),
        error_messages={"invalid": "must be a whole number from 0 to 100000"},
    )

    @validates_schema
    def _has_one_host(self, data: Any, **_: Any) -> None:
        if "region" in data and "url" in data:
            raise ValidationError("stands beside region: keep one of the two", "url")


def _section(name: str, table: Any, settings: Settings, environ: Mapping[str, str]) -> Section:
    """Raises `ValidationError`."""
    if not _NAME.fullmatch(name):
        raise ValidationError("must have a name in lower case, like uk or app-eu")
    if not isinstance(table, dict):
        raise ValidationError("must be a table: its name in brackets on a line of its own, and below it the keys")
    said = SectionTable().load(table)
    own = dataclasses.replace(
        settings,
        events_api_region=said.get("region", settings.events_api_region),
        events_api_url=said.get("url", ""),
        section_type=said.get("type", settings.section_type),
        destination=said.get("destination", settings.destination),
        active_consent_accepted=said.get("active_consent_accepted", settings.active_consent_accepted),
    )
    if own.active_consent_accepted and own.destination == "reconnect":
        why = 'must be false with destination = "reconnect", whose endpoints have no such key'
        raise ValidationError({"active_consent_accepted": [why]})
    return Section(
        name=name,
        base=own.events_api_base,
        api_key=_key(said["api_key"], environ),
        form=build_form(own),
        requests_per_second=said.get("requests_per_second", settings.requests_per_second),
        when=said["when"],
    )


def _key(variable: str, environ: Mapping[str, str]) -> str:
    key = environ.get(variable, "").strip()
    if not key:
        why = f"{variable} is not set: copy this section's server-side API key from Dynamic Yield into it"
        raise ValidationError({"api_key": [why]})
    try:
        return api_key_field().deserialize(key)
    except ValidationError as error:
        raise ValidationError({"api_key": [f"{variable} {line}" for line in error.messages]}) from None
