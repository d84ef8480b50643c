"""`flask simulate`: what it makes is what the provider takes."""

import base64
import time
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from werkzeug.datastructures import Headers

from tests.providers.cases import PUBLIC_URL, Case, cases, key_pair
from webhook_app.auth import WebhookRequest
from webhook_app.dev.simulation import SENDGRID_DEV_KEY, CannotSimulate, simulate
from webhook_app.providers import read

EMAILS = ["jane@example.com", "o'neil+x@example.com", '"quoted"@example.com', "müller@example.com"]


#: Only Amazon can sign for Amazon.
CASES = [case for case in cases() if case.kind != "sns"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.provider}-{case.variable}")
def test_a_simulated_webhook_is_authentic_and_opts_each_address_out(case: Case) -> None:
    url = f"{PUBLIC_URL}/webhooks/{case.provider}"
    private = key_pair("old")[1].private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    environ = case.environ(case.old) | {SENDGRID_DEV_KEY: base64.b64encode(private).decode()}
    seen = []
    for webhook in simulate(case.provider, environ, emails=EMAILS, now=time.time(), url=url):
        request = WebhookRequest(
            method=webhook.method,
            url=url,
            headers=Headers(dict(webhook.headers)),
            body=webhook.body,
            url_secret=unquote(webhook.path_suffix.removeprefix("/")) or None,
        )
        case.scheme(case.old).verify(request)
        reading = read(case.opened(case.old), request, forward_opt_ins=False)
        assert reading.quarantined == []
        seen += [change.identity.value for change, _ in reading.changes]
    assert seen == EMAILS


@pytest.mark.parametrize(
    ("provider", "environ", "why"),
    [
        ("nobody", {}, "there is no provider nobody; there are: activecampaign, "),
        ("mailgun", {}, "mailgun is closed: set MAILGUN_SIGNING_KEYS"),
        ("sendgrid", {"SENDGRID_VERIFICATION_KEYS": key_pair("old")[0]}, "there is no key to sign with"),
        ("ses", {"SES_TOPIC_ARNS": "arn:aws:sns:eu-west-1:1:x"}, "there is no sample of a webhook of ses"),
        ("resend", {"RESEND_SIGNING_SECRETS": "whpk_" + "A" * 43 + "="}, "resend: a public key (whpk_…) only checks"),
    ],
)
def test_what_cannot_be_simulated_says_why(provider: str, environ: dict[str, str], why: str) -> None:
    with pytest.raises(CannotSimulate) as refused:
        simulate(provider, environ, emails=["a@b.de"], now=0.0, url="http://localhost/")
    assert str(refused.value).startswith(why)
