"""The console in a real Chromium. Every test also fails on a broken script, on anything that the content policy had to
block, and on a request to anybody but this server (see the fixture `page`)."""

import re
import time
from collections.abc import Callable

import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.console.conftest import Server
from tests.console.person import PASSWORD
from webhook_app.outbox import Queue, Settlement, State

#: Beside other tests pages came without their script now and then.
pytestmark = [pytest.mark.slow, pytest.mark.alone]

Post = Callable[..., None]


def unsubscribe(email: str) -> dict[str, object]:
    return {"event": "unsubscribe", "email": email, "timestamp": 1760000000}


def log_in(page: Page, password: str = PASSWORD) -> None:
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


PAGES = (
    "",
    "events",
    "events/1",
    "quarantine",
    "replay?state=dead",
    "esps",
    "esps/sendgrid",
    "esps/mailgun",
    "report",
    "journal",
)


@pytest.fixture
def console(page: Page) -> Page:
    log_in(page)
    expect(page.get_by_role("link", name="Overview", exact=True)).to_have_attribute("aria-current", "page")
    return page


def test_a_wrong_password_is_told_and_the_right_one_opens(page: Page, complaints: list[str]) -> None:
    log_in(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("That is not the password.")
    complaints.clear()  # the browser mentions the 403
    log_in(page)
    expect(page.get_by_role("heading", name="Not working")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()


def test_everything_can_be_reached_by_keyboard(page: Page, post: Post) -> None:
    post(unsubscribe("jane@example.com"), state="dead")
    # Each field has the focus by itself, a moment after it is seen: what is typed before that is lost.
    expect(page.get_by_label("Password")).to_be_focused()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Not working")).to_be_visible()
    expect(page.get_by_label("Did somebody’s unsubscribe go through?")).to_be_focused()
    page.keyboard.type("jane@example.com")
    page.keyboard.press("Enter")
    answer = page.get_by_role("region", name="The answer")
    expect(answer).to_contain_text("unsubscribed at SendGrid")
    page.keyboard.press("Tab")  # Look up
    page.keyboard.press("Tab")
    expect(answer.get_by_role("link", name="Open event #1")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("dead")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    names = []
    for _ in range(8):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert names[1:] == ["Overview", "Events", "Quarantine", "ESPs", "Report", "Journal", "Log out"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Journal")).to_be_visible()


def test_the_answer_stands_on_the_first_page_and_is_a_proof_to_print(console: Page, post: Post) -> None:
    post(unsubscribe("jane@example.com"))
    console.get_by_label("Did somebody’s unsubscribe go through?").fill("jane@example.com")
    console.get_by_role("button", name="Look up").click()
    expect(console.get_by_role("region", name="The answer")).to_contain_text("Not yet")
    assert "jane" not in console.url
    console.get_by_role("button", name="Send now").click()
    expect(console.get_by_role("status")).to_have_text("#1 will be sent again.")
    expect(console.get_by_role("region", name="The answer")).to_be_visible()
    console.evaluate("window.print = () => { document.title = 'printed' }")
    console.get_by_role("button", name="Print or save a proof").click()
    assert console.title() == "printed"
    console.emulate_media(media="print")
    expect(console.get_by_text("Proof, made on")).to_be_visible()
    for away in ("Look up", "Send now", "Log out"):
        expect(console.get_by_role("button", name=away)).to_be_hidden()
    shown = console.locator(".verdict time").first.evaluate("time => getComputedStyle(time, '::after').content")
    assert shown.endswith(' UTC"')
    assert len(console.pdf()) > 1000


def test_a_row_leads_where_its_link_does_and_a_text_in_it_can_be_selected(console: Page, post: Post) -> None:
    post(unsubscribe("jane@example.com"))
    console.get_by_role("link", name="Events", exact=True).click()
    cell = console.get_by_role("cell", name="jane@example.com")
    cell.dblclick(force=True)  # selects a word, and stays
    console.get_by_role("link", name="Events", exact=True).click()
    cell.click()
    expect(console.get_by_role("heading", level=1)).to_contain_text("#1")


def test_what_is_wrong_leads_to_where_it_is_mended(console: Page, post: Post, served: str) -> None:
    post(unsubscribe("jane@example.com"), state="dead")
    post({"event": "unsubscribe"})
    console.goto(f"{served}/console/")
    console.get_by_role("link", name=re.compile("mend the cause, then replay")).click()
    expect(console.get_by_role("cell", name="jane@example.com")).to_be_visible()
    console.go_back()
    console.get_by_role("link", name=re.compile("mend the mapping")).click()
    expect(console.get_by_role("heading", name="Quarantine")).to_be_visible()


def test_times_are_those_of_the_persons_clock_and_utc_can_be_pointed_at(
    real_browser: Browser, served: str, post: Post
) -> None:
    post(unsubscribe("jane@example.com") | {"timestamp": 1760000000})  # 2025-10-09 08:53:20 UTC
    context = real_browser.new_context(timezone_id="Asia/Tokyo")
    page = context.new_page()
    page.goto(f"{served}/console/login?next=/console/events/1")
    log_in(page)
    happened = page.locator("li", has_text="Happened").locator("time")
    expect(happened).to_have_text("09 Oct 2025, 17:53:20")
    expect(happened).to_have_attribute("title", "2025-10-09 08:53:20 UTC")
    expect(page.locator("#zone")).to_contain_text("Asia/Tokyo")
    context.close()


def test_the_first_webhook_is_waited_for_and_seen_to_come(console: Page, post: Post, app: Flask, served: str) -> None:
    console.goto(f"{served}/console/esps/sendgrid")
    expect(console.get_by_text("Waiting for the first webhook")).to_be_visible()
    post(unsubscribe("jane@example.com"))
    app.extensions["counters"].flush()
    heard = console.get_by_role("region", name="Is it heard?")
    expect(heard).to_contain_text("understood as 1 new change", timeout=20_000)
    expect(heard.get_by_role("link", name="jane@example.com")).to_be_visible()
    console.locator(".webhooks summary").first.click()
    expect(console.get_by_label("The body")).to_contain_text("jane@example.com")


def test_a_secret_is_made_by_keyboard_and_shown_once(console: Page, served: str) -> None:
    console.goto(f"{served}/console/esps/mailchimp")
    console.get_by_role("button", name="Make a secret for MAILCHIMP_URL_SECRETS").focus()
    console.keyboard.press("Enter")
    expect(console.get_by_role("status")).to_contain_text("it is shown once")
    secret = console.locator("#variable").inner_text().partition("=")[2]
    expect(console.locator("#url")).to_have_text(f"{served}/webhooks/mailchimp/{secret}")
    console.goto(f"{served}/console/esps/mailchimp")
    expect(console.locator("main")).not_to_contain_text(secret)


def test_the_chart_tells_its_numbers_and_an_idle_line_is_no_alarm(console: Page, post: Post, served: str) -> None:
    chart = console.locator(".chart canvas")
    expect(chart).to_be_visible()
    # Where nothing failed, nothing red is drawn.
    assert console.evaluate("document.querySelector('.chart').chart.data[3].every((value) => value === null)")
    console.locator(".chart .u-over").hover()
    expect(console.locator("#reading")).to_contain_text("0 received, 0 taken, 0 failed")


def test_the_report_has_a_chart_and_can_be_saved(console: Page, served: str, app: Flask, post: Post) -> None:
    post(unsubscribe("jane@example.com") | {"timestamp": int(time.time())})
    deliver(app)
    console.get_by_role("link", name="Report", exact=True).click()
    expect(console.get_by_text("100.00 %").first).to_be_visible()
    expect(console.get_by_role("rowheader", name="within 2 seconds")).to_be_visible()
    with console.expect_download() as download:
        console.get_by_role("link", name="Export CSV").click()
    assert "sendgrid,1," in download.value.path().read_text()


def deliver(app: Flask) -> None:
    queue = Queue(app.extensions["database"])
    queue.settle(
        [
            Settlement(claimed=one, state=State.DELIVERED, started_at=time.time(), duration=0.1, outcome="delivered")
            for one in queue.claim(10)
        ]
    )


def test_a_person_is_found_and_their_change_replayed(console: Page, post: Post) -> None:
    post(unsubscribe("jane@example.com"), unsubscribe("joe@example.com"), state="dead")
    console.get_by_role("link", name="Events", exact=True).click()
    console.get_by_label("Address or id").fill("JANE@example.com")
    console.get_by_role("button", name="Search").click()
    rows = console.get_by_role("row")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text("jane@example.com")
    rows.nth(1).get_by_role("link").click()
    expect(console.get_by_role("heading", level=1)).to_contain_text("jane@example.com")
    expect(console.get_by_label("The request", exact=True)).to_contain_text('"plainTextEmail": "jane@example.com"')

    console.once("dialog", lambda dialog: dialog.dismiss())
    console.get_by_role("button", name="Send again").click()
    expect(console.get_by_role("heading", level=1)).to_contain_text("dead")
    console.once("dialog", lambda dialog: dialog.accept())
    console.get_by_role("button", name="Send again").click()
    expect(console.get_by_role("status")).to_have_text("#1 will be sent again.")
    expect(console.get_by_role("heading", level=1)).to_contain_text("pending")


def test_all_found_are_discarded_after_a_confirmation_that_says_how_many(console: Page, post: Post) -> None:
    post(*(unsubscribe(f"u{number}@example.com") for number in range(60)), state="dead")
    console.get_by_role("link", name="Events", exact=True).click()
    console.get_by_label("State").select_option("dead")
    console.get_by_role("button", name="Search").click()
    console.get_by_role("link", name="Next →").click()
    expect(console.get_by_role("row")).to_have_count(11)
    console.get_by_text("Act on everything that was found").click()
    console.get_by_role("link", name="Discard all found …").click()
    expect(console.get_by_role("heading", level=1)).to_have_text("Discard 60 changes?")
    console.get_by_role("button", name="Yes, discard 60").click()
    expect(console.get_by_role("heading", level=1)).to_have_text("60 changes were discarded")


def test_columns_sort_and_say_so_to_a_screen_reader(console: Page, post: Post) -> None:
    post(unsubscribe("first@example.com"), unsubscribe("second@example.com"))
    console.get_by_role("link", name="Events", exact=True).click()
    heading = console.get_by_role("columnheader", name="Received")
    expect(heading).to_have_attribute("aria-sort", "descending")
    expect(console.get_by_role("row").nth(1)).to_contain_text("second@example.com")
    heading.get_by_role("link").click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    expect(console.get_by_role("row").nth(1)).to_contain_text("first@example.com")


def test_what_is_found_can_be_exported(console: Page, post: Post) -> None:
    post(unsubscribe("jane@example.com"))
    console.get_by_role("link", name="Events", exact=True).click()
    with console.expect_download() as download:
        console.get_by_role("link", name="Export CSV").click()
    assert "jane@example.com" in download.value.path().read_text()


def test_the_quarantine_shows_the_event_as_it_came_and_tries_again(console: Page, post: Post) -> None:
    post({"event": "unsubscribe", "email": "<script>document.title='stolen'</script>"})
    console.get_by_role("link", name="Quarantine", exact=True).click()
    expect(console.get_by_label("The raw event", exact=True)).to_contain_text(
        "<script>document.title='stolen'</script>"
    )
    console.get_by_role("button", name="Try again #1").click()
    expect(console.get_by_role("status")).to_have_text("#1 is still not understood.")
    assert "stolen" not in console.title()


def test_the_overview_keeps_itself_up_to_date(console: Page, post: Post) -> None:
    waiting = console.locator("dl.tiles div", has_text="Waiting").first
    expect(waiting).to_contain_text("0")
    post(unsubscribe("jane@example.com"))
    expect(waiting).to_contain_text("1", timeout=20_000)  # it looks every five seconds


@pytest.mark.parametrize("path", ["", "esps", "esps/sendgrid"])
def test_a_live_page_says_since_when_it_knows_nothing_new(
    console: Page, server: Server, complaints: list[str], path: str
) -> None:
    console.goto(f"{server.address}/console/{path}")
    stale = console.get_by_role("status")
    expect(stale).to_have_count(0)
    server.stop()
    try:
        expect(stale).to_have_text(
            re.compile(r"Not updated since \d\d:\d\d: the receiver does not answer\."), timeout=20_000
        )
        assert all("grayscale" in look for look in console.evaluate(LOOKS))
    finally:
        server.start()
    complaints.clear()  # the browser mentions each look that failed
    expect(stale).to_have_count(0, timeout=20_000)
    assert console.evaluate(LOOKS) == ["none"] * console.locator("[data-live]").count()


LOOKS = "[...document.querySelectorAll('[data-live]')].map((part) => getComputedStyle(part).filter)"


def test_an_error_is_no_news_either(console: Page, complaints: list[str]) -> None:
    console.route("**/console/", lambda route: route.fulfill(status=503))
    expect(console.get_by_role("status")).to_contain_text("the receiver answers 503.", timeout=20_000)
    complaints.clear()


def test_when_the_session_ends_a_live_page_asks_for_the_password(console: Page, context: BrowserContext) -> None:
    other = context.new_page()
    other.goto(console.url, wait_until="networkidle")
    other.get_by_role("button", name="Log out").click()
    expect(other.get_by_label("Password")).to_be_visible()
    other.close()  # the page in front is the one that looks
    expect(console.get_by_label("Password")).to_be_visible(timeout=20_000)
    log_in(console)
    expect(console.get_by_role("link", name="Overview", exact=True)).to_have_attribute("aria-current", "page")


def test_the_chart_is_drawn_from_its_table(console: Page, post: Post) -> None:
    expect(console.locator(".chart canvas")).to_be_visible()
    drawn = console.evaluate("document.querySelector('.chart').chart.data.map((column) => column.length)")
    # 24 hours in steps of ten minutes, and the end of the last step.
    assert drawn == [145] * 4
    console.get_by_text("The same as a table").click()
    expect(console.locator("#series tbody tr")).to_have_count(144)
    console.get_by_role("link", name="7 days").click()
    expect(console.locator(".chart canvas")).to_be_visible()


def test_a_webhook_url_can_be_copied(console: Page, context: BrowserContext, served: str) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    console.goto(f"{served}/console/esps/sendgrid")
    console.get_by_role("button", name="Copy the URL").click()
    expect(console.get_by_role("button", name="Copied")).to_be_visible()
    assert console.evaluate("navigator.clipboard.readText()") == f"{served}/webhooks/sendgrid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_page_is_wider_than_the_screen_and_every_text_can_be_read(
    console: Page, post: Post, served: str, width: int, scheme: str
) -> None:
    post(unsubscribe(f"{'a-rather-long-address' * 4}@example.com"), state="dead")
    post({"event": "unsubscribe", "email": "x" * 500})
    console.set_viewport_size({"width": width, "height": 800})
    console.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # one of its literals
    for path in PAGES:
        console.goto(f"{served}/console/{path}")
        assert console.evaluate("document.documentElement.scrollWidth") <= width, path
        assert console.evaluate(POOR_CONTRAST) == [], path
        assert console.evaluate(CUT_OFF) == [], path


#: Tables that stand in something narrower than they are: whoever does not scroll sideways misses their end.
CUT_OFF = """() => [...document.querySelectorAll(".flush")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1)
  .map((box) => [box.scrollWidth, box.clientWidth])"""

#: Texts whose contrast with what is behind them is below 4.5, the least that WCAG AA asks for.
POOR_CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
    .filter((element) => element.checkVisibility() && !["SCRIPT", "OPTION"].includes(element.tagName))
    .map((element) => {
      const [one, two] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
      return [element.textContent.trim().slice(0, 30), (one + 0.05) / (two + 0.05)];
    })
    .filter(([, ratio]) => ratio < 4.5);
}"""


def test_a_table_is_still_a_table_on_a_phone(console: Page, post: Post, served: str) -> None:
    post(unsubscribe("jane@example.com"))
    console.set_viewport_size({"width": 360, "height": 800})
    console.goto(f"{served}/console/events")
    expect(console.get_by_role("rowheader")).to_have_text("#1")
    expect(console.get_by_role("cell", name="jane@example.com")).to_be_visible()


def test_every_field_and_button_has_a_name_and_every_page_its_landmarks(console: Page, post: Post, served: str) -> None:
    post(unsubscribe("jane@example.com"), state="dead")
    post({"event": "unsubscribe"})
    for path in PAGES:
        console.goto(f"{served}/console/{path}")
        expect(console.get_by_role("main")).to_have_count(1)
        expect(console.get_by_role("banner")).to_have_count(1)
        expect(console.locator("h1")).to_have_count(1)
        nameless = console.evaluate(
            """() => [...document.querySelectorAll("input:not([type=hidden]), select, button, a")]
              .filter((one) => !(one.labels?.length || one.textContent.trim() || one.ariaLabel))
              .map((one) => one.outerHTML)"""
        )
        assert nameless == []
