"""How gunicorn serves the app. gunicorn itself reads PORT and WEB_CONCURRENCY."""

import gc
import os
import socket
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from webhook_app.outbox import OutboxUnavailable, open_database, schema
from webhook_app.settings import ConfigurationError, settings_of_process

try:
    _settings = settings_of_process()
except ConfigurationError as error:
    sys.exit(f"Cannot start, please mend:\n{error}")

wsgi_app = "webhook_app:create_app()"
worker_class = "webhook_app.web_worker.Worker"  # gthread with a slowloris guard
logger_class = "webhook_app.ops.gunicorn_logger.Logger"  # JSON, and never an access log
# As many webhooks share a commit, and while it waits for the disk the others are read.
threads = 32
# Loaded once before the fork: a mistake in the settings is told once, and the workers share the memory.
preload_app = True
timeout = 30  # seconds
# Heroku kills 30 s after SIGTERM.
graceful_timeout = 20  # seconds
# Longer than a router keeps an idle connection (Heroku's: 90 s): should both close it at once, a webhook on its way
# would get 503 from the router.
keepalive = 95  # seconds
# What proxies say of scheme, caller and place changes nothing here: no URL is built of it, and two that contradict each
# other would cost the webhook a 400. The buildpack's FORWARDED_ALLOW_IPS=* would let anybody set SCRIPT_NAME.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
header_map = "drop"
if not os.environ.get("PORT", "").strip():
    # Also where it is blank: gunicorn itself would take that for the name of a socket.
    bind = f"127.0.0.1:{_settings.port}"
elif socket.has_dualstack_ipv6():
    # IPv6 and IPv4 on one socket; gunicorn's own default is IPv4 alone.
    bind = f"[::]:{_settings.port}"
# It would open a socket in the home directory that nobody asked for.
control_socket_disable = True


def pre_fork(server: object, worker: object) -> None:
    """The collector writes into everything it looks at, and what is written to is no longer shared with the master."""
    gc.collect()
    gc.freeze()


_until_exit = ExitStack()
#: Whichever web process holds the lock on it tells the alerts. Made in the master, anew at each reload.
_alerts_lock, _path = tempfile.mkstemp()
Path(_path).unlink()


def post_worker_init(worker: Any) -> None:
    """Alerts must be told also while no `flask forward` lives to tell them."""
    settings = worker.wsgi.extensions.get("settings")
    # None: the benchmarks serve other apps in the same way.
    if not (settings and settings.alert_urls):
        return
    # Only now: a web process has no use for what the commands share.
    from webhook_app.cli.alerting import alerting, is_first

    with worker.wsgi.app_context():
        _until_exit.enter_context(alerting(is_our_turn=partial(is_first, _alerts_lock)))


def worker_exit(server: object, worker: object) -> None:
    """Look no more."""
    _until_exit.close()


def on_starting(server: object) -> None:
    """Prepare what the workers share. SQLite needs no set-up: make and migrate it while no worker can race for it."""
    url = _settings.database_url
    if not url.startswith("sqlite"):
        return
    database = open_database(url)
    try:
        schema.upgrade(database)
    except OutboxUnavailable as error:
        if why := database.setup_problem():
            sys.exit(f"Cannot start: {why}")
        # Locked, or the disk is full: that ends, and until then webhooks get 503 and /readyz says why.
        structlog.get_logger().error("database_not_upgraded", reason=str(error))
    finally:
        database.close()
