"""gunicorn's logger: JSON lines like all others, and no access log, whatever the command line asks for.

Heroku's buildpack exports `GUNICORN_CMD_ARGS="--access-logfile -"`, which beats `gunicorn.conf.py`. An access log
quotes the URL, and a URL may hold the secret that opens a webhook.
"""

import logging
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger

from webhook_app.ops import logs


class Logger(GunicornLogger):  # type: ignore[misc] # gunicorn has no types
    """For gunicorn's setting `logger_class`."""

    def setup(self, cfg: Any) -> None:
        """Instead of handlers of its own: those of all of us. Called again when the configuration is read again."""
        logs.configure()
        # Not below INFO: at DEBUG gunicorn quotes the URL of each request.
        self.error_log.setLevel(max(logging.INFO, self.LOG_LEVELS.get(cfg.loglevel.lower(), logging.INFO)))
        self.error_log.handlers = []
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Nothing: the receiver writes a line for each request itself, with the route's pattern instead of the URL."""

    def reopen_files(self) -> None:
        """Nothing to open: standard output is where the lines go."""
