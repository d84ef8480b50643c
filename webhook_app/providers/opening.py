"""A declared provider made of its table: compiled, and opened by the secrets that the environment holds."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from webhook_app.auth import Scheme, any_of, sns
from webhook_app.providers import Provider, declared
from webhook_app.providers.declaration import Declaration, DeclarationError, compile_declaration
from webhook_app.setting_fields import check_secret
from webhook_app.settings import ConfigurationError, Settings

#: Entries for no ESP in particular, and so also for those by whose ids Dynamic Yield knows people.
WITH_IDS = frozenset({"generic"})


def open_provider(
    name: str,
    table: Any,
    *,
    is_own: bool,
    file: str,
    catalog: Mapping[str, Any],
    settings: Settings,
    environ: Mapping[str, str],
    fetch: sns.Fetch | None = None,
) -> Provider:
    """The provider that a table of `file` declares; `is_own`: a customer wrote it. Without a secret it is closed.

    Raises `ConfigurationError` with all problems.
    """
    try:
        declaration = _declaration(name, table, catalog, is_own=is_own)
    except DeclarationError as mistakes:
        raise ConfigurationError([f"{file}: [{name}] {line}" for line in mistakes.lines]) from None
    scheme, faults = _open(declaration, settings, environ, fetch or partial(sns.fetch, egress=settings.egress))
    if faults:
        raise ConfigurationError([f"{fault} (provider {name})" for fault in dict.fromkeys(faults)])
    return declared.provider(name, declaration, scheme, declared_in=file)


def _declaration(name: str, table: Any, catalog: Mapping[str, Any], *, is_own: bool) -> Declaration:
    """Raises `DeclarationError`."""
    own = frozenset(table) if is_own and isinstance(table, dict) else frozenset()
    likeness = table.get("like") if isinstance(table, dict) else None
    if likeness is not None:
        if not isinstance(likeness, str) or likeness not in catalog:
            raise DeclarationError([f"like: must be one of: {', '.join(catalog)}"])
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


def _open(
    declaration: Declaration, settings: Settings, environ: Mapping[str, str], fetch: sns.Fetch
) -> tuple[Scheme | None, list[str]]:
    """The scheme by those auth configs whose variables are set, and what is wrong with these."""
    schemes, faults = [], []
    for config in declaration.auth:
        secrets = [part.strip() for part in environ.get(config.variable, "").split(",") if part.strip()]
        if not secrets:
            continue
        if config.signs_url and not settings.public_url:
            faults.append(f"PUBLIC_URL must be set, for {config.variable} is: this ESP signs the URL it calls")
        try:
            _check_each(secrets)
            schemes.append(config.open(secrets, tolerance=settings.signature_tolerance_seconds, fetch=fetch))
        except ValueError as error:
            faults.append(f"{config.variable} {error}")
    return any_of(schemes), faults


def _check_each(secrets: list[str]) -> None:
    """Raises `ValueError`."""
    for place, secret in enumerate(secrets, start=1):
        try:
            check_secret(secret)
        except ValueError as error:
            raise ValueError(f"entry {place} of {len(secrets)} {error}") from None
