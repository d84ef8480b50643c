"""One sandbox and one client a test, on real sockets of this machine."""

from collections.abc import Iterator

import pytest

from webhook_app.delivery.client import Client, Timeouts
from webhook_app.dev import sandbox
from webhook_app.dev.sandbox import Sandbox

KEY = "server-side-key"


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with sandbox.running(KEY) as box:
        yield box


@pytest.fixture
def client(box: Sandbox) -> Iterator[Client]:
    client = Client(box.url, KEY, timeouts=Timeouts(connect=0.5, read=0.3, total=0.8))
    yield client
    client.close()
