"""The mutation tests themselves: each flaw still applies, and its test is there."""

from pathlib import Path

import pytest

from tests import summary
from tests.mutation.flaws import FLAWS, MUTANTS
from tests.mutation.run import Result, at_once, line, run_all, survivors
from tests.processes import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_of_the_nine_wrong_receivers_turns_a_named_test_red(tmp_path: Path, postgres_url: str) -> None:
    results: list[Result] = list(run_all(tmp_path, postgres_url, at_once=at_once()))
    alive = survivors(results)
    summary.count(summary.MUTANTS, len(FLAWS))
    summary.count(summary.MUTANTS_KILLED, len(FLAWS) - len(alive))
    for result in results:
        print(line(result))  # noqa: T201 (shown with `pytest -s`, and when this fails)
    # A flaw here could be put into the product, and every test would stay green.
    assert alive == []


def test_every_flaw_can_still_be_put_into_the_code_as_it_is_now() -> None:
    """The long test would say so too, a quarter of an hour later."""
    for edit in (edit for mutant in MUTANTS for edit in mutant.edits):
        assert (ROOT / edit.file).read_text().count(edit.old) == 1, f"{edit.file} has changed: {edit.old!r}"


def test_there_are_nine_of_them() -> None:
    assert len(FLAWS) == 9
