"""docs/capacity.md, computed from what was measured: no figure in it is anybody's guess."""

import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.report import ENGINE

DAY = 86_400  # seconds
RETENTION = 30  # days, RETENTION_DAYS's default
LATENCY = 0.010  # seconds in which the sandbox answered
THREADS = 16  # WORKER_CONCURRENCY's default
#: What is planned with: a process that is always busy answers late.
BUSY = 0.7

_PAGE = (Path(__file__).parent / "pages" / "capacity.md").read_text()


def page(results: dict[str, Any]) -> str:
    rates = {engine: _rates(results, engine) for engine in results["engines"]}
    memory = results["engines"]["postgresql"]["memory"]
    return _PAGE.format(
        date=results["date"],
        cpu=results["machine"]["cpu"],
        busy=BUSY,
        threads=THREADS,
        threads_setting="`WORKER_CONCURRENCY`",
        latency=LATENCY * 1000,
        ideal=THREADS / LATENCY,
        ideal_50=THREADS / 0.05,
        processes=_processes(rates),
        needs=_needs(rates, results["connections"]),
        web_mb=max(sum(one["web"]) for one in memory.values() if "web" in one),
        worker_mb=max(one["worker"] for one in memory.values() if "worker" in one),
        per_web=results["connections"]["web"],
        per_worker=results["connections"]["worker"],
        size=_size(results),
        retention=RETENTION,
        first=_first(rates),
    )


def _rates(results: dict[str, Any], engine: str) -> dict[str, float]:
    """Events a second of one process, by the clock."""
    compared = {one["measure"]: one for one in results["engines"][engine]["compared"]}
    return {
        "single webhooks": statistics.median(compared["B"]["product"]),
        "batches of opt-outs": statistics.median(compared["A 100%"]["other_product"]),
        "batches, 5 % opt-outs": statistics.median(compared["A 5%"]["other_product"]),
        "forwarding": statistics.median(compared["C"]["product"]),
    }


def _processes(rates: dict[str, dict[str, float]]) -> str:
    lines = ["| a second, one process | SQLite | PostgreSQL |", "|---|---:|---:|"]
    for kind, label in (
        ("single webhooks", "web: single webhooks (one opt-out each)"),
        ("batches of opt-outs", "web: events in batches, all of them opt-outs"),
        ("batches, 5 % opt-outs", "web: events in batches, 5 % of them opt-outs"),
        ("forwarding", f"worker: opt-outs forwarded, Dynamic Yield answering in {LATENCY * 1000:.0f} ms"),
    ):
        lines.append(f"| {label} | {rates['sqlite'][kind]:,.0f} | {rates['postgresql'][kind]:,.0f} |")
    return "\n".join(lines)


LOADS = (("a million opt-outs a day, evenly", 1_000_000 / DAY), ("a thousand opt-outs a second", 1000.0))


def _needs(rates: dict[str, dict[str, float]], each: dict[str, int]) -> str:
    lines = [
        "| load | engine | web, single webhooks | web, batches | worker | PostgreSQL connections |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, rate in LOADS:
        for engine, of_engine in rates.items():
            singles, batches, workers = (
                math.ceil(rate / (BUSY * of_engine[kind]))
                for kind in ("single webhooks", "batches of opt-outs", "forwarding")
            )
            connections = "—"
            if engine == "postgresql":
                connections = str(singles * each["web"] + workers * each["worker"])
            web = str(singles)
            if engine == "sqlite" and (singles > 1 or workers > 1):
                web = f"{singles}: use PostgreSQL"
            lines.append(
                f"| {name} ({rate:,.1f}/s) | {ENGINE[engine]} | {web} | {batches} | {workers} | {connections} |"
            )
    return "\n".join(lines)


def _size(results: dict[str, Any]) -> str:
    lines = [
        "| engine | bytes a delivered change, with indexes and attempt | a million | a million a day, 30 days |",
        "|---|---:|---:|---:|",
    ]
    for engine in results["engines"]:
        sizes = [row for row in results["growth"] if row["engine"] == engine]
        first, last = sizes[0], sizes[-1]
        each = (last["database_mb"] - first["database_mb"]) * 2**20 / (last["rows"] - first["rows"])
        lines.append(
            f"| {ENGINE[engine]} | {each:,.0f} | {each * 1e6 / 2**30:.1f} GB"
            f" | {each * 1e6 * RETENTION / 2**30:.0f} GB |"
        )
    return "\n".join(lines)


def _first(rates: dict[str, dict[str, float]]) -> str:
    lines = []
    for engine, of_engine in rates.items():
        stages = {
            "the web process (single webhooks)": of_engine["single webhooks"],
            "the worker": of_engine["forwarding"],
        }
        first = min(stages, key=lambda stage: stages[stage])
        lines.append(
            f"- {ENGINE[engine]}: {first}, at {stages[first]:,.0f} opt-outs a second for each process;"
            f" then {max(stages, key=lambda stage: stages[stage])}, at {max(stages.values()):,.0f}."
        )
    lines.append(
        "- With batches it is the worker on both engines. That costs no opt-out: what waits is on disk, `/status` and"
        " the metrics show its age, and another worker may be started at any time (PostgreSQL)."
    )
    return "\n".join(lines)
