"""What each scheme takes and refuses; the signed ones are also held against `signature-vectors.json`."""

import ast
import base64
import hmac
import json
import re
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from werkzeug.datastructures import Headers

from tests.processes import ROOT
from webhook_app import auth
from webhook_app.auth import AnyOf, AuthenticationError, CannotVerify, Scheme, WebhookRequest, any_of
from webhook_app.auth.basic import Basic
from webhook_app.auth.jwt import REASONS, Jwt
from webhook_app.auth.keyed_hash import MISSING, Hmac, ValueSource
from webhook_app.auth.standard_webhooks import StandardWebhooks, parse_key
from webhook_app.auth.standard_webhooks import sign as sign_webhook
from webhook_app.auth.token import Token
from webhook_app.auth.url_secret import UrlSecret

NOW = 1_767_607_200.0


def with_headers(**headers: str) -> WebhookRequest:
    return WebhookRequest(headers=Headers({name.replace("_", "-"): value for name, value in headers.items()}))


def basic(credentials: bytes) -> WebhookRequest:
    return with_headers(Authorization="Basic " + base64.b64encode(credentials).decode())


def reason(scheme: Scheme, request: WebhookRequest) -> str:
    with pytest.raises(AuthenticationError) as refused:
        scheme.verify(request)
    return refused.value.reason


def test_basic_takes_any_live_credentials() -> None:
    scheme = Basic(credentials=(b"esp:new:with-colon", "esp:grün".encode()))
    scheme.verify(basic(b"esp:new:with-colon"))
    scheme.verify(basic("esp:grün".encode()))
    scheme.verify(with_headers(Authorization="basic " + base64.b64encode("esp:grün".encode()).decode()))


def test_a_secret_that_is_more_than_ascii_is_taken_in_either_encoding_that_senders_have() -> None:
    """No header says which; in the one that was not taken, every webhook was answered 401."""
    scheme = Basic(credentials=("esp:grün".encode(), "esp:зелёный".encode(), b"esp:\xff"))
    for written in ("esp:grün".encode(), "esp:grün".encode("latin-1"), "esp:зелёный".encode(), b"esp:\xff"):
        scheme.verify(basic(written))
    for forged in ("esp:grun", "esp:gr?n", "esp:зелёный"):
        assert reason(scheme, basic(forged.encode("koi8-r"))) == "credentials_wrong"
    token = Token(tokens=("grün".encode(),), header="X-Api-Key", prefix="")
    for sent in ("grün", "grün".encode().decode("latin-1")):
        token.verify(with_headers(X_Api_Key=sent))
    assert reason(token, with_headers(X_Api_Key="grun")) == "token_wrong"


@pytest.mark.parametrize(
    ("authorization", "why"),
    [
        ("", "credentials_missing"),
        ("Bearer ZXNwOnB3", "credentials_malformed"),
        ("Basic", "credentials_wrong"),
        ("Basic ZXNwOnB4", "credentials_wrong"),
        ("Basic not base64!", "credentials_wrong"),
    ],
)
def test_basic_refuses(authorization: str, why: str) -> None:
    assert reason(Basic(credentials=(b"esp:pw",)), with_headers(Authorization=authorization)) == why


def test_a_token_stands_behind_its_prefix_in_its_header() -> None:
    Token(tokens=(b"old", b"new")).verify(with_headers(Authorization="bearer new"))
    Token(tokens=(b"t",), header="X-Api-Key", prefix="").verify(with_headers(X_Api_Key="t"))
    assert reason(Token(tokens=(b"t",)), with_headers(Authorization="t")) == "token_malformed"
    assert reason(Token(tokens=(b"t",)), with_headers(Authorization="Bearer ")) == "token_malformed"
    assert reason(Token(tokens=(b"t",)), with_headers(Authorization="Bearer tt")) == "token_wrong"
    assert reason(Token(tokens=(b"t",)), with_headers()) == "token_missing"


def test_a_secret_in_the_url() -> None:
    scheme = UrlSecret(secrets=(b"old", "größe".encode()))
    scheme.verify(WebhookRequest(url_secret="old"))
    scheme.verify(WebhookRequest(url_secret="größe"))
    assert reason(scheme, WebhookRequest(url_secret="older")) == "url_secret_wrong"
    assert reason(scheme, WebhookRequest(url_secret="")) == "url_secret_missing"
    assert reason(scheme, WebhookRequest()) == "url_secret_missing"


@pytest.mark.parametrize("secret", ["ab//cd", "/abcd", "abcd/", "ab/cd", "//a///b//", "ab+cd=="])
@pytest.mark.parametrize("end", ["", "/"])
def test_a_secret_with_slashes_is_known_by_what_a_path_leaves_of_it(secret: str, end: str) -> None:
    """A path with doubled slashes is the one with single ones, and one at its end changes nothing."""
    scheme = UrlSecret(secrets=(secret.encode(),))
    scheme.verify(WebhookRequest(url_secret=re.sub("/+", "/", secret).strip("/") + end))
    scheme.verify(WebhookRequest(url_secret=secret))


@pytest.mark.parametrize(("secret", "given"), [("/" * 20, "/"), ("ab//cd", "abcd"), ("ab/cd", "ab"), ("ab", "a/b")])
def test_no_slash_stands_for_a_secret_and_none_that_divides_one_may_be_missing(secret: str, given: str) -> None:
    assert reason(UrlSecret(secrets=(secret.encode(),)), WebhookRequest(url_secret=given)) == "url_secret_wrong"


class TestJwt:
    secret = "a shared secret of at least thirty-two bytes"
    scheme = Jwt(secrets=(b"the next secret, already configured here", secret.encode()))

    def token(self, claims: dict[str, Any], *, secret: str = secret, **options: Any) -> WebhookRequest:
        return with_headers(Authorization="Bearer " + jwt.encode(claims, secret, **options))

    def test_a_token_without_any_claim_is_enough(self) -> None:
        self.scheme.verify(self.token({}))

    @pytest.mark.parametrize(
        ("claims", "why"),
        [
            # Seconds from now. The leeway for the sender's clock is 60 s.
            ({"exp": -50, "iat": 50, "nbf": 50}, None),
            ({"exp": -70}, "token_expired"),
            ({"nbf": 70}, "token_not_yet_valid"),
            ({"iat": 70}, "token_not_yet_valid"),
            # One long-lived token for every call is how some ESPs do it.
            ({"iat": -10_000_000}, None),
            ({"exp": None}, "token_malformed"),
        ],
    )
    def test_times_are_honoured_where_present(self, claims: dict[str, Any], why: str | None) -> None:
        now = int(time.time())
        claims = {name: value if value is None else now + value for name, value in claims.items()}
        # PyJWT refuses to write a nonsensical claim, so those are signed as raw JSON.
        request = with_headers(
            Authorization="Bearer " + jwt.PyJWS().encode(json.dumps(claims).encode(), self.secret, "HS256")
        )
        if why is None:
            self.scheme.verify(request)
        else:
            assert reason(self.scheme, request) == why

    def test_another_secret_or_algorithm_lets_nobody_in(self) -> None:
        assert reason(self.scheme, self.token({}, secret=self.secret[::-1])) == "token_wrong"
        assert reason(self.scheme, self.token({}, algorithm="HS512", secret=self.secret * 2)) == "token_algorithm"
        assert reason(self.scheme, self.token({}, algorithm="none", secret="")) == "token_algorithm"

    def test_the_algorithm_is_not_the_tokens_choice(self) -> None:
        """Signed as HS256 by who knows the secret, yet claiming another algorithm, or an extension nobody knows."""
        for head in (b'{"alg":"none"}', b'{"alg":"RS256"}', b"[]", b'{"alg":"HS256","crit":["b64"]}'):
            signed = base64.urlsafe_b64encode(head).rstrip(b"=") + b".e30"
            signature = hmac.digest(self.secret.encode(), signed, "sha256")
            token = signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")
            assert reason(self.scheme, with_headers(Authorization="Bearer " + token.decode())).startswith("token_")

    @pytest.mark.parametrize("token", ["", "x", "a.b", "..", "a.b.c", "a.b.c.d", "e30.e30.\xff"])
    def test_what_is_no_token(self, token: str) -> None:
        reason(self.scheme, with_headers(Authorization="Bearer " + token))


class TestStandardWebhooks:
    private_key = Ed25519PrivateKey.generate()
    scheme = StandardWebhooks(
        secrets=(b"new", b"old"), public_keys=(private_key.public_key(),), header_prefix="svix", clock=lambda: NOW
    )

    def request(self, *signatures: str) -> WebhookRequest:
        headers = Headers({"svix-id": "m1", "svix-timestamp": "1767607200", "svix-signature": " ".join(signatures)})
        return WebhookRequest(headers=headers, body=b"{}")

    def v1(self, secret: bytes) -> str:
        return sign_webhook(b"m1.1767607200.{}", secret).decode()

    def v1a(self) -> str:
        return "v1a," + base64.b64encode(self.private_key.sign(b"m1.1767607200.{}")).decode()

    def test_one_right_signature_among_several_is_enough(self) -> None:
        self.scheme.verify(self.request("v1,bm8=", self.v1(b"old")))
        self.scheme.verify(self.request("v9,whatever", "rubbish", "v1a,!!", "v1a,bm8=", self.v1a()))

    def test_a_public_key_is_no_shared_secret(self) -> None:
        """v1a's key is public; a v1 signature made with its bytes must not pass."""
        raw = self.private_key.public_key().public_bytes_raw()
        assert reason(self.scheme, self.request(self.v1(raw))) == "signature_invalid"
        assert reason(self.scheme, self.request(self.v1(b""))) == "signature_invalid"

    def test_keys_are_read_as_senders_show_them(self) -> None:
        public = base64.b64encode(self.private_key.public_key().public_bytes_raw()).decode()
        assert parse_key(f"whpk_{public}") == self.private_key.public_key()
        assert parse_key("whsec_b2xk") == b"old"
        for wrong in ("b2xk", "whsec_", "whsec_%%", "whpk_b2xk", "whsk_b2xk"):
            with pytest.raises(ValueError, match="whsec_"):
                parse_key(wrong)


def test_an_hmac_over_the_url_is_never_checked_against_a_guess() -> None:
    scheme = Hmac(
        secrets=(b"k",),
        signature=(ValueSource.parse("header:X-Sig"),),
        template="{url}{body}",
        tolerance=300,
        clock=lambda: NOW,
    )
    with pytest.raises(CannotVerify, match="public_url_unset"):
        scheme.verify(with_headers(X_Sig="ab"))


def test_an_hmac_signature_may_have_a_prefix_and_an_id() -> None:
    scheme = Hmac(
        secrets=(b"old", b"new"),
        signature=(ValueSource.parse("form:sig"),),
        template="{id}|{form}",
        prefix="sha256=",
        id=(ValueSource.parse("header:X-Id"),),
        tolerance=300,
    )
    assert scheme.sign(b"x", b"new").startswith(b"sha256=")
    assert reason(scheme, WebhookRequest(body=b"sig=sha256%3Dab")) == "id_missing"
    assert reason(scheme, WebhookRequest(body=b"sig=ab", headers=Headers({"X-Id": "1"}))) == "signature_invalid"
    assert reason(scheme, WebhookRequest(body=b"&a" * 5000)) == "form_malformed"


def test_several_ways_in_one_of_which_must_be_right() -> None:
    both = any_of([Token(tokens=(b"t",)), UrlSecret(secrets=(b"s",))])
    assert isinstance(both, AnyOf)
    both.verify(with_headers(Authorization="Bearer t"))
    both.verify(WebhookRequest(url_secret="s"))
    assert reason(both, WebhookRequest()) == "url_secret_missing"
    assert any_of([]) is None


def test_of_several_ways_in_the_reason_is_that_of_the_one_that_was_tried() -> None:
    both = any_of([Token(tokens=(b"t",)), UrlSecret(secrets=(b"s",))])
    assert both
    assert reason(both, with_headers(Authorization="Bearer wrong")) == "token_wrong"
    assert reason(both, WebhookRequest(url_secret="wrong")) == "url_secret_wrong"
    assert reason(both, with_headers(Authorization="nonsense")) == "url_secret_missing"


def slugs() -> set[str]:
    """Every reason that a scheme can give."""
    found = {slug for _, slug in REASONS} | set(MISSING.values())
    for path in Path(auth.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "AuthenticationError",
                "CannotVerify",
                "decode_base64",
            ):
                found |= {str(one.value) for one in node.args[-1:] if isinstance(one, ast.Constant)}
    return found


def test_the_runbook_says_of_every_reason_what_to_look_at() -> None:
    page = (ROOT / "docs" / "operating.md").read_text("utf-8")
    table = page.partition("### An ESP is not authenticated (401)")[2].partition("\n### ")[0]
    assert len(slugs()) > 25
    assert slugs() - set(re.findall(r"`([a-z_]+)`", table)) == set()
