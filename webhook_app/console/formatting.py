"""How times and raw events are written for a person."""

import json
from datetime import UTC, datetime

from flask import Flask
from markupsafe import Markup

from webhook_app.providers.kept import kept


def add(console: Flask) -> None:
    for template_filter in (ago, exactly, pretty):
        console.add_template_filter(template_filter, template_filter.__name__)


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """`3 min ago`: what a person wants to know first."""
    if moment is None:
        return "never"
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= length:
            text = f"{abs(seconds) / length:.0f} {unit}"
            return f"{text} ago" if seconds > 0 else f"in {text}"
    return "just now" if seconds >= 0 else "in a moment"


def exactly(moment: datetime | None) -> Markup:
    if moment is None:
        return Markup("—")
    shown = moment.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(timespec="seconds"), shown)


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
