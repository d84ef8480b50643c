"""What a log line looks like, over a real standard output; structlog's own interface works as documented."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.processes import ROOT, environment

BEGIN = """
import logging, structlog
from webhook_app.ops import logs
logs.configure()
log = structlog.get_logger()
"""


def output(program: str, *, stdout: Any = subprocess.PIPE, **environ: str) -> bytes:
    command = [sys.executable, "-c", BEGIN + program]
    run = subprocess.run(command, cwd=ROOT, env=environment(**environ), stdout=stdout, check=True, timeout=60)
    return run.stdout or b""


def lines(program: str, *, stdout: Any = subprocess.PIPE) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output(program, stdout=stdout).splitlines()]


def test_a_line_is_an_event_its_fields_its_level_and_a_time_in_utc() -> None:
    (line,) = lines("log.info('request', status=200)")
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "request", "status": 200, "level": "info"}


def test_every_level_is_written_and_bound_fields_and_contextvars_are_in_it() -> None:
    found = lines(
        """
structlog.contextvars.bind_contextvars(request_id="r1")
bound = log.bind(provider="sendgrid")
for level in ("debug", "info", "warning", "error", "critical"):
    getattr(bound, level)("said", number=1)
"""
    )
    assert [line["level"] for line in found] == ["debug", "info", "warning", "error", "critical"]
    for line in found:
        assert (line["request_id"], line["provider"], line["number"]) == ("r1", "sendgrid", 1)


def test_an_exception_is_its_type_and_place_never_its_text() -> None:
    found = lines(
        """
try:
    {}["jane@example.com"]
except KeyError:
    log.exception("failed")
    logging.getLogger("library").exception("also failed")
    log.error("given", exc_info=ValueError("jane@example.com"))
"""
    )
    assert [line["event"] for line in found] == ["failed", "also failed", "given"]
    assert [line["error"] for line in found] == ["KeyError", "KeyError", "ValueError"]
    assert all(line["place"].startswith("<string>:") for line in found[:2])
    assert "jane" not in json.dumps(found)


def test_libraries_are_heard_from_warning_on() -> None:
    found = lines("logging.getLogger('urllib3').info('no'); logging.getLogger('urllib3').warning('yes %s', 1)")
    assert [(line["logger"], line["event"], line["level"]) for line in found] == [("urllib3", "yes 1", "warning")]


def test_what_json_cannot_hold_loses_no_line() -> None:
    found = lines(r"log.info('odd', text='\ud800', number=10**30, thing=object)")
    assert (found[0]["text"], found[0]["number"]) == ("\ud800", 10**30)


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    with Path("/dev/full").open("wb") as full:
        assert lines("log.info('lost')", stdout=full) == []


def test_the_format_is_read_in_any_letter_case_as_every_setting_is() -> None:
    assert output("log.info('said', number=1)", LOG_FORMAT="TEXT").split()[1:] == [b"[info", b"]", b"said", b"number=1"]
