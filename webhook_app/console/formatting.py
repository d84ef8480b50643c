"""Template filters: times and raw events as a person reads them."""

import json
import re
from datetime import UTC, datetime

from flask import Flask
from markupsafe import Markup

from webhook_app.console import words
from webhook_app.outbox.queries import Event
from webhook_app.providers.kept import kept

#: What stands between backticks in a sentence that a terminal shows too.
_CODE = re.compile(r"`([^`]*)`")


def add(console: Flask) -> None:
    for template_filter in (ago, briefly, exactly, happened, pretty, with_code):
        console.add_template_filter(template_filter, template_filter.__name__)


def ago(moment: datetime | None, now: datetime | None = None) -> Markup:
    """`3 min ago`: what a person wants to know first."""
    if moment is None:
        return Markup("never")
    return _time(moment, _distance(((now or datetime.now(UTC)) - moment).total_seconds()), "relative")


def _distance(seconds: float) -> str:
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= length:
            text = f"{abs(seconds) / length:.0f} {unit}"
            return f"{text} ago" if seconds > 0 else f"in {text}"
    return "just now" if seconds >= 0 else "in a moment"


def exactly(moment: datetime | None) -> Markup:
    """The moment itself. A script writes it in the person's own time zone; UTC stays there to be pointed at."""
    return Markup("—") if moment is None else _time(moment, f"{moment:%d %b %Y, %H:%M:%S}", "exact")


def briefly(moment: datetime | None) -> Markup:
    """The same in a list, where the year would only take room."""
    return Markup("—") if moment is None else _time(moment, f"{moment:%d %b, %H:%M:%S}", "brief")


def _time(moment: datetime, text: str, kind: str) -> Markup:
    written = Markup('<time datetime="{}" title="{:%Y-%m-%d %H:%M:%S} UTC" data-{}>{}</time>')
    return written.format(moment.isoformat(timespec="seconds"), moment, kind, text)


def happened(event: Event) -> Markup:
    """What the person did, with the ESP's own word to be pointed at."""
    return Markup('<span title="{}">{}</span>').format(event.reason, words.in_words(event.reason, event.action))


def with_code(sentence: str) -> Markup:
    """Commands that stand in backticks, as commands."""
    parts = _CODE.split(sentence)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )


def pretty(raw: bytes | None) -> str:
    """JSON indented, anything else as it is; behind it the URL's query, where that was kept."""
    if raw is None:
        return ""
    event, query = kept(raw)
    try:
        text = json.dumps(json.loads(event), indent=2, ensure_ascii=False).encode("utf-8", "replace").decode()
    except (ValueError, RecursionError):
        text = event.decode(errors="replace")
    return f"{text}\n?{query}" if query else text
