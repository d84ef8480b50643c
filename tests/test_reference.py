"""The tables of the docs that are made from the code."""

import re

from tests.processes import ROOT
from webhook_app.outbox import State
from webhook_app.reference import TABLES, explained, filled, pages


def test_no_table_of_the_docs_is_stale() -> None:
    """If this fails: run `flask docs`."""
    stale = [page.name for page in pages(ROOT) if filled(page.read_text("utf-8")) != page.read_text("utf-8")]
    assert stale == []


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
