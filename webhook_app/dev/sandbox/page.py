"""The sandbox in a browser: what arrived, and buttons for what shall go wrong."""

import html
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import orjson

from webhook_app.dev.sandbox.state import Sandbox

SHOWN = 100  # arrivals


@dataclass(frozen=True, slots=True)
class Button:
    title: str
    #: What it is good for.
    meaning: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


#: Faults as a person would ask for them; every other one can be ordered over HTTP, see the package.
BUTTONS = (
    Button("503", "Dynamic Yield is down: all waits and is tried again", "status", {"status": 503}),
    Button("429", "too many requests: wait for 10 seconds", "status", {"status": 429, "retry_after": 10}),
    Button("401", "the key is wrong: the section is paused", "status", {"status": 401}),
    Button("422", "refused: the change is given up", "status", {"status": 422}),
    Button("No answer", "it hangs until the time-out", "timeout"),
    Button("Reset", "the connection breaks off", "reset"),
    Button("Slow drip", "the answer comes a byte at a time", "drip_body"),
    Button("Web page", "a proxy answers 200 with a page", "html"),
    Button("Taken, with a warning", "the event was dropped, as it says", "warnings"),
)

STYLE = """
:root{color-scheme:light dark;--line:#8885;--soft:#8882}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:70rem;padding:1.5rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.1rem;margin:1.5rem 0 .5rem}p{margin:.4rem 0}
form{display:flex;margin:.5rem 0;flex-wrap:wrap;gap:.5rem;align-items:center}
button{font:inherit;min-height:2.5rem;padding:.3rem .9rem;border:1px solid var(--line);border-radius:6px;cursor:pointer}
.on{background:#a3261c;color:#fff;padding:.6rem 1rem;border-radius:8px}
.off{background:#176b3a;color:#fff;padding:.6rem 1rem;border-radius:8px}
ol{list-style:none;padding:0}li{border-top:1px solid var(--line);padding:.5rem 0}
code{overflow-wrap:anywhere;font-size:.85rem}small{opacity:.8}
"""


def press(box: Sandbox, form: str) -> None:
    """What a button says; anything else is none and changes nothing."""
    given = {name: values[0] for name, values in parse_qs(form).items()}
    if given.get("do") == "heal":
        box.heal()
        box.latency = 0.0
    elif given.get("do") == "forget":
        box.forget()
    button = next((one for one in BUTTONS if one.title == given.get("fault")), None)
    if button:
        box.heal()
        box.fault(button.kind, times=None if given.get("times") == "all" else 1, **button.options)


def page(box: Sandbox) -> str:
    """What came in, newest first, for a person; looks again by itself."""
    return (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Sandbox</title><style>{STYLE}</style>"
        "<h1>In place of Dynamic Yield</h1><p>Nothing leaves this machine.</p>"
        f"{_state(box)}<h2>Break it</h2>{_buttons()}<h2>What arrived</h2>{_arrivals(box)}</html>"
    )


def _state(box: Sandbox) -> str:
    if not box.faults:
        return '<p class="off" role="status">All is well: every correct request is taken.</p>'
    faults = ", ".join(
        f"{fault['kind'].replace('_', ' ')} {fault.get('status', '')}".strip()
        + (" until healed" if fault["times"] is None else f" ({fault['times']} to come)")
        for fault in box.faults
    )
    return (
        f'<form method="post" class="on" role="status"><span>Broken: {html.escape(faults)}.</span>'
        '<button name="do" value="heal">Heal</button></form>'
    )


def _buttons() -> str:
    buttons = "".join(
        f'<button name="fault" value="{html.escape(one.title)}" title="{html.escape(one.meaning)}">'
        f"{html.escape(one.title)}</button>"
        for one in BUTTONS
    )
    return "".join(
        f'<form method="post"><input type="hidden" name="times" value="{times}"><span>{title}</span>{buttons}</form>'
        for title, times in (("Until healed:", "all"), ("The next request:", "1"))
    )


def _arrivals(box: Sandbox) -> str:
    counts = " · ".join(f"{count} {name}" for name, count in box.counts.items())
    rows = "".join(
        f"<li>{time.strftime('%H:%M:%S', time.gmtime(one['at']))} <b>{html.escape(one['became'])}</b> "
        f"{one['status'] or 'no answer'} <small>{html.escape(one['path'])}</small><br>"
        f"<code>{html.escape(orjson.dumps(one['body']).decode())}</code></li>"
        for one in (arrival.shown() for arrival in list(box.arrivals)[: -SHOWN - 1 : -1])
    )
    return (
        f'<form method="post"><span>{counts}. Newest first, times in UTC.</span>'
        f'<button name="do" value="forget">Forget all</button></form><ol>{rows}</ol>'
    )
