"""Send one alert through Apprise, in a process of its own: `python -m webhook_app.ops.send_alert`.

Apprise loads a hundred kinds of receivers and may wait long for any of them; the worker shall have neither the memory
nor the wait. What to send comes as JSON on standard input, since the addresses hold tokens and every user of a machine
can read a command line.
"""

import json
import sys

import apprise


def main() -> int:
    """0 when every address took it; without a title, when every address is one that Apprise knows.

    Prints the places in `ALERT_URLS`, from 1, of those that did: each at once, for the parent may lose its patience.
    """
    asked = json.load(sys.stdin)
    works = []
    for place, url in enumerate(asked["urls"], start=1):
        works.append(_works(url, asked))
        if works[-1]:
            print(place, flush=True)  # noqa: T201 (the answer to the parent process)
    return 0 if all(works) else 1


def _works(url: str, asked: dict[str, str]) -> bool:
    receiver = apprise.Apprise()
    if not receiver.add(url):
        return False
    return "title" not in asked or bool(receiver.notify(title=asked["title"], body=asked["body"]))


if __name__ == "__main__":
    sys.exit(main())
