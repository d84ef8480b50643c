"""The registry of providers, open or closed: two written in Python, the catalogue, and the customer's own file."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook_app.providers import Provider, emarsys, sendgrid
from webhook_app.providers.toml_file import load_toml
from webhook_app.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from webhook_app.auth.sns import Fetch

CATALOG = Path(__file__).parent / "catalog"
DEFAULT_FILE = Path("providers.toml")

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """An entry of the catalogue that no variable opens: what can be said of it before it is compiled."""

    name: str
    title: str
    opened_by: str
    declared_in: str
    compiled: Callable[[], Provider] = field(repr=False, compare=False)
    scheme: None = None


class Providers(MutableMapping[str, Provider]):
    """Providers by the name in their URL. A closed entry of the catalogue is compiled when somebody asks for it.

    Few installations open more than two of thirty, and to compile all of them takes longer than most commands.
    """

    def __init__(self, entries: dict[str, Provider | Closed]) -> None:
        #: What can be said of all of them without compiling any.
        self.entries = entries

    def __getitem__(self, name: str) -> Provider:
        entry = self.entries[name]
        if isinstance(entry, Closed):
            self.entries[name] = entry = entry.compiled()
        return entry

    def __setitem__(self, name: str, provider: Provider) -> None:
        self.entries[name] = provider

    def __delitem__(self, name: str) -> None:
        del self.entries[name]

    def __contains__(self, name: object) -> bool:
        # Mapping's own would compile the entry to see whether it is there.
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def build_providers(settings: Settings, environ: Mapping[str, str], *, fetch: "Fetch | None" = None) -> Providers:
    """Every provider by the name in its URL. One without a secret is in it too, with `scheme=None`.

    A provider of the customer's file takes the place of the catalogue's of the same name. Raises
    `ConfigurationError` with all problems.
    """
    entries: dict[str, Provider | Closed] = {
        "sendgrid": sendgrid.provider(settings),
        "emarsys": emarsys.provider(settings),
    }
    problems: list[str] = []
    tables = [load_toml(path, "catalog") for path in sorted(CATALOG.glob("*.toml"))]
    catalog = {name: table for entry in tables for name, table in entry.items()}
    own, own_file = _own_file(settings, problems)

    def compiled(name: str, file: str) -> Provider:
        # Only now: the language of a providers file, and every scheme, take long to load.
        from webhook_app.providers.opening import open_provider

        is_own = name in own
        table = own[name] if is_own else catalog[name]
        return open_provider(
            name, table, is_own=is_own, file=file, catalog=catalog, settings=settings, environ=environ, fetch=fetch
        )

    for name in {**catalog, **own}:
        file = own_file if name in own else f"catalog/{name}.toml"
        if name in entries or not _NAME.fullmatch(name):
            problems.append(f"{file}: [{name}] must have a name of its own, in lower case, like acme-mail")
        elif name in own or any(environ.get(variable) for variable in _variables(catalog[name])):
            try:
                entries[name] = compiled(name, file)
            except ConfigurationError as error:
                problems += error.problems
        else:
            entries[name] = Closed(
                name=name,
                title=catalog[name]["title"],
                opened_by=" or ".join(_variables(catalog[name])),
                declared_in=file,
                compiled=partial(compiled, name, file),
            )
    if problems:
        raise ConfigurationError(problems)
    return Providers(entries)


def variables(providers: Iterable[Provider | Closed]) -> set[str]:
    """The environment variables that open them."""
    return {name for provider in providers for name in re.findall(r"\w*[A-Z]\w*", provider.opened_by)}


def open_names(providers: Iterable[Provider | Closed]) -> list[str]:
    """The names of those that have a secret, and so can be called, in alphabetical order."""
    return sorted(provider.name for provider in providers if provider.scheme)


def _variables(entry: Mapping[str, Any]) -> list[str]:
    """Those that open an entry of the catalogue, which has one auth config or several; each once."""
    configs = entry["auth"] if isinstance(entry["auth"], list) else [entry["auth"]]
    return list(dict.fromkeys(config.get("secrets") or config["topics"] for config in configs))


def _own_file(settings: Settings, problems: list[str]) -> tuple[dict[str, Any], str]:
    path = Path(settings.providers_file) if settings.providers_file else DEFAULT_FILE
    if not settings.providers_file and not path.exists():
        return {}, path.name
    try:
        return load_toml(path, "PROVIDERS_FILE"), path.name
    except ConfigurationError as error:
        problems += error.problems
    return {}, path.name
