"""Synchronisation, from nothing to protected: a customer with a long past, an outage, and suppressions made by hand.

The oracle is the sandbox's own log of what Dynamic Yield has taken, against what SendGrid's stand-in has on its lists.
"""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import orjson
import pytest
import requests

from tests import sendgrid_api
from tests.processes import Program, checkout, environment, find, free_port, running, wait_for_http, wait_until
from webhook_app.dev import sandbox
from webhook_app.dev.sandbox import Sandbox

OLD = 100_000
LIVE = 200
MISSED = 500
BY_HAND = 10

DAY = 86_400
#: Old unsubscribes are sent as fast as the machine can: some minutes on two busy cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Shop:
    """The customer's deployment: processes that come and go, one database, one folder."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = checkout(folder)
        self.environ = environ
        self.url = f"http://127.0.0.1:{environ['PORT']}"

    def run(self, *command: str) -> str:
        """A command to its end; what it printed."""
        return self._end(command, status=0)

    def fail(self, *command: str) -> str:
        """The same for one that has to end with an error."""
        return self._end(command, status=1)

    def _end(self, command: tuple[str, ...], *, status: int) -> str:
        with running(list(command), cwd=self.folder, env=environment(**self.environ), log="command.log") as program:
            ended = program.process.wait(timeout=400)
            printed = program.output()
        (self.folder / "command.log").unlink()
        assert ended == status, printed
        return printed

    @contextmanager
    def serving(self, **more: str) -> Iterator[Program]:
        """Web and worker, as the Procfile has them."""
        env = environment(**self.environ, **more)
        with (
            running([find("gunicorn")], cwd=self.folder, env=env, log="web.log"),
            running([find("flask"), "forward"], cwd=self.folder, env=env, log="worker.log") as worker,
        ):
            wait_for_http(f"{self.url}/readyz")
            yield worker


@pytest.fixture
def sendgrid() -> Iterator[sendgrid_api.SendGrid]:
    with sendgrid_api.running() as sendgrid:
        yield sendgrid
    assert sendgrid.complaints == []


@pytest.fixture
def dynamic_yield(tmp_path: Path) -> Iterator[Sandbox]:
    with sandbox.running(api_key="server-side-key", log_file=tmp_path / "arrivals.jsonl") as stand_in:
        yield stand_in


@pytest.fixture
def shop(tmp_path: Path, sendgrid: sendgrid_api.SendGrid, dynamic_yield: Sandbox) -> Shop:
    environ = {
        "PORT": str(free_port()),
        "EVENTS_API_URL": dynamic_yield.url,
        "EVENTS_API_KEY": "server-side-key",
        "SENDGRID_API_URL": sendgrid.url,
        "SENDGRID_API_KEY": "SG.full",
        "SENDGRID_GROUP_IDS": "7,8",
    }
    return Shop(tmp_path, environ)


def told(log: Path) -> Counter[str]:
    """Whom Dynamic Yield has taken an opt-out of, as it was written, and how often."""
    addresses: Counter[str] = Counter()
    with log.open("rb") as lines:
        for line in lines:
            arrival = orjson.loads(line)
            assert arrival["became"] == "taken", arrival
            (event,) = arrival["body"]["events"]
            assert event["properties"]["dyType"] == "message-optout-v1"
            addresses[event["properties"]["plainTextEmail"]] += 1
    return addresses


def live_webhook(shop: Shop, sendgrid: sendgrid_api.SendGrid, addresses: list[str], now: int) -> None:
    """People unsubscribe: SendGrid puts them on its list, and tells."""
    (webhook,) = sendgrid.account.webhooks
    events = []
    for address in addresses:
        # SendGrid's two machines write two times.
        sendgrid.account.suppress("unsubscribes", address, now + 1)
        events.append({"email": address, "event": "unsubscribe", "timestamp": now, "sg_message_id": f"m-{address}"})
    body = json.dumps(events).encode()
    headers = sendgrid.account.signers[webhook["id"]].headers(body)
    answer = requests.post(webhook["url"], data=body, headers=headers, timeout=30)
    assert answer.json()["accepted"] == len(addresses), answer.text


def test_everybody_whom_sendgrid_suppresses_is_opted_out_once_and_nobody_else(
    shop: Shop, sendgrid: sendgrid_api.SendGrid, dynamic_yield: Sandbox, tmp_path: Path
) -> None:
    now = int(time.time())
    account, log = sendgrid.account, tmp_path / "arrivals.jsonl"

    # Years of unsubscribes from before, and the list of them that SendGrid's page exports.
    for number in range(OLD):
        account.suppress("unsubscribes", f"Old.{number}@example.com", now - 30 * DAY - OLD + number)
    export = tmp_path / "unsubscribes.csv"
    rows = [f"{entry['email']},{entry['created']}" for entry in account.lists["unsubscribes"]]
    export.write_text("\n".join(["email,created", *rows, rows[0]]))
    expected = {entry["email"] for entry in account.lists["unsubscribes"]}

    # Connected with one command, typed twice.
    shop.run("flask", "db", "upgrade")
    connect = ("flask", "connect", "sendgrid", "--url", shop.url, "--yes", "--write-env", ".env")
    shop.run(*connect)
    key = account.public_key(account.webhooks[0]["id"])
    shop.environ["SENDGRID_VERIFICATION_KEYS"] = key

    with shop.serving():
        assert "SendGrid is connected" in shop.run(*connect)
        printed = shop.run("flask", "import", "sendgrid", str(export), "--yes")
        assert f"Imported: {OLD:,} new, 1 known already" in printed
        live = [f"live-{number}@example.com" for number in range(LIVE)]
        live_webhook(shop, sendgrid, live, now)
        expected |= set(live)
        wait_until(lambda: dynamic_yield.counts["taken"] >= len(expected), "the past is delivered", within=300)

    # Two days of outage: SendGrid has given up on what happened then. Its lists have not.
    for number in range(MISSED):
        which = ("unsubscribes", "group_suppressions", "spam_reports")[number % 3]
        account.suppress(which, f"missed-{number}@example.com", now - 2 * DAY + 100 * number, group_id=7)
        expected.add(f"missed-{number}@example.com")
    # Suppressions made by hand fire no webhook at all.
    for number in range(BY_HAND):
        account.suppress("unsubscribes", f"by-hand-{number}@example.com", now)
        expected.add(f"by-hand-{number}@example.com")
    # Neither a group that does not count nor a bounce is an opt-out.
    account.suppress("group_suppressions", "other-group@example.com", now, group_id=9)
    account.suppress("bounces", "bounced@example.com", now)
    # And some are on another list as well, since the same moment.
    for number in range(50):
        account.suppress("group_suppressions", f"missed-{number * 3}@example.com", now - 2 * DAY, group_id=8)

    # The worker comes back and compares by itself.
    with shop.serving(RECONCILE_EVERY="6h") as worker:
        worker.wait_for('"event":"reconciled"')
        wait_until(lambda: dynamic_yield.counts["taken"] >= len(expected), "the gaps are closed")
        metrics = requests.get(f"{shop.url}/metrics", timeout=10).text
        assert f'esp_webhooks_drift_total{{provider="sendgrid"}} {MISSED + BY_HAND}.0' in metrics
        assert ": 0 were missing here" in shop.run("flask", "reconcile", "sendgrid")
        time.sleep(1)  # for what should not come

    assert told(log) == Counter(expected)


def test_an_import_that_is_killed_at_any_moment_goes_on_where_it_stopped(
    shop: Shop, dynamic_yield: Sandbox, tmp_path: Path
) -> None:
    people = [f"person-{number}@example.com" for number in range(20_000)]
    file = tmp_path / "list.csv"
    file.write_text("\n".join(["email", *people]))
    shop.run("flask", "db", "upgrade")
    command = ["flask", "import", "sendgrid", str(file), "--yes"]
    for enough in (1, 6_000, 12_000, 1_000_000):
        with running(command, cwd=shop.folder, env=environment(**shop.environ), log=f"until-{enough}.log") as program:
            while program.process.poll() is None and stored_in(shop) < enough:
                time.sleep(0.005)
            program.process.kill()
    assert "Going on after row" in program.output()
    assert "Imported: " in program.output()
    assert stored_in(shop) == len(people), "each once: a row too many was stored twice, a row less was passed over"


def stored_in(shop: Shop) -> int:
    with closing(sqlite3.connect(shop.folder / "instance" / "outbox.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])
