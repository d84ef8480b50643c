"""Reconnect's dedicated endpoints: a channel is opted out or in for one identifier.

Announced on https://dy.dev/docs/opt-out
"""

from collections.abc import Mapping
from dataclasses import dataclass

from marshmallow import Schema, fields

from webhook_app.consent import Action, ConsentChange, IdentityKind, PushChannel
from webhook_app.delivery import Call, Undeliverable, WireForm, dump_json, lower_cased, private_texts

PATH = "/v2/userdata/channels/{channel}/{verb}"

#: What the person did → the last part of the path.
VERB = {
    Action.OPT_OUT: "opt-out",
    Action.OPT_IN: "opt-in",
}


class Identifier(Schema):
    type = fields.String(attribute="identifier_type")
    value = fields.String(attribute="change.identity.value")


class Device(Schema):
    # Stays empty where nobody knows it, but the key is always there.
    dyid = fields.String()


class Subscription(Schema):
    """The request; dumps a `SubscriptionPayload`. It has room for one identifier."""

    identifier = fields.Nested(Identifier)
    device = fields.Nested(Device, data_key="associatedDevice")


#: One instance: building a schema costs more than three dumps.
SUBSCRIPTION = Subscription()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionPayload:
    """What one request tells: a change, by an identifier of this type, from this device."""

    identifier_type: str
    change: ConsentChange
    dyid: str

    @property
    def identifier(self) -> "SubscriptionPayload":
        return self

    @property
    def device(self) -> "SubscriptionPayload":
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect(WireForm):
    """`POST /v2/userdata/channels/{channel}/opt-out` and `/opt-in`.

    What Dynamic Yield has not published is handed in: the types of identifiers, and the channels.
    """

    types: Mapping[IdentityKind, str]
    email_channel: str = "email"
    #: Kind of push → channel; None: the webhook did not say. What is absent cannot be sent.
    push_channels: Mapping[PushChannel | None, str]
    #: An API-only section knows no dyid.
    section_type: str = "web"
    lower_case_addresses: bool = False

    def call(self, change: ConsentChange, *, pseudonym: str) -> Call:
        if self.lower_case_addresses:
            change = lower_cased(change)
        payload = SubscriptionPayload(
            identifier_type=self.types[change.identity.kind],
            change=change,
            dyid=change.visitor.dyid if self.section_type == "web" else "",
        )
        path = PATH.format(channel=self._channel(change), verb=VERB[change.action])
        return Call(method="POST", path=path, body=dump_json(SUBSCRIPTION.dump(payload)), private=private_texts(change))

    def probe(self) -> Call:
        return Call(method="POST", path=PATH.format(channel=self.email_channel, verb="opt-out"), body=b"{}")

    def _channel(self, change: ConsentChange) -> str:
        if change.identity.kind is not IdentityKind.PUSH:
            # An external id stands for a person who unsubscribed from emails.
            return self.email_channel
        channel = self.push_channels.get(change.push_channel)
        if not channel:
            raise Undeliverable("the channel of app push is not published: set RECONNECT_APP_PUSH_CHANNEL, then replay")
        return channel
