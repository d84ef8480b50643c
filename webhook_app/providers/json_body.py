"""JSON as ESPs really send it: read strictly first, and leniently where one event of a batch is broken.

One bad event never costs its neighbours, not even one bad byte: where an ESP copies a name or an address from an old
database, a Latin-1 byte or a raw control character makes a whole batch of a thousand no JSON at all.
"""

import codecs
import json
import re
from typing import Any

import orjson

from webhook_app.auth import WebhookRequest


class Unreadable(Exception):
    """The body is not of the form this ESP sends. `reason` is a sentence for a person."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Damaged(dict[str, Any]):
    """A JSON object with a text that had to be guessed. `damage` says what is wrong, and under which key.

    Whom it names is not known for sure: it is quarantined, whatever it says.
    """

    damage: str = ""


def read_json(request: WebhookRequest) -> Any:
    """A request's body by `load_json`. Whoever has looked into it before, as a scheme may have, has parsed it already.

    Raises `Unreadable`.
    """
    try:
        return request.parsed(orjson.loads)
    except orjson.JSONDecodeError:
        return request.parsed(load_json)


def load_json(body: bytes) -> Any:
    """Parse JSON, also what orjson refuses but one bad event of a batch may hold.

    JSON Lines, an object in each line, come back as a list. NaN, lone surrogates and huge numbers are left to the
    event's schema. Objects with bytes that are no UTF-8, or with raw control characters, come back as `Damaged`.
    Raises `Unreadable`.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return _load_leniently(body)
    except RecursionError:
        raise Unreadable("the body is JSON nested too deeply") from None
    except UnicodeDecodeError:
        raise Unreadable("the body is not UTF-8 text") from None
    except ValueError as error:
        # The error's own text names a place, never the content. A huge integer literal ends here too.
        raise Unreadable(f"the body is not JSON: {error}") from None


def dump_raw(event: Any) -> bytes:
    """A raw event as JSON bytes, which every database stores whatever they hold."""
    try:
        # Copied: orjson's own bytes keep the room that they were written in, four kilobytes for every event.
        return bytes(memoryview(orjson.dumps(event)))
    except TypeError:
        pass
    try:
        # What only the lenient parser took: lone surrogates, huge numbers. ASCII escapes keep them as they came.
        text = json.dumps(event, separators=(",", ":"))
        return (_MARKED_CONTROL.sub(r"\\u00\1", text) if isinstance(event, Damaged) else text).encode()
    except RecursionError:
        return b'"nested too deeply to be kept"'


#: A text with what stands around it, or a control character between texts, where only white space may be. A text that
#: is not closed matches, too, and nothing is given back once it was taken: anybody may send what would be tried over
#: and over again.
_TEXT_OR_CONTROL = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\x00-\x08\x0b\x0c\x0e-\x1f]', re.DOTALL)
_CONTROL = re.compile("[\x00-\x1f]")
#: What is wrong is marked with a lone surrogate, which no text can hold: U+DC80 and up for a byte, as Python's
#: `surrogateescape` has it, and U+DC00 to U+DC1F for a control character.
_MARKS = {code: 0xDC00 + code for code in range(0x20)}
_MARK = re.compile("[\udc00-\udc1f\udc80-\udcff]")
#: A marked control character as JSON escapes it.
_MARKED_CONTROL = re.compile(r"\\udc([01][0-9a-f])")
#: Keys that may be named to a person; any other might be an address itself.
_HARMLESS_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


def _load_leniently(body: bytes) -> Any:
    text = _TEXT_OR_CONTROL.sub(_marked, _decode(body))
    try:
        return json.loads(text, object_hook=flagged)
    except json.JSONDecodeError:
        events = _json_lines(text)
        if events is None:
            raise
        return events


def _json_lines(text: str) -> list[Any] | None:
    """The events of JSON Lines; None for any other text."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 2 or not all(line.lstrip().startswith("{") for line in lines):
        return None
    try:
        return [json.loads(line, object_hook=flagged) for line in lines]
    except json.JSONDecodeError:
        return None


def _decode(body: bytes) -> str:
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return body.decode("utf-16", "surrogatepass")
    # The first two characters of JSON are ASCII (RFC 4627): where a zero byte stands tells the encoding.
    if body[1:2] == b"\0":
        return body.decode("utf-16-le", "surrogatepass")
    if body[:1] == b"\0" and body[1:2] not in (b"", b"\0"):
        return body.decode("utf-16-be", "surrogatepass")
    return body.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _marked(found: re.Match[str]) -> str:
    text = found[0]
    if len(text) == 1:
        return " "
    return text.translate(_MARKS) if _CONTROL.search(text) else text


def flagged(loaded: dict[str, Any]) -> dict[str, Any]:
    """The object, as `Damaged` where anything in it is."""
    for key, value in loaded.items():
        damage = _damage(key) or _damage(value)
        if damage:
            damaged = Damaged(loaded)
            damaged.damage = _below(key, damage)
            return damaged
    return loaded


def _below(key: str, damage: str) -> str:
    """`holds …` under `email` → `email: holds …`, and that under `data` → `data.email: holds …`."""
    if not _HARMLESS_KEY.fullmatch(key):
        return damage
    return f"{key}.{damage}" if ": " in damage else f"{key}: {damage}"


def _damage(value: Any) -> str:
    """What is wrong with a value, after the path to it; empty where nothing is."""
    if isinstance(value, str):
        mark = _MARK.search(value)
        if mark is None:
            return ""
        return "holds a raw control character" if mark[0] < "\udc80" else "holds bytes that are no UTF-8 text"
    if isinstance(value, Damaged):
        return value.damage
    if isinstance(value, list):
        return next((damage for inner in value if (damage := _damage(inner))), "")
    return ""
