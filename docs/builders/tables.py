"""Tables of the docs that are made from the code: settings, providers, metrics, states.

A table stands between `<!-- name:begin -->` and `<!-- name:end -->` in README.md or under docs/.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from webhook_app.ops import metrics
from webhook_app.outbox import State
from webhook_app.providers.registry import build_providers
from webhook_app.settings import Settings, variables

_BLOCK = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)
_MEMBER = re.compile(r"((?:^ +#: .*\n)+)^ +(\w+) = ", re.MULTILINE)


def settings_table() -> str:
    rows = []
    for name, field in variables().items():
        shown = field.metadata["shown"] or _default(field.default)
        rows.append((f"`{name}`", shown, field.metadata["meaning"]))
    return _table(("name", "default", "meaning"), rows)


def providers_table() -> str:
    providers = build_providers(Settings(), {})
    rows = [
        (provider.title, f"`/webhooks/{provider.name}`", _code(provider.opened_by))
        for provider in sorted(providers.entries.values(), key=lambda provider: provider.title.casefold())
        if not provider.declared_in or provider.declared_in.startswith("catalog/")
    ]
    return _table(("ESP", "URL", "opened by"), rows)


def metrics_table() -> str:
    rows = [
        (
            f"`{metrics.PREFIX}{one.name}`",
            one.kind,
            ", ".join(f"`{label}`" for label in one.labels) or "—",
            one.meaning,
        )
        for one in metrics.described()
    ]
    return _table(("metric", "kind", "labels", "meaning"), rows)


def states_table() -> str:
    return _table(("state", "meaning"), [(f"`{state}`", meaning) for state, meaning in explained(State).items()])


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "providers": providers_table,
    "metrics": metrics_table,
    "states": states_table,
}


def pages(root: Path) -> Iterator[Path]:
    yield root / "README.md"
    yield from sorted((root / "docs").rglob("*.md"))


def filled(text: str) -> str:
    """The page with every table of ours as it should be."""

    def fill(block: re.Match[str]) -> str:
        table = TABLES.get(block[2])
        return block[0] if table is None else f"{block[1]}{table()}{block[3]}"

    return _BLOCK.sub(fill, text)


def explained(states: type[StrEnum]) -> dict[str, str]:
    """What the `#:` comments say about each member."""
    found = {}
    for comment, name in _MEMBER.findall(inspect.getsource(states)):
        lines = (line.strip().removeprefix("#:").strip() for line in comment.splitlines())
        found[states[name].value] = " ".join(lines)
    return found


def _default(value: Any) -> str:
    if value == "" or value == ():
        return "—"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{','.join(map(str, value))}`" if isinstance(value, tuple) else f"`{value}`"


def _code(names: str) -> str:
    return re.sub(r"\b[A-Z][A-Z0-9_]+\b", lambda name: f"`{name[0]}`", names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
