"""For those who look and order: the log, the faults, the page."""

import html
import time
from typing import Any

import orjson

from webhook_app.dev.sandbox.state import Sandbox
from webhook_app.dev.sandbox.wire import Request, render


def admin(box: Sandbox, request: Request) -> bytes:
    """Answer what does not belong to Dynamic Yield: the log, the orders, the page."""
    match request.method, request.path:
        case "GET", "/":
            return render(200, page(box).encode(), {"Content-Type": "text/html; charset=utf-8"})
        case "GET", "/sandbox/received":
            return render(200, orjson.dumps({"counts": box.counts, "received": box.received}))
        case "GET", "/sandbox/counts":
            return render(200, orjson.dumps({"counts": box.counts}))
        case "DELETE", "/sandbox/received":
            box.forget()
        case "GET", "/sandbox/fault":
            pass
        case "DELETE", "/sandbox/fault":
            box.heal()
            box.latency = 0.0
        case ("POST" | "PUT") as method, "/sandbox/fault":
            try:
                order(box, orjson.loads(request.body), replace=method == "PUT")
            except (ValueError, TypeError, AttributeError) as error:
                return render(400, orjson.dumps({"message": str(error), "type": "bad_order"}))
        case _:
            return render(404, b'{"message": "no such path", "type": "not_found"}')
    return render(200, orjson.dumps({"faults": box.faults, "latency_ms": box.latency * 1000}))


def order(box: Sandbox, wish: Any, *, replace: bool) -> None:
    """Take an order for one fault or a list of them, and for latency.

    Raises `ValueError` or `TypeError` where it cannot be understood.
    """
    if replace:
        box.heal()
    for one in wish if isinstance(wish, list) else [wish]:
        latency = one.pop("latency_ms", None)
        if latency is not None:
            box.latency = float(latency) / 1000
        if one:
            box.fault(**one)


def page(box: Sandbox) -> str:
    """What came in, newest first, for a person; looks again by itself."""
    rows = "".join(
        f"<tr><td>{one['number']}<td>{time.strftime('%H:%M:%S', time.gmtime(one['at']))}"
        f"<td>{html.escape(one['became'])}<td>{one['status'] or '–'}<td>{html.escape(one['path'])}"
        f"<td><code>{html.escape(orjson.dumps(one['body']).decode())}</code>"
        for one in (arrival.shown() for arrival in list(box.arrivals)[:-101:-1])
    )
    counts = " · ".join(f"{count} {name}" for name, count in box.counts.items())
    return (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
        "<title>Sandbox</title><style>body{font:14px system-ui;margin:2em}td,th{text-align:left;padding:.3em .8em;"
        "border-top:1px solid #ccc;vertical-align:top}code{word-break:break-all}</style>"
        f"<h1>In place of Dynamic Yield</h1><p>{counts}. Newest first, times in UTC; nothing leaves this machine.</p>"
        "<table><tr><th>No.<th>Time<th>Became<th>Status<th>Path<th>Body</tr>"
        f"{rows}</table></html>"
    )
