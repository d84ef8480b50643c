"""The guided set-up of an ESP: what its secret is, a new one made for it, and the URL that is then its own."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from webhook_app.providers import Provider

#: The user's name where the secret is `user:password`.
USER = "webhooks"

#: Scheme → what its secret is, for the person who sets it.
MEANING: Mapping[str, str] = {
    "token": "a token that the ESP sends in a header",
    "basic": "a user and a password that the ESP sends with each webhook",
    "url_secret": "a secret at the end of the URL",
    "jwt": "a secret with which the ESP signs a token",
    "hmac": "a key with which the ESP signs each webhook; where the ESP shows a key of its own, set that one",
    "standard_webhooks": "the signing secret that the ESP shows",
    "sns": "the ARN of your topic at Amazon",
    "sendgrid": "the Verification Key that SendGrid shows",
}
#: Schemes whose secret is the ESP's, or no secret at all.
GIVEN_BY_ESP = frozenset({"standard_webhooks", "sns", "sendgrid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthOption:
    """One scheme by which an ESP may prove itself."""

    #: The environment variable that is to be set.
    variable: str
    scheme: str

    @property
    def meaning(self) -> str:
        return MEANING[self.scheme]

    @property
    def can_be_made(self) -> bool:
        return self.scheme not in GIVEN_BY_ESP


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSecret:
    """A secret that was made just now. It is shown once, and stands nowhere else."""

    option: AuthOption
    secret: str = field(repr=False)
    url: str = field(repr=False)


def auth_options(provider: Provider) -> list[AuthOption]:
    return [AuthOption(variable=variable, scheme=scheme) for variable, scheme in provider.auth_schemes.items()]


def url_of(provider: Provider, base: str) -> str:
    return f"{base}/webhooks/{provider.name}"


def make(provider: Provider, variable: str, base: str) -> NewSecret | None:
    """A new secret for one of the provider's schemes; None where that is not one whose secret we make."""
    named = (option for option in auth_options(provider) if option.variable == variable)
    option = next((option for option in named if option.can_be_made), None)
    if option is None:
        return None
    secret, url = secrets.token_hex(24), url_of(provider, base)
    if option.scheme == "basic":
        secret = f"{USER}:{secret}"
    if option.scheme == "url_secret":
        url = f"{url}/{secret}"
    return NewSecret(option=option, secret=secret, url=url)
