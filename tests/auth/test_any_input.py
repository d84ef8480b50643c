"""Whatever comes in is authentic or `AuthenticationError`; nothing else, ever. And no repr shows a secret."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from tests.auth.amazon import Amazon, message
from tests.auth.test_sns import scheme as sns_scheme
from tests.auth.vectors import SIGNED
from webhook_app.auth import AuthenticationError, Scheme, WebhookRequest, any_of
from webhook_app.auth.basic import Basic
from webhook_app.auth.jwt import Jwt
from webhook_app.auth.standard_webhooks import StandardWebhooks
from webhook_app.auth.token import Token
from webhook_app.auth.url_secret import UrlSecret

SECRET = b"canary-5f1c0b9e"

SCHEMES: dict[str, Scheme] = {
    **{name: make()[0] for name, make in SIGNED.items()},
    "standard_webhooks_v1a": StandardWebhooks(secrets=(), public_keys=(Ed25519PrivateKey.generate().public_key(),)),
    "basic": Basic(credentials=(b"user:" + SECRET,)),
    "token": Token(tokens=(SECRET,)),
    "url_secret": UrlSecret(secrets=(SECRET,)),
    "jwt": Jwt(secrets=(SECRET,)),
    "sns": sns_scheme(Amazon()),
}

#: Names that any of the schemes looks at, so that the values get somewhere.
HEADERS = sorted({name for make in SIGNED.values() for name in make()[1].headers.keys()} | {"Authorization"})  # noqa: SIM118

# What may stand in a header: a server refuses line ends before we see them.
values = st.one_of(
    st.text(st.characters(blacklist_characters="\r\n"), max_size=80),
    st.from_regex(r"\A(Bearer|Basic|v1,|v1a,|sha256=) ?[A-Za-z0-9+/=._ -]{0,60}\Z"),
    st.sampled_from(["1767607200", "1767607200000", "9" * 400, "-1", "١٢٣", "Mon, 05 Jan 2026 10:00:00 GMT"]),
    st.sampled_from(["Mon, 99 Jan 99999 10:00:00 GMT", "v1a," + "A" * 86 + "==", "Bearer e30.e30.AA"]),
)
json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(list(message("SubscriptionConfirmation"))), st.text(max_size=30)).map(
        lambda changed: json.dumps({**message(), **changed}).encode()
    ),
    st.sampled_from([b"[" * 100_000, b'{"signature":' * 5000, b'{"signature":{"token":[1]}}', b"%ff=%ff&\xff=\xff"]),
)
requests = st.builds(
    WebhookRequest,
    method=st.sampled_from(["POST", "GET", ""]),
    url=st.none() | st.text(max_size=40),
    headers=st.dictionaries(st.sampled_from(HEADERS), values).map(Headers),
    query=st.text(max_size=20),
    body=bodies,
    url_secret=st.none() | st.text(max_size=20),
)


@pytest.mark.parametrize("name", SCHEMES)
@settings(deadline=None)  # a busy machine is no failure
@given(request=requests)
def test_anything_is_authentic_or_the_one_error(name: str, request: WebhookRequest) -> None:
    if name in ("mandrill", "hubspot_v3") and request.url is None:
        request = WebhookRequest(url="https://hooks.example.net/", headers=request.headers, body=request.body)
    # Nobody guesses a signature: each of these requests must be refused.
    with pytest.raises(AuthenticationError) as refused:
        SCHEMES[name].verify(request)
    assert refused.value.reason.isascii()
    assert " " not in refused.value.reason


def test_no_repr_shows_a_secret() -> None:
    everything = repr(SCHEMES) + repr(any_of(list(SCHEMES.values())))
    for secret in (SECRET.decode(), "mg-signing-key", "md-key", "kl-secret", "0123456789abcdef", "EllipticCurve"):
        assert secret not in everything
