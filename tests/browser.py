"""A real Chromium for the tests. Run as a program it installs one, where that can be done without asking."""

import shutil

from tests import debian

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
    if not find():
        debian.install("chromium", missing=MISSING)


if __name__ == "__main__":
    install()
