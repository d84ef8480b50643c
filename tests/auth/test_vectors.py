"""Requests that were signed elsewhere verify; with any one byte of them changed they do not."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from operator import add
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests.auth.vectors import SIGNED, VECTORS, with_header
from webhook_app.auth import AuthenticationError, WebhookRequest


def test_every_vector_has_its_scheme() -> None:
    assert SIGNED.keys() == VECTORS.keys()


@pytest.mark.parametrize("name", SIGNED)
def test_the_vector_verifies(name: str) -> None:
    scheme, request = SIGNED[name]()
    token = scheme.verify(request)
    # Only Mailgun signs a token in place of the body.
    assert token == (VECTORS["mailgun"]["token"].encode() if name == "mailgun" else None)


@pytest.mark.parametrize("name", SIGNED)
def test_one_changed_byte_anywhere_fails(name: str) -> None:
    """Every byte of body, timestamp, id, signature and signed URL, each with its lowest bit and its case bit turned."""
    scheme, request = SIGNED[name]()
    for changed in _one_byte_off(request, body_is_signed=name != "mailgun"):
        if name == "mandrill" and _is_same_form(changed, request):
            # %5b for %5B: Mandrill signs the decoded fields, and those are unchanged.
            continue
        with pytest.raises(AuthenticationError):
            scheme.verify(changed)


@pytest.mark.parametrize("part", ["timestamp", "token", "signature"])
def test_mailgun_signs_what_stands_in_the_body(part: str) -> None:
    scheme, request = SIGNED["mailgun"]()
    value = VECTORS["mailgun"][part].encode()
    start = request.body.index(value)
    for place in range(start, start + len(value)):
        with pytest.raises(AuthenticationError):
            scheme.verify(replace(request, body=_flip(request.body, place, 0x01)))


@pytest.mark.parametrize("name", SIGNED)
def test_a_missing_or_empty_header_fails(name: str) -> None:
    scheme, request = SIGNED[name]()
    for header in request.headers.keys():  # noqa: SIM118 - iterating Headers gives pairs
        for value in (None, "", " "):
            with pytest.raises(AuthenticationError):
                scheme.verify(with_header(request, header, value))


@pytest.mark.parametrize("name", ["sendgrid", "standard_webhooks", "mailgun", "klaviyo", "customerio", "hubspot_v3"])
def test_a_signed_timestamp_goes_stale(name: str) -> None:
    """The tolerance in these tests is 300 s, in both directions."""
    scheme: Any
    scheme, request = SIGNED[name]()
    signed_at: float = scheme.clock()
    for age, taken in ((300, True), (-300, True), (301, False), (-301, False)):
        aged = replace(scheme, clock=partial(add, signed_at, age))
        if taken:
            aged.verify(request)
        else:
            with pytest.raises(AuthenticationError, match="timestamp_stale"):
                aged.verify(request)


def _one_byte_off(request: WebhookRequest, *, body_is_signed: bool) -> Iterator[WebhookRequest]:
    for bit in (0x01, 0x20):
        if body_is_signed:
            for place in range(len(request.body)):
                yield replace(request, body=_flip(request.body, place, bit))
        for header, value in request.headers.items():
            for place in range(len(value)):
                yield with_header(request, header, _flip(value.encode(), place, bit).decode())
        for place in range(len(request.url or "")):
            assert request.url
            yield replace(request, url=_flip(request.url.encode(), place, bit).decode())


def _is_same_form(one: WebhookRequest, other: WebhookRequest) -> bool:
    return (one.body != other.body) and parse_qsl(one.body.decode()) == parse_qsl(other.body.decode())


def _flip(text: bytes, place: int, bit: int) -> bytes:
    return text[:place] + bytes([text[place] ^ bit]) + text[place + 1 :]
