"""One sandbox and one client a test, on real sockets of this machine."""

from collections.abc import Iterator

import pytest

from webhook_app.delivery.client import Client
from webhook_app.dev import sandbox
from webhook_app.dev.sandbox import Sandbox

KEY = "server-side-key"


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with sandbox.running(KEY) as box:
        yield box


@pytest.fixture
def client(box: Sandbox) -> Iterator[Client]:
    """With its usual timeouts: what answers at all does so in time, also on a busy machine."""
    client = Client(box.url, KEY)
    yield client
    client.close()
