"""The `.env` that `flask …` has read: Flask takes the next one above, which may be another application's."""

import os
from pathlib import Path

from dotenv import dotenv_values, find_dotenv

from webhook_app.settings import variables


def foreign_settings() -> str | None:
    """Why not to go on: settings of ours come from a `.env` of a folder above. None where they do not."""
    found = find_dotenv(usecwd=True)
    if not found or Path(found).parent == Path.cwd() or os.environ.get("FLASK_SKIP_DOTENV"):
        return None
    said = dotenv_values(found, encoding="utf-8")
    taken = sorted(name for name in variables() if name in said and said[name] == os.environ.get(name))
    if not taken:
        return None
    names = ", ".join(taken)
    return f"{names} would come from {found}, which is not of this folder: make a .env here, if only an empty one"
