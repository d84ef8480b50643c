"""Limit of I: rows that are ready, inserted into the same log and register in pages, by the driver alone."""

import os
import time

from benchmarks.limits.batches import Row, inserter

PAGE = 1000  # rows


def run(database_url: str, count: int) -> float:
    """Rows a second."""
    now = time.time_ns() // 1000
    rows = [_row(number, now) for number in range(count)]
    insert = inserter(database_url)
    began = time.perf_counter()
    for start in range(0, count, PAGE):
        insert(rows[start : start + PAGE])
    return count / (time.perf_counter() - began)


def _row(number: int, now: int) -> Row:
    address = f"bare.{number}@example.com"
    hashes = os.urandom(20), os.urandom(16)
    known = "klaviyo", "pending", "opt_out", "email"
    raw = f'{{"email":"{address}"}}'.encode()
    return (hashes[0], *known, hashes[1], address, "import", None, None, now, 2 * now + 1, now, raw)
