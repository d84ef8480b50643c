"""`make tunnel`: a public address for the receiver on this machine, by ngrok."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any
from urllib.parse import urlsplit

import requests

from webhook_app.dev import marker
from webhook_app.dev.environment import environment
from webhook_app.egress import DIRECT
from webhook_app.providers import Provider
from webhook_app.providers.registry import Closed, build_providers
from webhook_app.settings import ConfigurationError, Settings

#: ngrok's own API on this machine, unless its log says otherwise: a second ngrok takes the next port.
LOCAL_API = "127.0.0.1:4040"
PATIENCE = 30.0  # seconds for ngrok to come up
POLL = 0.2  # seconds
HOW_TO_GET_IT = "ngrok is not installed: get it from https://ngrok.com/download (it is free), and set NGROK_AUTHTOKEN"


class NoTunnel(Exception):
    """There is no public address. The text says why."""


@dataclass(slots=True)
class Ngrok:
    """A running ngrok. Its log is read all the time, or it would block."""

    process: subprocess.Popen[str]
    api: str = LOCAL_API
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=5))

    def read_log(self, log: IO[str]) -> None:
        for line in log:
            try:
                entry = json.loads(line)
                if entry.get("obj") == "web" and entry.get("addr"):
                    self.api = str(entry["addr"])
                problem = entry.get("err") if entry.get("lvl") in ("eror", "error", "crit") else None
                if problem and problem != "<nil>":
                    self.errors.append(str(problem))
            except (ValueError, AttributeError):
                # What ngrok writes before its log begins, and when it cannot begin at all.
                if line.strip():
                    self.errors.append(line.strip())

    def public_url(self, port: int) -> str | None:
        """The tunnel's address, None while there is none yet."""
        try:
            with DIRECT.session() as session:
                answer = session.get(f"http://{self.api}/api/tunnels", timeout=2)
            tunnels = answer.json()["tunnels"]
            ours = [str(tunnel["public_url"]) for tunnel in tunnels if _leads_to(tunnel, port)]
        except (requests.RequestException, ValueError, KeyError, TypeError):
            return None
        return next((url for url in ours if url.startswith("https://")), next(iter(ours), None))


def _leads_to(tunnel: Any, port: int) -> bool:
    """Another tunnel may be open beside ours."""
    address = str(tunnel["config"]["addr"])
    return urlsplit(address if "//" in address else f"//{address}").port == port


def start(port: int, environ: Mapping[str, str]) -> Ngrok:
    """Raises `NoTunnel`."""
    program = shutil.which("ngrok", path=environ.get("PATH"))
    if program is None:
        raise NoTunnel(HOW_TO_GET_IT)
    process = subprocess.Popen(  # noqa: S603 (the person's own ngrok, and a number)
        [program, "http", str(port), "--log", "stdout", "--log-format", "json"],
        env=dict(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ngrok = Ngrok(process)
    threading.Thread(target=ngrok.read_log, args=(process.stdout,), daemon=True).start()
    return ngrok


def await_url(ngrok: Ngrok, port: int) -> str:
    """Raises `NoTunnel`."""
    deadline = time.monotonic() + PATIENCE
    while not (url := ngrok.public_url(port)):
        if ngrok.process.poll() is not None:
            time.sleep(POLL)  # for the last lines of its log
            raise NoTunnel(f"ngrok has ended: {_said(ngrok)}")
        if time.monotonic() > deadline:
            raise NoTunnel(f"ngrok opens no tunnel: {_said(ngrok)}")
        time.sleep(POLL)
    return url


def _said(ngrok: Ngrok) -> str:
    said = " ".join(dict.fromkeys(ngrok.errors)) or "it does not say why"
    hint = " (is NGROK_AUTHTOKEN set? https://dashboard.ngrok.com/get-started/your-authtoken)"
    return said + (hint if "authtoken" in said.lower() or "authentication" in said.lower() else "")


def describe(url: str, providers: Iterable[Provider | Closed], settings: Settings) -> list[str]:
    """What the person does with the address."""
    lines = [
        f"{provider.title:<14} {url}/webhooks/{provider.name}"
        for provider in sorted(providers, key=lambda provider: provider.title.casefold())
        if provider.scheme
    ]
    lines += [
        f"{'try it':<14} flask simulate sendgrid --url {url}",
        f"{'connect it':<14} SENDGRID_API_KEY=… flask connect sendgrid --url {url}",
    ]
    if settings.public_url != url:
        lines.append(f"{'PUBLIC_URL':<14} set it to {url} for ESPs that sign the URL, and start `make run` again")
    return lines


def main() -> None:
    environ = environment()
    if running := marker.find():
        environ |= running.environment(environ)
    try:
        settings = Settings.from_environment(environ)
        providers = build_providers(settings, environ)
        ngrok = start(settings.port, environ)
    except (ConfigurationError, NoTunnel) as error:
        sys.exit(str(error))

    def stop(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        url = await_url(ngrok, settings.port)
        lines = describe(url, providers.entries.values(), settings)
        if not _listens(settings.port):
            lines.append(f"{'but':<14} nothing listens on port {settings.port}: start `make run` in another terminal")
        print("", *lines, "", sep="\n  ", flush=True)  # noqa: T201 (said to the person who typed make tunnel)
        ngrok.process.wait()
        sys.exit(f"ngrok has ended: {_said(ngrok)}")
    except NoTunnel as error:
        sys.exit(str(error))
    finally:
        ngrok.process.terminate()
        ngrok.process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
