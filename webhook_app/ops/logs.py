"""Set-up of the log: one JSON object a line, an event name and fields. No address, token or key is ever one of them.

With `LOG_FORMAT=text`, as `make run` sets it, the same for people.
"""

import json
import logging
import os
import sys
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor


class LineLogger:
    """Writes each line with one call to the system, which keeps the lines of other threads and processes apart.

    A line is lost where it cannot be written: the disk is full, or whoever read it has gone. Raising instead would turn
    the answer to a stored webhook into a 500, and end the worker. structlog's own logger holds a lock while it writes,
    for which all other threads wait. https://www.structlog.org/en/stable/custom-wrappers.html
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = getattr(file, "raw", file)

    def msg(self, line: bytes) -> None:
        with suppress(OSError):
            self._file.write(line + b"\n")

    debug = info = warning = error = critical = exception = msg


def configure(to: TextIO | None = None) -> None:
    """Send structlog's lines, and those of libraries from WARNING on, to standard output, or `to` another place."""
    to = to or sys.stdout
    # Not the settings: why they cannot be read is written as a line, too.
    for_people = os.environ.get("LOG_FORMAT", "").strip().lower() == "text"
    render = _text if for_people else _json
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if for_people else "iso", utc=not for_people),
        without_exception_text,
    ]
    structlog.configure(
        processors=[*common, render],
        logger_factory=lambda *_: LineLogger(to.buffer),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(to)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(allow=()), *common],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda *line: render(*line).decode(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


def without_exception_text(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    """An exception as its type and place: its text and the values in its traceback may hold an address."""
    given = fields.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        fields["error"], fields["place"] = type(error).__name__, _place_of(error)
    return fields


def _place_of(error: BaseException) -> str | None:
    """Where it was raised, as `file:line`."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else None


def _json(_logger: Any, _method: str, fields: EventDict) -> bytes:
    try:
        return orjson.dumps(fields, default=repr)
    except TypeError:
        # Text that is no Unicode, or a huge number: no reason to lose the line.
        return json.dumps(fields, default=repr).encode()


def _text(logger: Any, method: str, fields: EventDict) -> bytes:
    """For a terminal; in colour where whoever owns the terminal says so."""
    render = structlog.dev.ConsoleRenderer(colors="FORCE_COLOR" in os.environ, pad_event_to=20)
    return render(logger, method, fields).encode(errors="backslashreplace")
