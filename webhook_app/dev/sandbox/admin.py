"""The sandbox's admin API: the log, the faults, the page."""

from typing import Any

import orjson

from webhook_app.dev.sandbox.page import page, press
from webhook_app.dev.sandbox.state import Sandbox
from webhook_app.dev.sandbox.wire import WireRequest, render


def admin(sandbox: Sandbox, request: WireRequest) -> bytes:
    """Answer what does not belong to Dynamic Yield: the log, the orders, the page."""
    match request.method, request.path:
        case "GET", "/":
            return render(200, page(sandbox).encode(), {"Content-Type": "text/html; charset=utf-8"})
        case "POST", "/":
            # A button of the page. A page of somebody else's may send one too; it only breaks a stand-in.
            press(sandbox, request.body.decode("latin-1"))
            return render(303, b"", {"Location": "/"})
        case "GET", "/sandbox/received":
            return render(200, orjson.dumps({"counts": sandbox.counts, "received": sandbox.received}))
        case "GET", "/sandbox/counts":
            return render(200, orjson.dumps({"counts": sandbox.counts}))
        case "DELETE", "/sandbox/received":
            sandbox.forget()
        case "GET", "/sandbox/fault":
            pass
        case "DELETE", "/sandbox/fault":
            sandbox.heal()
            sandbox.latency = 0.0
        case ("POST" | "PUT") as method, "/sandbox/fault":
            try:
                order(sandbox, orjson.loads(request.body), replace=method == "PUT")
            except (ValueError, TypeError, AttributeError) as error:
                return render(400, orjson.dumps({"message": str(error), "type": "bad_order"}))
        case _:
            return render(404, b'{"message": "no such path", "type": "not_found"}')
    return render(200, orjson.dumps({"faults": sandbox.faults, "latency_ms": sandbox.latency * 1000}))


def order(sandbox: Sandbox, wish: Any, *, replace: bool) -> None:
    """Take an order for one fault or a list of them, and for latency.

    Raises `ValueError` or `TypeError` where it cannot be understood.
    """
    if replace:
        sandbox.heal()
    for one in wish if isinstance(wish, list) else [wish]:
        latency = one.pop("latency_ms", None)
        if latency is not None:
            sandbox.latency = float(latency) / 1000
        if one:
            sandbox.fault(**one)
