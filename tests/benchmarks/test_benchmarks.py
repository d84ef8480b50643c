"""The benchmarks run, and what is written in docs/ is what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import DOCS, RESULTS, write
from benchmarks.report import rows
from tests.processes import ROOT


@pytest.mark.parametrize("name", ["benchmarks.md", "benchmarks.svg", "capacity.md"])
def test_no_figure_in_the_docs_differs_from_the_recorded_run(name: str, tmp_path: Path) -> None:
    write(json.loads(RESULTS.read_text()), tmp_path)
    assert (DOCS / name).read_text() == (tmp_path / name).read_text(), "run `python -m benchmarks --render`"


def test_a_target_that_was_missed_is_named_as_missed() -> None:
    results = json.loads(RESULTS.read_text())
    page = (DOCS / "benchmarks.md").read_text()
    for row in rows(results):
        assert row.reached or f"- {row.name}, {row.engine}: " in page


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_every_measure_of_the_product_runs() -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stderr
    for measure in ("A", "B", "C", "D", "D2", "E", "F", "I", "S", "W"):
        assert f"\n| {measure}. " in done.stdout
