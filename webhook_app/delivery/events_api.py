"""The Events API: an opt-out or opt-in is an event of one user.

https://dy.dev/reference/message-opt-out · https://dy.dev/reference/message-opt-in
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from marshmallow import Schema, ValidationError, fields, missing, post_dump

from webhook_app.consent import Action, ConsentChange, IdentityKind, Visitor
from webhook_app.delivery import Call, Undeliverable, WireForm, dump_json, lower_cased, private_texts

PATH = "/v2/collect/user/event"

#: What the person did → the type by which Dynamic Yield knows the event.
DY_TYPE = {
    Action.OPT_OUT: "message-optout-v1",
    Action.OPT_IN: "message-optin-v1",
}

#: The keys that say whose event it is. An event has exactly one of them.
IDENTIFIERS = frozenset({"plainTextEmail", "externalId", "pushID", "pushId"})

#: Identifier → what `{channel}` becomes in an event's name. External ids belong to people who get emails.
CHANNEL_TITLE = {
    IdentityKind.EMAIL: "Email",
    IdentityKind.EXTERNAL: "Email",
    IdentityKind.PUSH: "Push",
}

#: Names are for people; Dynamic Yield goes by `dyType`.
DEFAULT_NAMES = {
    Action.OPT_OUT: "{channel} Opt-Out",
    Action.OPT_IN: "{channel} Opt-In",
}


class Properties(Schema):
    """What every opt-out and opt-in event says; dumps a `ConsentChange`."""

    dy_type = fields.Function(lambda change: DY_TYPE[change.action], data_key="dyType")

    @post_dump
    def names_one_person(self, properties: dict[str, Any], **_: Any) -> dict[str, Any]:
        # Two identifiers may be two people: Dynamic Yield would opt out one of them, and we could not say which.
        if len(IDENTIFIERS & properties.keys()) != 1:
            raise ValidationError(f"an event names its person by exactly one of {', '.join(sorted(IDENTIFIERS))}")
        return properties


class EmailProperties(Properties):
    cuid_type = fields.Constant("email", data_key="cuidType")
    plain_text_email = fields.String(attribute="identity.value", data_key="plainTextEmail")


class ExternalProperties(Properties):
    cuid_type = fields.Constant("external", data_key="cuidType")
    external_id = fields.String(attribute="identity.value", data_key="externalId")


def _channel_type(change: ConsentChange) -> Any:
    if change.action is Action.OPT_OUT:
        return missing
    if change.push_channel is None:
        raise ValidationError(
            "a push opt-in needs its channel, APP_PUSH or WEB_PUSH, and the webhook did not say which"
        )
    return change.push_channel.value


class PushProperties(Properties):
    push_id = fields.String(attribute="identity.value", data_key="pushID")
    channel_type = fields.Function(_channel_type, data_key="channelType")


class PushPropertiesOfTheSpecification(PushProperties):
    """Dynamic Yield's pages write `pushID`, its OpenAPI description and its Swift SDK write `pushId`."""

    push_id = fields.String(attribute="identity.value", data_key="pushId")


#: One instance each: building a schema costs more than three dumps.
PROPERTIES: Mapping[IdentityKind, Properties] = {
    IdentityKind.EMAIL: EmailProperties(),
    IdentityKind.EXTERNAL: ExternalProperties(),
}

#: What the push id is called → the properties that call it so.
PUSH_PROPERTIES: Mapping[str, Properties] = {
    "pushID": PushProperties(),
    "pushId": PushPropertiesOfTheSpecification(),
}


class PropertiesOfItsKind(fields.Field[ConsentChange]):
    """The properties in the form that belongs to the change's identifier."""

    def _serialize(self, value: ConsentChange | None, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        assert value is not None  # noqa: S101 - told to mypy; an EventBody always has its change
        properties: Properties = obj.properties[value.identity.kind]
        return properties.dump(value)


class EventBody(Schema):
    name = fields.String()
    properties = PropertiesOfItsKind(attribute="change")


class OptionalId(fields.String):
    """An id that the webhook may have carried; without it the key is left out."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return value or missing


class WebUser(Schema):
    # Never invented: an unknown dyid would create a user who does not exist.
    dyid = OptionalId()
    dyid_server = OptionalId()
    active_consent_accepted = fields.Constant(True)


class WebSession(Schema):
    dy = OptionalId(attribute="session")


class ApiUser(Schema):
    id = fields.String(attribute="user_id")
    active_consent_accepted = fields.Constant(True)


class Context(Schema):
    channel = fields.String()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPayload:
    """What one request tells: a change, under a name, about this visitor."""

    name: str
    change: ConsentChange
    user: Visitor
    properties: Mapping[IdentityKind, Properties]
    #: Of `context`; empty where none is sent.
    channel: str

    @property
    def context(self) -> "EventPayload":
        return self

    @property
    def session(self) -> Visitor:
        return self.user

    @property
    def events(self) -> list["EventPayload"]:
        # A request is about one user, so it never holds a second event.
        return [self]


class WebEnvelope(Schema):
    """The request for an ordinary section."""

    user = fields.Nested(WebUser)
    session = fields.Nested(WebSession)
    context = fields.Nested(Context)
    events = fields.List(fields.Nested(EventBody))


class ApiEnvelope(Schema):
    """The request for an API-only section, where the customer makes up the ids of users and sessions."""

    user = fields.Nested(ApiUser)
    session_id = fields.String(attribute="session.session_id", data_key="sessionId")
    context = fields.Nested(Context)
    events = fields.List(fields.Nested(EventBody))


ENVELOPES: Mapping[str, type[Schema]] = {"web": WebEnvelope, "api": ApiEnvelope}


def invented(visitor: Visitor, pseudonym: str) -> Visitor:
    """The visitor of an API-only section: carried ids where there are any, else ones made from the pseudonym."""
    return Visitor(
        user_id=visitor.user_id or pseudonym,
        session_id=visitor.session_id or hashlib.sha256(f"session of {pseudonym}".encode()).hexdigest()[:32],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsApi(WireForm):
    """`POST /v2/collect/user/event` for sections of one type (`web` or `api`)."""

    section_type: str = "web"
    active_consent_accepted: bool = False
    #: What an event is called; `{channel}` becomes Email or Push.
    names: Mapping[Action, str] = field(default_factory=lambda: DEFAULT_NAMES)
    #: What the push id is called: `pushID` or `pushId`.
    push_key: str = "pushID"
    #: `context.channel`; empty: no context.
    context: str = ""
    lower_case_addresses: bool = False
    _envelope: Schema = field(init=False, repr=False)
    _properties: Mapping[IdentityKind, Properties] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        wanted = {"user.active_consent_accepted": self.active_consent_accepted, "context": bool(self.context)}
        left_out = tuple(name for name, is_wanted in wanted.items() if not is_wanted)
        object.__setattr__(self, "_envelope", ENVELOPES[self.section_type](exclude=left_out))
        properties = {**PROPERTIES, IdentityKind.PUSH: PUSH_PROPERTIES[self.push_key]}
        object.__setattr__(self, "_properties", properties)

    def call(self, change: ConsentChange, *, pseudonym: str) -> Call:
        if self.lower_case_addresses:
            change = lower_cased(change)
        visitor = invented(change.visitor, pseudonym) if self.section_type == "api" else change.visitor
        name = self.names[change.action].replace("{channel}", CHANNEL_TITLE[change.identity.kind])
        try:
            payload = EventPayload(
                name=name, change=change, user=visitor, properties=self._properties, channel=self.context
            )
            body = self._envelope.dump(payload)
        except ValidationError as error:
            raise Undeliverable("; ".join(map(str, error.messages))) from None
        return Call(method="POST", path=PATH, body=dump_json(body), private=private_texts(change))

    def probe(self) -> Call:
        return Call(method="POST", path=PATH, body=b"{}")
