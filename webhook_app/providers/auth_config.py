"""`auth` of a declared provider: how its ESP proves who it is. A table a scheme, each with its keys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from webhook_app.auth import Scheme
from webhook_app.auth.basic import Basic
from webhook_app.auth.jwt import Jwt
from webhook_app.auth.keyed_hash import Digest, Encoding, Hmac
from webhook_app.auth.reading import TimeForm
from webhook_app.auth.sns import Fetch, Sns
from webhook_app.auth.standard_webhooks import StandardWebhooks, parse_key
from webhook_app.auth.token import Token
from webhook_app.auth.url_secret import UrlSecret
from webhook_app.providers.toml_fields import Table, Variable, Word, header_name, one_of, signed_template, source
from webhook_app.setting_fields import SHORTEST_SECRET, TOO_SHORT


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    """A checked `auth` table. The secrets themselves come when it is opened."""

    name: str
    #: The environment variable with the secrets, or with SNS's topics.
    variable: str
    keys: Mapping[str, Any]

    @property
    def signs_url(self) -> bool:
        return "{url}" in self.keys.get("signed", "")

    def open(self, secrets: list[str], *, tolerance: float, fetch: Fetch) -> Scheme:
        """Raises `ValueError` for a secret that is not of the form this scheme needs; the text does not hold it."""
        keys = {"tolerance": tolerance, **{key: value for key, value in self.keys.items() if value is not None}}
        return OPENERS[self.name](secrets, keys, fetch)


class SecretsTable(Table):
    scheme = Word()
    secrets = Variable(required=True)


class HeaderTable(SecretsTable):
    header = header_name(load_default="Authorization")
    # Empty where the header holds nothing but the secret.
    prefix = fields.String(load_default="Bearer ", error_messages={"invalid": "must be a text in quotes"})


def _tolerance() -> fields.Field[Any]:
    error = "must be a whole number of seconds above 0"
    return fields.Integer(
        load_default=None, strict=True, validate=validate.Range(1, error=error), error_messages={"invalid": error}
    )


class HmacTable(SecretsTable):
    signature = source(required=True)
    signed = signed_template(load_default="{body}")
    digest = one_of(*Digest, load_default="sha256")
    encoding = one_of(*Encoding, load_default="hex")
    prefix = fields.String(load_default="", error_messages={"invalid": "must be a text in quotes"})
    id = source()
    timestamp = source()
    timestamp_form = one_of(*TimeForm, load_default="unix")
    token = source()
    same = source()
    tolerance = _tolerance()


class StandardWebhooksTable(SecretsTable):
    header_prefix = one_of("webhook", "svix", load_default="webhook")
    tolerance = _tolerance()


class SnsTable(Table):
    scheme = Word()
    topics = Variable(required=True)
    tolerance = _tolerance()


#: Scheme → the keys it takes.
TABLES: dict[str, Schema] = {
    "hmac": HmacTable(),
    "basic": SecretsTable(),
    "token": HeaderTable(),
    "url_secret": SecretsTable(),
    "jwt": HeaderTable(),
    "standard_webhooks": StandardWebhooksTable(),
    "sns": SnsTable(),
}


class AuthConfigs(fields.Field[tuple[AuthConfig, ...]]):
    """One table, or a list of tables of which one must be right."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[AuthConfig, ...]:
        tables = value if isinstance(value, list) else [value]
        if not tables or not all(isinstance(table, dict) for table in tables):
            raise ValidationError('must be a table like { scheme = "token", secrets = "ACME_TOKENS" }')
        loaded, problems = [], {}
        for place, table in enumerate(tables):
            try:
                loaded.append(_auth_config(table))
            except ValidationError as error:
                problems[place] = error.messages
        if problems:
            raise ValidationError(problems if isinstance(value, list) else problems[0])
        return tuple(loaded)


def _auth_config(table: dict[str, Any]) -> AuthConfig:
    name = table.get("scheme")
    if not isinstance(name, str) or name not in TABLES:
        raise ValidationError({"scheme": [f"must be one of: {', '.join(TABLES)}"]})
    keys: dict[str, Any] = TABLES[name].load(table)
    if name == "hmac":
        _check_hmac(keys)
    return AuthConfig(name=name, variable=keys.get("secrets") or keys["topics"], keys=keys)


def _check_hmac(keys: Mapping[str, Any]) -> None:
    signed = keys["signed"]
    problems = {}
    for part in ("id", "timestamp", "token"):
        if f"{{{part}}}" in signed and keys[part] is None:
            problems[part] = ["is missing: `signed` names it, so say where it stands"]
        if keys[part] is not None and f"{{{part}}}" not in signed:
            # An unsigned timestamp or token is the forger's to choose.
            problems[part] = [f"is not part of `signed`; add {{{part}}} there, or leave it out"]
    if "{body}" not in signed and "{form}" not in signed and keys["token"] is None:
        problems["signed"] = [
            "covers neither {body} nor {form}: without a one-time `token` anybody could change the body"
        ]
    if problems:
        raise ValidationError(problems)


def _hmac(secrets: list[str], keys: Mapping[str, Any], _: Fetch) -> Scheme:
    return Hmac(
        secrets=_bytes(secrets),
        signature=keys["signature"],
        template=keys["signed"],
        digest=Digest(keys["digest"]),
        encoding=Encoding(keys["encoding"]),
        prefix=keys["prefix"],
        id=keys.get("id", ()),
        timestamp=keys.get("timestamp", ()),
        time_form=TimeForm(keys["timestamp_form"]),
        token=keys.get("token", ()),
        same=keys.get("same", ()),
        tolerance=keys["tolerance"],
    )


def _basic(secrets: list[str], _: Mapping[str, Any], __: Fetch) -> Scheme:
    for place, secret in enumerate(secrets, start=1):
        user, colon, password = secret.partition(":")
        if not (user and colon and password):
            raise ValueError(f"entry {place} of {len(secrets)} must be written user:password")
    return Basic(credentials=_bytes(secrets))


def _token(secrets: list[str], keys: Mapping[str, Any], _: Fetch) -> Scheme:
    return Token(tokens=_not_guessable(secrets), header=keys["header"], prefix=keys["prefix"])


def _jwt(secrets: list[str], keys: Mapping[str, Any], _: Fetch) -> Scheme:
    return Jwt(secrets=_not_guessable(secrets), header=keys["header"], prefix=keys["prefix"])


def _url_secret(secrets: list[str], _: Mapping[str, Any], __: Fetch) -> Scheme:
    return UrlSecret(secrets=_not_guessable(secrets))


def _standard_webhooks(secrets: list[str], keys: Mapping[str, Any], _: Fetch) -> Scheme:
    parsed = []
    for place, secret in enumerate(secrets, start=1):
        try:
            parsed.append(parse_key(secret))
        except ValueError as error:
            raise ValueError(f"entry {place} of {len(secrets)} {error}") from None
    return StandardWebhooks(
        secrets=tuple(key for key in parsed if isinstance(key, bytes)),
        public_keys=tuple(key for key in parsed if not isinstance(key, bytes)),
        header_prefix=keys["header_prefix"],
        tolerance=keys["tolerance"],
    )


def _sns(topics: list[str], keys: Mapping[str, Any], fetch: Fetch) -> Scheme:
    for place, topic in enumerate(topics, start=1):
        if not topic.startswith("arn:aws"):
            raise ValueError(
                f"entry {place} of {len(topics)} must be a topic's ARN, like arn:aws:sns:eu-west-1:1234:name"
            )
    return Sns(topics=frozenset(topics), tolerance=keys["tolerance"], fetch=fetch)


#: Scheme → what makes it of the secrets and the table's keys.
OPENERS: dict[str, Callable[[list[str], Mapping[str, Any], Fetch], Scheme]] = {
    "hmac": _hmac,
    "basic": _basic,
    "token": _token,
    "url_secret": _url_secret,
    "jwt": _jwt,
    "standard_webhooks": _standard_webhooks,
    "sns": _sns,
}


def _not_guessable(secrets: list[str]) -> tuple[bytes, ...]:
    """Secrets that people think up. A key that the ESP makes is as long as the ESP makes it.

    Raises `ValueError`.
    """
    for place, secret in enumerate(secrets, start=1):
        if len(secret) < SHORTEST_SECRET:
            raise ValueError(f"entry {place} of {len(secrets)} {TOO_SHORT}")
    return _bytes(secrets)


def _bytes(secrets: list[str]) -> tuple[bytes, ...]:
    return tuple(secret.encode() for secret in secrets)
