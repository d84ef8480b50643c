"""Signatures in the wrong place: at another provider, cut short, from another day, for another body."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers

from tests.auth.amazon import TOPIC
from tests.providers.cases import PUBLIC_URL, Case, cases, key_pair, payloads
from webhook_app import build_app
from webhook_app.auth import AuthenticationError, WebhookRequest
from webhook_app.outbox import schema

CASES = cases()

every_way = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.provider}-{case.variable}")


def own_secret(case: Case) -> str:
    """A secret that no other way in has."""
    name = f"{case.provider}-{case.variable.lower().replace('_', '-')}"
    if case.kind == "sendgrid":
        return key_pair("old")[0]
    if case.kind == "basic":
        return f"{name}:password"
    if case.kind == "standard_webhooks":
        return "whsec_" + name.encode().hex()[: len(name) // 4 * 4]
    return f"{TOPIC}-{name}" if case.kind == "sns" else name


def signed(case: Case, secret: str) -> WebhookRequest:
    return case.sign(case.request(payloads(case.provider)["opt_out"].body), secret)


@pytest.fixture(scope="module")
def everything_open(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """An app with every way into every provider open, each with a secret of its own."""
    environ = {case.variable: own_secret(case) for case in CASES} | {"PUBLIC_URL": PUBLIC_URL}
    app = build_app(environ | {"DATABASE_URL": f"sqlite:///{tmp_path_factory.mktemp('open')}/outbox.db"})
    schema.upgrade(app.extensions["database"])
    yield app.test_client()
    app.extensions["database"].close()


@every_way
def test_what_opens_one_provider_opens_no_other(everything_open: FlaskClient, case: Case) -> None:
    request = signed(case, own_secret(case))
    for other in {other.provider for other in CASES} - {case.provider}:
        path = f"/webhooks/{other}" + (f"/{request.url_secret}" if request.url_secret else "")
        answer = everything_open.post(path, data=request.body, headers=request.headers)
        assert (answer.status_code, answer.json) == (401, {"error": "not authenticated"}), other


@every_way
def test_a_signature_that_is_cut_short_is_none(case: Case) -> None:
    scheme = case.scheme(case.old)
    for given, put in case.credentials(signed(case, case.old)):
        for length in range(len(given)):
            with pytest.raises(AuthenticationError):
                scheme.verify(put(given[:length]))
        # And one that is followed by more. (Padding is no part of a JSON Web Token; its library overlooks some.)
        for more in ("A", "00"):
            with pytest.raises(AuthenticationError):
                scheme.verify(put(given + more))


@every_way
def test_the_signature_of_another_secret_beside_the_right_one_opens_nothing_it_does_not_sign(case: Case) -> None:
    """The parts of two signed requests, mixed: each header of one in the other."""
    ours, theirs = signed(case, case.old), signed(case, case.forged)
    scheme = case.scheme(case.old)
    scheme.verify(ours)
    for name in set(theirs.headers.keys()) - {"Content-Type"}:
        headers = Headers(ours.headers)
        if headers.get(name) != theirs.headers[name]:
            headers[name] = theirs.headers[name]
            with pytest.raises(AuthenticationError):
                scheme.verify(replace(ours, headers=headers))


def mailgun(address: str, signature: dict[str, str]) -> bytes:
    event = json.loads(payloads("mailgun")["opt_out"].body)
    event["event-data"]["recipient"] = address
    return json.dumps(event | {"signature": signature}).encode()


def test_a_one_time_token_with_another_body_is_401_and_with_the_same_body_200(database_url: str) -> None:
    """Mailgun signs a time and a token: whoever has seen one webhook could otherwise put anybody's address into it."""
    (case,) = (case for case in CASES if case.provider == "mailgun")
    app = build_app(case.environ(case.old) | {"DATABASE_URL": database_url})
    schema.upgrade(app.extensions["database"])
    client = app.test_client()
    signature = json.loads(signed(case, case.old).body)["signature"]
    seen, forged = mailgun("jane@example.com", signature), mailgun("victim@example.com", signature)
    answers = [client.post("/webhooks/mailgun", data=body) for body in (seen, forged, seen)]
    app.extensions["database"].close()
    assert [answer.status_code for answer in answers] == [200, 401, 200]
    assert [answer.json["accepted"] for answer in (answers[0], answers[2]) if answer.json] == [1, 0]
    assert answers[1].json == {"error": "not authenticated"}


def test_a_forged_body_does_not_use_up_the_token_of_the_real_one(database_url: str) -> None:
    """Only a signature that is right is remembered: guessing tokens must not lock an ESP out."""
    (case,) = (case for case in CASES if case.provider == "mailgun")
    app = build_app(case.environ(case.old) | {"DATABASE_URL": database_url})
    schema.upgrade(app.extensions["database"])
    client = app.test_client()
    signature = json.loads(signed(case, case.old).body)["signature"]
    wrong = signature | {"signature": "0" * 64}
    first = client.post("/webhooks/mailgun", data=mailgun("victim@example.com", wrong))
    second = client.post("/webhooks/mailgun", data=mailgun("jane@example.com", signature))
    app.extensions["database"].close()
    assert (first.status_code, second.status_code) == (401, 200)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_no_other_method_stores_anything(make_app: Callable[..., Flask], method: str) -> None:
    (case,) = (case for case in CASES if case.variable == "EMARSYS_TOKENS")
    app = make_app(EMARSYS_TOKENS=case.old, EMARSYS_IDENTITY="email")
    request = signed(case, case.old)
    answer = app.test_client().open("/webhooks/emarsys", method=method, data=request.body, headers=request.headers)
    assert answer.status_code in (200, 405)
    with app.extensions["database"].read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == 0


def test_a_method_that_a_header_asks_for_is_not_taken(make_app: Callable[..., Flask]) -> None:
    answer = make_app().test_client().get("/webhooks/sendgrid", headers={"X-HTTP-Method-Override": "POST"})
    assert answer.status_code == 405
