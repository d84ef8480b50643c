"""Raw events: what is kept of one, so that it can be read again when the mapping is mended.

Of a webhook that is its bytes, and behind them the query of the URL that it came by, where there was one: an ESP's
program may say there what its events mean (`?action=opt_out`). Of a row of a file and an entry of an ESP's list it is
an object of our own, which no webhook looks like.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_SEPARATOR = b"\n?"
#: No query holds any of these unescaped. Whatever else stands behind the separator belongs to the body.
_QUERY = re.compile(r"[!#-;=?-Z\\^-z|~]+")
MAX_QUERY = 2000  # characters


def keep(raw: bytes, query: str) -> bytes:
    return raw + _SEPARATOR + query.encode() if _QUERY.fullmatch(query) and len(query) <= MAX_QUERY else raw


def kept(stored: bytes) -> tuple[bytes, str]:
    """The event's bytes and the query."""
    raw, separator, query = stored.rpartition(_SEPARATOR)
    text = query.decode("latin-1")
    if not separator or not _QUERY.fullmatch(text):
        return stored, ""
    return raw, text


#: The keys of a kept row and of a kept entry, and the cells that a row may have.
_ROW = frozenset({"file", "line"})
_CELLS = frozenset({"email", "external_id", "time", "reason"})
_ENTRY = frozenset({"list", "entry"})


def keep_row(file: str, line: int, cells: Mapping[str, str]) -> bytes:
    """Of a file that is imported: the cells that were used, and where they stood."""
    return json.dumps({"file": file, "line": line, **cells}).encode()


def keep_entry(path: str, entry: Any) -> bytes:
    """Of an ESP's own list, as its API says it."""
    return json.dumps({"list": path, "entry": entry}).encode()


def is_row_or_entry(stored: bytes) -> bool:
    """Whether no webhook brought it."""
    try:
        found = json.loads(stored)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and (found.keys() == _ENTRY or _ROW <= found.keys() <= _ROW | _CELLS)
