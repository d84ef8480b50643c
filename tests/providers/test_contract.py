"""What every provider promises: SendGrid, Emarsys and the whole catalogue, over their payload folders."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode

import orjson
import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError
from werkzeug.datastructures import Headers

from tests.providers.cases import PAYLOADS, Case, Payload, cases, content_type, one_case_each, payloads
from webhook_app.auth import AuthenticationError, WebhookRequest, keyed_hash
from webhook_app.auth import reading as auth_reading
from webhook_app.auth.keyed_hash import Hmac
from webhook_app.auth.sendgrid import SendGridSignature
from webhook_app.auth.sns import Sns
from webhook_app.auth.standard_webhooks import StandardWebhooks
from webhook_app.consent import ConsentChange
from webhook_app.providers import Provider, Reading, bodies, read

CASES = cases()
ONE_EACH = one_case_each()


def ways(found: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", found, ids=lambda case: f"{case.provider}-{case.variable}")


def signs_body(case: Case) -> bool:
    """Mailgun signs a token in place of the body; a password or a secret in the URL signs nothing."""
    signs = isinstance(case.scheme(case.old), SendGridSignature | Hmac | StandardWebhooks | Sns)
    return signs and case.provider != "mailgun"


every_way = ways(CASES)
every_provider = pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.provider)


def files(*stems: str) -> pytest.MarkDecorator:
    """The payloads of these names, of every provider that has them."""
    found = [
        pytest.param(case, payload, id=f"{case.provider}-{stem}")
        for case in ONE_EACH
        for stem, payload in payloads(case.provider).items()
        if not stems or stem in stems
    ]
    return pytest.mark.parametrize(("case", "payload"), found)


def reading(provider: Provider, request: WebhookRequest) -> Reading:
    return read(provider, request, forward_opt_ins=True)


def facts(read_: Reading) -> list[tuple[str, str, str | None]]:
    return [
        (change.action.value, change.identity.value, change.occurred_at.isoformat() if change.occurred_at else None)
        for change, _ in read_.changes
    ]


def natural_facts(provider: Provider, change: ConsentChange) -> tuple[Any, ...]:
    """What makes two reports the same: the outbox keeps one row of each."""
    return provider.name, change.action, change.reason, change.identity.key, change.occurred_at, change.message_id


def opt_out(case: Case) -> WebhookRequest:
    return case.request(payloads(case.provider)["opt_out"].body)


def test_every_provider_has_a_folder_with_at_least_an_opt_out_and_an_irrelevant_event() -> None:
    # `exports` holds the ESPs' CSV files.
    assert {case.provider for case in CASES} | {"exports"} == {folder.name for folder in PAYLOADS.iterdir()}
    for case in ONE_EACH:
        assert {"opt_out", "irrelevant"} <= payloads(case.provider).keys(), case.provider


@files()
def test_each_payload_says_what_is_expected(case: Case, payload: Payload) -> None:
    """Opt-out, opt-in, irrelevant event, one bad event among good ones, empty batch, and each ESP's own traps."""
    request = case.sign(case.request(payload.body), case.old)
    case.scheme(case.old).verify(request)
    read_ = reading(case.opened(case.old), request)
    assert facts(read_) == list(payload.changes), payload.says
    assert sum(change.is_test for change, _ in read_.changes) == payload.tests, payload.says
    assert read_.ignored == payload.ignored, payload.says
    reasons = [reason for reason, _ in read_.quarantined]
    assert len(reasons) == len(payload.quarantined), (payload.says, reasons)
    for reason, expected in zip(reasons, payload.quarantined, strict=True):
        assert expected in reason, payload.says


@files("opt_out", "mixed")
def test_a_change_keeps_its_raw_event_and_the_esps_word(case: Case, payload: Payload) -> None:
    for change, raw in reading(case.opened(case.old), case.request(payload.body)).changes:
        assert change.reason
        # The address stands in the raw event, so that a person can see where it came from.
        assert change.identity.value in json.dumps(json.loads(raw), ensure_ascii=False)


@files()
def test_no_address_stands_in_a_reason_or_a_repr(case: Case, payload: Payload) -> None:
    """Reasons are logged and outlive the address."""
    provider, request = case.opened(case.old), case.request(payload.body)
    read_ = reading(provider, request)
    shown = repr([request, *(change for change, _ in read_.changes), *(reason for reason, _ in read_.quarantined)])
    assert "@example.com" not in shown
    assert "C-1001" not in shown


@files("opt_in")
def test_an_opt_in_is_ignored_unless_opt_ins_are_forwarded(case: Case, payload: Payload) -> None:
    read_ = read(case.opened(case.old), case.request(payload.body), forward_opt_ins=False)
    assert (read_.changes, read_.ignored, read_.quarantined) == ([], 1, [])


@every_provider
def test_a_duplicate_has_the_same_natural_facts(case: Case) -> None:
    """The same webhook twice, each signed for itself, as an ESP resends it."""
    provider = case.opened(case.old)
    first, second = (
        [natural_facts(provider, change) for change, _ in reading(provider, case.sign(opt_out(case), case.old)).changes]
        for _ in range(2)
    )
    assert first == second != []


@every_way
def test_a_body_is_parsed_once_however_many_look_into_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """URL verification, scheme, subscription confirmation and reader: an ESP's batch is two megabytes."""
    provider, request = case.opened(case.old), case.sign(opt_out(case), case.old)
    parsed: list[bytes] = []

    def counting(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        return lambda body: parsed.append(body) or parse(body)  # type: ignore[func-returns-value]

    monkeypatch.setattr(orjson, "loads", counting(orjson.loads))
    counted_form = counting(auth_reading.parse_form)
    for module in (keyed_hash, bodies):
        monkeypatch.setattr(module, "parse_form", counted_form)
    if provider.url_verification:
        assert provider.url_verification(request) is None
    assert provider.scheme
    provider.scheme.verify(request)
    if provider.subscription_confirmation:
        assert provider.subscription_confirmation(request) is None
    assert reading(provider, request).changes
    assert parsed.count(request.body) == 1


@every_provider
def test_unknown_fields_are_normal(case: Case) -> None:
    request = opt_out(case)
    more = replace(request, body=_with_unknown_fields(request.body, content_type(case.opened(case.old))))
    provider = case.opened(case.old)
    assert facts(reading(provider, more)) == facts(reading(provider, request))


@every_provider
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json", ""])
def test_a_wrong_content_type_loses_nothing(case: Case, kind: str) -> None:
    signed = case.sign(opt_out(case), case.old)
    headers = Headers(signed.headers)
    headers["Content-Type"] = kind
    request = replace(signed, headers=headers)
    case.scheme(case.old).verify(request)
    assert facts(reading(case.opened(case.old), request)) == list(payloads(case.provider)["opt_out"].changes)


@every_provider
@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"[" * 100_000, b"{]", b"null", b'"text"', b"7"])
def test_a_body_of_another_form_is_quarantined_or_ignored_but_never_an_error(case: Case, body: bytes) -> None:
    read_ = reading(case.opened(case.old), case.request(body))
    assert read_.changes == []
    # A form is any text; JSON that is none of this ESP's must be seen by a person.
    if content_type(case.opened(case.old)) == "application/json" and case.provider != "ses":
        assert len(read_.quarantined) == 1


class TestSignatures:
    @every_way
    def test_the_right_one_opens(self, case: Case) -> None:
        case.scheme(case.old).verify(case.sign(opt_out(case), case.old))

    @every_way
    @pytest.mark.parametrize("value", [None, "", " ", "%%not-base64%%", "\xe9\x80", "A" * 5000, "sha256="])
    def test_missing_empty_or_malformed(self, case: Case, value: str | None) -> None:
        for _, put in case.credentials(case.sign(opt_out(case), case.old)):
            with pytest.raises(AuthenticationError):
                case.scheme(case.old).verify(put(value))

    @every_way
    def test_unsigned(self, case: Case) -> None:
        with pytest.raises(AuthenticationError):
            case.scheme(case.old).verify(opt_out(case))

    @every_way
    def test_forged(self, case: Case) -> None:
        with pytest.raises(AuthenticationError):
            case.scheme(case.old, case.new).verify(case.sign(opt_out(case), case.forged))

    @every_way
    def test_one_byte_off(self, case: Case) -> None:
        for given_, put in case.credentials(case.sign(opt_out(case), case.old)):
            for place, letter in enumerate(given_):
                changed = given_[:place] + chr(ord(letter) ^ 1) + given_[place + 1 :]
                with pytest.raises(AuthenticationError):
                    case.scheme(case.old).verify(put(changed))

    @ways([case for case in CASES if signs_body(case)])
    def test_one_byte_of_a_signed_body_off(self, case: Case) -> None:
        signed = case.sign(opt_out(case), case.old)
        for place in range(len(signed.body)):
            body = signed.body[:place] + bytes([signed.body[place] ^ 1]) + signed.body[place + 1 :]
            with pytest.raises(AuthenticationError):
                case.scheme(case.old).verify(replace(signed, body=body))

    @every_way
    def test_the_old_secret_counts_during_a_rotation_and_not_after_it(self, case: Case) -> None:
        signed = case.sign(opt_out(case), case.old)
        case.scheme(case.new, case.old).verify(signed)
        case.scheme(case.old, case.new).verify(case.sign(opt_out(case), case.new))
        with pytest.raises(AuthenticationError):
            case.scheme(case.new).verify(signed)

    @every_way
    def test_without_its_variable_the_provider_is_closed(self, case: Case) -> None:
        provider = case.opened("")
        assert provider.scheme is None
        assert case.variable in provider.opened_by

    # A public key and a topic's name are no secrets.
    @ways([case for case in CASES if case.kind not in ("sendgrid", "sns")])
    def test_no_repr_shows_the_secret(self, case: Case) -> None:
        shown = repr(case.opened(case.old, case.new)) + repr(case.sign(opt_out(case), case.old))
        assert case.old not in shown
        assert case.new not in shown


class TestOverHttp:
    @every_way
    def test_an_opt_out_is_stored_once_however_often_it_comes(self, case: Case, make_app: Callable[..., Flask]) -> None:
        app = _app(case, make_app)
        request = case.sign(opt_out(case), case.old)
        ((change, _),) = reading(case.opened(case.old), request).changes
        # Without a time and an id nothing tells a repetition from a second opt-out, which must not be lost.
        again = "duplicates" if change.occurred_at or change.event_id else "accepted"
        nothing = {"accepted": 0, "duplicates": 0, "ignored": 0, "quarantined": 0}
        first, second = (_post(app, case, request) for _ in range(2))
        assert (first, second) == ((200, nothing | {"accepted": 1}), (200, nothing | {again: 1}))

    @every_way
    def test_a_forged_one_is_refused_without_a_reason(self, case: Case, make_app: Callable[..., Flask]) -> None:
        request = case.sign(opt_out(case), case.forged)
        assert _post(_app(case, make_app), case, request) == (401, {"error": "not authenticated"})


@every_provider
def test_arbitrary_json_is_a_change_or_nothing_or_a_validation_error(case: Case) -> None:
    provider = case.opened(case.old)
    request = case.request(b"")

    @settings(deadline=None)  # a busy machine is no failure
    @given(event=_json_like(_words(case.provider)))
    def translate(event: Any) -> None:
        try:
            change = provider.translate(event, request)
        except ValidationError:
            return
        assert change is None or isinstance(change, ConsentChange)

    translate()


@every_provider
def test_arbitrary_bodies_are_read(case: Case) -> None:
    provider = case.opened(case.old)

    @settings(deadline=None)  # a busy machine is no failure
    @given(body=st.binary(max_size=100) | _json_like(_words(case.provider)).map(_dumps))
    def read_body(body: bytes) -> None:
        read_ = reading(provider, case.request(body))
        # Nothing vanishes: what was read is a change, ignored, quarantined, or an empty batch.
        for change, raw in read_.changes:
            assert change.identity.value
            assert isinstance(raw, bytes)

    read_body()


def _json_like(words: list[str]) -> st.SearchStrategy[Any]:
    """Arbitrary JSON, in which the names and values that this ESP's events really have are frequent."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(words)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(words), inner, max_size=6),
        max_leaves=15,
    )


def _words(provider: str) -> list[str]:
    texts = [unquote_plus(payload.body.decode()) for payload in payloads(provider).values()]
    return sorted({word for text in texts for word in re.findall(r"[\w.:$@-]+", text)})


def _dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def _with_unknown_fields(body: bytes, kind: str) -> bytes:
    """A field nobody announced, in every object of the body and of the JSON in its texts."""
    if kind == "application/json":
        return json.dumps(_extended(json.loads(body))).encode()
    fields = {name: _extended_text(value) for name, value in parse_qsl(body.decode(), keep_blank_values=True)}
    return urlencode(fields | {"unannounced": "1", "data[unannounced]": "1"}).encode()


def _extended(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _extended(inner) for name, inner in value.items()} | {"unannounced": {"a": [1]}}
    if isinstance(value, list):
        return [_extended(inner) for inner in value]
    return _extended_text(value) if isinstance(value, str) else value


def _extended_text(text: str) -> str:
    return json.dumps(_extended(json.loads(text))) if text.startswith(("{", "[{")) else text


def _app(case: Case, make_app: Callable[..., Flask]) -> Flask:
    app = make_app(**case.environ(case.old, case.new))
    # Amazon's certificate comes from the tests, not from Amazon.
    app.extensions["providers"][case.provider] = case.opened(case.old, case.new)
    return app


def _post(app: Flask, case: Case, request: WebhookRequest) -> tuple[int, Any]:
    path = f"/webhooks/{case.provider}" + (f"/{request.url_secret}" if request.url_secret else "")
    answer = app.test_client().post(path, data=request.body, headers=request.headers)
    return answer.status_code, answer.json
