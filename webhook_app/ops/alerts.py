"""Alerts: when something begins to be wrong, or is well again, people hear of it. No alert holds anybody's address.

What was told stands in the database (`outbox.alerts`): of several workers one tells it, and a worker that starts anew
does not tell it again.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from webhook_app.egress import Egress
from webhook_app.ops.status import DATABASE, Finding
from webhook_app.outbox import OutboxUnavailable
from webhook_app.outbox.alerts import LOOK_EVERY, RETRY_AFTER, WELL_FOR, Alert, Alerts

SEND_TIMEOUT = 60.0  # seconds for all addresses together
#: How long something must last before it is told; all else is told at once. A deployment stops the worker for a while.
NOTIFY_AFTER = {"no_worker": 120.0, DATABASE.slug: 120.0}  # seconds

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    title: str
    body: str


def name_of(public_url: str) -> str:
    """What tells this receiver from others, in a title."""
    return urlsplit(public_url).hostname or "ESP webhooks"


def message(rows: Sequence[Alert], *, all_well: bool, name: str) -> Message:
    """What people read; `name` tells this receiver from others."""
    wrong = [row.text for row in rows if not row.well]
    well = [row.text for row in rows if row.well]
    if wrong:
        title = f"{name}: {len(wrong)} thing{'s are' if len(wrong) > 1 else ' is'} wrong"
    else:
        title = f"{name}: all is well again" if all_well else f"{name}: better, not all is well yet"
    lines = [f"✕ {text}" for text in wrong] + [f"✓ over: {text}" for text in well]
    return Message(title=title, body="\n".join(lines))


class CannotSend(Exception):
    """The process that sends alerts could not do its task; the addresses need not be wrong."""


def send(urls: Sequence[str], egress: Egress, what: Message | None, *, withheld: Collection[str]) -> list[int]:
    """Send a message, or with None ask whether every address can be used; the places of those that failed, from 1.

    Takes `SEND_TIMEOUT` seconds at most; whoever had not taken it by then has failed. The
    process is not told the variables `withheld`, which hold secrets. Raises `CannotSend`.
    """
    asked = {"urls": list(urls)} | ({"title": what.title, "body": what.body} if what else {})
    command = [sys.executable, "-m", "webhook_app.ops.send_alert"]
    try:
        ended = subprocess.run(  # noqa: S603 (ourselves)
            command,
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            # Whatever goes wrong in there may be told with an address, and so with its token.
            stderr=subprocess.DEVNULL,
            env=_environment(egress, withheld),
            timeout=SEND_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        took = error.stdout or b""
    except OSError as error:
        raise CannotSend(f"the process that sends alerts does not start: {error.strerror}") from None
    else:
        took = ended.stdout
        if ended.returncode:
            log.error("alert_process_failed", exit_status=ended.returncode)
            if not took:
                raise CannotSend(f"the process that sends alerts ended with status {ended.returncode}")
    return [place for place in range(1, len(urls) + 1) if str(place).encode() not in took.split()]


#: What other programs are told of proxies and authorities; a name that ends in `_proxy` is another.
OTHERS_EGRESS = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"}


def _environment(egress: Egress, withheld: Collection[str]) -> Mapping[str, str]:
    """Ours without secrets: Python itself may need any of it (on Heroku `LD_LIBRARY_PATH` and `PYTHONHOME`).

    Apprise sends with `requests`, which takes proxy, authorities and `.netrc` from the environment.
    """
    left_out = {*withheld, *OTHERS_EGRESS}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.lower().endswith("_proxy")
    }
    proxies = {"HTTP_PROXY": egress.proxy, "HTTPS_PROXY": egress.proxy} if egress.proxy else {}
    authorities = {"REQUESTS_CA_BUNDLE": egress.ca_file} if egress.ca_file else {}
    return kept | {"NETRC": os.devnull} | proxies | authorities


class Notifier:
    """Sends alerts to so many `places`; `name` tells this receiver from others."""

    def __init__(self, send: Callable[[Message], list[int]], *, places: int, name: str) -> None:
        self._send, self._places, self._name = send, places, name

    def notify(self, rows: Sequence[Alert], *, all_well: bool) -> bool:
        """Whether somebody knows now."""
        slugs = [row.slug for row in rows]
        try:
            failed = self._send(message(rows, all_well=all_well, name=self._name))
        except CannotSend as error:
            log.error("alert_not_sent", reason=str(error), alerts=slugs)
            return False
        if failed:
            log.error("alert_not_sent", places_in_alert_urls=", ".join(map(str, failed)), alerts=slugs)
        # To tell it again for the sake of one place would tell all the others again, too.
        if len(failed) == self._places:
            return False
        log.info("alert_sent", alerts=slugs)
        return True


class DatabaseOutage:
    """Tells from memory that the database cannot be used: what else was told stands in that very database.

    Several processes cannot agree on who tells it, so each does.
    """

    def __init__(self, notifier: Notifier, alerts: Alerts, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._notifier, self._alerts, self._clock = notifier, alerts, clock
        self._away = self._notified = False
        self._due = 0.0

    def note(self, *, away: bool) -> None:
        """What a look has found. Raises `OutboxUnavailable`."""
        now = self._clock()
        if away is not self._away:
            self._away, self._due = away, now + (NOTIFY_AFTER[DATABASE.slug] if away else WELL_FOR)
        if away is self._notified or now < self._due:
            return
        self._due = now + RETRY_AFTER
        row = Alert(slug=DATABASE.slug, text=DATABASE.text(), well=not away)
        if self._notifier.notify([row], all_well=not away and self._alerts.all_well()):
            self._notified = away


@contextmanager
def watching(
    alerts: Alerts,
    look: Callable[[], Sequence[Finding]],
    notifier: Notifier,
    *,
    is_our_turn: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """Look every `LOOK_EVERY` seconds in a thread of its own, for as long as the block lasts, when it is our turn."""
    stop = threading.Event()
    outage = DatabaseOutage(notifier, alerts)

    def keep_watching() -> None:
        while not stop.wait(LOOK_EVERY):
            try:
                if is_our_turn():
                    look_once(alerts, look, notifier, outage)
            except Exception:
                # It goes on: whatever it stumbled over, the next thing that breaks must be told.
                log.exception("alerts_failed")

    thread = threading.Thread(target=keep_watching, name="alerts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


def look_once(
    alerts: Alerts, look: Callable[[], Sequence[Finding]], notifier: Notifier, outage: DatabaseOutage
) -> None:
    """One look, and what there is to tell."""
    try:
        alerts.record({one.slug: one.text() for one in look()}, notify_after=NOTIFY_AFTER)
        rows = alerts.due()
        if rows and notifier.notify(rows, all_well=alerts.all_well()):
            alerts.mark_sent(rows)
        outage.note(away=False)
    except OutboxUnavailable as error:
        log.warning("alerts_not_looked_at", reason=str(error))
        outage.note(away=True)
