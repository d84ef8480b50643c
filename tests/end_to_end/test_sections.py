"""Two sections of Dynamic Yield behind one receiver: each hears of its own, and nothing of the other one's trouble."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import wait_until
from tests.product import installed_product, opt_out, people
from tests.signing import SendGridSigner
from webhook_app.dev import sandbox
from webhook_app.dev.sandbox import Sandbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FILE = """
[uk]
api_key = "UK_DY_KEY"
url = "{uk}"
when = "event.asm_group_id == `4711`"

[app]
api_key = "APP_DY_KEY"
url = "{app}"
type = "api"
when = "contains(['unsubscribe', 'group_unsubscribe'], event.event)"
"""


def told(box: Sandbox) -> list[str]:
    return sorted(body["events"][0]["properties"]["plainTextEmail"] for body in box.taken)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_each_section_hears_of_what_concerns_it_and_one_with_a_wrong_key_disturbs_no_other(
    engine: str, tmp_path: Path, new_database: Callable[[str], str], sendgrid_signer: SendGridSigner
) -> None:
    in_the_group, outside = people(30, "in-the-group"), people(30, "outside")
    nobodys = people(5, "nobodys")
    with (
        sandbox.running("uk-key") as uk,
        sandbox.running("app-key") as app,
        installed_product(tmp_path, new_database(engine), sendgrid_signer) as product,
    ):
        (tmp_path / "sections.toml").write_text(FILE.format(uk=uk.url, app=app.url))
        product.settings |= {"UK_DY_KEY": "a-wrong-key", "APP_DY_KEY": "app-key"}
        product.migrate()
        product.start_web()
        product.start_workers(1)
        events = [opt_out(one, event="group_unsubscribe", asm_group_id=4711) for one in in_the_group]
        events += [opt_out(one) for one in outside] + [opt_out(one, event="spamreport") for one in nobodys]
        answer = product.post(events).json()
        assert answer == {"accepted": 60, "duplicates": 0, "ignored": 5, "quarantined": 0}

        wait_until(lambda: told(app) == sorted(in_the_group + outside), "the section with the right key hears of all")
        wait_until(lambda: '"destination_paused"' in product.workers[0].output(), "the pause of the other one is said")
        arrived = uk.counts["arrived"]
        time.sleep(3)
        # One try after 1, 2, 4 … seconds.
        assert uk.counts["arrived"] - arrived <= 3
        assert uk.taken == []

        product.settings["UK_DY_KEY"] = "uk-key"
        assert product.workers[0].stop() == 0
        product.start_workers(1)
        wait_until(lambda: told(uk) == sorted(in_the_group), "it hears of those whom its condition means")
        # Each once; and to each section with the ids of its own type.
        assert told(app) == sorted(in_the_group + outside)
        assert all("sessionId" in body for body in app.taken)
        assert not any("sessionId" in body for body in uk.taken)
        for one in (*uk.received, *app.received):
            assert not any(address in json.dumps(one["body"]) for address in nobodys)
