"""Stands in for the program ngrok: its log, its local API, and a tunnel that really leads to the receiver.

Without NGROK_AUTHTOKEN it ends as ngrok does.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

TARGET = ""


class Tunnel(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        passed_on = {**self.headers, "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
        with requests.Session() as session:
            # A proxy of the environment is nothing to ngrok's tunnel.
            session.trust_env = False
            answer = session.post(TARGET + self.path, data=body, headers=passed_on, timeout=10)
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: Any) -> None:
        pass


class Api(BaseHTTPRequestHandler):
    public_url = ""

    def do_GET(self) -> None:
        tunnels = [
            {"name": "other", "public_url": "https://other.example.com", "config": {"addr": "http://localhost:1"}},
            {"name": "command_line", "public_url": self.public_url, "config": {"addr": TARGET}},
        ]
        body = json.dumps({"tunnels": tunnels, "uri": "/api/tunnels"}).encode()
        self.send_response(200 if self.path == "/api/tunnels" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say(**entry: str) -> None:
    write(json.dumps(entry))


def main() -> None:
    global TARGET
    verb, port, *flags = sys.argv[1:]
    assert (verb, flags) == ("http", ["--log", "stdout", "--log-format", "json"]), sys.argv
    TARGET = f"http://localhost:{port}"
    if "NGROK_AUTHTOKEN" not in os.environ:
        say(lvl="eror", msg="session closed", err="authentication failed: Usage of ngrok requires an authtoken.")
        write("ERROR:  authentication failed")
        sys.exit(1)
    tunnel = ThreadingHTTPServer(("127.0.0.1", 0), Tunnel)
    api = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    Api.public_url = f"http://127.0.0.1:{tunnel.server_address[1]}"
    threading.Thread(target=tunnel.serve_forever, daemon=True).start()
    say(lvl="info", msg="starting web service", obj="web", addr=f"127.0.0.1:{api.server_address[1]}")
    api.serve_forever()


main()
