"""Where the settings of `flask …` come from: the environment, or a `.env`, which may be another application's."""

import os
from pathlib import Path

import click
from click.core import ParameterSource
from dotenv import dotenv_values, find_dotenv
from flask.helpers import get_load_dotenv

from webhook_app.settings import variables

#: On Linux, what the process was started with: names and values, each ended by a zero byte.
_STARTED_WITH = Path("/proc/self/environ")


def foreign_settings() -> str | None:
    """Why not to go on: settings of ours come from a `.env` of a folder above, as Flask takes the next one there is.

    None where they do not.
    """
    found = find_dotenv(usecwd=True)
    if not found or Path(found).parent == Path.cwd() or not get_load_dotenv() or _is_named():
        return None
    given = _started_with()
    if given is None:
        return None  # Whoever gave the settings cannot be told, and a set-up that works must start.
    said = dotenv_values(found, encoding="utf-8")
    ours = variables().keys() & os.environ.keys() - given
    taken = sorted(name for name in ours if said.get(name) == os.environ[name])
    if not taken:
        return None
    names = ", ".join(taken)
    return (
        f"{names} would come from {found}, which is not of this folder: make a .env here, if only an empty one, "
        "or set FLASK_SKIP_DOTENV=1 and FLASK_APP=webhook_app"
    )


def blank_for_gunicorn() -> str | None:
    """Why not to go on: gunicorn, which reads no `.env`, ends before any of our code runs. None where it does not."""
    if os.environ.get("WEB_CONCURRENCY", "1").strip() or "WEB_CONCURRENCY" not in (_started_with() or ()):
        return None
    return "WEB_CONCURRENCY is blank, and gunicorn ends at it: give a number, or take it away"


def _is_named() -> bool:
    """Whether somebody has said which file to read: `flask --env-file`, or `FLASK_ENV_FILE`."""
    source = click.get_current_context().find_root().get_parameter_source("env_file")
    return source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def _started_with() -> set[str] | None:
    """The names of the variables; None where the system does not say."""
    try:
        return {os.fsdecode(pair.partition(b"=")[0]) for pair in _STARTED_WITH.read_bytes().split(b"\0") if pair}
    except OSError:
        return None
