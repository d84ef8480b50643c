"""What is generated from the code: the docs' tables and pages, app.json, the OpenAPI description."""

import re

from docs.builders import stale
from docs.builders.tables import TABLES, explained, pages
from tests.processes import ROOT
from webhook_app.outbox import State


def test_nothing_generated_is_stale() -> None:
    assert [file.name for file, _ in stale()] == [], "run: make docs"


def test_every_table_stands_somewhere() -> None:
    written = "".join(page.read_text("utf-8") for page in pages(ROOT))
    assert [name for name in TABLES if f"<!-- {name}:begin -->" not in written] == []


def test_every_state_is_explained() -> None:
    assert explained(State).keys() == {state.value for state in State}


def test_the_runbook_names_only_reasons_that_exist() -> None:
    written = (ROOT / "docs" / "operating.md").read_text("utf-8").partition("(401)")[2].partition("\n###")[0]
    source = "".join(page.read_text("utf-8") for page in (ROOT / "webhook_app").rglob("*.py"))
    named = re.findall(r"`([a-z]+_[a-z_]+)`", written)
    assert len(named) >= 10
    assert [reason for reason in named if f'"{reason}"' not in source] == []


def test_the_runbook_names_only_buttons_and_pages_that_the_console_has() -> None:
    """What stands in quotation marks there is a text of the console; code and headings are something else."""
    written = (ROOT / "docs" / "operating.md").read_text("utf-8")
    text = " ".join(re.sub(r"```[^`]*```|`[^`]*`|^#+ .*$", "", written, flags=re.MULTILINE).split())
    console = ROOT / "webhook_app" / "console"
    shown = "".join(page.read_text("utf-8") for kind in ("*.html", "*.py") for page in console.rglob(kind))
    named = re.findall(r'"([^"]+)"', text)
    assert "Try again" in named, "nothing is found"
    assert [one for one in named if one not in shown] == []
    pages = re.findall(r"Console → (\w+)", text)
    assert pages
    assert [one for one in pages if f"'{one}')" not in shown] == []
