"""Debian packages for the tests, of programs that pip has not: where they can be had without asking."""

import os
import shutil
import subprocess
import sys


def install(package: str, *, missing: str) -> None:
    """Install a package as root; elsewhere say what is `missing`. Only the tests that need it fail then."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.stderr.write(f"{missing}\n")
        return
    sys.stderr.write(f"Installing {package} for the tests (once) ...\n")
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", package]):
        subprocess.run(["apt-get", *command], check=False, stdout=subprocess.DEVNULL, env=environ)
