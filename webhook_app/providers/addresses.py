"""Email addresses as ESPs, exports and people write them, read as the address itself, or refused.

An invisible character, a `mailto:` or a display name makes an address that nobody has: Dynamic Yield would take it, and
the person would go on getting messages.
"""

import re
import unicodedata
from urllib.parse import unquote

#: RFC 5321 allows 254; longer ones are seen with VERP, none over this.
MAX_ADDRESS_LENGTH = 320

#: What nearly every address looks like: nothing about it needs a closer look.
_PLAIN = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_MAILTO = re.compile(r"mailto:([^?]*)(?:\?.*)?", re.IGNORECASE | re.DOTALL)
#: `Jane Doe <jane@example.com>`, with or without the name.
_IN_BRACKETS = re.compile(r"[^<>]*<([^<>]*)>", re.DOTALL)
#: `joe@example.com, Jane <jane@example.com>`: two people.
_MORE_BEFORE = re.compile(r"@[^\s\"]*\s*[,;]")
#: `jane@example.com (Jane Doe)`
_WITH_COMMENT = re.compile(r"(.*?)\s*\([^()]*\)", re.DOTALL)
_IN_QUOTES = re.compile(r"""(["'])(.*)\1""", re.DOTALL)
#: Either a quoted text or a text in which nothing but letters, digits and RFC 5322's signs stands. An apostrophe at its
#: beginning is that of a quotation, or of a spreadsheet that takes the cell for text.
_LOCAL = re.compile(r'"[^"\\]+"|(?!\')[^\s@"(),:;<>\[\]\\]+')
#: Letters of any script, digits, hyphens. Any other sign is from what stood behind the address: a URL, a quotation.
_DOMAIN = re.compile(r"\[[0-9A-Fa-f:.IPv]+\]|[^\s!-,/:-@\[-^`{-~.]+(?:\.[^\s!-,/:-@\[-^`{-~.]+)*")
#: `jane%2Bnews` for `jane+news`: a URL's form of an address, and nobody's.
_PERCENT_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
#: Invisible characters that Unicode does not count as format characters: joiners, fillers, variation selectors.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}
#: Categories of what no address holds: controls, lone surrogates, private use, unassigned, separators.
_IMPOSSIBLE = frozenset({"Cc", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})
#: Stands where somebody before us could not read a character: whose address it was is lost.
_REPLACEMENT = "\ufffd"
#: `j***@example.com`, as dashboards and logs hide an address: of whoever it was, this stops nothing.
_MASKED = re.compile(r"\*\*|@.*\*|•", re.DOTALL)


def read_address(text: str) -> str:
    """The address itself, otherwise as it was written.

    Raises `ValueError` with a sentence for what cannot be one. Whatever else is odd is taken: the ESP has delivered
    to it already.
    """
    if _PLAIN.fullmatch(text) and len(text) <= MAX_ADDRESS_LENGTH:
        return text
    address = _unwrapped("".join(character for character in text if not _is_invisible(character)).strip())
    if not address:
        raise ValueError("is empty")
    local, at, domain = address.rpartition("@")
    if not at or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain) or len(address) > MAX_ADDRESS_LENGTH:
        raise ValueError("is not an email address")
    if _MASKED.search(address):
        raise ValueError("is masked")
    if _PERCENT_ENCODED.search(local):
        raise ValueError("is percent-encoded")
    if _REPLACEMENT in address or any(unicodedata.category(character) in _IMPOSSIBLE for character in address):
        raise ValueError("is not an email address")
    return address


def _unwrapped(text: str) -> str:
    """What is left without `mailto:`, display name, comment, brackets and quotes."""
    if found := _IN_BRACKETS.fullmatch(text):
        if _MORE_BEFORE.search(text[: found.start(1)]):
            raise ValueError("names more than one address")
        text = found[1].strip()
    elif found := _WITH_COMMENT.fullmatch(text):
        text = found[1]
    if found := _IN_QUOTES.fullmatch(text):
        text = found[2].strip()
    if found := _MAILTO.fullmatch(text):
        text = unquote(found[1]).strip()
    return text


def _is_invisible(character: str) -> bool:
    return character in _INVISIBLE or unicodedata.category(character) == "Cf"
