"""What is kept of an event as it came."""

import sys
import tracemalloc

from webhook_app.providers import dump_raw


def test_a_raw_event_takes_the_memory_of_its_bytes_and_little_more() -> None:
    event = {"email": "jane@example.com", "event": "unsubscribe"}
    tracemalloc.start()
    try:
        kept = [dump_raw(event) for _ in range(1000)]
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A batch of two thousand is held at once, and by each thread.
    assert used / len(kept) < sys.getsizeof(kept[0]) + 50
