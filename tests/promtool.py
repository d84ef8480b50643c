"""Prometheus' own checker for the tests. Run as a program it installs one, where that can be done."""

import shutil
import subprocess

import pytest

from tests import debian

MISSING = "no promtool found: `apt-get install prometheus`"


def install() -> None:
    if not shutil.which("promtool"):
        debian.install("prometheus", missing=MISSING)


def check(*arguments: object) -> None:
    """Run it, and fail with what it says where it finds a mistake."""
    program = shutil.which("promtool")
    if program is None:
        pytest.fail(MISSING, pytrace=False)
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    install()
