"""No repr, error or command shows a secret; the log of a run is searched by the canary test."""

import logging
from datetime import UTC, datetime

import pytest
from werkzeug.datastructures import Headers

from tests.outbox.world import change
from tests.signing import SendGridSigner
from webhook_app.auth import WebhookRequest
from webhook_app.consent import Identity, IdentityKind, Visitor
from webhook_app.delivery import Answer, Call, Outcome
from webhook_app.delivery.client import Client
from webhook_app.dev.simulation import SignedRequest
from webhook_app.outbox import Claimed, OutboxUnavailable, open_database
from webhook_app.outbox.database import Database
from webhook_app.outbox.hashing import Hasher
from webhook_app.providers import registry
from webhook_app.settings import ConfigurationError, Settings, variables
from webhook_app.sync.sources import SOURCES

SECRET = "canary-5f1c0b9e7d"
ADDRESS = "canary.5f1c0b9e@example.com"

#: Each setting that holds a secret, with one in it.
SECRETS = {
    "DATABASE_URL": f"postgres://user:{SECRET}@host/name",
    "EVENTS_API_KEY": SECRET,
    "EMARSYS_TOKENS": SECRET,
    "EMARSYS_BASIC_AUTH": f"user:{SECRET}",
    "EMARSYS_JWT_SECRETS": SECRET,
    "EMARSYS_URL_SECRETS": SECRET,
    "CONSOLE_PASSWORD": f"{SECRET}-long-enough",
    "ALERT_URLS": f"slack://{SECRET}/a/b",
    "CONSOLE_USERS": f"ann:{SECRET}-long-enough",
    "SECRET_KEY": f"{SECRET}-long-enough-for-a-key-of-sessions",
    "SENDGRID_API_KEY": f"SG.{SECRET}",
    "MAILCHIMP_API_KEY": f"{SECRET}-us21",
    "KLAVIYO_API_KEY": SECRET,
    "MAILGUN_API_KEY": SECRET,
    "POSTMARK_SERVER_TOKEN": SECRET,
    "BREVO_API_KEY": SECRET,
    "SES_ACCESS_KEY_ID": SECRET,
    "SES_SECRET_ACCESS_KEY": SECRET,
    "EGRESS_PROXY": f"http://user:{SECRET}@proxy.example.com:3128",
}


#: What some of them need beside them.
BESIDE = {"MAILGUN_DOMAINS": "mg.example.com", "SES_REGION": "eu-central-1"}


def test_every_secret_setting_is_known_here() -> None:
    secret = {name for name, field in variables().items() if field.metadata["secret"]}
    assert secret <= SECRETS.keys()


def objects() -> dict[str, object]:
    """Everything that carries a secret, or a person's address, through the code."""
    settings = Settings.from_environment(SECRETS | BESIDE)
    headers = Headers({"Authorization": f"Bearer {SECRET}"})
    return {
        "Settings": settings,
        "providers": registry.build_providers(settings, SECRETS | {"MAILGUN_SIGNING_KEYS": SECRET}),
        "WebhookRequest": WebhookRequest(
            headers=headers, query=f"key={SECRET}", body=SECRET.encode(), url_secret=SECRET, url=None
        ),
        "Client": Client("https://dy-api.com", SECRET),
        "Egress": settings.egress,
        **{f"Source of {provider}": build(settings) for provider, build in SOURCES.items()},
        "Hasher": Hasher(SECRET.encode()),
        "SignedRequest": SignedRequest(
            headers={"Authorization": SECRET}, body=SECRET.encode(), path_suffix=f"/{SECRET}"
        ),
        "Identity": Identity(kind=IdentityKind.EMAIL, value=ADDRESS),
        "Visitor": Visitor(dyid=SECRET, dyid_server=SECRET, session=SECRET, user_id=SECRET, session_id=SECRET),
        "ConsentChange": change(ADDRESS),
        "Claimed": Claimed(
            id=1,
            lease=SECRET,
            provider="sendgrid",
            change=change(ADDRESS),
            pseudonym="00",
            attempts=0,
            received_at=datetime.now(UTC),
            retrying_since=None,
        ),
        "Call": Call(method="POST", path="/v2", body=ADDRESS.encode(), private=(ADDRESS,)),
        "Answer": Answer(outcome=Outcome.DELIVERED),
        "database": open_database(SECRETS["DATABASE_URL"]),
    }


@pytest.mark.parametrize("name", objects())
def test_no_repr_shows_a_secret_or_an_address(name: str) -> None:
    shown = repr(objects()[name]) + str(objects()[name])
    assert SECRET not in shown
    assert ADDRESS not in shown


@pytest.mark.parametrize("name", SECRETS)
def test_a_mistake_in_one_setting_repeats_no_other(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment(SECRETS | {"EVENTS_API_REGION": "mars", "MAX_BODY_BYTES": "x"})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EVENTS_API_KEY", f"{SECRET} \x00"),
        ("SENDGRID_VERIFICATION_KEYS", f"{SECRET},{SendGridSigner().public_key}"),
        ("EMARSYS_BASIC_AUTH", SECRET),
        ("EVENTS_API_URL", f"https://user:{SECRET}@host"),
        ("PUBLIC_URL", f"ftp://{SECRET}"),
    ],
)
def test_a_mistake_in_a_secret_does_not_repeat_it(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({name: value})
    assert SECRET not in str(caught.value)


def test_a_database_that_refuses_us_does_not_repeat_the_password() -> None:
    database: Database = open_database(f"postgresql://user:{SECRET}@127.0.0.1:1/name")
    with pytest.raises(OutboxUnavailable) as caught, database.read():
        pass
    assert SECRET not in str(caught.value)
    database.close()


def test_the_client_shows_its_key_nowhere_when_it_cannot_send(caplog: pytest.LogCaptureFixture) -> None:
    client = Client("http://127.0.0.1:1", SECRET)
    with caplog.at_level(logging.DEBUG):
        answer = client.send(Call(method="POST", path="/v2", body=ADDRESS.encode(), private=(ADDRESS,)))
    client.close()
    assert answer.outcome is Outcome.RETRY
    assert SECRET not in repr(answer) + caplog.text
    assert ADDRESS not in repr(answer) + caplog.text
