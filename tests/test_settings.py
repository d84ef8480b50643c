"""Mistakes in a setting cost a minute: one line for each, naming the variable and the cure."""

import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import authority
from tests.processes import ROOT, checkout, environment, family, find, free_port, running, wait_for_http, wait_until
from tests.signing import SendGridSigner
from webhook_app.providers import registry
from webhook_app.setting_fields import Choice, CommaSeparated
from webhook_app.settings import (
    MADE_UP,
    ConfigurationError,
    Settings,
    near_misses,
    variables,
)


def problems(**environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment(environ)
    return caught.value.problems


def test_everything_has_a_default_but_nothing_is_made_up() -> None:
    settings = Settings.from_environment({})
    assert (settings.events_api_key, settings.sendgrid_verification_keys) == ("", ())


def test_all_mistakes_are_reported_at_once() -> None:
    lines = problems(
        EVENTS_API_REGION="mars", MAX_BODY_BYTES="much", FORWARD_OPT_INS="perhaps", SENDGRID_VERIFICATION_KEYS="key"
    )
    assert [line.split()[0] for line in lines] == [
        "EVENTS_API_REGION",
        "FORWARD_OPT_INS",
        "MAX_BODY_BYTES",
        "SENDGRID_VERIFICATION_KEYS",
    ]


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("EVENTS_API_REGION", "mars", "must be one of: us, eu"),
        ("EVENTS_API_URL", "http://dy-api.com", "must begin with https://"),
        ("EVENTS_API_URL", "https://dy-api.com/v2", "must hold only scheme and host, like https://dy-api.com"),
        ("EVENTS_API_URL", "dy-api.com", "write it like https://dy-api.com"),
        ("SENDGRID_EVENTS", "unsubscribe,clicks", "entry 2 of 2 must be one of: unsubscribe"),
        ("SENDGRID_GROUP_IDS", "12,news", "entry 2 of 2 must be a whole number"),
        ("SENDGRID_VERIFICATION_KEYS", "-----BEGIN", "it begins with MFkwEwYH"),
        ("MAX_BODY_BYTES", "0", "must be a whole number from 1024"),
        ("WORKER_CONCURRENCY", "many", "must be a whole number from 1 to 256"),
        ("ACTIVE_CONSENT_ACCEPTED", "maybe", "must be true or false"),
        ("PUBLIC_URL", "hooks.shop.example", "write it like https://hooks.example.com"),
        ("PUBLIC_URL", "http://hooks.shop.example", "must begin with https://, like https://hooks.example.com"),
        ("SENDGRID_API_URL", "api.sendgrid.com", "write it like https://api.sendgrid.com"),
        ("EMARSYS_TOKENS", "0123456789abcde", "entry 1 of 1 is shorter than 16 characters"),
        ("EMARSYS_JWT_SECRETS", "0123456789abcdef,short", "entry 2 of 2 is shorter than 16 characters"),
        ("EMARSYS_URL_SECRETS", "short", "make one with `openssl rand -hex 24`"),
        ("SECRET_KEY", "short", "must be at least 16 characters long"),
        # What can be no host would only be noticed when the first opt-out is sent.
        *(
            ("EVENTS_API_URL", f"https://{host}", "is not a URL; write it like https://dy-api.com")
            for host in ("dy api.com", "dy-api..com", "-dy-api.com", f"{'a' * 64}.com", "dy-api.com\\v2", "[dy-api]")
        ),
        ("EGRESS_PROXY", "http://proxy..example.com:3128", "is not the URL of an HTTP proxy"),
        ("SENDGRID_EVENTS", " , ", "holds nothing but commas; name at least one, or take the variable away"),
        ("OPT_OUT_EVENT_NAME", "{kanal} Opt-Out", "may hold {channel}"),
        ("OPT_IN_EVENT_NAME", "{channel", "and no other braces"),
        ("EVENTS_API_KEY", '"0123456789abcdef"', "holds characters that no key has, like a space or quotation marks"),
    ],
)
def test_a_mistake_names_the_variable_and_the_cure(name: str, value: str, cure: str) -> None:
    (line,) = problems(**{name: value})
    assert line.startswith(f"{name} ")
    assert cure in line


@pytest.mark.parametrize(
    "host", ["dy-api.com", "DY-API.com:443", "my_host.internal", "127.0.0.1:8001", "[::1]:8001", "münchen.example."]
)
def test_whatever_can_be_a_host_is_one(host: str) -> None:
    assert Settings.from_environment({"EVENTS_API_URL": f"https://{host}"}).events_api_base == f"https://{host}"


def test_a_mistake_in_a_secret_does_not_repeat_the_secret() -> None:
    (line,) = problems(SENDGRID_VERIFICATION_KEYS="my-secret-by-mistake")
    assert "my-secret-by-mistake" not in line


def test_several_keys_are_read_with_spaces_and_a_trailing_comma() -> None:
    keys = f" {SendGridSigner().public_key}, {SendGridSigner().public_key} ,"
    assert len(Settings.from_environment({"SENDGRID_VERIFICATION_KEYS": keys}).sendgrid_verification_keys) == 2


def test_an_empty_variable_counts_as_absent() -> None:
    assert (
        Settings.from_environment({"EVENTS_API_REGION": "", "MAX_BODY_BYTES": " ", "WEB_CONCURRENCY": ""}) == Settings()
    )


@pytest.mark.parametrize(("name", "value"), [("EVENTS_API_REGION", "EU"), ("SECTION_TYPE", "Api")])
def test_words_are_read_in_any_letter_case(name: str, value: str) -> None:
    assert getattr(Settings.from_environment({name: value}), name.lower()) == value.lower()


def words_of_choices() -> list[tuple[str, str]]:
    """Every word that a setting takes, with its variable."""
    words = []
    for name, declared in variables().items():
        field = declared.metadata["field"]
        field = field.inner if isinstance(field, CommaSeparated) else field
        words += [(name, word) for word in field.words] if isinstance(field, Choice) else []
    return words


@pytest.mark.parametrize(("name", "word"), words_of_choices())
def test_each_word_of_a_choice_is_read_as_itself(name: str, word: str) -> None:
    assert getattr(Settings.from_environment({name: word}), name.lower()) in (word, (word,))


def test_words_that_differ_by_letter_case_alone_are_taken_as_written() -> None:
    assert problems(EVENTS_API_PUSH_KEY="pushid") == ["EVENTS_API_PUSH_KEY must be one of: pushID, pushId"]


def test_a_blank_web_concurrency_is_told_where_gunicorn_would_end_at_it(tmp_path: Path) -> None:
    """It reads the environment, and no `.env`."""
    (tmp_path / ".env").write_text("WEB_CONCURRENCY=\n")
    folder = checkout(tmp_path)

    def upgrade(**environ: str) -> subprocess.CompletedProcess[str]:
        command, env = [find("flask"), "db", "upgrade"], environment(**environ)
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)

    (line,) = upgrade(WEB_CONCURRENCY=" ").stderr.splitlines()
    assert line.startswith("Cannot start: WEB_CONCURRENCY is blank")
    done = upgrade()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["EMARSYS_TOKENS", "EMARSYS_BASIC_AUTH", "CONSOLE_PASSWORD", "PUBLIC_URL"])
def test_bytes_that_are_no_utf_8_are_told_by_the_variables_name(name: str) -> None:
    value = b"user:a-long-enough-p\xe4ssword".decode(errors="surrogateescape")
    assert problems(**{name: value}) == [f"{name} holds bytes that are no UTF-8: write it anew, in UTF-8"]


@pytest.mark.parametrize("port", ['"8000"', "abc", "0", "65536"])
def test_a_port_that_is_none_ends_gunicorn_with_a_line_that_names_it(port: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [find("gunicorn")],
        cwd=checkout(tmp_path),
        env=environment(PORT=port),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    line = "PORT must be a whole number from 1 to 65535"
    hint = ", without quotation marks" * (not port.isdecimal())
    assert done.stderr == f"Cannot start, please mend:\n{line}{hint}\n"


def test_a_file_that_is_broken_at_a_reload_ends_no_receiver(tmp_path: Path) -> None:
    ca_file, port = authority.create(tmp_path).ca_file, free_port()
    env = environment(PORT=str(port), EGRESS_CA_FILE=str(ca_file))
    with running([find("gunicorn")], cwd=checkout(tmp_path), env=env) as gunicorn:
        wait_for_http(f"http://127.0.0.1:{port}/healthz")
        (before,) = family(gunicorn.process.pid)
        ca_file.write_text("half a file")
        gunicorn.process.send_signal(signal.SIGHUP)
        wait_until(lambda: before not in family(gunicorn.process.pid), "the process from before the reload has ended")
        wait_for_http(f"http://127.0.0.1:{port}/healthz")
        assert gunicorn.stop() == 0, gunicorn.output()


@pytest.mark.parametrize("port", ["", " "])
def test_a_blank_port_counts_as_absent(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", port)
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["bind"] == "127.0.0.1:8000"


def test_a_dotenv_in_windows_1252_ends_make_run_with_a_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"CONSOLE_PASSWORD=p\xe4ssword\n")
    command = [sys.executable, "-m", "webhook_app.dev.run"]
    folder = checkout(tmp_path)
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Cannot start: .env is not UTF-8 (Windows-1252?): save it as UTF-8\n"


@pytest.mark.parametrize(
    "variable",
    [
        "BRAZE_TOKENS",
        "MAILGUN_SIGNING_KEYS",
        "SPARKPOST_BASIC_AUTH",
        "EMARSYS_TOKENS",
        "EMARSYS_BASIC_AUTH",
        "EMARSYS_URL_SECRETS",
    ],
)
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ('"user:a-long-enough-secret"', "stands in quotation marks"),
        ("'user:a-long-enough-secret'", "stands in quotation marks"),
        ("user:a-long-\u200benough-secret", "holds an invisible character"),
        ("\ufeffuser:a-long-enough-secret", "holds an invisible character"),
        ("user:a-long-enough\u00a0secret", "holds an invisible character"),
    ],
)
def test_a_secret_that_no_esp_can_send_is_told_at_boot(variable: str, value: str, why: str) -> None:
    environ = {variable: value}
    with pytest.raises(ConfigurationError, match=rf"{variable} (entry 1 of 1 )?{why}") as refused:
        registry.build_providers(Settings.from_environment(environ), environ)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SPARKPOST_BASIC_AUTH", "user:it's a long one"),
        ("SPARKPOST_BASIC_AUTH", '"user":a-long-enough-secret'),
        ("EMARSYS_TOKENS", "'a-long-enough-secret"),
        ("EMARSYS_TOKENS", "«a-long-enough-secret»"),
        ("MAILGUN_SIGNING_KEYS", "a-long-enough\tsecret"),
        # No ESP sends these: a browser sends whatever a person types, and nobody sends the key.
        ("CONSOLE_PASSWORD", '"a-long-enough-secret"'),
        ("CONSOLE_PASSWORD", "a-long\u200benough\u00a0secret"),
        ("CONSOLE_USERS", '"user:a-long-enough-secret"'),
        ("CONSOLE_USERS", "user:a-long\u00a0enough\tsecret"),
        ("SECRET_KEY", "'a-long-enough\tsecret'"),
    ],
)
def test_a_secret_that_works_does_not_stop_the_start(variable: str, value: str) -> None:
    environ = {variable: value}
    assert registry.build_providers(Settings.from_environment(environ), environ)


@pytest.mark.parametrize("key", ['"SG.abc"', "SG.…"])
def test_sendgrids_key_is_checked_as_every_other_esps(key: str) -> None:
    (line,) = problems(SENDGRID_API_KEY=key)
    assert line.startswith("SENDGRID_API_KEY holds characters that no key has")
    assert "SG." not in line


@pytest.mark.parametrize("user", ["жора:x", "shop:%E2%82%AC"])
def test_a_proxys_password_that_cannot_be_sent_is_told_at_boot(user: str) -> None:
    (line,) = problems(EGRESS_PROXY=f"http://{user}@proxy.example.com:3128")
    assert line.startswith("EGRESS_PROXY has a user or password with characters that HTTP Basic cannot send")


@pytest.mark.parametrize("variable", ["BRAZE_TOKENS", "MAILCHIMP_URL_SECRETS", "ITERABLE_TOKENS"])
def test_a_secret_of_the_catalogue_that_can_be_guessed_is_refused_with_the_cure(variable: str) -> None:
    environ = {variable: "a-long-enough-secret,0123456789abcde"}
    with pytest.raises(ConfigurationError) as refused:
        registry.build_providers(Settings.from_environment(environ), environ)
    (line,) = refused.value.problems
    assert line.startswith(f"{variable} entry 2 of 2 is shorter than 16 characters and can be guessed")
    assert "0123456789abcde" not in line


def test_a_key_that_the_esp_makes_is_as_long_as_the_esp_makes_it() -> None:
    environ = {"MAILGUN_SIGNING_KEYS": "key-3ax6xnjp29jd"[:12]}
    assert registry.build_providers(Settings.from_environment(environ), environ)["mailgun"].scheme


def test_plain_http_is_for_this_machine_only() -> None:
    for url in ("http://localhost:8010", "http://127.0.0.1:8010", "http://[::1]:8010"):
        assert Settings.from_environment({"EVENTS_API_URL": url}).events_api_base == url


def test_each_region_has_its_own_host() -> None:
    assert Settings.from_environment({}).events_api_base == "https://dy-api.com"
    assert Settings.from_environment({"EVENTS_API_REGION": "eu"}).events_api_base == "https://dy-api.eu"


def test_heroku_without_postgresql_is_refused_with_the_command_that_adds_it() -> None:
    (line,) = problems(DYNO="web.1")
    assert "heroku addons:create heroku-postgresql" in line


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("DYNO", "Heroku"),
        ("RENDER", "Render"),
        ("RAILWAY_ENVIRONMENT_NAME", "Railway"),
        ("FLY_APP_NAME", "Fly"),
        ("K_SERVICE", "Cloud Run"),
    ],
)
def test_sqlite_is_refused_where_the_disk_does_not_last(variable: str, name: str) -> None:
    for url in ({}, {"DATABASE_URL": "sqlite:///instance/outbox.db"}):
        (line,) = problems(**{variable: "x"}, **url)
        assert line.startswith(f"DATABASE_URL must be a PostgreSQL database on {name}, whose own disk does not last")
    assert Settings.from_environment({variable: "x", "DATABASE_URL": "postgres://user:password@host/name"})


NO_SETTING_AND_THE_DEFAULT: list[dict[str, str]] = [{}, {"DATABASE_URL": "sqlite:///instance/outbox.db"}]


@pytest.mark.parametrize("url", NO_SETTING_AND_THE_DEFAULT)
def test_the_image_refuses_a_file_in_its_own_layer(url: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (line,) = problems(ESP_WEBHOOKS_IMAGE="1", **url)
    assert line.startswith("The container's own disk does not last: set DATABASE_URL to PostgreSQL, or to the whole")
    # Elsewhere an empty file would begin, and all that waits in this one would be out of sight.
    assert line.endswith("where a volume is at /app/instance already, sqlite:////app/instance/outbox.db")


#: On Linux a mount of its own.
MOUNT = Path("/dev/shm")  # noqa: S108 (only a folder that is made there is used)


@pytest.mark.skipif(not MOUNT.is_mount(), reason="there is no mount beside the system's")
@pytest.mark.parametrize("url", NO_SETTING_AND_THE_DEFAULT)
@pytest.mark.parametrize("is_there", [True, False])
def test_the_image_takes_a_volume_at_the_files_folder(
    is_there: bool, url: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker run --volume receiver:/app/instance` always lasted."""
    with tempfile.TemporaryDirectory(dir=MOUNT) as folder:
        monkeypatch.chdir(folder)
        if is_there:
            Path("instance").mkdir()
        assert Settings.from_environment({"ESP_WEBHOOKS_IMAGE": "1"} | url)
        monkeypatch.chdir("/")
        assert problems(DYNO="web.1", **url)


def test_a_file_on_a_mounted_disk_may_be_named_by_its_whole_path() -> None:
    for variable in ("FLY_APP_NAME", "ESP_WEBHOOKS_IMAGE"):
        assert Settings.from_environment({variable: "x", "DATABASE_URL": "sqlite:////data/outbox.db"})


def test_a_variable_spelt_almost_like_ours_is_noticed() -> None:
    assert near_misses({"SENDGRID_VERIFICATION_KEY": "x"}) == {
        "SENDGRID_VERIFICATION_KEY": "SENDGRID_VERIFICATION_KEYS"
    }
    # Also where `make run` has made up what the mistyped one was to be.
    made_up = {"SENDGRID_VERIFICATION_KEYS": "x", MADE_UP: "SECRET_KEY,SENDGRID_VERIFICATION_KEYS"}
    assert "SENDGRID_VERIFICATION_KEY" in near_misses({"SENDGRID_VERIFICATION_KEY": "x"} | made_up)
    # The catalogue's variables count, too.
    assert near_misses({"MAILGUN_SIGNING_KEY": "x"}, ["MAILGUN_SIGNING_KEYS"]) == {
        "MAILGUN_SIGNING_KEY": "MAILGUN_SIGNING_KEYS"
    }
    # Another product's variable is none of our business.
    assert near_misses({"SENDGRID_API_KEY": "x", "SENDGRID_USERNAME": "x"}) == {}


def test_no_secret_stands_in_the_settings_repr() -> None:
    secrets = {"EVENTS_API_KEY": "key-123", "DATABASE_URL": "postgres://user:pass-123@host/name"}
    shown = repr(Settings.from_environment(secrets))
    assert "123" not in shown


def test_every_setting_says_what_it_means() -> None:
    for name, field in variables().items():
        assert len(field.metadata["meaning"]) > 10, name
