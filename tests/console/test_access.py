"""Who gets into the console, and who does not."""

from base64 import b64encode
from collections.abc import Callable

import pytest
from flask import Flask
from werkzeug.exceptions import TooManyRequests

from tests.console.person import PASSWORD, Person
from webhook_app.console.access import LoginGuard
from webhook_app.outbox import Database
from webhook_app.outbox.login_failures import FAILURES_OF_ALL, FAILURES_PER_CALLER
from webhook_app.outbox.tables import login_failures
from webhook_app.settings import Settings

MakeApp = Callable[..., Flask]

PAGES = [
    "/console/",
    "/console/events",
    "/console/events/1",
    "/console/events.csv",
    "/console/quarantine",
    "/console/x",
]


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"anybody:{password}".encode()).decode()}


def test_without_a_password_there_is_no_console(make_app: MakeApp) -> None:
    client = make_app().test_client()
    assert {
        client.get(path).status_code for path in [*PAGES, "/", "/console/login", "/console/static/console.css"]
    } == {404}


def test_with_a_password_the_front_door_leads_to_the_console(app: Flask) -> None:
    answer = app.test_client().get("/")
    assert (answer.status_code, answer.location) == (302, "/console/")


@pytest.mark.parametrize("path", PAGES)
def test_nobody_sees_a_page_without_the_password(app: Flask, path: str) -> None:
    answer = app.test_client().get(path)
    assert answer.status_code == 303
    assert answer.location.startswith("/console/login")


def test_whoever_logs_in_comes_to_the_page_that_was_wanted(app: Flask) -> None:
    person = Person(app.test_client())
    wanted = person.get("/console/events?state=dead").location
    assert wanted == "/console/login?next=%2Fconsole%2Fevents%3Fstate%3Ddead"
    assert person.log_in(next="/console/events?state=dead").location == "/console/events?state=dead"
    assert person.get("/console/events").status_code == 200


@pytest.mark.parametrize(
    "goal",
    ["https://evil.example/", "//evil.example/", "/console/..//evil.example", "/console/\\evil", "/", "/console/\n"],
)
def test_a_login_never_leads_elsewhere(app: Flask, goal: str) -> None:
    assert Person(app.test_client()).log_in(next=goal).location == "/console/"


def test_a_wrong_password_is_told_and_opens_nothing(app: Flask) -> None:
    person = Person(app.test_client())
    answer = person.log_in("wrong")
    assert (answer.status_code, "That is not the password." in answer.text) == (403, True)
    assert person.get("/console/").status_code == 303


def test_with_users_each_has_a_name_and_a_password(make_app: MakeApp) -> None:
    app = make_app(CONSOLE_USERS="ann:anns password,ben:bens password")
    person = Person(app.test_client())
    assert 'name="name"' in person.get("/console/login").text
    for name, password in (("ann", "bens password"), ("", "anns password"), ("ann", ""), ("cleo", "anns password")):
        assert person.log_in(password, name=name).status_code == 403
    assert person.log_in("anns password", name="ann").status_code == 303
    assert "Log out ann" in person.get("/console/").text
    pair = "Basic " + b64encode(b"ben:bens password").decode()
    assert app.test_client().get("/console/events.csv", headers={"Authorization": pair}).status_code == 200
    assert app.test_client().get("/console/events.csv", headers=basic("bens password")).status_code == 401


def test_a_user_who_is_taken_away_is_logged_out(make_app: MakeApp) -> None:
    app = make_app(CONSOLE_USERS="ann:anns password,ben:bens password")
    cookie = Person(app.test_client()).log_in("anns password", name="ann").headers["Set-Cookie"].partition(";")[0]
    changed = make_app(CONSOLE_USERS="ben:bens password").test_client(use_cookies=False)
    assert changed.get("/console/", headers={"Cookie": cookie}).status_code == 303


def test_http_basic_opens_it_for_scripts(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/console/events.csv", headers=basic(PASSWORD)).status_code == 200
    answer = client.get("/console/events.csv", headers=basic("wrong"))
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Basic realm=console")
    assert client.get("/console/", headers={"Authorization": "Basic x"}).status_code == 303
    assert client.get("/console/", headers={"Authorization": f"Bearer {PASSWORD}"}).status_code == 303


def test_after_ten_wrong_passwords_the_right_one_is_not_looked_at_either(app: Flask) -> None:
    person = Person(app.test_client())
    answers = [person.log_in("wrong").status_code for _ in range(FAILURES_PER_CALLER + 1)]
    assert answers == [403] * FAILURES_PER_CALLER + [429]
    answer = person.log_in()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "900")
    assert person.get("/console/", headers=basic(PASSWORD)).status_code == 429


def test_the_limit_holds_for_all_web_processes_together(app: Flask, make_app: MakeApp) -> None:
    other = make_app(CONSOLE_PASSWORD=PASSWORD)
    for number in range(FAILURES_PER_CALLER):
        Person((app, other)[number % 2].test_client()).log_in("wrong")
    assert Person(other.test_client()).log_in().status_code == 429


def test_another_caller_may_still_log_in_and_whoever_is_in_stays_in(app: Flask, person: Person) -> None:
    for _ in range(FAILURES_PER_CALLER):
        Person(app.test_client()).log_in("wrong")
    assert person.get("/console/").status_code == 200
    elsewhere = Person(
        app.test_client(),
    )
    elsewhere.client.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    assert elsewhere.log_in().status_code == 303


def test_guesses_from_many_addresses_meet_a_limit_of_their_own(database: Database) -> None:
    now = [1_000_000.0]
    app = Flask("guesses")
    settings = Settings.from_environment({"CONSOLE_PASSWORD": PASSWORD})
    guard = LoginGuard(database, settings, clock=lambda: now[0])

    def guess(number: int, *, password: str) -> bool:
        with app.test_request_context(environ_base={"REMOTE_ADDR": f"2001:db8::{number:x}"}):
            return guard.user("", password) is not None

    assert not any(guess(number, password="wrong") for number in range(FAILURES_OF_ALL))
    with pytest.raises(TooManyRequests):
        guess(10**6, password=PASSWORD)
    with database.read() as connection:
        kept = connection.execute(login_failures.select()).all()
    # One row a caller and one for all; no address among them.
    assert len(kept) == FAILURES_OF_ALL + 1
    assert not [row for row in kept if "2001:" in row.caller]

    now[0] += 15 * 60
    assert guess(10**6, password=PASSWORD)
    assert not guess(1, password="wrong")
    with database.read() as connection:
        assert len(connection.execute(login_failures.select()).all()) == 2


def test_the_last_hops_word_tells_callers_apart_behind_a_router(app: Flask) -> None:
    client = app.test_client()
    for _ in range(FAILURES_PER_CALLER):
        client.get("/console/", headers=basic("wrong") | {"X-Forwarded-For": "1.2.3.4, 192.0.2.1"})
    blocked, free = ({"X-Forwarded-For": f"{hop}"} for hop in ("9.9.9.9, 192.0.2.1", "1.2.3.4, 192.0.2.2"))
    assert client.get("/console/", headers=basic(PASSWORD) | blocked).status_code == 429
    assert client.get("/console/", headers=basic(PASSWORD) | free).status_code == 200


def test_the_cookie_is_for_the_console_only_and_no_script_reads_it(app: Flask) -> None:
    answer = Person(app.test_client()).log_in()
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "Path=/console" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie


@pytest.mark.parametrize("https", [{"base_url": "https://localhost"}, {"headers": {"X-Forwarded-Proto": "https"}}])
def test_over_https_the_cookie_never_travels_in_the_clear(app: Flask, https: dict[str, object]) -> None:
    cookie = app.test_client().get("/console/login", **https).headers["Set-Cookie"]
    assert "Secure" in cookie


def test_a_session_is_good_at_every_web_process_without_a_secret_key(app: Flask, make_app: MakeApp) -> None:
    """The key stands in the database, which they share."""
    person = Person(app.test_client())
    cookie = person.log_in().headers["Set-Cookie"].partition(";")[0]
    other = make_app(CONSOLE_PASSWORD=PASSWORD).test_client(use_cookies=False)
    assert other.get("/console/", headers={"Cookie": cookie}).status_code == 200


@pytest.mark.parametrize("change", [{"CONSOLE_PASSWORD": "another password"}, {"SECRET_KEY": "x" * 32}])
def test_changing_the_password_or_the_key_logs_everybody_out(
    app: Flask, make_app: MakeApp, change: dict[str, str]
) -> None:
    cookie = Person(app.test_client()).log_in().headers["Set-Cookie"].partition(";")[0]
    changed = make_app(**({"CONSOLE_PASSWORD": PASSWORD} | change)).test_client(use_cookies=False)
    assert changed.get("/console/", headers={"Cookie": cookie}).status_code == 303


def test_a_forged_cookie_opens_nothing(app: Flask) -> None:
    for cookie in ("console=x", "console=eyJpbiI6dHJ1ZX0.aaaa.bbbb", "console=" + "a" * 5000):
        assert app.test_client(use_cookies=False).get("/console/", headers={"Cookie": cookie}).status_code == 303


def test_logging_out_closes_it(person: Person) -> None:
    assert person.post("/console/logout", form_on="/console/").status_code == 303
    assert person.get("/console/").status_code == 303


@pytest.mark.parametrize(
    "path", ["/console/replay", "/console/discard", "/console/events/1/replay", "/console/logout", "/console/login"]
)
@pytest.mark.parametrize("token", ["", "forged", "\ud7ff", "0" * 9999])
def test_a_form_that_is_not_ours_does_nothing(app: Flask, person: Person, path: str, token: str) -> None:
    answer = person.client.post(path, data={"csrf": token, "state": "dead", "password": PASSWORD})
    assert (answer.status_code, "not from here" in answer.text) == (400, True)


@pytest.mark.parametrize("how", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_huge_form_is_not_read(app: Flask, how: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + b"a" * 200_000
    assert app.test_client().post("/console/login", data=body, content_type=how).status_code == 413


def test_a_forged_form_does_nothing_either_when_the_browser_adds_basic(app: Flask) -> None:
    assert (
        app.test_client().post("/console/discard", headers=basic(PASSWORD), data={"state": "dead"}).status_code == 400
    )


def test_a_token_from_before_the_login_is_worthless_after_it(app: Flask) -> None:
    person = Person(app.test_client())
    before = person.token("/console/login")
    person.log_in()
    assert person.client.post("/console/logout", data={"csrf": before}).status_code == 400


def test_every_answer_of_the_console_carries_strict_headers(app: Flask, person: Person) -> None:
    for path, status in {"/console/": 200, "/console/events/99": 404, "/console/events?state=x": 400}.items():
        answer = person.get(path)
        assert answer.status_code == status
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
    with app.test_client().get("/console/static/console.css") as styles:
        assert (styles.status_code, styles.headers["X-Content-Type-Options"]) == (200, "nosniff")


def test_webhooks_get_no_cookie_of_the_consoles(app: Flask) -> None:
    assert "Set-Cookie" not in app.test_client().post("/webhooks/sendgrid", data=b"[]").headers
