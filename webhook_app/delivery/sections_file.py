"""The file of sections: what may stand in a section's table, and the sections it declares."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from webhook_app.delivery.registry import DESTINATIONS, build_form
from webhook_app.delivery.sections import Section
from webhook_app.providers import flatten
from webhook_app.providers.toml_fields import Parsed, Table, Variable, condition, one_of
from webhook_app.providers.toml_file import load_toml
from webhook_app.setting_fields import BaseUrl, api_key_field
from webhook_app.settings import EVENTS_API_BASES, ConfigurationError, Settings

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")


def read_sections(path: Path, settings: Settings, environ: Mapping[str, str]) -> dict[str, Section]:
    """Every section of the file by its name. Raises `ConfigurationError` with all problems."""
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
    url = Parsed(BaseUrl().deserialize)
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
