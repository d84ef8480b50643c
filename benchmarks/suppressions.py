"""A stand-in for SendGrid's API on loopback: one list of suppressions, as long as it is told to be."""

import os
import time
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import orjson

#: How many entries its list has.
LENGTH = "SUPPRESSIONS"
PATH = "/v3/suppression/unsubscribes"


def create_app() -> WSGIApplication:
    length, run, made_at = int(os.environ[LENGTH]), os.environ["RUN"], int(time.time()) - 3600

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] != PATH:
            start_response("200 OK", [("Content-Length", "0")])
            return []
        query = parse_qs(environ["QUERY_STRING"])
        first, most = int(query["offset"][0]), int(query["limit"][0])
        entries = [
            {"created": made_at, "email": f"listed.{run}.{number}@example.com"}
            for number in range(first, min(first + most, length))
        ]
        body = orjson.dumps(entries)
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return app
