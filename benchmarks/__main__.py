"""`make bench`: run everything, write docs/benchmarks.md, .svg and docs/capacity.md, print the table."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import capacity, machine, measures, report
from benchmarks.peers import measures as peers
from benchmarks.product import ENGINES, ROOT

#: What can be measured by itself: A to D2, F, I, S and W; E; G; and the connections that the capacity is computed with.
PARTS = ("engines", "growth", "peers", "connections")
RESULTS = Path(__file__).parent / "results.json"
DOCS = ROOT / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see that everything runs; writes nothing")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the documents again")
    parser.add_argument("--part", choices=PARTS, help="measure this again, keep the rest of the recorded run")
    parser.add_argument("--rounds", type=int, default=5, help="turns of product and limit")
    parser.add_argument("--imported", type=int, default=1_000_000, help="rows of I")
    parser.add_argument("--people", type=int, default=1_000_000, help="of E, beside ten thousand")
    options = parser.parse_args()
    if not options.render:
        effort = (
            measures.QUICK
            if options.quick
            else measures.Effort(rounds=options.rounds, imported=options.imported, sizes=(10_000, options.people))
        )
        recorded = json.loads(RESULTS.read_text()) if options.part else {}
        results = recorded | _measure(effort, [options.part] if options.part else PARTS, quick=options.quick)
        results["dates"] = recorded.get("dates", {}) | results["dates"]
        if not options.quick:
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    else:
        results = json.loads(RESULTS.read_text())
    if not options.quick:
        write(results)
    print(report.table(results))  # noqa: T201 (what was asked for)


def write(results: dict[str, Any], docs: Path = DOCS) -> None:
    (docs / "benchmarks.md").write_text(report.page(results))
    (docs / "benchmarks.svg").write_text(report.chart(results))
    (docs / "capacity.md").write_text(capacity.page(results))


def _measure(effort: measures.Effort, parts: Sequence[str], *, quick: bool) -> dict[str, Any]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr, flush=True)  # noqa: T201 (progress)

    os.sched_setaffinity(0, machine.OTHERS)
    engines = ENGINES[:1] if quick else ENGINES
    measure: dict[str, Callable[[], Any]] = {
        "engines": lambda: {engine: measures.on_engine(engine, effort, say) for engine in engines},
        "growth": lambda: [row for engine in engines for row in measures.growth(engine, effort, say)],
        "peers": lambda: [] if quick else peers.run(effort, say),
        "connections": lambda: {} if quick else measures.connections(effort),
    }
    results: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine.description(),
        "effort": {
            "rounds": effort.rounds,
            "seconds": effort.seconds,
            "sizes": list(effort.sizes),
            "imported": effort.imported,
        },
        "dates": {},
    }
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    for part in parts:
        load = round(os.getloadavg()[0], 1)
        results[part] = measure[part]()
        results["dates"][part] = (
            f"commit {commit}, {datetime.now(UTC):%Y-%m-%d %H:%M}, load {load} to {os.getloadavg()[0]:.1f}"
        )
    return results


if __name__ == "__main__":
    main()
