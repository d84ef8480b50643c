"""Bodies that are too long, too deep, too many or not text at all: over real gunicorn, on both engines, 500 never."""

import gzip
import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.product import Product, people
from tests.signing import SendGridSigner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LIMIT = 2 * 2**20  # bytes, the default
#: What the memory of the web process may grow by while it takes one body of 2 MiB: it is parsed, not copied at will.
MEMORY = 200  # MiB

GOOD = {"email": "%s", "event": "unsubscribe", "timestamp": 1760000000, "sg_message_id": "m1"}


def in_batch(bad: bytes) -> bytes:
    """A batch with one event as it is given here, between two good ones."""
    good = json.dumps(GOOD).encode()
    return (
        b"["
        + good.replace(b"%s", b"before@example.com")
        + b","
        + bad
        + b","
        + good.replace(b"%s", b"after@example.com")
        + b"]"
    )


def event(**members: bytes) -> bytes:
    """An unsubscribe whose members are written as given, and not as JSON would have them."""
    written = {"email": b'"odd@example.com"', "event": b'"unsubscribe"', "timestamp": b"1760000000"} | members
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in written.items()) + b"}"


#: What is authentic and cannot be read → how many of its events are quarantined, and how many taken.
UNREADABLE: dict[str, tuple[bytes, int, int]] = {
    "a gzip bomb is not unpacked": (gzip.compress(bytes(2**28), 9), 1, 0),
    "deep arrays": (b"[" * LIMIT, 1, 0),
    "deep arrays that end": (b"[" * (LIMIT // 2) + b"]" * (LIMIT // 2), 1, 0),
    "deep objects": (b'{"a":' * (LIMIT // 5), 1, 0),
    "a million numbers": (b"[" + b"0," * (LIMIT // 2 - 1) + b"0", 1, 0),
    "a million numbers that end": (b"[" + b"0," * (LIMIT // 2 - 2) + b"0]", 1, 0),
    "many empty objects": (b"[" + b"{}," * (LIMIT // 3 - 2) + b"{}]", 1, 0),
    "many numbers, all different": (b"[" + b",".join(b"%d" % number for number in range(250_000)) + b"]", 1, 0),
    "a number of a million digits": (b"[" + b"9" * 1_000_000 + b"]", 1, 0),
    "invalid UTF-8": (b'[{"email":"\xff\xfe@example.com"}]', 1, 0),
    "nothing": (b"", 1, 0),
    "NUL": (b"\0" * 1000, 1, 0),
    "a text": (b'"unsubscribe"', 1, 0),
    # One odd event between two good ones: those are taken.
    "NaN as a time": (in_batch(event(timestamp=b"NaN")), 1, 2),
    "infinity as a time": (in_batch(event(timestamp=b"-Infinity")), 1, 2),
    "1e308 as a time": (in_batch(event(timestamp=b"1e308")), 1, 2),
    "a time of 400 digits": (in_batch(event(timestamp=b"9" * 400)), 1, 2),
    "a time of 400 digits in quotes": (in_batch(event(timestamp=b'"' + b"9" * 400 + b'"')), 1, 2),
    "a lone surrogate in the address": (in_batch(event(email=b'"a\\ud800@example.com"')), 1, 2),
    "NUL in the address": (in_batch(event(email=b'"a\\u0000@example.com"')), 1, 2),
    "NUL in an id": (in_batch(event(sg_message_id=b'"a\\u0000b"')), 1, 2),
    "a lone surrogate in an id": (in_batch(event(sg_event_id=b'"\\udfff"')), 1, 2),
    "an address of a million characters": (in_batch(event(email=b'"' + b"a" * 1_000_000 + b'@example.com"')), 1, 2),
    "an object as the address": (in_batch(event(email=b'{"a":{"b":[1]}}')), 1, 2),
    "a lone surrogate where nobody looks": (in_batch(event(custom=b'"\\ud800"')), 0, 3),
    "NUL where nobody looks": (in_batch(event(custom=b'"\\u0000"')), 0, 3),
    "a huge number where nobody looks": (in_batch(event(custom=b"9" * 4000)), 0, 3),
    "NaN where nobody looks": (in_batch(event(custom=b"NaN")), 0, 3),
}


@pytest.mark.parametrize("wrong", [b"\xe9", b"\xc3", b"\t", b"\0"], ids=["Latin-1", "half a character", "TAB", "NUL"])
@pytest.mark.parametrize("where", [b"email", b"custom"])
def test_one_wrong_byte_in_a_batch_of_a_thousand_costs_one_event(product: Product, wrong: bytes, where: bytes) -> None:
    addresses = people(1000, f"byte-{wrong.hex()}-{where.decode()}")
    events = [json.dumps(GOOD | {"email": address, "custom": "Jos"}).encode() for address in addresses]
    # Into the address, it would name somebody else; elsewhere, whoever it names is as sure as the rest of its text.
    events[500] = re.sub(rb'("%s": "\w+)' % where, lambda found: found[1] + wrong, events[500], count=1)
    counts = product.post(b"[" + b",".join(events) + b"]").json()
    assert counts == {"accepted": 999, "duplicates": 0, "ignored": 0, "quarantined": 1}
    reasons = product.sql("SELECT error FROM events WHERE state = 'quarantined' ORDER BY id DESC LIMIT 1")
    assert reasons[0][0].startswith(f"{where.decode()}: holds ")
    people_stored = product.sql("SELECT identity_value FROM events ORDER BY id DESC LIMIT 1000")
    assert {address for (address,) in people_stored} == {*addresses, None} - {addresses[500]}


def memory(pid: int, which: str) -> float:
    """MiB: `VmRSS` is what a process takes now, `VmHWM` the most it ever took since `forget_peak`."""
    found = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.fixture(params=UNREADABLE)
def unreadable(request: pytest.FixtureRequest) -> tuple[bytes, int, int]:
    return UNREADABLE[request.param]


def test_a_body_that_cannot_be_read_is_quarantined_its_good_events_are_taken_and_memory_stays_bounded(
    product: Product, unreadable: tuple[bytes, int, int]
) -> None:
    body, quarantined, taken = unreadable
    pid = product.web_process()
    forget_peak(pid)
    before = memory(pid, "VmRSS")
    began = time.monotonic()
    answer = product.post(body)
    assert answer.status_code == 200
    # Taken in another test already, some of them: the same event is a duplicate then.
    counts = answer.json()
    assert counts["accepted"] + counts["duplicates"] + counts["quarantined"] == quarantined + taken
    # Sent again, it is known: it was stored.
    assert product.post(body).json() == {
        "accepted": 0,
        "duplicates": quarantined + taken,
        "ignored": 0,
        "quarantined": 0,
    }
    assert memory(pid, "VmHWM") - before < MEMORY
    # Others wait for the processor meanwhile.
    assert time.monotonic() - began < 30


def test_the_same_bodies_from_a_stranger_are_401_and_leave_nothing(
    product: Product, unreadable: tuple[bytes, int, int]
) -> None:
    body, _, _ = unreadable
    before = product.sql("SELECT count(*) FROM events")
    answer = requests.post(product.webhook_url, data=body, headers=SendGridSigner().headers(body), timeout=60)
    assert (answer.status_code, answer.json()) == (401, {"error": "not authenticated"})
    assert product.sql("SELECT count(*) FROM events") == before


def chunked(body: bytes, size: int = 8192) -> Iterator[bytes]:
    """`requests` sends an iterator in chunks and without a length."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("in_chunks", [False, True], ids=["with its length", "chunked without length"])
@pytest.mark.parametrize(("length", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (3 * LIMIT, 413)])
def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_413(
    product: Product, length: int, status: int, in_chunks: bool
) -> None:
    body = b"[]".ljust(length)
    headers = product.signer.headers(body)
    answer = requests.post(product.webhook_url, data=chunked(body) if in_chunks else body, headers=headers, timeout=60)
    assert answer.status_code == status
    if status == 413:
        assert answer.json() == {"error": f"larger than {LIMIT} bytes"}


def test_a_sender_that_never_ends_is_cut_off_and_costs_no_memory(product: Product) -> None:
    pid = product.web_process()
    forget_peak(pid)
    before = memory(pid, "VmRSS")

    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 65536

    # An answer, or a connection that breaks off: whoever sends for ever may see either.
    with suppress(requests.ConnectionError):
        assert requests.post(product.webhook_url, data=endless(), timeout=60).status_code == 413
    assert memory(pid, "VmHWM") - before < 32
    assert requests.get(f"{product.url}/healthz", timeout=30).ok


#: How SendGrid's `timestamp` may be written → microseconds since 1970 that are stored, None for quarantined.
TIMES: dict[str, tuple[bytes, int | None]] = {
    "seconds": (b"1760000001", 1_760_000_001_000_000),
    "seconds as a text": (b'"1760000002"', 1_760_000_002_000_000),
    "milliseconds": (b"1760000003000", 1_760_000_003_000_000),
    "milliseconds as a text": (b'"1760000004000"', 1_760_000_004_000_000),
    "a fraction": (b"1760000005.5", 1_760_000_005_500_000),
    "ISO 8601": (b'"2025-10-09T08:53:26Z"', 1_760_000_006_000_000),
    # 2025-10-26 02:30 happens twice in Berlin; the offset says which one it is.
    "the hour that happens twice, first": (b'"2025-10-26T02:30:00+02:00"', 1_761_438_600_000_000),
    "the hour that happens twice, again": (b'"2025-10-26T02:30:00+01:00"', 1_761_442_200_000_000),
    "the first second of 2000": (b"946684800", 946_684_800_000_000),
    # Nothing that an ESP tells of is so old: as a time, it would lose against every other change of the person.
    "the second before": (b"946684799", None),
    "the epoch": (b"0", None),
    "a date taken for seconds": (b'"20260201"', None),
    "before the epoch": (b"-1", None),
    "year 1": (b'"0001-01-01T00:00:00+00:00"', None),
    "before year 1 in UTC": (b'"0001-01-01T00:00:00+14:00"', None),
    "after year 9999 in UTC": (b'"9999-12-31T23:59:59-14:00"', None),
    "a year that no calendar has": (b"1e20", None),
    "true": (b"true", None),
    "nothing": (b"null", None),
}


@pytest.mark.parametrize("written", TIMES)
def test_a_time_is_stored_in_utc_or_quarantined_and_forwarded_whatever_it_says(product: Product, written: str) -> None:
    text, stored = TIMES[written]
    (address,) = people(1, "time-" + re.sub(r"\W", "-", written))
    counts = product.post(b"[" + event(email=json.dumps(address).encode(), timestamp=text) + b"]").json()
    if stored is None:
        assert counts == {"accepted": 0, "duplicates": 0, "ignored": 0, "quarantined": 1}
        return
    assert counts == {"accepted": 1, "duplicates": 0, "ignored": 0, "quarantined": 0}
    assert product.sql("SELECT occurred_at FROM events WHERE identity_value = ?", address) == [(stored,)]
    assert product.await_told([address]) == {address: ["optout"]}


@pytest.mark.parametrize(
    "written", [b"4102444800", b"4102444800000", b'"2100-01-01T00:00:00Z"', b'"9999-12-31T23:59:59Z"']
)
def test_a_time_that_has_not_come_yet_counts_as_now_so_that_it_wins_over_no_later_change(
    product: Product, written: bytes
) -> None:
    (address,) = people(1, "ahead-" + re.sub(r"\W", "-", written.decode()))
    before = int(time.time() * 1e6)
    body = b"[" + event(email=json.dumps(address).encode(), timestamp=written) + b"]"
    assert product.post(body).json()["accepted"] == 1
    ((occurred_at,),) = product.sql("SELECT occurred_at FROM events WHERE identity_value = ?", address)
    assert before <= occurred_at <= time.time() * 1e6
