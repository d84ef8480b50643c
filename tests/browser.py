"""A real Chromium for the tests. Run as a program it installs one, where that can be done without asking."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Nothing a test needs, and nothing that talks to anybody by itself.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


MISSING = "no Chromium found: `apt-get install chromium` (or put a Chrome on the PATH)"


def find() -> str | None:
    """The path of the browser, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def install() -> None:
    if find():
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        # Only the browser tests need it; each of them fails with the same line.
        sys.stderr.write(f"{MISSING}\n")
        return
    sys.stderr.write("Installing Chromium for the browser tests (once) ...\n")
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", "chromium"]):
        subprocess.run(["apt-get", *command], check=False, stdout=subprocess.DEVNULL, env=environ)


if __name__ == "__main__":
    install()
