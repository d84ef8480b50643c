"""`make run`: web, worker and sandbox on this machine, with made-up secrets where none are given."""

import http.client
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from webhook_app.delivery.sections import DEFAULT_FILE as SECTIONS_FILE
from webhook_app.delivery.sections import Section, build_sections
from webhook_app.dev import marker
from webhook_app.dev.environment import DEV_ENV, environment, make_up
from webhook_app.dev.programs import POLL, Programs
from webhook_app.providers import Provider, registry
from webhook_app.providers.registry import Closed
from webhook_app.setting_fields import is_loopback
from webhook_app.settings import ConfigurationError, Settings, near_misses, variables

SANDBOX_PORT = 8010


def main() -> None:
    environ = environment()
    made_up = make_up(environ)
    sandbox = _sandbox(environ)
    environ |= sandbox
    if is_loopback(urlsplit(environ.get("EVENTS_API_URL", "")).hostname or ""):
        environ.setdefault("EVENTS_API_KEY", "development")
    try:
        settings = Settings.from_environment(environ)
        providers = registry.build_providers(settings, environ)
        sections = build_sections(settings, environ)
    except ConfigurationError as error:
        sys.exit(f"Cannot start, please mend:\n{error}")
    if not all(section.api_key for section in sections.values()):
        sys.exit("Cannot start: EVENTS_API_KEY is not set, and EVENTS_API_URL is not on this machine")
    if not _is_free(settings.port):
        sys.exit(f"Cannot start: PORT {settings.port} is in use; try PORT={_free_port(settings.port + 1)} make run")
    environ |= {marker.STARTED_BY_RUN: "yes", "LOG_FORMAT": environ.get("LOG_FORMAT", "text")}
    # What is meant is in there already; by itself `flask` would read the `.env` of any folder above.
    environ |= {"FLASK_SKIP_DOTENV": "1", "FLASK_APP": "webhook_app"}
    if sys.stdout.isatty() and "NO_COLOR" not in environ:
        environ["FORCE_COLOR"] = "1"
    mistyped = near_misses(environ, registry.variables(providers.entries.values()))
    lines = [
        *_esps_and_sections(settings, providers.entries.values(), sections.values(), with_sandbox=bool(sandbox)),
        ("console", f"http://localhost:{settings.port}/console/ (CONSOLE_PASSWORD in your environment or {DEV_ENV})"),
        ("try it", "flask simulate sendgrid, in a second terminal (after . .venv/bin/activate)"),
        *([("made up", f"{', '.join(made_up)}: for development only, kept in {DEV_ENV}")] if made_up else []),
        *(("unknown", f"{given}: did you mean {ours}?") for given, ours in mistyped.items()),
    ]
    sys.exit(_run(environ, settings.port, sandbox, [f"  {name:<12} {text}" for name, text in lines]))


def procfile(path: Path = Path("Procfile")) -> dict[str, str]:
    """Name → command of each process."""
    lines = (line.partition(":") for line in path.read_text("utf-8").splitlines() if line.strip())
    return {name.strip(): command.strip() for name, _, command in lines}


def _sandbox(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the sandbox will be; nothing where there shall be none, as somebody has named the real destination."""
    if environ.keys() & {"EVENTS_API_URL", "EVENTS_API_KEY", "SECTIONS_FILE"} or SECTIONS_FILE.exists():
        return {}
    return {"EVENTS_API_URL": f"http://127.0.0.1:{_free_port(SANDBOX_PORT)}", "EVENTS_API_KEY": "development"}


def _run(environ: Mapping[str, str], port: int, sandbox: Mapping[str, str], banner: list[str]) -> str | int:
    """What to exit with: a status, or why."""
    commands = procfile()
    if sandbox:
        commands["sandbox"] = f"flask sandbox --port {urlsplit(sandbox['EVENTS_API_URL']).port}"
    given = [name for name in variables() if os.environ.get(name) and name != "PORT"]
    with Programs(environ) as programs:
        if status := programs.run("release", commands.pop("release")):
            return f"Cannot start: the release command of the Procfile ended with status {status}"
        held = marker.hold({"PORT": str(port), **sandbox}, given)
        if held is None:
            banner.append("  another `make run` lives in this folder: `flask …` in a second terminal means that one")
        for name, command in commands.items():
            if not programs.is_stopped():
                programs.start(name, command)
        while not programs.is_stopped():
            if ended := programs.ended():
                return f"{ended[0]} has ended (status {ended[1]}), and so do the others"
            # Last, so that it is what one sees, and true.
            if banner and _answers(port):
                print("", *banner, "", sep="\n", flush=True)  # noqa: T201 (said to the person who typed make run)
                banner = []
            time.sleep(POLL)
    return 0


def _esps_and_sections(
    settings: Settings, providers: Iterable[Provider | Closed], sections: Iterable[Section], *, with_sandbox: bool
) -> Iterator[tuple[str, str]]:
    for provider in providers:
        if provider.scheme:
            yield provider.title, f"http://localhost:{settings.port}/webhooks/{provider.name}"
    for section in sections:
        what = "the real Dynamic Yield: real people!"
        if is_loopback(urlsplit(section.base).hostname or ""):
            what = "the sandbox" if with_sandbox else "on this machine"
        yield "forwards to", f"{section.base} ({what})"


def _answers(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


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


if __name__ == "__main__":
    main()
