"""Real processes: the product as `make run` and Heroku start it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0  # seconds


def wait_until(holds: Callable[[], object], what: str, *, within: float = PATIENCE) -> None:
    """Return as soon as `holds()` is true; fail with `what` when it is not in time."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def checkout(directory: Path, *, make: bool = False) -> Path:
    """The product in a folder of its own, so that its `instance/` is nobody else's."""
    if make:
        directory.mkdir()
    for name in ("webhook_app", "Procfile", "gunicorn.conf.py", ".flaskenv"):
        (directory / name).symlink_to(ROOT / name)
    return directory


def environment(**more: str) -> dict[str, str]:
    """A bare environment: nothing of the tester's own settings reaches the product."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"} | more


@dataclass
class Program:
    """A process and everything it has started, with what it printed."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.output() or self.process.poll() is not None, f"{text!r} in {self.log}")
        assert text in self.output(), self.output()

    def descendants(self, command: str) -> list[int]:
        """Process ids below this one whose command line holds `command`."""
        return [pid for pid in family(self.process.pid) if command in _command_line(pid)]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """The exit status. What is left of the family after 30 s is killed."""
        everyone = [self.process.pid, *family(self.process.pid)]
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=30)
        finally:
            for pid in everyone:
                if _command_line(pid):
                    kill(pid)


@contextmanager
def running(command: list[str], *, cwd: Path, env: dict[str, str], log: str = "log") -> Iterator[Program]:
    path = cwd / log
    with path.open("ab") as output:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=output)
    program = Program(process, path)
    try:
        yield program
    finally:
        program.stop()


def wait_for_http(url: str, *, status: int = 200) -> None:
    def answers() -> bool:
        try:
            return requests.get(url, timeout=2).status_code == status
        except requests.RequestException:
            return False

    wait_until(answers, f"{url} answers {status}")


def find(program: str) -> str:
    """The full path of a program of our environment."""
    found = shutil.which(program, path=environment()["PATH"])
    assert found, f"{program} is not installed: run make test"
    return found


def family(pid: int) -> list[int]:
    """The process ids of all that a process has started, and they in turn."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        found += map(int, children)
        waiting += map(int, children)
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
