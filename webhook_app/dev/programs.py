"""Process supervision: several programs as one, their lines side by side, and one end for all, however it comes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from types import FrameType, TracebackType
from typing import IO

GRACE = 5.0  # seconds from SIGTERM to SIGKILL
POLL = 0.05  # seconds
ONE_STROKE = 1.0  # seconds
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
COLOURS = (36, 33, 35, 32)  # cyan, yellow, magenta, green


class Programs:
    """Starts each program in a process group of its own, and ends all groups on leaving, whatever the reason.

    A guard does the same where this process is killed: a child that sees the pipe between the two close.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: list[threading.Thread] = []
        self._output = threading.Lock()
        self._parent = os.getppid()
        self._signals = 0
        self._guard = 0
        self._orders: IO[bytes] | None = None

    def __enter__(self) -> "Programs":
        for number in STOP_SIGNALS:
            # What was ignored when we came, as `nohup` has it, stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._count_signal)
        self._start_guard()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        groups = [process.pid for process in self._processes.values()]
        began = time.monotonic()
        # One keystroke may come as two signals, from the terminal and from `make`; a second one later means: now.
        _end(groups, reap=self._reap, in_a_hurry=lambda: self._signals > 1 and time.monotonic() - began > ONE_STROKE)
        for reader in self._readers:
            reader.join(timeout=1)
        if self._orders:
            self._orders.close()
            os.waitpid(self._guard, 0)

    def start(self, name: str, command: str) -> subprocess.Popen[bytes]:
        # exec: no shell stands between, so what is seen ending is the program itself.
        process = subprocess.Popen(  # noqa: S602 (our own Procfile)
            f"exec {command}",
            shell=True,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._order(f"+{process.pid}")
        self._processes[name] = process
        reader = threading.Thread(target=self._copy_lines, args=(name, process.stdout), daemon=True)
        reader.start()
        self._readers.append(reader)
        return process

    def run(self, name: str, command: str) -> int | None:
        """Run a program to its end; its exit status, None where everything is to end instead."""
        process = self.start(name, command)
        while process.poll() is None:
            if self.is_stopped():
                return None
            time.sleep(POLL)
        del self._processes[name]
        self._order(f"-{process.pid}")
        return process.returncode

    def is_stopped(self) -> bool:
        """Whether a signal has come, or whoever started us, like `make`, has gone."""
        return self._signals > 0 or os.getppid() != self._parent

    def ended(self) -> tuple[str, int] | None:
        """The name and the exit status of a program that has ended by itself."""
        for name, process in self._processes.items():
            if (status := process.poll()) is not None:
                return name, status
        return None

    def _count_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _reap(self) -> None:
        for process in self._processes.values():
            process.poll()

    def _copy_lines(self, name: str, lines: Iterable[bytes]) -> None:
        colour = COLOURS[len(self._processes) % len(COLOURS)]
        mark = f"{name:<8}| "
        if "FORCE_COLOR" in self._environ:
            mark = f"\033[{colour}m{mark}\033[0m"
        for line in lines:
            # Where nobody reads any more the lines are lost; the programs must not block.
            with self._output, suppress(OSError):
                sys.stdout.buffer.write(mark.encode() + line)
                sys.stdout.buffer.flush()

    def _order(self, text: str) -> None:
        if self._orders:
            with suppress(OSError):  # the guard was killed
                self._orders.write(f"{text}\n".encode())
                self._orders.flush()

    def _start_guard(self) -> None:
        reading, writing = os.pipe()
        self._guard = os.fork()
        if self._guard == 0:
            os.close(writing)
            _guard(reading)
            os._exit(0)
        os.close(reading)
        self._orders = os.fdopen(writing, "wb")


def _guard(orders: int) -> None:
    """Learn which groups there are, until the other end of the pipe is gone; then end those that are left."""
    os.setsid()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    groups: set[int] = set()
    with os.fdopen(orders) as lines:
        for line in lines:
            (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    _end(groups)


def _end(
    groups: Collection[int], *, reap: Callable[[], None] = lambda: None, in_a_hurry: Callable[[], bool] = lambda: False
) -> None:
    """SIGTERM to every process of these groups; SIGKILL to who is left after `GRACE`, or at once in a hurry."""
    for group in groups:
        _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and not in_a_hurry():
        reap()
        if not any(_signal(group, 0) for group in groups):
            return
        time.sleep(POLL)
    for group in groups:
        _signal(group, signal.SIGKILL)
    reap()


def _signal(group: int, number: int) -> bool:
    """Whether there is anybody of this group."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
