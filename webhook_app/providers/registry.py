"""The registry of providers, open or closed: two written in Python, the catalogue, and the customer's own file."""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from webhook_app.auth import Scheme, any_of, sns
from webhook_app.providers import Provider, declared, emarsys, sendgrid
from webhook_app.providers.declaration import Declaration, Mistakes, compile_declaration
from webhook_app.providers.toml_fields import load_toml
from webhook_app.settings import ConfigurationError, Settings, check_secret

CATALOG = Path(__file__).parent / "catalog"
#: Entries for no ESP in particular, and so also for those by whose ids Dynamic Yield knows people.
WITH_IDS = frozenset({"generic"})
DEFAULT_FILE = Path("providers.toml")

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")


def build_providers(
    settings: Settings, environ: Mapping[str, str], *, fetch: sns.Fetch | None = None
) -> dict[str, Provider]:
    """Every provider by the name in its URL. One without a secret is in it too, with `scheme=None`.

    A provider of the customer's file takes the place of the catalogue's of the same name. Raises
    `ConfigurationError` with all problems.
    """
    fetch = fetch or partial(sns.fetch, egress=settings.egress)
    providers = {provider.name: provider for provider in (sendgrid.provider(settings), emarsys.provider(settings))}
    problems: list[str] = []
    entries = [load_toml(path, "catalog") for path in sorted(CATALOG.glob("*.toml"))]
    catalog = {name: table for tables in entries for name, table in tables.items()}
    own, own_file = _own_file(settings, problems)
    for name, table in {**catalog, **own}.items():
        file = own_file if name in own else f"catalog/{name}.toml"
        try:
            if name in providers or not _NAME.fullmatch(name):
                raise Mistakes(["must have a name of its own, in lower case, like acme-mail"])
            declaration = _declaration(name, table, catalog, is_own=name in own)
        except Mistakes as mistakes:
            problems += [f"{file}: [{name}] {line}" for line in mistakes.lines]
            continue
        scheme, faults = _open(declaration, settings, environ, fetch)
        problems += [f"{fault} (provider {name})" for fault in dict.fromkeys(faults)]
        providers[name] = declared.provider(name, declaration, scheme, declared_in=file)
    if problems:
        raise ConfigurationError(problems)
    return providers


def variables(providers: Iterable[Provider]) -> set[str]:
    """The environment variables that open them."""
    return {name for provider in providers for name in re.findall(r"\w*[A-Z]\w*", provider.opened_by)}


def open_names(providers: Iterable[Provider]) -> list[str]:
    """The names of those that have a secret, and so can be called, in alphabetical order."""
    return sorted(provider.name for provider in providers if provider.scheme)


def _declaration(name: str, table: Any, catalog: Mapping[str, Any], *, is_own: bool) -> Declaration:
    """Raises `Mistakes`."""
    own = frozenset(table) if is_own and isinstance(table, dict) else frozenset()
    likeness = table.get("like") if isinstance(table, dict) else None
    if likeness is not None:
        if not isinstance(likeness, str) or likeness not in catalog:
            raise Mistakes([f"like: must be one of: {', '.join(catalog)}"])
        table = entry_with_changes(catalog[likeness], table)
    return compile_declaration(table, external_ids={name, likeness}.isdisjoint(catalog.keys() - WITH_IDS), own=own)


def entry_with_changes(entry: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The catalogue's entry with what a table says differently."""
    merged = {**entry, **{key: value for key, value in own.items() if key != "like"}}
    for key in ("quarantine", "visitor"):
        # Key by key: a reason of the customer's own must not drop those that guard the entry. An empty table does.
        if isinstance(entry.get(key), dict) and isinstance(own.get(key), dict) and own[key]:
            merged[key] = {**entry[key], **own[key]}
    return merged


def _own_file(settings: Settings, problems: list[str]) -> tuple[dict[str, Any], str]:
    path = Path(settings.providers_file) if settings.providers_file else DEFAULT_FILE
    if not settings.providers_file and not path.exists():
        return {}, path.name
    try:
        return load_toml(path, "PROVIDERS_FILE"), path.name
    except ConfigurationError as error:
        problems += error.problems
    return {}, path.name


def _open(
    declaration: Declaration, settings: Settings, environ: Mapping[str, str], fetch: sns.Fetch
) -> tuple[Scheme | None, list[str]]:
    """The scheme of those ways in whose variables are set, and what is wrong with them."""
    schemes, faults = [], []
    for way in declaration.auth:
        secrets = [part.strip() for part in environ.get(way.variable, "").split(",") if part.strip()]
        if not secrets:
            continue
        if way.signs_url and not settings.public_url:
            faults.append(f"PUBLIC_URL must be set, for {way.variable} is: this ESP signs the URL it calls")
        try:
            _check_each(secrets)
            schemes.append(way.open(secrets, tolerance=settings.signature_tolerance_seconds, fetch=fetch))
        except ValueError as error:
            faults.append(f"{way.variable} {error}")
    return any_of(schemes), faults


def _check_each(secrets: list[str]) -> None:
    """Raises `ValueError`."""
    for place, secret in enumerate(secrets, start=1):
        try:
            check_secret(secret)
        except ValueError as error:
            raise ValueError(f"entry {place} of {len(secrets)} {error}") from None
