"""One JSON object a line on standard output: an event name and fields. No address, token or key is ever one of them."""

import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO

import orjson
import structlog


class _Output:
    """Writes each line with one call to the system, which keeps the lines of other threads and processes apart.

    Where structlog holds a lock meanwhile, the threads of a busy web process queue up behind it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._write = getattr(file, "raw", file).write

    def msg(self, line: bytes) -> None:
        # A line that is not taken is lost: the disk is full, or whoever read the lines has gone. Raising instead
        # would turn the answer to a stored webhook into a 500, and end the worker.
        with suppress(OSError):
            self._write(line + b"\n")


class _Logger(structlog.BoundLoggerBase):
    """What this product asks of a logger. structlog's own hands the fields on from call to call, copied each time."""

    def info(self, event: str, **fields: Any) -> None:
        self._say("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._say("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._say("error", event, fields)

    def _say(self, level: str, event: str, fields: Any) -> None:
        fields["event"] = event
        try:
            for processor in self._processors:
                fields = processor(self._logger, level, fields)
        except structlog.DropEvent:
            return  # a test looks at the lines instead
        self._logger.msg(fields)


def configure() -> None:
    """Send structlog's lines, and those of libraries from WARNING on, to standard output as JSON."""
    structlog.configure(
        processors=[_render],
        logger_factory=lambda *_: _Output(sys.stdout.buffer),
        wrapper_class=_Logger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda *line: _render(*line).decode(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


def _render(_logger: Any, level: str, fields: structlog.typing.EventDict) -> bytes:
    fields["level"] = level
    fields["timestamp"] = datetime.now(UTC)
    try:
        return orjson.dumps(fields, default=repr, option=orjson.OPT_UTC_Z)
    except TypeError:
        # Text that is no Unicode, or a huge number: no reason to lose the line.
        fields["timestamp"] = fields["timestamp"].isoformat()
        return json.dumps(fields, default=repr).encode()
