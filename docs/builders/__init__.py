"""Builders of what is generated from the code: `make docs` writes it, and a test fails while it is stale."""

from collections.abc import Iterator
from pathlib import Path

from docs.builders import app_json, openapi, preference_page, tables

ROOT = Path(__file__).parents[2]


def generated() -> Iterator[tuple[Path, str]]:
    """Every generated file, and its whole text as it should be."""
    for page in tables.pages(ROOT):
        yield page, tables.filled(page.read_text("utf-8"))
    yield ROOT / "docs" / "preference-page.md", preference_page.rendered()
    yield ROOT / "app.json", app_json.rendered()
    yield ROOT / "webhook_app" / "ops" / "openapi.json", openapi.rendered()


def stale() -> Iterator[tuple[Path, str]]:
    """Those that are not as they should be."""
    for file, text in generated():
        if not file.exists() or file.read_text("utf-8") != text:
            yield file, text
