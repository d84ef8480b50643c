"""Limit of D: a Flask view that posts on in the same request, stores nothing, and answers when it is through."""

import os
import threading

import orjson
import requests
from flask import Flask, Response, jsonify, request

from benchmarks.limits.posting import HEADERS, URL

_of_thread = threading.local()


def create_app() -> Flask:
    app = Flask(__name__, static_folder=None)
    url = URL.format(port=os.environ["SANDBOX_PORT"])

    @app.post("/webhooks/emarsys")
    def relay() -> Response:
        if not hasattr(_of_thread, "session"):
            _of_thread.session = requests.Session()
            _of_thread.session.trust_env = False
        person = orjson.loads(request.get_data())["external_id"]
        _of_thread.session.post(url, data=body_about(person), headers=HEADERS, timeout=30).raise_for_status()
        return jsonify(accepted=1)

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    return app


def body_about(person: str) -> bytes:
    """The body that the product sends about a person whom it knows by an external id."""
    properties = {"dyType": "message-optout-v1", "cuidType": "external", "externalId": person}
    return orjson.dumps({"user": {}, "session": {}, "events": [{"name": "Email Opt-Out", "properties": properties}]})
