"""A TOML file of the customer's, or of the catalogue, read."""

import tomllib
from pathlib import Path
from typing import Any

from webhook_app.settings import ConfigurationError


def load_toml(path: Path, variable: str) -> dict[str, Any]:
    """The tables of a file, which `variable` names. Raises `ConfigurationError`."""
    try:
        # Also as Notepad writes it: with a byte order mark.
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError([f"{variable} cannot be read: {path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([f"{path.name}: is no TOML: it is not UTF-8 text; save it as UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        # Names line and column, also of a name that comes twice.
        raise ConfigurationError([f"{path.name}: is no TOML: {error}"]) from None
