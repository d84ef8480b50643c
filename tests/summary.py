"""What a run of the tests has done to the product, added up and printed at its end.

A test calls `count`; the numbers travel in its report, so that they add up also over several processes.
"""

import threading
from collections import Counter
from typing import Any

import pytest

SENT = "events sent"
KILLED = "processes killed"
FAULTS = "faults injected"
RECOGNISED = "duplicates recognised"
REPEATED = "sent twice after a kill"
LOST = "lost"
MUTANTS = "mutants"
MUTANTS_KILLED = "mutants killed"
CANARY_PLACES = "places searched for the canary"

_PROPERTY = "proof"
_lock = threading.Lock()
_of_this_test: Counter[str] = Counter()
_of_the_run: Counter[str] = Counter()


def count(what: str, number: int = 1) -> None:
    """Add to what the running test has done. Safe to call from any thread."""
    with _lock:
        _of_this_test[what] += number


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    # What the last test of a module counts while its product is taken down counts for that test.
    with _lock:
        item.user_properties.append((_PROPERTY, dict(_of_this_test)))
        _of_this_test.clear()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # The report of the teardown holds everything, and with several processes only this one comes to the first.
    if report.when == "teardown":
        for name, counted in report.user_properties:
            if name == _PROPERTY and isinstance(counted, dict):
                _of_the_run.update(counted)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if any(_of_the_run.values()):
        terminalreporter.section("what was done to it, and what came of it")
        for line in lines(_of_the_run):
            terminalreporter.write_line(line)


def lines(counted: Counter[str]) -> list[str]:
    shown = {
        **{name: f"{counted[name]:,}" for name in (SENT, KILLED, FAULTS)},
        "duplicates seen": f"{counted[RECOGNISED]:,} recognised, {counted[REPEATED]:,} {REPEATED}",
        LOST: f"{counted[LOST]:,}",
        MUTANTS_KILLED: f"{counted[MUTANTS_KILLED]} of {counted[MUTANTS]}",
        CANARY_PLACES: f"{counted[CANARY_PLACES]:,}",
    }
    return [f"{name:<32} {text}" for name, text in shown.items()]
