"""Checks of the environment before `flask …`: a `DATABASE_URL` of another application, and what would end gunicorn."""

import os
from pathlib import Path

import click
from click.core import ParameterSource
from dotenv import dotenv_values, find_dotenv
from flask.helpers import get_load_dotenv

#: On Linux, what the process was started with: names and values, each ended by a zero byte.
_STARTED_WITH = Path("/proc/self/environ")


def database_url_problem() -> str | None:
    """Why not to go on: the database is that of a `.env` of a folder above, for Flask takes the next one there is.

    Our tables would be made in another application's database. None where it is not.
    """
    found = find_dotenv(usecwd=True)
    if not found or Path(found).parent == Path.cwd() or not get_load_dotenv() or _is_env_file_chosen():
        return None
    given = _started_with()
    # Where the system does not tell who gave it, a set-up that works must start.
    if given is None or "DATABASE_URL" in given:
        return None
    url = os.environ.get("DATABASE_URL")
    if url is None or dotenv_values(found, encoding="utf-8").get("DATABASE_URL") != url:
        return None
    return (
        f"DATABASE_URL would come from {found}, which is not of this folder: make a .env here, if only an empty one, "
        "or set FLASK_SKIP_DOTENV=1 and FLASK_APP=webhook_app"
    )


def web_concurrency_problem() -> str | None:
    """Why not to go on: gunicorn, which reads no `.env`, ends before any of our code runs. None where it does not."""
    if os.environ.get("WEB_CONCURRENCY", "1").strip() or "WEB_CONCURRENCY" not in (_started_with() or ()):
        return None
    return "WEB_CONCURRENCY is blank, and gunicorn ends at it: give a number, or take it away"


def _is_env_file_chosen() -> bool:
    """Whether somebody has said which file to read: `flask --env-file`, or `FLASK_ENV_FILE`."""
    source = click.get_current_context().find_root().get_parameter_source("env_file")
    return source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def _started_with() -> set[str] | None:
    """The names of the variables; None where the system does not say."""
    try:
        return {os.fsdecode(pair.partition(b"=")[0]) for pair in _STARTED_WITH.read_bytes().split(b"\0") if pair}
    except OSError:
        return None
