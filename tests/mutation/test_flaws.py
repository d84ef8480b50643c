"""The tests of the tests."""

from pathlib import Path

import pytest

from tests import summary
from tests.mutation.flaws import FLAWS
from tests.mutation.run import Result, at_once, line, run_all, survivors


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


def test_there_are_nine_of_them() -> None:
    assert len(FLAWS) == 9
