"""`make run`: web, worker and sandbox on this machine, with made-up secrets where none are given."""

import base64
import multiprocessing
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from dotenv import dotenv_values
from honcho.environ import parse_procfile
from honcho.manager import Manager
from honcho.process import Process

from webhook_app.dev.simulation import SENDGRID_DEV_KEY
from webhook_app.providers import Provider, registry
from webhook_app.settings import ConfigurationError, Settings, is_loopback

DEV_ENV = Path("instance/dev.env")
SANDBOX_PORT = 8010


def main() -> None:
    environ = environment()
    made_up = _make_up(environ)
    with_sandbox = "EVENTS_API_URL" not in environ
    if with_sandbox:
        port = _free_port(SANDBOX_PORT)
        environ |= {"EVENTS_API_URL": f"http://127.0.0.1:{port}"}
    if is_loopback(urlsplit(environ["EVENTS_API_URL"]).hostname or ""):
        environ.setdefault("EVENTS_API_KEY", "development")
    try:
        settings = Settings.from_environment(environ)
        providers = registry.build(settings, environ)
    except ConfigurationError as error:
        sys.exit(f"Cannot start, please mend:\n{error}")
    if not settings.events_api_key:
        sys.exit("Cannot start: EVENTS_API_KEY is not set, and EVENTS_API_URL is not on this machine")
    if not _is_free(settings.port):
        sys.exit(f"Cannot start: PORT {settings.port} is in use; try PORT={_free_port(settings.port + 1)} make run")

    processes = parse_procfile(Path("Procfile").read_text()).processes
    if subprocess.run(processes.pop("release"), shell=True, env=environ).returncode:  # noqa: S602 (our own Procfile)
        sys.exit("Cannot start: the release command of the Procfile failed")
    if with_sandbox:
        processes["sandbox"] = f"flask sandbox --port {port}"
    _say(settings, providers.values(), made_up, with_sandbox=with_sandbox)
    manager = _RestartingManager()
    for name, command in processes.items():
        # exec: no shell stands between, so what honcho sees ending is the process itself.
        manager.add_process(name, f"exec {command}", env=environ)
    manager.loop()
    sys.exit(manager.returncode)


def environment() -> dict[str, str]:
    """The environment, then `.env`, then what was made up before; an earlier one wins, an empty value is none."""
    environ: dict[str, str] = {}
    for source in (os.environ, dotenv_values(".env"), dotenv_values(DEV_ENV)):
        given = {name: value for name, value in source.items() if value}
        if "SENDGRID_VERIFICATION_KEYS" in environ:
            given.pop(SENDGRID_DEV_KEY, None)  # it is the other half of another key
        environ = given | environ
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', '')}"
    environ["PYTHONUNBUFFERED"] = "1"
    environ.setdefault("PORT", "8000")
    return environ


def _make_up(environ: dict[str, str]) -> list[str]:
    """Add what is missing for development to `environ` and to `instance/dev.env`; the names of what was made."""
    made: dict[str, str] = {}
    if "SENDGRID_VERIFICATION_KEYS" not in environ:
        made |= _sendgrid_key_pair()
    if not any(name.startswith("EMARSYS_") for name in environ):
        made["EMARSYS_TOKENS"] = secrets.token_urlsafe(24)
    if "CONSOLE_PASSWORD" not in environ:
        made["CONSOLE_PASSWORD"] = secrets.token_urlsafe(12)
    if "SECRET_KEY" not in environ:
        made["SECRET_KEY"] = secrets.token_urlsafe(32)
    if made:
        DEV_ENV.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(DEV_ENV, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
            file.writelines(f"{name}={value}\n" for name, value in made.items())
        environ |= made
    return list(made)


def _sendgrid_key_pair() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return {
        "SENDGRID_VERIFICATION_KEYS": base64.b64encode(public).decode(),
        SENDGRID_DEV_KEY: base64.b64encode(private).decode(),
    }


def _say(settings: Settings, providers: Iterable[Provider], made_up: list[str], *, with_sandbox: bool) -> None:
    url = f"http://localhost:{settings.port}"
    open_ones = [provider for provider in providers if provider.scheme]
    elsewhere = "" if settings.port == 8000 else f" --url {url}"
    lines = [(provider.title, f"{url}/webhooks/{provider.name}") for provider in open_ones]
    lines += [
        ("forwards to", settings.events_api_base + (" (the sandbox)" if with_sandbox else "")),
        ("console", f"{url}/console/ (password: CONSOLE_PASSWORD in your environment or {DEV_ENV})"),
        ("try it", f".venv/bin/flask simulate sendgrid{elsewhere}"),
    ]
    if made_up:
        lines.append(("made up", f"{', '.join(made_up)}: for development only, kept in {DEV_ENV}"))
    print("", *(f"  {name:<12} {text}" for name, text in lines), "", sep="\n", flush=True)  # noqa: T201


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port(first: int) -> int:
    return next(port for port in range(first, first + 100) if _is_free(port))


class _RestartedProcess(Process):  # type: ignore[misc] # honcho has no types
    """A process that is started again when somebody killed it, as Heroku would; not when it ended by itself."""

    ending: Any = None
    killed = False

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        super().run(events, ignore_signals)
        while self.killed:
            self.killed = False
            # honcho ignores both while a child runs; the next child must not inherit that.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            super().run(events, ignore_signals)

    def _send_message(self, data: Any, type: str = "line") -> None:  # noqa: A002 (honcho's name)
        if type == "stop" and data["returncode"] < 0 and not self.ending.is_set():
            self.killed = True
            data, type = f"killed by signal {-data['returncode']}, starting it again\n".encode(), "line"  # noqa: A001
        super()._send_message(data, type)


class _RestartingManager(Manager):  # type: ignore[misc] # honcho has no types
    def __init__(self) -> None:
        super().__init__()
        self._ending = multiprocessing.Event()
        self._process_ctor = self._process

    def _process(self, *args: Any, **kwargs: Any) -> Process:
        process = _RestartedProcess(*args, **kwargs)
        process.ending = self._ending
        return process

    def terminate(self) -> None:
        self._ending.set()
        super().terminate()


if __name__ == "__main__":
    main()
