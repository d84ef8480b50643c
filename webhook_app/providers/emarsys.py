"""Emarsys' webhook node: flat objects whose keys the customer's marketer chose, one or a list of them.

Emarsys knows no unsubscribe event. A program runs when a contact's opt-in changes and sends what it was told
to send; the opt-in value, or the URL's `?action=`, says what happened.
https://help.emarsys.com/hc/en-us/articles/4408457148177-Nodes-Webhook-node
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from webhook_app.auth import Scheme, WebhookRequest, any_of
from webhook_app.auth.basic import Basic
from webhook_app.auth.token import Token
from webhook_app.auth.url_secret import UrlSecret
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.providers import Provider, Sample, json_events
from webhook_app.providers.fields import Address, EventId, Id, Strict, Timestamp, is_given, keys_of
from webhook_app.settings import Settings

#: Opt-in value, as lower-case text → what it says. Emarsys' own are 1, 2, True and False; the others are the
#: labels of its languages and what an integration may have written. Anything else is quarantined.
MEANING = {
    "1": Action.OPT_IN,
    "true": Action.OPT_IN,
    "yes": Action.OPT_IN,
    "ja": Action.OPT_IN,
    "2": Action.OPT_OUT,
    "0": Action.OPT_OUT,
    "false": Action.OPT_OUT,
    "no": Action.OPT_OUT,
    "nein": Action.OPT_OUT,
}

#: Where an identifier stands, and what it must look like.
IDENTIFIERS: dict[IdentityKind, tuple[str, type[fields.Field[Any]]]] = {
    IdentityKind.EXTERNAL: ("external_id", Id),
    IdentityKind.EMAIL: ("email", Address),
}


class OptIn(Strict[Action | None]):
    """An opt-in value; None for null and the empty text, which say that Emarsys does not know."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Action | None:
        word = str(value).strip().lower() if isinstance(value, str | bool | int) else "?"
        if not word:
            return None
        try:
            return MEANING[word]
        except KeyError:
            raise ValidationError("is none of 1, 2, true, false or empty") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmarsysTranslator:
    """Reads one contact's object by the customer's key names."""

    keys: Mapping[str, str]
    #: The identifiers to look for, the wanted one first.
    identifiers: tuple[IdentityKind, ...]
    #: What an opt-in value that says nothing means; None: nothing.
    unknown: Action | None
    schemas: Mapping[IdentityKind, Schema]
    #: The keys that may be paths, like `event_data.email`.
    paths: tuple[str, ...]

    def __call__(self, event: Any, request: WebhookRequest) -> ConsentChange | None:
        if not isinstance(event, dict):
            raise ValidationError("is not a JSON object")
        values = event | dict(_found(event, self.paths)) if self.paths else event
        unsaid = None
        if not is_given(values.get(self.keys["opt_in"])):
            unsaid = self._where_the_body_does_not_say(event, values, request)
            if unsaid is None:
                return None
        kind = self._identifier_in(values)
        if not is_given(values.get(self.keys["event_time"])):
            # A mapping leaves a text empty where it has nothing; the opt-out does not wait for its time.
            values = {**values, self.keys["event_time"]: None}
        loaded = self.schemas[kind].load(values)
        action = unsaid or loaded["opt_in"]
        # Emarsys writes a field late: a program for those who left may still send the value from before.
        if action is Action.OPT_IN and _action_of(request) is Action.OPT_OUT:
            raise ValidationError("says opt-in, and the URL opt_out", self.keys["opt_in"])
        return ConsentChange(
            action=action,
            identity=Identity(kind=kind, value=loaded["identity"]),
            # Emarsys has no word of its own for what happened.
            reason=action.value,
            occurred_at=loaded["event_time"],
            event_id=loaded["event_id"] or "",
        )

    def _identifier_in(self, values: Mapping[str, Any]) -> IdentityKind:
        for kind in self.identifiers:
            if is_given(values.get(self.keys[IDENTIFIERS[kind][0]])):
                return kind
        # The wanted one's absence is what gets reported.
        return self.identifiers[0]

    def _where_the_body_does_not_say(
        self, event: Mapping[str, Any], values: Mapping[str, Any], request: WebhookRequest
    ) -> Action | None:
        said_by_url = _action_of(request)
        if said_by_url is None and self.keys["opt_in"] not in values:
            # A misspelt key, most likely: what the person wants stands there, under another name.
            raise ValidationError(f"is missing, and the URL names no action; {keys_of(event)}", self.keys["opt_in"])
        # An empty value is never an opt-in, whatever the URL says: Emarsys does not know this person's will.
        if said_by_url is Action.OPT_IN and self.keys["opt_in"] in values:
            return self.unknown
        return said_by_url or self.unknown


def schema(keys: Mapping[str, str], kind: IdentityKind) -> Schema:
    """The schema of one contact's object, for a receiver that looks for this kind of identifier."""
    name, field = IDENTIFIERS[kind]
    declared = {
        "identity": field(required=True, data_key=keys[name]),
        "opt_in": OptIn(allow_none=True, data_key=keys["opt_in"]),
        "event_time": Timestamp(load_default=None, allow_none=True, data_key=keys["event_time"]),
        "event_id": EventId(load_default="", allow_none=True, data_key=keys["event_id"]),
    }
    return Schema.from_dict(declared, name="EmarsysContact")(unknown=EXCLUDE)


def provider(settings: Settings) -> Provider:
    wanted = IdentityKind(settings.emarsys_identity)
    other = IdentityKind.EMAIL if wanted is IdentityKind.EXTERNAL else IdentityKind.EXTERNAL
    keys = dict(settings.emarsys_fields)
    identifiers = (wanted, other) if settings.emarsys_identity_fallback else (wanted,)
    return Provider(
        name="emarsys",
        title="Emarsys",
        scheme=_scheme(settings),
        opened_by="EMARSYS_TOKENS, EMARSYS_BASIC_AUTH, EMARSYS_JWT_SECRETS or EMARSYS_URL_SECRETS",
        auth_schemes={
            "EMARSYS_TOKENS": "token",
            "EMARSYS_BASIC_AUTH": "basic",
            "EMARSYS_JWT_SECRETS": "jwt",
            "EMARSYS_URL_SECRETS": "url_secret",
        },
        events=json_events,
        translate=EmarsysTranslator(
            keys=keys,
            identifiers=identifiers,
            unknown=Action.OPT_OUT if settings.emarsys_unknown_opt_in == "opt_out" else None,
            schemas={kind: schema(keys, kind) for kind in identifiers},
            paths=tuple(key for key in keys.values() if "." in key),
        ),
        sample=_sample(keys, wanted),
    )


def _sample(keys: Mapping[str, str], wanted: IdentityKind) -> Sample:
    """A contact's object as an opt-out program sends it. Where ids identify people, the address serves as one."""
    event = {
        keys["event_id"]: "$id",
        "ems_program_id": "1000234567",
        keys["event_time"]: "$iso",
        keys[IDENTIFIERS[wanted][0]]: "$email",
        keys["opt_in"]: "2",
        "event_data": {},
    }
    return Sample(content_type="application/json", template=json.dumps(event))


def _scheme(settings: Settings) -> Scheme | None:
    schemes: list[Scheme] = []
    if tokens := settings.emarsys_tokens:
        # Which header the preset uses is the marketer's choice; each needs the token.
        schemes += [
            Token(tokens=tokens, header="X-Api-Key", prefix=""),
            Token(tokens=tokens, prefix="App "),
            Token(tokens=tokens, prefix=""),
            Token(tokens=tokens),
        ]
    if settings.emarsys_basic_auth:
        schemes.append(Basic(credentials=settings.emarsys_basic_auth))
    if settings.emarsys_jwt_secrets:
        # Only now: the only scheme that takes a library.
        from webhook_app.auth.jwt import Jwt

        schemes.append(Jwt(secrets=settings.emarsys_jwt_secrets))
    if settings.emarsys_url_secrets:
        schemes.append(UrlSecret(secrets=settings.emarsys_url_secrets))
    return any_of(schemes)


def _found(event: Mapping[str, Any], paths: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """What stands at the end of each path. `event_data.email` is first a key of that very name, then a path."""
    for path in paths:
        inner: Any = event
        steps = [path] if path in event else path.split(".")
        while steps and isinstance(inner, dict) and steps[0] in inner:
            inner = inner[steps.pop(0)]
        if not steps:
            yield path, inner


def _action_of(request: WebhookRequest) -> Action | None:
    """What the URL says: `?action=opt_out` or `?action=opt_in`."""
    said = parse_qs(request.query).get("action")
    if not said:
        return None
    try:
        return Action(said[-1])
    except ValueError:
        raise ValidationError("is neither opt_out nor opt_in", "the URL's action") from None
