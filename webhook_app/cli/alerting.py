"""Who tells people at `ALERT_URLS`: the worker, and of the web processes one, or nobody would tell of a dead worker."""

import fcntl
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import structlog
from flask import current_app

from webhook_app.cli import shared
from webhook_app.ops import alerts
from webhook_app.ops.status import findings
from webhook_app.outbox.alerts import Alerts

log = structlog.get_logger()


def alerting(
    *, check_urls: bool = False, is_our_turn: Callable[[], bool] = lambda: True
) -> AbstractContextManager[None]:
    """Tell people at `ALERT_URLS` what goes wrong, for as long as the block lasts; needs an app context to begin."""
    settings, database = shared.settings(), shared.database()
    if not settings.alert_urls:
        return nullcontext()
    send = partial(alerts.send, settings.alert_urls, settings.egress, withheld=shared.secret_variables())
    if check_urls:
        _check_urls(send)
    open_esps, sections = shared.open_esps(), current_app.extensions["sections"]
    return alerts.watching(
        Alerts(database),
        lambda: findings(database, open_esps=open_esps, sections=sections),
        alerts.Notifier(send, places=len(settings.alert_urls), name=alerts.name_of(settings.public_url)),
        is_our_turn=is_our_turn,
    )


def is_first(file: int) -> bool:
    """Whether this process holds the lock on an open file, or gets it now. Its end gives it back.

    Several processes may have inherited the same open file: such a lock belongs to a process.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _check_urls(send: Callable[[None], list[int]]) -> None:
    try:
        if unknown := send(None):
            places = ", ".join(map(str, unknown))
            log.error("alert_urls_unknown", places=places, cure="write them as Apprise wants it")
    except alerts.CannotSend as error:
        log.error("alerts_cannot_be_sent", reason=str(error))
