"""One wrong byte or raw control character in a batch costs its own event and none of the others: every provider."""

import codecs
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from tests.providers.cases import Case, content_type, one_case_each, payloads
from webhook_app.auth import WebhookRequest
from webhook_app.providers import Reading, read
from webhook_app.providers.json_body import Damaged, Unreadable, dump_raw, load_json

#: What is put into a text, as it stands in the body → what the reason says.
DAMAGES = {
    "a Latin-1 byte": (b"\xe9", "bytes that are no UTF-8"),
    "half of a UTF-8 character": (b"\xc3", "bytes that are no UTF-8"),
    "an overlong NUL": (b"\xc0\x80", "bytes that are no UTF-8"),
    "Windows quotes": (b"\x93\x94", "bytes that are no UTF-8"),
    "a TAB": (b"\t", "raw control character"),
    "a line feed": (b"\n", "raw control character"),
    "a line's end": (b"\r\n", "raw control character"),
    "NUL": (b"\0", "raw control character"),
    "ESC": (b"\x1b", "raw control character"),
}


def batch(case: Case) -> tuple[list[Any], Callable[[list[bytes]], bytes]] | None:
    """The provider's opt-out as the events of a batch, and how such a batch is written; None where there is none."""
    body = payloads(case.provider)["opt_out"].body
    if "form" in content_type(case.opened(case.old)):
        fields = parse_qs(body.decode())
        if "mandrill_events" not in fields:
            return None
        inner = json.loads(fields["mandrill_events"][0])
        return inner, lambda events: urlencode({"mandrill_events": b"[" + b",".join(events) + b"]"}).encode()
    loaded = json.loads(body)
    if isinstance(loaded, list):
        return loaded, lambda events: b"[" + b",".join(events) + b"]"
    lists = [name for name, value in loaded.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if lists and case.provider not in ("ses", "emarsys"):
        (name,) = lists
        around = {key: value for key, value in loaded.items() if key != name}
        head = json.dumps(around).encode()[:-1] + (b"," if around else b"") + json.dumps(name).encode()
        return loaded[name], lambda events: head + b":[" + b",".join(events) + b"]}"
    if case.provider in ("emarsys", "brevo", "mailjet"):
        return [loaded], lambda events: b"[" + b",".join(events) + b"]"
    return None


BATCHED = [case for case in one_case_each() if batch(case)]


def reading(case: Case, body: bytes, *, damaged_too: bool = False) -> Reading:
    request = replace(case.request(body), body=body)
    return read(case.opened(case.old), request, forward_opt_ins=True, damaged_too=damaged_too)


def test_batches_of_every_shape_are_tried() -> None:
    names = {case.provider for case in BATCHED}
    assert names >= {"sendgrid", "emarsys", "klaviyo", "campaign_monitor", "sparkpost", "mandrill", "braze", "sfmc"}


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 500_000, b'{"a": "' + b'\\"' * 500_000, b"[" + b'"\\' * 500_000])
def test_a_text_that_is_never_closed_is_told_at_once(body: bytes) -> None:
    """Anybody may send it, before we know who calls: tried from each of its quotes, it would take hours."""
    began = time.thread_time()
    with pytest.raises(Unreadable):
        load_json(body)
    assert time.thread_time() - began < 5


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("case", BATCHED, ids=lambda case: case.provider)
@pytest.mark.parametrize("where", ["in the address", "where nobody looks"])
def test_the_others_are_taken_and_the_one_is_quarantined_with_its_reason(case: Case, damage: str, where: str) -> None:
    found = batch(case)
    assert found
    (event, *_), write = found
    person = payloads(case.provider)["opt_out"].changes[0][1]
    events = [json.dumps(event).replace(person, f"x{number}{person}").encode() for number in range(20)]
    wrong, reason = DAMAGES[damage]
    if where == "in the address":
        events[7] = events[7].replace(person.encode(), person[:2].encode() + wrong + person[2:].encode())
    else:
        events[7] = events[7].removesuffix(b"}") + b', "nobody_looks": "Jos' + wrong + b'"}'
    read_ = reading(case, write(events))
    assert [change.identity.value for change, _ in read_.changes] == [
        f"x{number}{person}" for number in range(20) if number != 7
    ]
    ((why, raw),) = read_.quarantined
    assert reason in why
    assert person not in why
    assert read_.ignored == 0
    # What a person finds in the quarantine is readable, and holds what came.
    assert isinstance(load_json(raw), dict)


#: Zoho says once for a whole batch what happened.
SELF_CONTAINED = [case for case in BATCHED if case.provider != "zoho_campaigns"]


@pytest.mark.parametrize("case", SELF_CONTAINED, ids=lambda case: case.provider)
def test_trying_again_takes_an_event_whose_address_came_whole_and_never_a_mangled_person(case: Case) -> None:
    found = batch(case)
    assert found
    (event, *_), _ = found
    person = payloads(case.provider)["opt_out"].changes[0][1]
    whole = json.dumps(event).encode()
    single = replace(case.opened(case.old), events=lambda request: [load_json(request.body)])
    for body, people in (
        (whole.removesuffix(b"}") + b', "nobody_looks": "Jos\xe9"}', [person]),
        (whole.removesuffix(b"}") + b', "nobody_looks": "Jos\t"}', [person]),
        (whole.replace(person.encode(), person[:2].encode() + b"\xe9" + person[2:].encode()), []),
        (whole.replace(person.encode(), person[:2].encode() + b"\0" + person[2:].encode()), []),
    ):
        kept = dump_raw(load_json(body))
        again = read(single, WebhookRequest(body=kept), forward_opt_ins=True, damaged_too=True)
        assert [change.identity.value for change, _ in again.changes] == people
        assert len(again.quarantined) == 1 - len(people)


def test_a_form_with_a_wrong_byte_in_its_address_names_nobody() -> None:
    (case,) = [case for case in one_case_each() if case.provider == "mailchimp"]
    body = payloads("mailchimp")["opt_out"].body
    person = payloads("mailchimp")["opt_out"].changes[0][1]
    (encoded,) = re.findall(rb"data(?:\[|%5B)email(?:\]|%5D)=([^&]*)", body)
    assert encoded
    for wrong in (b"%E9", b"\xe9", b"%00", b"%C3"):
        broken = body.replace(encoded, encoded[:2] + wrong + encoded[2:])
        read_ = reading(case, broken)
        assert (read_.changes, len(read_.quarantined)) == ([], 1)
        assert person not in read_.quarantined[0][0]


EVENTS = [{"email": "jürgen@example.com", "event": "unsubscribe"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_encoding_that_json_may_have_is_read(encoding: str) -> None:
    text = json.dumps(EVENTS, ensure_ascii=False)
    assert load_json(text.encode(encoding)) == EVENTS
    assert load_json(codecs.BOM_UTF16_BE + text.encode("utf-16-be")) == EVENTS


def test_what_is_guessed_in_another_encoding_is_damaged_too() -> None:
    body = '[{"a": "\tx"}, {"a": "x"}]'.encode("utf-16")
    damaged, whole = load_json(body)
    assert isinstance(damaged, Damaged)
    assert whole == {"a": "x"}


def test_control_characters_between_texts_are_white_space() -> None:
    assert load_json(b'[\x0b{"a":\x1e 1}\x1f]\0\0') == [{"a": 1}]


@pytest.mark.parametrize(
    "body", [b'[{"a": 1},]', b'[{"a": 1}', b"[{'a': 1}]", b'{"a": "\xe9}', b"a=\xe9", b"\xff\xfe", b"\xe9"]
)
def test_nothing_but_encodings_and_control_characters_is_guessed(body: bytes) -> None:
    with pytest.raises(Unreadable):
        load_json(body)


def test_damage_names_the_place_and_no_key_that_might_be_an_address() -> None:
    (inner,) = load_json(b'[{"data": {"list": [{"jane@example.com": {"name": "\xe9"}}]}}]')
    assert inner.damage == "data.list.name: holds bytes that are no UTF-8 text"
    (key,) = load_json(b'[{"jan\xe9@example.com": 1}]')
    assert key.damage == "holds bytes that are no UTF-8 text"


def test_json_lines_are_a_list_of_events_and_one_bad_byte_costs_its_own_alone() -> None:
    events = load_json(b'{"a": "x\xe9"}\r\n\n{"a": "\xe2\x80\xa8"}\n')
    assert [type(event) for event in events] == [Damaged, dict]


@pytest.mark.parametrize("body", [b'{"a": 1}\n{"a": ', b'{"a": 1}\n[2]', b'{"a": 1} {"a": 2}', b"1\n2"])
def test_what_only_begins_like_json_lines_is_quarantined_whole(body: bytes) -> None:
    with pytest.raises(Unreadable):
        load_json(body)
