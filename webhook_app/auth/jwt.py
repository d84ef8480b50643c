"""A JSON Web Token signed with a shared secret (RFC 7519, HS256), as Emarsys sends it."""

import warnings
from dataclasses import dataclass, field

import jwt
from jwt.warnings import InsecureKeyLengthWarning

from webhook_app.auth import AuthenticationError, WebhookRequest
from webhook_app.auth.token import bearer

#: How far the sender's clock may be off, in seconds.
LEEWAY = 60.0

# Of a secret under 32 bytes PyJWT would warn with every request. The customer may have no other way: the ESP's form
# may take no longer one.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)

#: Whom a token is for is no claim an ESP fills in in a way that we could know.
_OPTIONS: jwt.types.Options = {"verify_aud": False, "verify_iss": False, "verify_sub": False, "verify_jti": False}

#: PyJWT's error → our reason. The first row that fits counts.
REASONS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "token_expired"),
    (jwt.ImmatureSignatureError, "token_not_yet_valid"),
    (jwt.InvalidAlgorithmError, "token_algorithm"),
    (jwt.InvalidSignatureError, "token_wrong"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwt:
    """Authentic when any live secret signed the bearer token and its `exp`, `nbf` and `iat`, where present, hold.

    The algorithm is ours, never the token's: `alg: none`, or a public key taken for a secret, let nobody in.
    `iat` is no freshness check: an ESP may send one long-lived token with every call.
    """

    secrets: tuple[bytes, ...] = field(repr=False)
    header: str = "Authorization"
    prefix: str = "Bearer "

    def verify(self, request: WebhookRequest) -> None:
        token = bearer(request, self.header, self.prefix)
        failure = AuthenticationError("token_wrong")
        for secret in self.secrets:
            try:
                jwt.decode(token, secret, algorithms=["HS256"], leeway=LEEWAY, options=_OPTIONS)
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
                reason = next((slug for kind, slug in REASONS if isinstance(error, kind)), "token_malformed")
                # An expired token of the second secret is expired, whatever the first secret made of it.
                if failure.reason == "token_wrong":
                    failure = AuthenticationError(reason)
            else:
                return
        raise failure
