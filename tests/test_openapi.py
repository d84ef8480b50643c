"""The HTTP side against its own description: whatever is sent, the answer is one that is described, and no 5xx."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.signing import SendGridSigner
from webhook_app import build_app
from webhook_app.auth import Scheme, WebhookRequest
from webhook_app.outbox import Queue, schema

MakeApp = Callable[..., Flask]


class AnybodyMayCall(Scheme):
    """So that what is sent is also read: a random body is never signed."""

    def verify(self, request: WebhookRequest) -> bytes | None:
        return None


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    directory: Path = tmp_path_factory.mktemp("openapi")
    app = build_app(
        {
            "DATABASE_URL": f"sqlite:///{directory}/outbox.db",
            "SENDGRID_VERIFICATION_KEYS": SendGridSigner().public_key,
            "EMARSYS_TOKENS": "t" * 24,
            "MAX_BODY_BYTES": "65536",
        }
    )
    for name in ("mailgun", "mandrill", "ses"):
        provider = app.extensions["providers"][name]
        object.__setattr__(provider, "scheme", AnybodyMayCall())
    schema.upgrade(app.extensions["database"])
    Queue(app.extensions["database"]).report("a worker")
    yield app
    app.extensions["database"].close()


def as_described(app: Flask) -> Any:
    """As it is served; of the names that match the pattern, those that are open come first, or all would be 404."""
    described = schemathesis.openapi.from_wsgi("/openapi.json", app)
    open_ones = [provider.name for provider in app.extensions["providers"].values() if provider.scheme]
    for path in ("/webhooks/{provider}", "/webhooks/{provider}/{secret}"):
        provider = described.raw_schema["paths"][path]["parameters"][0]
        provider["schema"] = {"anyOf": [{"enum": open_ones}, provider["schema"]]}
    return described


@pytest.mark.parametrize(
    "operation",
    [
        "POST /webhooks/{provider}",
        "POST /webhooks/{provider}/{secret}",
        "GET /webhooks/{provider}",
        "GET /webhooks/{provider}/{secret}",
        "GET /healthz",
        "GET /readyz",
        "GET /status",
        "GET /metrics",
        "GET /openapi.json",
    ],
)
def test_every_answer_is_one_that_is_described(app: Flask, operation: str) -> None:
    method, path = operation.split()

    @settings(
        max_examples=30,
        deadline=None,  # two processors are shared by many tests
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(as_described(app)[path][method].as_strategy())
    def send(case: Any) -> None:
        case.call_and_validate(
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_schema_conformance,
            ]
        )

    send()


def test_every_route_is_described(app: Flask) -> None:
    names = "|".join(app.extensions["providers"])
    routes = set()
    for rule in app.url_map.iter_rules():
        # The same twice: with a slash at the end, and with slashes within the secret.
        route = re.sub("<(path:)?url_secret>", "{secret}", str(rule))
        routes.add(re.sub(rf"^/webhooks/({names})(?=/|$)", "/webhooks/{provider}", route))
    assert routes == set(as_described(app).raw_schema["paths"])
