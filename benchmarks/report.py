"""The results as a table, a page and a chart."""

import statistics
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.measures import quantile

ENGINE = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
MEMORY_LIMIT = 180.0  # MB, web and worker together
P50_OVER, P99_OVER = 5.0, 20.0  # ms over the limit of D

PARTS = {"engines": "A–D2, F, I, S, W", "growth": "E", "peers": "G", "connections": "connections"}
#: What is compared with a limit → its name in the table, and the ratio that it must reach, where it must.
MEASURES: dict[str, tuple[str, float | None]] = {
    "A 5%": ("A. Signed batches, 5 % opt-outs, events per CPU second", 0.6),
    "A 100%": ("A. Signed batches, 100 % opt-outs, events per CPU second", 0.6),
    "B": ("B. Single webhooks, 32 connections, requests/s", 0.5),
    "B bare": ("B. The same, over a view without any framework", None),
    "C": ("C. Draining a backlog, answers in 10 ms, events/s of a worker", 0.9),
    "C 50": ("C. Draining a backlog, answers in 50 ms, events/s of a worker", 0.9),
    "I": ("I. Import of a list, rows/s, over a bare insert", 0.4),
    "I reconcile": ("I. Comparison with an ESP's list, rows/s, over a bare insert", 0.4),
}
BURST_P99 = 250.0  # ms
FIRST_WEBHOOK, EVENTS_LIST = 3.0, 0.5  # seconds
SEARCH_P95 = 100.0  # ms
#: What a run has to hold; a recorded one may be older than the measure.
MEASURED_APART = {"whole_way": "W", "burst": "D2", "start": "S"}


NO_TARGET = "—"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison as it stands in the table."""

    name: str
    engine: str
    product: str
    limit: str
    #: Product over limit, with the range over the rounds; empty where it is no ratio.
    ratio: str
    must: str
    reached: bool
    #: For the chart: the figure and its target, on one scale where 1 is the target.
    score: float


def rows(results: dict[str, Any]) -> list[Row]:
    found: list[Row] = []
    for engine, result in results["engines"].items():
        found += [_row(one) for one in result["compared"] if one["measure"] != "D"]
        found += [row for one in result["compared"] if one["measure"] == "D" for row in _latency(one)]
        found.append(_memory(engine, result["memory"]))
        found += _absolute(engine, result, results["peers"])
    found += _growth(results["growth"])
    found += [_peer(one) for one in results["peers"]]
    return sorted(found, key=lambda row: (row.name[0], row.name, row.engine))


def _row(one: dict[str, Any]) -> Row:
    name, must = MEASURES[one["measure"]]
    low, high = one["ratio_range"]
    return Row(
        name=name,
        engine=ENGINE[one["engine"]],
        product=_number(statistics.median(one["product"])),
        limit=_number(statistics.median(one["limit"])),
        ratio=f"{one['ratio']:.2f} ({low:.2f}–{high:.2f})",
        must=f"≥ {must}" if must else NO_TARGET,
        reached=one["ratio"] >= (must or 0),
        score=one["ratio"] / (must or 1),
    )


def _latency(one: dict[str, Any]) -> list[Row]:
    found = []
    for part, over in ((0.5, P50_OVER), (0.99, P99_OVER)):
        mine, its = quantile(one["product"], part), quantile(one["limit"], part)
        found.append(
            Row(
                name=f"D. Latency to Dynamic Yield, idle, p{part * 100:.0f}",
                engine=ENGINE[one["engine"]],
                product=f"{mine:.1f} ms",
                limit=f"{its:.1f} ms",
                ratio=f"{mine - its:+.1f} ms",
                must=f"≤ limit + {over:.0f} ms",
                reached=mine <= its + over,
                score=(its + over) / mine,
            )
        )
    return found


def _memory(engine: str, memory: dict[str, Any]) -> Row:
    web = max(sum(memory[state]["web"]) for state in memory if "web" in memory[state])
    worker = max(memory["idle"]["worker"], memory["draining"]["worker"])
    return Row(
        name="F. Memory under load, PSS",
        engine=ENGINE[engine],
        product=f"{web + worker:.0f} MB",
        limit="—",
        ratio=f"web {web:.0f} + worker {worker:.0f} MB",
        must=f"≤ {MEMORY_LIMIT:.0f} MB",
        reached=web + worker <= MEMORY_LIMIT,
        score=MEMORY_LIMIT / (web + worker),
    )


def _absolute(engine: str, result: dict[str, Any], peers: list[dict[str, Any]]) -> list[Row]:
    """What a user meets, and what is compared with no limit."""
    found = []
    if "whole_way" in result:
        found.append(_whole_way(engine, result["whole_way"], peers))
    if "burst" in result:
        one = result["burst"]
        found += [
            _at_most("D2. Answers in a burst, p99", engine, one["p99_ms"], BURST_P99, "ms", f"{one['webhooks']:,}"),
            _at_most("D2. A fresh opt-out in it, to Dynamic Yield, worst", engine, one["fresh_s"][1], None, "s", ""),
        ]
    if "start" in result:
        for name, key, limit in (
            ("S. `make run` to the first webhook", "first_webhook", FIRST_WEBHOOK),
            ("S. `flask events list`", "events_list", EVENTS_LIST),
        ):
            if times := result["start"][key]:
                spread = f"({min(times):.2f}–{max(times):.2f})"
                found.append(_at_most(name, engine, statistics.median(times), limit, "s", spread))
    return found


def _at_most(name: str, engine: str, figure: float, limit: float | None, unit: str, more: str) -> Row:
    return Row(
        name=name,
        engine=ENGINE[engine],
        product=f"{figure:,.2f} {unit}",
        limit="—",
        ratio=more or "—",
        must=f"< {limit:g} {unit}" if limit else NO_TARGET,
        reached=limit is None or figure < limit,
        score=limit / figure if limit else 1.0,
    )


def _whole_way(engine: str, parts: dict[str, float], peers: list[dict[str, Any]]) -> Row:
    """Against Node-RED in the same run, which stores nothing; a target on SQLite only."""
    mine = sum(parts.values())
    theirs = next((1e6 / one["peer_per_cpu"] for one in peers if "peer_per_cpu" in one), None)
    must = engine == "sqlite" and theirs is not None
    return Row(
        name="W. The whole way of an opt-out, CPU",
        engine=ENGINE[engine],
        product=f"{mine:,.0f} µs",
        limit=f"{theirs:,.0f} µs" if theirs else "—",
        ratio=" + ".join(f"{part} {figure:,.0f}" for part, figure in parts.items() if figure),
        must="< Node-RED's" if must else NO_TARGET,
        reached=not must or mine < (theirs or 0),
        score=(theirs or mine) / mine,
    )


def missing(results: dict[str, Any]) -> list[str]:
    """The measures of which the recorded run has no figures."""
    engines = results["engines"].values()
    compared = {one["measure"] for result in engines for one in result["compared"]}
    looked = [] if all("claim_ms" in row for row in results["growth"]) else ["E's claim, search and report"]
    apart = [letter for key, letter in MEASURED_APART.items() if not any(key in result for result in engines)]
    return sorted([*apart, *looked, *(name for name in MEASURES if name not in compared)])


def _growth(growth: list[dict[str, Any]]) -> list[Row]:
    found = []
    for engine in dict.fromkeys(row["engine"] for row in growth):
        mine = [row for row in growth if row["engine"] == engine]
        first, last = mine[0], mine[-1]
        for measure in ("A 100%", "B", "C"):
            # Against the limit measured beside it: what slows the whole machine down is no growth.
            kept = last[measure]["ratio"] / first[measure]["ratio"]
            figures = [_number(statistics.median(row[measure]["product"])) for row in (first, last)]
            found.append(_kept(measure, engine, first, last, figures, kept))
        found += _looks(engine, first, last)
        memory = [row["web_pss_mb"] + row["worker_pss_mb"] for row in (first, last)]
        found.append(
            Row(
                name=f"E. Memory with {last['rows']:,} rows, over {first['rows']:,}",
                engine=ENGINE[engine],
                product=f"{memory[1]:.0f} MB",
                limit=f"{memory[0]:.0f} MB",
                ratio=f"{memory[1] - memory[0]:+.0f} MB",
                must="flat (± 10 MB)",
                reached=abs(memory[1] - memory[0]) <= 10,
                score=memory[0] / memory[1],
            )
        )
    return found


def _kept(name: str, engine: str, first: dict[str, Any], last: dict[str, Any], figures: list[str], kept: float) -> Row:
    """How much is left with the last number of rows of what there was with the first; `figures` are those of both."""
    return Row(
        name=f"E. {name} with {last['rows']:,} rows, over {first['rows']:,}",
        engine=ENGINE[engine],
        product=figures[1],
        limit=figures[0],
        ratio=f"{kept:.2f}",
        must="≥ 0.9",
        reached=kept >= 0.9,
        score=kept / 0.9,
    )


def _looks(engine: str, first: dict[str, Any], last: dict[str, Any]) -> list[Row]:
    """What a claim costs, what the console's search and report take, among many and among few people."""
    if "claim_ms" not in last:
        return []
    many, few = last["rows"], first["rows"]
    found = []
    for key, name in (("claim_ms", "Claim of 100 people"), ("report_ms", "Report")):
        times = [statistics.median(row[key]) for row in (first, last)]
        figures = [f"{time:.1f} ms" for time in times]
        found.append(_kept(name, engine, first, last, figures, times[0] / times[1]))
    search = quantile(last["search_ms"], 0.95)
    spread = f"{few:,} rows: {quantile(first['search_ms'], 0.95):.0f} ms"
    found.append(_at_most(f"E. Console search with {many:,} rows, p95", engine, search, SEARCH_P95, "ms", spread))
    return found


def _peer(one: dict[str, Any]) -> Row:
    low, high = one["ratio_range"]
    return Row(
        name=f"G. {one['name']}, {one['measure']}",
        engine=ENGINE[one["engine"]],
        product=_number(statistics.median(one["product"])),
        limit=_number(statistics.median(one["peer"])),
        ratio=f"{one['ratio']:.2f} ({low:.2f}–{high:.2f})",
        must="> 1",
        reached=one["ratio"] > 1,
        score=one["ratio"],
    )


def _number(value: float) -> str:
    return f"{value:,.0f}"


def table(results: dict[str, Any]) -> str:
    lines = [
        "| measure | engine | product | limit | ratio, median (range) | must reach | reached |",
        "|---|---|---:|---:|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.engine} | {row.product} | {row.limit} | {row.ratio} | {row.must} |"
        f" {'yes' if row.reached else '**no**'} |"
        for row in rows(results)
    ]
    return "\n".join(lines)


_PAGE = (Path(__file__).parent / "pages" / "benchmarks.md").read_text()


def page(results: dict[str, Any]) -> str:
    machine, effort = results["machine"], results["effort"]
    missed = [row for row in rows(results) if not row.reached]
    missed_text = "Every target was reached in this run."
    if missed:
        missed_text = "## Not reached in this run\n\n" + "\n".join(
            f"- {row.name}, {row.engine}: {row.ratio}, must be {row.must}" for row in missed
        )
    return _PAGE.format(
        cpu=machine["cpu"],
        cores=machine["cores"],
        memory_gb=machine["memory_gb"],
        system=machine["system"],
        python=machine["python"],
        yardstick=f"{machine['yardstick_ms']} ms" if "yardstick_ms" in machine else "was not measured",
        packages=", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
        dates="; ".join(f"{PARTS[part]}: {when}" for part, when in results["dates"].items()),
        table=table(results),
        s="" if machine["cores"] == 2 else "s",
        rounds=effort["rounds"],
        imported=f"{effort.get('imported', 1_000_000):,}",
        threads=16,
        latency=10,
        a_clock=_others(results, "A 5%", "A 100%"),
        b_cpu=_others(results, "B"),
        c_cpu=_others(results, "C"),
        g_cpu=", ".join(
            f"{one['other_ratio']:.2f} ({ENGINE[one['engine']]})" for one in results["peers"] if "other_ratio" in one
        ),
        memory="; ".join(
            f"{ENGINE[engine]} {_states(result['memory'])}" for engine, result in results["engines"].items()
        ),
        not_reached=missed_text,
        earlier=results.get("earlier", ""),
        missing=_missing(results),
    )


def _missing(results: dict[str, Any]) -> str:
    without = missing(results)
    return f"\n**No figures are recorded yet of:** {', '.join(without)}.\n" if without else ""


def _states(memory: dict[str, Any]) -> str:
    parts = []
    for state, one in memory.items():
        processes = []
        if "web" in one:
            master, *workers = one["web"]
            processes.append(f"web {master:.0f} + {' + '.join(f'{pss:.0f}' for pss in workers)}")
        if "worker" in one:
            processes.append(f"worker {one['worker']:.0f}")
        parts.append(f"{state}: {', '.join(processes)} MB")
    return ", ".join(parts)


def _others(results: dict[str, Any], *measures: str) -> str:
    return ", ".join(
        f"{one['other_ratio']:.2f} ({ENGINE[engine]}{', ' + measure[2:] + ' opt-outs' if ' ' in measure else ''})"
        for engine, result in results["engines"].items()
        for measure in measures
        for one in result["compared"]
        if one["measure"] == measure
    )


def chart(results: dict[str, Any]) -> str:
    """Bars on one scale, where 1 is the target."""
    shown = rows(results)
    width, bar, left, scale = 960, 22, 470, 200
    height = 60 + bar * len(shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="20" fill="#444">times the target; right of the line it is reached</text>',
    ]
    for number, row in enumerate(shown):
        top = 36 + number * bar
        length = min(row.score, 2.2) * scale
        colour = "#2a7f62" if row.reached else "#c0392b"
        parts += [
            f'<text x="{left - 8}" y="{top + 12}" text-anchor="end" fill="#222">',
            f"{escape(row.name)} · {row.engine}</text>",
            f'<rect x="{left}" y="{top}" width="{length:.0f}" height="{bar - 6}" fill="{colour}"/>',
            f'<text x="{left + 4}" y="{top + 12}" fill="#fff">{row.score:.2f}</text>',
        ]
    parts.append(f'<path d="M{left + scale} 28V{height - 14}" stroke="#222" stroke-dasharray="4 3"/></svg>')
    return "\n".join(parts) + "\n"
