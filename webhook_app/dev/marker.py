"""`instance/run.json`: what `make run` runs with, for `flask …` in a second terminal; true while the file is locked."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO

from webhook_app.dev.environment import DEV_ENV, with_made_up
from webhook_app.settings import MADE_UP

MARKER = DEV_ENV.with_name("run.json")
#: Set in the processes that `make run` starts: they have their settings from it, and need no marker.
STARTED_BY_RUN = "MAKE_RUN"
_LOCK_WITHIN = 1.0  # seconds; whoever looks at the marker holds its lock for a moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A `make run` that lives."""

    #: Its port, and the sandbox where there is one.
    settings: Mapping[str, str]
    #: Variables that were set in its terminal. Their values stand on no disk.
    given: tuple[str, ...]

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What a command needs in order to mean this one: its port and sandbox, and the made-up secrets."""
        only_there = {name for name in self.given if name not in environ}
        made_up = {name: value for name, value in with_made_up(environ).items() if name not in only_there}
        return made_up | dict(self.settings)

    def describe(self, environ: Mapping[str, str]) -> str:
        """One line for the person at this terminal."""
        parts = [f"port {self.settings['PORT']}"]
        if sandbox := self.settings.get("EVENTS_API_URL"):
            parts.append(f"the sandbox {sandbox}")
        if self.environment(environ)[MADE_UP]:
            parts.append(f"the secrets of {DEV_ENV}")
        only_there = [name for name in self.given if name not in environ]
        hint = f"; set there, and not here: {', '.join(only_there)}" if only_there else ""
        return f"With the `make run` of this folder: {', '.join(parts)}{hint}"


def hold(settings: Mapping[str, str], given: Iterable[str]) -> IO[str] | None:
    """Write the marker; it holds for as long as the file is open. None where another `make run` has it."""
    MARKER.parent.mkdir(mode=0o700, exist_ok=True)
    file = os.fdopen(os.open(MARKER, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    deadline = time.monotonic() + _LOCK_WITHIN
    while not _lock(file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            file.close()
            return None
        time.sleep(0.05)
    file.truncate()
    json.dump({"settings": dict(settings), "given": sorted(given)}, file)
    file.flush()
    return file


def find() -> Running | None:
    """The `make run` that lives in this folder."""
    try:
        with MARKER.open() as file:
            if _lock(file, fcntl.LOCK_SH):
                return None  # nobody holds it: left over from one that has ended
            written = json.load(file)
        return Running(settings=written["settings"], given=tuple(written["given"]))
    except (OSError, ValueError, KeyError):
        return None


def _lock(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
