"""How long it takes to find something among many rows: what a worker claims, what a person at the console looks for."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

import requests

from webhook_app.outbox import Queue, open_database

CLAIMED = 100
CONSOLE_PASSWORD = "a benchmark's password"  # noqa: S105 (of a database that lives for minutes)


def claims(database_url: str, count: int) -> list[float]:
    """Milliseconds for each of so many claims of a hundred people; they are handed back."""
    database = open_database(database_url)
    queue = Queue(database)
    found = []
    for _ in range(count):
        began = time.perf_counter()
        claimed = queue.claim(CLAIMED)
        found.append((time.perf_counter() - began) * 1000)
        if len(claimed) < CLAIMED:
            raise LookupError("too few wait")
        queue.release(claimed)
    database.close()
    return found


@dataclass(slots=True)
class Console:
    """Somebody who is logged in."""

    port: int
    session: requests.Session

    def search(self, people: Iterable[str]) -> list[float]:
        """Milliseconds for each of these people to be looked up, up to the page about them."""
        token = self._token("/")
        return [self._timed("POST", "/people", {"csrf": token, "person": person}) for person in people]

    def report(self, count: int) -> list[float]:
        """Milliseconds for each of so many looks at the report."""
        return [self._timed("GET", "/report") for _ in range(count)]

    def log_in(self) -> None:
        form = {"password": CONSOLE_PASSWORD, "csrf": self._token("/login")}
        self._ask("POST", "/login", form)

    def _timed(self, method: str, path: str, form: dict[str, str] | None = None) -> float:
        began = time.perf_counter()
        self._ask(method, path, form)
        return (time.perf_counter() - began) * 1000

    def _ask(self, method: str, path: str, form: dict[str, str] | None = None) -> str:
        url = f"http://127.0.0.1:{self.port}/console{path}"
        answer = self.session.request(method, url, data=form, timeout=60)
        answer.raise_for_status()
        return answer.text

    def _token(self, page: str) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self._ask("GET", page))
        if not found:
            raise LookupError(f"no form on {page}")
        return found[1]


def console(port: int) -> Console:
    session = requests.Session()
    session.trust_env = False
    person = Console(port, session)
    person.log_in()
    return person
