"""Reconciliation at seven ESPs: years of opt-outs, an outage, suppressions made by hand; the lists agree in the end.

The oracle is the stand-in's own list, against the table of events in plain SQL and the sandbox's log of arrivals.
"""

import csv
import os
import re
import shlex
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests import esp_apis, sendgrid_api
from tests.end_to_end.test_sync import Shop, told
from tests.esp_apis import STAND_INS, StandIn
from tests.processes import free_port, wait_until
from webhook_app.dev import sandbox
from webhook_app.dev.sandbox import Sandbox

OLD = int(os.environ.get("OLD_OPT_OUTS", "20000"))
MISSED = 500
BY_HAND = 10
NOT_ASKED = 50

#: A hundred thousand rows are imported, and read page by page, while other tests want the machine, too.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: Provider → the header of a file with its opt-outs, and a row of it.
FILES: dict[str, tuple[list[str], Callable[[str, str, datetime], list[str]]]] = {
    "mailchimp": (
        ["Email Address", "First Name", "MEMBER_RATING", "OPTIN_TIME", "UNSUB_TIME", "UNSUB_REASON", "LEID"],
        lambda _kind, email, at: [email, "Jane", "2", "2019-01-01 10:00:00", f"{at:%Y-%m-%d %H:%M:%S}", "", "1"],
    ),
    "klaviyo": (["Email", "Reason", "Suppressed At"], lambda kind, email, at: [email, kind, at.isoformat()]),
    "mailgun": (["address", "tags", "created_at"], lambda _kind, email, at: [email, "*", format_datetime(at)]),
    "postmark": (
        ["EmailAddress", "SuppressionReason", "Origin", "CreatedAt"],
        lambda kind, email, at: [email, kind, "Recipient", at.isoformat()],
    ),
    "brevo": (
        ["email", "senderEmail", "reason", "blockedAt"],
        lambda kind, email, at: [email, "shop@example.com", kind, f"{at:%Y-%m-%dT%H:%M:%SZ}"],
    ),
    "ses": (
        ["EmailAddress", "Reason", "LastUpdateTime"],
        lambda kind, email, at: [email, kind, at.isoformat()],
    ),
}
#: Files in which nobody else stands.
ONLY_OPT_OUTS = {"mailchimp", "mailgun"}
#: What no header tells.
TOLD = {"ses": ["--time", "LastUpdateTime"]}


@pytest.fixture
def dynamic_yield(tmp_path: Path) -> Iterator[Sandbox]:
    with sandbox.running(api_key="server-side-key", log_file=tmp_path / "arrivals.jsonl") as stand_in:
        yield stand_in


def make_shop(folder: Path, dynamic_yield: Sandbox, *environs: dict[str, str]) -> Shop:
    environ = {
        "PORT": str(free_port()),
        "EVENTS_API_URL": dynamic_yield.url,
        "EVENTS_API_KEY": "server-side-key",
    }
    for more in environs:
        environ |= more
    return Shop(folder, environ)


def known(shop: Shop) -> Counter[str]:
    """Whose opt-out is on disk, and how often."""
    with closing(sqlite3.connect(shop.folder / "instance" / "outbox.db")) as connection:
        query = "SELECT identity_value, action FROM events WHERE identity_value IS NOT NULL"
        rows = connection.execute(query).fetchall()
    assert {action for _, action in rows} == {"opt_out"}
    return Counter(address for address, _ in rows)


def export(provider: str, esp: StandIn, path: Path) -> None:
    header, row = FILES[provider]
    kinds = esp.opt_outs if provider in ONLY_OPT_OUTS else (*esp.opt_outs, *esp.others)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(row(one["kind"], one["email"], one["at"]) for one in esp.entries if one["kind"] in kinds)


@pytest.mark.parametrize("provider", STAND_INS)
def test_a_hundred_thousand_old_opt_outs_an_outage_and_a_hand_end_in_the_same_list(
    provider: str, dynamic_yield: Sandbox, tmp_path: Path
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    with esp_apis.running(provider) as esp:
        shop = make_shop(tmp_path, dynamic_yield, esp.environ)
        shop.run("flask", "db", "upgrade")
        for number in range(OLD):
            kind = esp.opt_outs[number % len(esp.opt_outs)]
            esp.suppress(kind, f"old-{number:06}@example.com", now - timedelta(days=30, seconds=OLD - number))
        for number in range(NOT_ASKED):
            esp.suppress(esp.others[number % len(esp.others)], f"not-asked-{number}@example.com", now)

        # Years of opt-outs out of the ESP's own file: what else is in it is not taken.
        file = tmp_path / "export.csv"
        export(provider, esp, file)
        command = ["flask", "import", provider, str(file), "--yes", *TOLD.get(provider, [])]
        if provider not in ONLY_OPT_OUTS:
            refused = shop.fail(*command)
            advice = re.search(r"say (--only .*?)(?: \(|;)", refused)
            assert advice, refused
            command += shlex.split(advice[1])
        assert f"Imported: {OLD:,} new, 0 known already" in shop.run(*command)
        assert len(known(shop)) == OLD

        # Two days of outage: the ESP has given up on what happened then. And what was made by hand fires no webhook.
        for number in range(MISSED):
            kind = esp.opt_outs[number % len(esp.opt_outs)]
            esp.suppress(kind, f"missed-{number}@example.com", now - timedelta(days=2, seconds=-100 * number))
        for number in range(BY_HAND):
            esp.suppress(esp.opt_outs[-1], f"by-hand-{number}@example.com", now)
        assert f": {MISSED + BY_HAND} were missing here" in shop.run("flask", "reconcile", provider)

        assert esp.complaints == []
        expected = Counter(one["email"] for one in esp.entries if one["kind"] in esp.opt_outs)
        assert known(shop) == expected, "each of them once, and nobody else"


def test_the_worker_closes_the_gaps_of_seven_esps_by_itself(dynamic_yield: Sandbox, tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    with ExitStack() as stack:
        sendgrid = stack.enter_context(sendgrid_api.running())
        esps = [stack.enter_context(esp_apis.running(provider)) for provider in STAND_INS]
        expected = set()
        for number in range(BY_HAND):
            sendgrid.account.suppress("unsubscribes", f"sendgrid-{number}@example.com", now.timestamp() - 60)
            expected.add(f"sendgrid-{number}@example.com")
        for provider, esp in zip(STAND_INS, esps, strict=True):
            for number, kind in enumerate((*esp.opt_outs, *esp.others) * 5):
                esp.suppress(kind, f"{provider}-{number}@example.com", now - timedelta(days=2))
                if kind in esp.opt_outs:
                    expected.add(f"{provider}-{number}@example.com")
        keys = {"SENDGRID_API_URL": sendgrid.url, "SENDGRID_API_KEY": "SG.full"}
        shop = make_shop(tmp_path, dynamic_yield, keys, *(esp.environ for esp in esps))
        shop.run("flask", "db", "upgrade")
        with shop.serving(RECONCILE_EVERY="6h"):
            wait_until(lambda: dynamic_yield.counts["taken"] >= len(expected), "the gaps are closed", within=120)
        assert [esp.complaints for esp in esps] == [[]] * len(esps)
    assert told(tmp_path / "arrivals.jsonl") == Counter(expected)
