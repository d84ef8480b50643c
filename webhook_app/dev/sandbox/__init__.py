"""A stand-in for Dynamic Yield: stricter than the original, and it fails to order.

It keeps its own log of what arrived, which is what tests and people believe; it shares no code with what it checks.

    POST /v2/collect/user/event, /v2/userdata/channels/{channel}/opt-out|opt-in    as Dynamic Yield documents them
    GET, DELETE /sandbox/received        what arrived, newest last · forget it
    GET /sandbox/counts                  how much of it there is
    GET, POST, PUT, DELETE /sandbox/fault  the faults to come · add · replace · none
    GET, POST /                          the same for people, with buttons for the usual faults

A fault is `{"kind": "status", "times": 3, "status": 503, "retry_after": 2}`; `FAULTS` has the kinds, `times: null`
means until further notice. `{"latency_ms": 10}` makes every answer take that long.
"""

import asyncio
import signal
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from webhook_app.dev.sandbox.faults import FAULTS
from webhook_app.dev.sandbox.server import Server
from webhook_app.dev.sandbox.state import Sandbox

__all__ = ["FAULTS", "Sandbox", "running", "serve"]


def serve(host: str = "127.0.0.1", port: int = 8001, api_key: str | None = None, log_file: Path | None = None) -> None:
    """Run a sandbox until SIGTERM or SIGINT. Without `api_key` any key opens it."""
    asyncio.run(_serve(Sandbox(api_key, log_file=log_file), host, port))


async def _serve(sandbox: Sandbox, host: str, port: int) -> None:
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    server = Server(sandbox)
    listening = await server.start(host, port)
    await over.wait()
    await server.stop(listening)
    sandbox.close()


@contextmanager
def running(
    api_key: str | None = None, *, port: int = 0, tls: ssl.SSLContext | None = None, log_file: Path | None = None
) -> Iterator[Sandbox]:
    """A sandbox on a loopback port, in a thread of its own, for as long as the block lasts."""
    sandbox = Sandbox(api_key, log_file=log_file)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="sandbox", daemon=True)
    thread.start()
    server = Server(sandbox)
    try:
        listening = asyncio.run_coroutine_threadsafe(server.start("127.0.0.1", port, tls), loop).result(10)
        try:
            yield sandbox
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(listening), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        sandbox.close()
