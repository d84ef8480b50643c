"""SendGrid's Event Webhook: a JSON array of flat events, of which a few say something about consent.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load

from webhook_app.auth import Scheme, WebhookRequest
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind, Visitor
from webhook_app.providers import Provider, json_events
from webhook_app.providers.fields import Address, Note, Timestamp, VisitorId
from webhook_app.providers.known import KnownTypeNames, UnknownType
from webhook_app.settings import Settings

#: SendGrid event → what it says about consent. Whatever is absent here says nothing.
MEANING = {
    "unsubscribe": Action.OPT_OUT,
    "group_unsubscribe": Action.OPT_OUT,
    "spamreport": Action.OPT_OUT,
    "bounce": Action.OPT_OUT,
    "dropped": Action.OPT_OUT,
    "group_resubscribe": Action.OPT_IN,
}

#: What else SendGrid's events are called. None of it says anything about consent.
KNOWN = KnownTypeNames(
    ("processed", "deferred", "delivered", "bounce", "blocked", "dropped", "open", "click", "account_status_change")
)

#: Events that concern one unsubscribe group, named by `asm_group_id`.
GROUP_EVENTS = frozenset({"group_unsubscribe", "group_resubscribe"})

#: Reasons of `dropped` that are about the person. The others (spam content, a bad header, a used-up plan) are not.
DROPPED_FOR_GOOD = frozenset({"Unsubscribed Address", "Bounced Address", "Spam Reporting Address", "Invalid"})

#: What "Test Your Integration" sends: made-up opt-outs of this address, or of this message.
TEST_ADDRESS = "example@test.com"
TEST_MESSAGE = "14c5d75ce93.dfd.64b469"


class SendGridEvent(Schema):
    """One event that opts a person out or in. Custom arguments stand beside SendGrid's own keys."""

    class Meta:
        unknown = EXCLUDE

    email = Address(required=True)
    event = fields.String(required=True)
    timestamp = Timestamp(required=True)
    sg_event_id = Note(load_default="", allow_none=True)
    sg_message_id = Note(load_default="", allow_none=True)
    # Custom arguments a shop may add to its mails, so that Dynamic Yield knows the visitor.
    dyid = VisitorId()
    dyid_server = VisitorId()
    dy_session = VisitorId()
    dy_user_id = VisitorId()
    dy_session_id = VisitorId()

    @post_load
    def change(self, event: dict[str, Any], **_: Any) -> ConsentChange:
        address: str = event["email"]
        message_id: str = event["sg_message_id"] or ""
        occurred_at: datetime = event["timestamp"]
        name = _normalized(event["event"])
        return ConsentChange(
            action=MEANING[name],
            identity=Identity(kind=IdentityKind.EMAIL, value=address),
            reason=name,
            occurred_at=occurred_at,
            event_id=event["sg_event_id"] or "",
            message_id=message_id,
            visitor=Visitor(
                dyid=event["dyid"] or "",
                dyid_server=event["dyid_server"] or "",
                session=event["dy_session"] or "",
                user_id=event["dy_user_id"] or "",
                session_id=event["dy_session_id"] or "",
            ),
            is_test=address.lower() == TEST_ADDRESS or message_id.startswith(TEST_MESSAGE),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SendGridTranslator:
    """Drops what says nothing about consent before the schema sees it; most of a batch is such."""

    events: frozenset[str]
    #: The unsubscribe groups that count; empty: all.
    group_ids: frozenset[int]
    schema: SendGridEvent

    def __call__(self, event: Any, request: WebhookRequest) -> ConsentChange | None:
        if not isinstance(event, dict):
            raise ValidationError("is not a JSON object")
        written = event.get("event")
        if not isinstance(written, str):
            raise ValidationError("is missing or not a text", "event")
        name = _normalized(written)
        if name not in MEANING and name not in KNOWN:
            raise UnknownType(KNOWN.name_unknown(written), "event")
        if name not in self.events or not self._concerns_us(name, event):
            return None
        change: ConsentChange = self.schema.load(event)
        return change

    def _concerns_us(self, name: str, event: dict[str, Any]) -> bool:
        if name == "bounce":
            # "blocked" is a temporary refusal; the test button's bounce has no type at all.
            return event.get("type") == "bounce"
        if name == "dropped":
            return str(event.get("reason")) in DROPPED_FOR_GOOD
        if name in GROUP_EVENTS and self.group_ids:
            return _group_id(event) in self.group_ids
        return True


def _normalized(name: str) -> str:
    """An event's name as this module writes it, as every entry of the catalogue reads its own."""
    return name.strip().lower()


def _group_id(event: dict[str, Any]) -> int:
    try:
        return int(event.get("asm_group_id", ""))
    except (TypeError, ValueError, OverflowError):
        raise ValidationError("is missing or not a number", "asm_group_id") from None


def provider(settings: Settings) -> Provider:
    return Provider(
        name="sendgrid",
        title="SendGrid",
        scheme=_scheme(settings),
        opened_by="SENDGRID_VERIFICATION_KEYS",
        auth_schemes={"SENDGRID_VERIFICATION_KEYS": "sendgrid"},
        events=json_events,
        translate=SendGridTranslator(
            events=frozenset(settings.sendgrid_events) | {"group_resubscribe"},
            group_ids=frozenset(settings.sendgrid_group_ids),
            schema=SendGridEvent(),
        ),
    )


def _scheme(settings: Settings) -> Scheme | None:
    if not settings.sendgrid_verification_keys:
        return None
    # Only now, as the keys themselves: where there are none, nobody needs cryptography.
    from webhook_app.auth.sendgrid import SendGridSignature

    return SendGridSignature(keys=settings.sendgrid_verification_keys, tolerance=settings.signature_tolerance_seconds)
