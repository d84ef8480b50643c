"""`GET /openapi.json`: the HTTP side, described for programs. `make docs` writes the file."""

from pathlib import Path

from flask import Blueprint, Response

_FILE = Path(__file__).with_name("openapi.json")


def blueprint() -> Blueprint:
    description = Blueprint("description", __name__)

    @description.get("/openapi.json")
    def openapi() -> Response:
        return Response(_FILE.read_bytes(), mimetype="application/json")

    return description
