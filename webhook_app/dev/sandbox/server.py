"""The sandbox's server: connections in, answers out."""

import asyncio
import ssl
from contextlib import suppress
from functools import partial

import orjson

from webhook_app.dev.sandbox.admin import admin
from webhook_app.dev.sandbox.faults import FAULTS, Exchange
from webhook_app.dev.sandbox.state import Sandbox
from webhook_app.dev.sandbox.wire import MAX_HEAD, BadRequest, WireRequest, read_request, render


class Server:
    """Speaks HTTP/1.1 for a sandbox. One thread: what costs time waits, it does not compute."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        server = await asyncio.start_server(self._connection, host, port, limit=MAX_HEAD, ssl=tls, backlog=1024)
        name, bound = server.sockets[0].getsockname()[:2]
        self._sandbox.url = f"{'https' if tls else 'http'}://{f'[{name}]' if ':' in name else name}:{bound}"
        return server

    async def stop(self, server: asyncio.Server) -> None:
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - told to mypy; asyncio runs this as a task
        self._connections.add(task)
        try:
            while (request := await read_request(reader)) and await self._answer(request, reader, writer):
                pass
        except BadRequest:
            writer.write(render(400, b'{"message": "not a request", "type": "bad_request"}', {"Connection": "close"}))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            # The other side has gone, or we are to go.
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            with suppress(OSError, asyncio.CancelledError):
                writer.close()
                await writer.wait_closed()

    async def _answer(self, request: WireRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False where the connection is good for nothing any more."""
        sandbox = self._sandbox
        if not request.path.startswith("/v2/"):
            writer.write(admin(sandbox, request))
            return True
        arrival = sandbox.arrive(request)
        if sandbox.latency:
            await asyncio.sleep(sandbox.latency)
        if fault := sandbox.next_fault(request):
            # Settled first: whoever is answered, or cut off, may look at once.
            sandbox.settle(arrival, fault.kind, None)
            take_effect = partial(sandbox.take_effect, arrival)
            arrival.status = await FAULTS[fault.kind](Exchange(request, reader, writer, fault.options, take_effect))
            return arrival.status is not None
        status, said = sandbox.judge(request)
        trace_id = f"sandbox-{arrival.number}"
        sandbox.settle(arrival, "taken" if status < 300 else "refused", status)
        if isinstance(said, dict) and "error" in said and status != 401:
            said = {**said, "dy_trace_id": trace_id}
        writer.write(render(status, b"" if said is None else orjson.dumps(said), {"DY-Trace-ID": trace_id}))
        return True
