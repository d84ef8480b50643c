"""The first ten minutes, as the README tells them: run, send a webhook, see it, break it, see why, mend it, replay."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from dotenv import dotenv_values
from playwright.sync_api import Browser, Locator, Page, expect

from tests.processes import checkout, environment, free_port, running, wait_for_http, wait_until

#: Beside other tests pages came without their script now and then.
pytestmark = [pytest.mark.slow, pytest.mark.alone]

PATIENCE = 20_000  # milliseconds; the overview looks every five seconds, statistics are written as often


@dataclass
class Product:
    """What `make run` has started."""

    folder: Path
    url: str
    sandbox: str
    password: str

    def simulate(self, email: str) -> None:
        command = [sys.executable, "-m", "flask", "simulate", "sendgrid", "--count", "1", "--email", email]
        subprocess.run(command, cwd=self.folder, env=environment(), check=True, timeout=60)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder, port = checkout(tmp_path_factory.mktemp("product")), free_port()
    env = environment(PORT=str(port), WEB_CONCURRENCY="2")
    with running([sys.executable, "-m", "webhook_app.dev.run"], cwd=folder, env=env) as program:
        url = f"http://localhost:{port}"
        wait_for_http(f"{url}/status")
        program.wait_for("forwards to")
        found = re.search(r"forwards to +(\S+) \(the sandbox\)", program.output())
        assert found, program.output()
        assert f"{url}/console/" in program.output()
        password = dotenv_values(folder / "instance" / "dev.env")["CONSOLE_PASSWORD"]
        assert password
        yield Product(folder, url, found[1], password)


@pytest.fixture
def console(real_browser: Browser, product: Product) -> Iterator[Page]:
    context = real_browser.new_context()
    page = context.new_page()
    page.goto(product.url)
    page.get_by_label("Password").fill(product.password)
    page.get_by_role("button", name="Log in").click()
    yield page
    context.close()
    # What one test breaks is no other's.
    requests.delete(f"{product.sandbox}/sandbox/fault", timeout=5).raise_for_status()


def find(console: Page, address: str) -> None:
    """Search for a person, and open their only change."""
    console.get_by_role("link", name="Events", exact=True).click()
    console.get_by_label("Address or id").fill(address)
    console.get_by_role("button", name="Search").click()
    console.get_by_role("rowheader").get_by_role("link").click()
    expect(console.get_by_role("heading", level=1)).to_contain_text(address)


def state_is(console: Page, state: str) -> None:
    heading = console.get_by_role("heading", level=1)

    def seen() -> bool:
        console.reload()
        return state in heading.inner_text()

    wait_until(seen, f"the change is {state}")


def test_a_simulated_webhook_is_seen_in_the_console_and_delivered(product: Product, console: Page) -> None:
    expect(console.get_by_role("heading", name="Working")).to_be_visible()
    product.simulate("jane@example.com")
    find(console, "jane@example.com")
    state_is(console, "delivered")
    expect(console.get_by_role("listitem").filter(has_text="Attempt 1: delivered")).to_contain_text("trace id sandbox-")
    expect(console.get_by_label("The request", exact=True)).to_contain_text(product.sandbox)
    console.get_by_role("link", name="Overview", exact=True).click()
    expect(console.get_by_role("link", name="Sandbox")).to_be_visible()
    look_up(console, "jane@example.com")
    expect(answer(console)).to_contain_text(
        re.compile(r"Yes.*; Dynamic Yield took it .* later \(trace sandbox-\d+\)\.", re.DOTALL)
    )
    expect(console.get_by_label("What was sent", exact=True)).to_contain_text('"plainTextEmail": "jane@example.com"')
    console.get_by_role("link", name="Overview", exact=True).click()
    expect(console.get_by_text("1 delivered")).to_be_visible(timeout=PATIENCE)
    expect(console.get_by_role("row", name="SendGrid")).to_contain_text("new changes")


def look_up(console: Page, address: str) -> None:
    console.get_by_label("Did somebody’s unsubscribe go through?").fill(address)
    console.get_by_role("button", name="Look up").click()
    # Until then the page is on its way, and cannot be loaded again.
    expect(answer(console)).to_be_visible()


def answer(console: Page) -> Locator:
    return console.get_by_role("region", name="The answer")


def test_dynamic_yield_switched_off_is_red_within_a_minute_and_green_again_after(
    product: Product, console: Page
) -> None:
    sandbox = console.context.new_page()
    sandbox.goto(product.sandbox)
    sandbox.get_by_role("button", name="503").first.click()
    expect(sandbox.get_by_role("status")).to_contain_text("Broken: status 503 until healed")
    product.simulate("jack@example.com")
    expect(console.get_by_role("heading", name="Not working")).to_be_visible(timeout=60_000)
    verdict = console.get_by_role("region", name="Is it working?")
    expect(verdict).to_contain_text("Dynamic Yield fails")
    look_up(console, "jack@example.com")

    def answered(word: str) -> bool:
        console.reload()
        return word in answer(console).inner_text()

    # Now and then it is just being sent.
    wait_until(lambda: answered("Not yet"), "the answer is not yet")
    sandbox.get_by_role("button", name="Heal").click()
    console.get_by_role("button", name="Send now").click()
    # Or it is in the middle of being sent, and is left to that.
    expect(console.get_by_role("status")).to_have_text(re.compile("will be sent|left alone"))
    wait_until(lambda: answered("Yes"), "the answer is yes")
    console.get_by_role("link", name="Overview", exact=True).click()
    expect(console.get_by_role("heading", name=re.compile("Working$"))).to_be_visible(timeout=60_000)
    sandbox.close()


def test_a_refusal_is_seen_with_its_reason_and_after_mending_the_change_is_replayed(
    product: Product, console: Page
) -> None:
    fault = {"kind": "status", "status": 422, "times": None, "body": {"message": "no such section", "type": "E1"}}
    requests.post(f"{product.sandbox}/sandbox/fault", json=fault, timeout=5).raise_for_status()
    product.simulate("joe@example.com")
    expect(console.get_by_text("1 change was given up")).to_be_visible(timeout=PATIENCE)
    find(console, "joe@example.com")
    state_is(console, "dead")
    expect(console.get_by_role("listitem").filter(has_text="Attempt 1: refused")).to_contain_text("no such section")

    requests.delete(f"{product.sandbox}/sandbox/fault", timeout=5).raise_for_status()
    console.once("dialog", lambda dialog: dialog.accept())
    console.get_by_role("button", name="Send again").click()
    expect(console.get_by_role("status")).to_have_text(re.compile("will be sent again"))
    state_is(console, "delivered")
    arrived = requests.get(f"{product.sandbox}/sandbox/received", timeout=5).json()["received"]
    assert [one["became"] for one in arrived if "joe@example.com" in str(one["body"])] == ["status", "taken"]
    console.get_by_role("link", name="Overview", exact=True).click()
    expect(console.get_by_role("heading", name=re.compile("Working$"))).to_be_visible()


def test_a_wrong_key_is_said_in_one_glance(product: Product, console: Page) -> None:
    fault = {"kind": "status", "status": 401, "times": None}
    requests.post(f"{product.sandbox}/sandbox/fault", json=fault, timeout=5).raise_for_status()
    product.simulate("jill@example.com")
    expect(console.get_by_role("heading", name="Not working")).to_be_visible(timeout=PATIENCE)
    expect(console.get_by_role("region", name="Is it working?")).to_contain_text("EVENTS_API_KEY is not accepted")
    requests.delete(f"{product.sandbox}/sandbox/fault", timeout=5).raise_for_status()


def test_both_web_processes_give_the_same_metrics_deliveries_included(product: Product) -> None:
    def scrape() -> dict[str, float]:
        lines = requests.get(f"{product.url}/metrics", timeout=5).text.splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if "_total{" in line)}

    accepted = 'esp_webhooks_accepted_total{provider="sendgrid"}'
    delivered = 'esp_webhooks_delivered_total{provider="sendgrid"}'
    before = scrape()
    for number in range(4):
        product.simulate(f"u{number}@example.com")
    # At least: what the tests before have done may be counted only now.
    wait_until(lambda: scrape().get(accepted, 0) >= before.get(accepted, 0) + 4, "four changes are counted")
    wait_until(lambda: scrape().get(delivered, 0) >= before.get(delivered, 0) + 4, "four deliveries are counted")
    # Without one sum for all, each of the two processes would lack what the other one counted.
    assert len({scrape()[accepted] for _ in range(20)}) == 1
