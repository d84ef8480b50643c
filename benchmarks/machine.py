"""What it runs on, and what its processes cost."""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PACKAGES = ("flask", "gunicorn", "marshmallow", "sqlalchemy", "psycopg", "requests", "orjson")

_TICK = os.sysconf("SC_CLK_TCK")


def cores() -> tuple[set[int], set[int]]:
    """The core for what is measured, and those for everything else: load, database, sandbox."""
    all_of_them = sorted(os.sched_getaffinity(0))
    return {all_of_them[0]}, set(all_of_them[1:]) or {all_of_them[0]}


MEASURED, OTHERS = cores()


def pin(to: set[int]) -> Callable[[], None]:
    """For `preexec_fn`: the process and all its children stay on these cores."""
    return lambda: os.sched_setaffinity(0, to)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, on the core for what is measured."""
    with get_context("spawn").Pool(1, initializer=os.sched_setaffinity, initargs=(0, MEASURED)) as pool:
        return pool.apply(function, arguments)


def family(pid: int) -> list[int]:
    """A process and all it has started."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that these processes have used."""
    return sum(_cpu_seconds(pid) for pid in pids)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def pss(pid: int) -> float:
    """MB of memory, what is shared with others counted in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"no Pss for process {pid}")


def description() -> dict[str, Any]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "packages": {name: version(name) for name in PACKAGES},
        "load_average": round(os.getloadavg()[0], 2),
        "yardstick_ms": round(min(_yardstick() for _ in range(5)), 1),
    }


def _yardstick() -> float:
    """Milliseconds of CPU for a million additions: by it the absolute figures of two machines can be compared."""
    began, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    return (time.process_time() - began) * 1000
