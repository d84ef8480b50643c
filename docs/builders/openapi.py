"""OpenAPI description of the HTTP side, served at `/openapi.json`. The tests send what it allows, and more."""

import json
from typing import Any

from webhook_app.ops.status import Severity

_COUNT = {"type": "integer", "minimum": 0}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
    "additionalProperties": False,
}
_COUNTS = {
    "type": "object",
    "description": "What became of the events of one webhook.",
    "required": ["accepted", "duplicates", "ignored", "quarantined"],
    "properties": {
        "accepted": _COUNT | {"description": "changes stored, to be forwarded"},
        "duplicates": _COUNT | {"description": "changes that were known already"},
        "ignored": _COUNT | {"description": "events that say nothing about consent, or are not to be forwarded"},
        "quarantined": _COUNT | {"description": "events that were not understood; they wait for a person"},
    },
    "additionalProperties": False,
}
_READINESS = {
    "type": "object",
    "required": ["status", "reasons"],
    "properties": {
        "status": {"enum": ["ready", "not ready"]},
        "reasons": {"type": "array", "items": {"type": "string"}},
    },
    "additionalProperties": False,
}
_VERDICT = {
    "type": "object",
    "required": ["status", "reasons", "findings"],
    "properties": {
        "status": {"enum": ["working", "not working"]},
        "reasons": {"type": "array", "items": {"type": "string"}},
        "findings": {
            "type": "array",
            "description": "the same, and what only deserves a look",
            "items": {
                "type": "object",
                "required": ["slug", "severity", "sentence", "mend"],
                "properties": {
                    "slug": {"type": "string"},
                    "severity": {"enum": [severity.value for severity in Severity]},
                    "sentence": {"type": "string"},
                    "mend": {"type": "string"},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}


def rendered() -> str:
    return json.dumps(description(), indent=2) + "\n"


def description() -> dict[str, Any]:
    readiness = _json({"$ref": "#/components/schemas/Readiness"})
    verdict = _json({"$ref": "#/components/schemas/Verdict"})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ESP webhook receiver for Dynamic Yield",
            "version": "1",
            "description": "Takes unsubscribe webhooks, stores them, forwards them. A 2xx means: it is on disk.",
        },
        "paths": {
            "/webhooks/{provider}": _webhook(),
            "/webhooks/{provider}/{secret}": _webhook(with_secret=True),
            "/healthz": {"get": _get("The process serves.", _json({"type": "object"}))},
            "/readyz": {
                "get": {
                    "summary": "This process can take webhooks.",
                    "responses": {"200": _answer("ready", readiness), "503": _answer("not ready, and why", readiness)},
                }
            },
            "/status": {
                "get": {
                    "summary": "The whole service works: unsubscribes reach Dynamic Yield.",
                    "responses": {"200": _answer("working", verdict), "503": _answer("not working, and why", verdict)},
                }
            },
            "/metrics": {"get": _get("Prometheus text.", {"text/plain": {"schema": {"type": "string"}}})},
            "/openapi.json": {"get": _get("This description.", _json({"type": "object"}))},
        },
        "components": {"schemas": {"Counts": _COUNTS, "Error": _ERROR, "Readiness": _READINESS, "Verdict": _VERDICT}},
    }


def _webhook(*, with_secret: bool = False) -> dict[str, Any]:
    name = {"type": "string", "pattern": "^[a-z][a-z0-9_-]*$"}
    parameters = [_in_path("provider", name, "An ESP that is open; any other is answered 404.")]
    if with_secret:
        secret = {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}
        parameters.append(_in_path("secret", secret, "For ESPs that can neither sign nor send a header."))
    error = _json({"$ref": "#/components/schemas/Error"})
    anything: dict[str, Any] = {"schema": {}}
    return {
        "parameters": parameters,
        "post": {
            "summary": "Take a webhook. Its form is the ESP's own.",
            "requestBody": {
                "content": {
                    "application/json": anything,
                    "application/x-www-form-urlencoded": {"schema": {"type": "object"}},
                    "text/plain": {"schema": {"type": "string"}},
                }
            },
            "responses": {
                "200": _answer(
                    "Authentic, and everything in it is on disk. An ESP's set-up call is answered with an empty body.",
                    _json({"$ref": "#/components/schemas/Counts"}),
                ),
                "400": _answer("The body is shorter than its length, or its chunks are malformed.", error),
                "401": _answer("Not authenticated; the log has the reason.", error),
                "404": _answer("No such ESP, or none that is open.", error),
                "408": _answer("The body did not come whole in time.", error),
                "413": _answer("Larger than MAX_BODY_BYTES, and than what this ESP may send.", error),
                "415": _answer("Compressed; send it without Content-Encoding.", error),
                "503": _answer("Could not be stored or checked now: send it again.", error, retry_after=True),
            },
        },
        "get": {
            "summary": "Some ESPs look whether the URL exists before they use it.",
            "responses": {
                "200": {"description": "This ESP probes so."},
                "404": _answer("No such ESP, or none that is open.", error),
                "405": _answer("This ESP does not probe.", error),
            },
        },
    }


def _in_path(name: str, schema: dict[str, Any], meaning: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": meaning}


def _get(summary: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": _answer("ok", content)}}


def _answer(meaning: str, content: dict[str, Any], *, retry_after: bool = False) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": meaning, "content": content}
    if retry_after:
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return answer


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
