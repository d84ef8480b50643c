"""Send one alert through Apprise, in a process of its own: `python -m webhook_app.ops.send_alert`.

Apprise loads a hundred kinds of receivers and may wait long for any of them; the worker shall have neither the memory
nor the wait. What to send comes as JSON on standard input, since the addresses hold tokens and every user of a machine
can read a command line.
"""

import json
import sys

import apprise


def main() -> None:
    """Print the places in `ALERT_URLS`, from 1, that took it; without a title, of those that Apprise knows.

    Each at once, for the parent may lose its patience. An exit status other than 0 says that this itself failed.
    """
    asked = json.load(sys.stdin)
    for place, url in enumerate(asked["urls"], start=1):
        if _works(url, asked):
            print(place, flush=True)  # noqa: T201 (the answer to the parent process)


def _works(url: str, asked: dict[str, str]) -> bool:
    receiver = apprise.Apprise()
    if not receiver.add(url):
        return False
    return "title" not in asked or bool(receiver.notify(title=asked["title"], body=asked["body"]))


if __name__ == "__main__":
    main()
