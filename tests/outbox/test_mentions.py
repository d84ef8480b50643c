"""Addresses in what was not understood: which texts count as one, and in what time they are found."""

import time

import pytest

from webhook_app.consent import Identity, IdentityKind
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.mentions import is_mentioned, mentions_in
from webhook_app.outbox.rows import row_of_quarantined

HASHER = Hasher(b"k" * 32)


def holds(raw: bytes, address: str) -> bool:
    person = HASHER.identity(Identity(kind=IdentityKind.EMAIL, value=address))
    return is_mentioned([person], raw, HASHER)


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        (b'{"email":"jane@example.com"}', "jane@example.com"),
        (b'{"to":"Jane <Jane@Example.com>"}', "jane@example.com"),
        (b"{'email':'jane@example.com'}", "jane@example.com"),
        (b'{"to":"o\'brien@example.com"}', "o'brien@example.com"),
        (b"email=jane%40example.com&x=1", "jane@example.com"),
        (b"mailto:jane@example.com.", "jane@example.com"),
        (b"jane@example.com,joe@example.com", "joe@example.com"),
    ],
)
def test_an_address_is_found_however_it_is_written(raw: bytes, address: str) -> None:
    assert holds(raw, address)


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        (b'{"email":"joann@example.com"}', "ann@example.com"),
        (b'{"email":"o\'brien@example.com"}', "brien@example.com"),
        (b'{"email":"jane@example.com.au"}', "jane@example.com"),
        (b"x" * 300 + b"ann@example.com", "ann@example.com"),
    ],
)
def test_a_part_of_a_text_is_nobody(raw: bytes, address: str) -> None:
    assert not holds(raw, address)


@pytest.mark.parametrize("piece", [b"QUJD", b"@", b"'", b"a'", b"a@", b"'@", b"a.", b"%40", b"\xff"], ids=repr)
def test_two_megabytes_without_a_space_take_no_longer_than_with_spaces(piece: bytes) -> None:
    """An attachment in an event that is not understood: nothing else goes on while it is looked through."""

    def seconds(raw: bytes) -> float:
        began = time.process_time()
        mentions_in([row_of_quarantined("sendgrid", "no address", raw, HASHER, 0)], HASHER)
        return time.process_time() - began

    size = 2 << 20
    words = (b"word " * size)[:size]
    assert seconds((piece * size)[:size]) < 10 * seconds(words) + 0.2
