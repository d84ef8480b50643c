"""Put each flaw into a copy of the code, and see which test notices."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.flaws import MUTANTS, Mutant
from tests.processes import ROOT, environment

#: All that the named tests need.
COPIED = ("webhook_app", "tests", "gunicorn.conf.py", "Procfile", ".flaskenv", "pyproject.toml", "README.md", "docs")
TIMEOUT = 180.0  # seconds for one mutant
#: pytest's exit status for "some tests failed". Any other means that the tests did not run, which proves nothing.
TESTS_FAILED = 1

_FAILED = re.compile(r"^FAILED (\S+?::\S+)", re.MULTILINE)
_WHY = re.compile(r"^E +(.*)", re.MULTILINE)


class DoesNotApply(Exception):
    """The code has changed and the flaw cannot be put into it: mend the text in `flaws`."""


@dataclass(frozen=True, slots=True)
class Result:
    mutant: Mutant
    #: The test that failed; empty where none did.
    caught_by: str
    #: What the test saw; or why it does not count as caught.
    why: str = ""


def run_all(work: Path, postgres_url: str, *, at_once: int = 2) -> Iterator[Result]:
    """Each mutant's fate, as soon as it is known.

    Raises `DoesNotApply`, and `AssertionError` where a test is red without any flaw.
    """
    copies = [_mutated(work / f"mutant-{number}", mutant) for number, mutant in enumerate(MUTANTS)]
    named = sorted({test for mutant in MUTANTS for test in mutant.caught_by})
    status, output = _pytest(_copy(work / "unchanged"), named, postgres_url)
    assert status == 0, output
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(lambda pair: _try(pair[0], pair[1], postgres_url), zip(MUTANTS, copies, strict=True))


def _try(mutant: Mutant, copy: Path, postgres_url: str) -> Result:
    status, output = _pytest(copy, list(mutant.caught_by), postgres_url)
    shutil.rmtree(copy)
    failed = _FAILED.search(output)
    if status == 0:
        return Result(mutant, "", f"survived: {', '.join(mutant.caught_by)}")
    if status != TESTS_FAILED or failed is None:
        return Result(mutant, "", f"the tests did not run:\n{output}")
    seen = _WHY.search(output)
    return Result(mutant, failed[1], seen[1] if seen else "")


def _copy(to: Path) -> Path:
    to.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, to / name)
    return to


def _mutated(to: Path, mutant: Mutant) -> Path:
    copy = _copy(to)
    for edit in mutant.edits:
        text = (copy / edit.file).read_text()
        if text.count(edit.old) != 1:
            raise DoesNotApply(f"{mutant.does}: stands {text.count(edit.old)} times in {edit.file}: {edit.old!r}")
        (copy / edit.file).write_text(text.replace(edit.old, edit.new))
    return copy


def _pytest(where: Path, tests: list[str], postgres_url: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    # No bytecode: a copy is written and read within the same second, and would be taken for unchanged.
    env = environment(TEST_DATABASE_URL=postgres_url, PYTHONDONTWRITEBYTECODE="1")
    ended = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def line(result: Result) -> str:
    what = f"{result.mutant.flaw}: {result.mutant.does}\n    "
    return what + (f"caught by {result.caught_by}\n    which saw: {result.why}" if result.caught_by else result.why)


def survivors(results: list[Result]) -> list[str]:
    """The flaws that no test noticed, in whichever way they were made."""
    return sorted({result.mutant.flaw for result in results if not result.caught_by})


def at_once() -> int:
    return max(1, min(4, os.cpu_count() or 1))
