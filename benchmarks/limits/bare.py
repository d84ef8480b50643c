"""Second limit of B: the same view without any HTTP framework, a WSGI callable."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BODY = b'{"accepted":1}\n'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def create_app() -> "WSGIApplication":
    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", HEADERS)
        return [BODY]

    return application
