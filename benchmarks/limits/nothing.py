"""Limit of B: a stock Flask view that answers 200 and does nothing, under gunicorn's stock thread worker."""

from flask import Flask, Response, jsonify


def create_app() -> Flask:
    app = Flask(__name__, static_folder=None)

    @app.post("/webhooks/emarsys")
    def receive() -> Response:
        return jsonify(accepted=1)

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    return app
