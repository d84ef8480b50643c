"""Raw events of the quarantine: what is kept of one, so that it can be read again when the mapping is mended.

That is its bytes, and behind them the query of the URL that it came by, where there was one: an ESP's program may say
there what its events mean (`?action=opt_out`).
"""

import re

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
