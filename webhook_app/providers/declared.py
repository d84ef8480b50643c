"""Declared providers: ESPs that are described in TOML, their declarations at work.

Everything is compiled once, at boot. A webhook then goes body → events → what says nothing is dropped → a
marshmallow schema built from the declaration → a consent change.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from webhook_app.auth import Scheme, WebhookRequest
from webhook_app.auth.sns import Sns
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind, PushChannel, Visitor
from webhook_app.providers import Provider, Sample, Unreadable, explain, load_json
from webhook_app.providers.bodies import FORMS
from webhook_app.providers.declaration import IDENTITIES, Declaration, UrlVerification
from webhook_app.providers.expressions import Where
from webhook_app.providers.fields import Address, EventId, Id, Note, Timestamp, VisitorId, is_given, keys_of
from webhook_app.providers.json_body import Damaged, flagged
from webhook_app.providers.known import UnknownType

#: `for_each` makes at most so many events of one, each of which may keep it whole; a mail has some fifty recipients.
MAX_EACH = 1000

#: A POST that verifies a URL is a few hundred bytes long. It is read before anybody is authenticated: a stranger's
#: eight megabytes of brackets would take a quarter of a gigabyte.
MAX_VERIFICATION = 64 * 1024  # bytes

#: Key of `visitor` in the file → what we call it.
VISITOR = {
    "dyid": "dyid",
    "dyid_server": "dyid_server",
    "dy": "session",
    "user_id": "user_id",
    "session_id": "session_id",
}

#: Stands for a webhook that `skip` knows to say nothing.
_SKIPPED: Any = object()

_IDENTIFIER_FIELDS: dict[IdentityKind, type[fields.Field[Any]]] = {
    IdentityKind.EMAIL: Address,
    IdentityKind.EXTERNAL: Id,
    IdentityKind.PUSH: Id,
}


@dataclass(frozen=True, slots=True)
class EventReader:
    """Body → raw events."""

    declaration: Declaration

    def __call__(self, request: WebhookRequest) -> list[Any]:
        """Raises `Unreadable`."""
        declared = self.declaration
        loaded = FORMS[declared.body].read(request)
        try:
            if declared.skip and declared.skip.holds(loaded):
                return [_SKIPPED]
            if declared.json_in:
                loaded = _inner_json(declared.json_in, loaded)
            found = declared.events.find(loaded) if declared.events else loaded
        except ValidationError as error:
            raise Unreadable(explain(error)) from None
        if found is None:
            raise Unreadable(
                f"nothing stands at events ({declared.events.text})" if declared.events else "the body is null"
            )
        events = found if isinstance(found, list) else [found]
        if declared.for_each is None:
            return events
        return [single for event in events for single in _each(declared.for_each, event)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredTranslator:
    """Raw event → change. What is known to be none is dropped before the schema sees it."""

    declaration: Declaration
    #: Name in the schema → where its value stands.
    paths: Mapping[str, Where]
    #: Name of an identifier → the schema of an event that has it; the wanted one first.
    schemas: Mapping[str, Schema]

    def __call__(self, event: Any, request: WebhookRequest) -> ConsentChange | None:
        if event is _SKIPPED:
            return None
        if not isinstance(event, dict):
            raise ValidationError("is not a JSON object")
        action = self._action(event)
        if action is None:
            return None
        for reason, doubt in self.declaration.quarantine.items():
            if doubt.holds(event):
                raise ValidationError(reason)
        found = {name: path.find(event) for name, path in self.paths.items()}
        # An ESP's template leaves a text empty where it has nothing; only an identifier's emptiness is worth a word.
        found = {
            name: value for name, value in found.items() if value is not None if name in self.schemas or is_given(value)
        }
        # The first identifier that is there; where none is, the wanted one's absence is what gets reported.
        name = next((name for name in self.schemas if is_given(found.get(name))), next(iter(self.schemas)))
        # A field's key names its place, so that a reason in the quarantine says where to look.
        loaded = self.schemas[name].load({_place(key, self.paths[key]): value for key, value in found.items()})
        test = self.declaration.is_test
        occurred_at, event_id = _dated(action, loaded.get("time"), loaded.get("event_id", ""))
        return ConsentChange(
            action=action,
            identity=Identity(kind=IDENTITIES[name], value=loaded["identity"]),
            reason=loaded.get("reason") or action.value,
            occurred_at=occurred_at,
            event_id=event_id,
            message_id=loaded.get("message_id", ""),
            visitor=Visitor(**{ours: loaded.get(theirs) or "" for theirs, ours in VISITOR.items()}),
            push_channel=loaded.get("push_channel"),
            is_test=test is not None and test.holds(event),
        )

    def _action(self, event: dict[str, Any]) -> Action | None:
        if any(one.holds(event) for one in (self.declaration.ignore, self.declaration.also_ignore) if one):
            return None
        # An event that says both is an opt-out: the choice that can be undone.
        if self.declaration.opt_out and self.declaration.opt_out.holds(event):
            return Action.OPT_OUT
        if self.declaration.opt_in and self.declaration.opt_in.holds(event):
            return Action.OPT_IN
        self._check_is_known(event)
        self._check_has_been_asked(event)
        self._check_near_match(event)
        return None

    def _check_has_been_asked(self, event: dict[str, Any]) -> None:
        """Raises where nothing of what the condition looks at is there: a misspelt key, or another form of webhook."""
        declared = self.declaration
        # Of the opt-out by itself: a right opt_in beside it would hide its misspelt key.
        name, condition = ("opt_out", declared.opt_out) if declared.opt_out else ("opt_in", declared.opt_in)
        if declared.known is None and condition and not condition.can_be_asked(event):
            looked_at = ", ".join(dict.fromkeys(".".join(steps) for steps in condition.looks_at))
            raise ValidationError(f"{name} looks at {looked_at}, none of which is there; {keys_of(event)}")

    def _check_near_match(self, event: dict[str, Any]) -> None:
        """Raises where a condition would hold, were what it compares not in another case or of another type."""
        if self.declaration.known is None:
            for condition in filter(None, (self.declaration.opt_out, self.declaration.opt_in)):
                condition.check_near_match(event)

    def _check_is_known(self, event: dict[str, Any]) -> None:
        """Raises `UnknownType`: it may be the ESP's new word for an opt-out, or an old one written otherwise."""
        declared = self.declaration
        if declared.known is None or declared.type is None:
            return
        found = declared.type.find(event)
        if found not in declared.known:
            raise UnknownType(declared.known.name_unknown(found), declared.type.text, is_missing=found is None)


def translator(declared: Declaration) -> DeclaredTranslator:
    """Compile a declaration's fields into schemas."""
    paths: dict[str, Where] = {name: getattr(declared, name) for name in declared.identify_by}
    optional: dict[str, fields.Field[Any]] = {
        "reason": Note(),
        "time": Timestamp(pattern=declared.time_format, zone=declared.time_zone, vague_dates=not declared.zone_is_said),
        "event_id": EventId(),
        "message_id": Note(),
        "push_channel": fields.Enum(PushChannel, by_value=True),
        **{name: VisitorId() for name in VISITOR},
    }
    places = {name: getattr(declared, name, None) or declared.visitor.get(name) for name in optional}
    paths |= {name: path for name, path in places.items() if path is not None}
    for name, field in optional.items():
        if name in paths:
            field.data_key = _place(name, paths[name])
    kept = {name: field for name, field in optional.items() if name in paths}
    schemas = {}
    for name in declared.identify_by:
        identity = _IDENTIFIER_FIELDS[IDENTITIES[name]](required=True, data_key=_place(name, paths[name]))
        schemas[name] = Schema.from_dict({"identity": identity, **kept}, name="DeclaredEvent")(unknown=EXCLUDE)
    return DeclaredTranslator(declaration=declared, paths=paths, schemas=schemas)


def provider(name: str, declared: Declaration, scheme: Scheme | None, *, declared_in: str) -> Provider:
    return Provider(
        name=name,
        title=declared.title or name,
        scheme=scheme,
        opened_by=" or ".join(dict.fromkeys(config.variable for config in declared.auth)),
        auth_schemes={config.variable: config.name for config in declared.auth},
        events=EventReader(declared),
        translate=translator(declared),
        probed_with=declared.probed_with,
        url_verification=_url_verification(declared, declared.url_verification) if declared.url_verification else None,
        subscription_confirmation=scheme.confirm_subscription if isinstance(scheme, Sns) else None,
        sample=_sample(declared),
        largest_body=declared.largest_body * 2**20,
        declared_in=declared_in,
        hints=declared.hints,
    )


def _url_verification(declared: Declaration, expected: UrlVerification) -> Callable[[WebhookRequest], str | None]:
    def verify(request: WebhookRequest) -> str | None:
        if len(request.body) > MAX_VERIFICATION:
            return None
        try:
            body = FORMS[declared.body].read(request)
            if not expected.when.holds(body):
                return None
            shown = expected.show.find(body) if expected.show else None
        except (Unreadable, ValidationError):
            return None
        # It comes from anybody: short and plain, whatever it is.
        return f"the ESP verifies this URL: {str(shown)[:200]!a}" if shown else "the ESP verifies this URL"

    return verify


def _sample(declared: Declaration) -> Sample | None:
    if declared.sample is None:
        return None
    form = FORMS[declared.body]
    write = form.write
    if declared.json_in and declared.body == "form":
        field = declared.json_in.text

        def write(text: str) -> bytes:
            return urlencode({field: text}).encode()

    return Sample(content_type=form.content_type, template=declared.sample, write=write)


def _inner_json(path: Where, loaded: Any) -> Any:
    text = path.find(loaded)
    if not isinstance(text, str):
        raise Unreadable(f"no text stands at json_in ({path.text})")
    return load_json(text.encode("utf-8", "surrogatepass"))


def _each(path: Where, event: Any) -> list[Any]:
    """The event once for each value at the path, which then stands under `each`; once as it is where there is none.

    A list that is the event's own is taken out of it: each value's event keeps itself, and not its neighbours too.

    Raises `Unreadable` for more than `MAX_EACH`: a person must look, nobody is dropped silently.
    """
    if not isinstance(event, dict) or (isinstance(event, Damaged) and path.text not in event):
        return [event]
    try:
        values = path.find(event)
    except ValidationError:
        values = None
    if not isinstance(values, list) or not values:
        return [event]
    if len(values) > MAX_EACH:
        raise Unreadable(f"for_each ({path.text}) finds {len(values)} values, more than {MAX_EACH}")
    rest = {name: value for name, value in event.items() if name != path.text}
    return [flagged(rest | {"each": value}) for value in values]


#: Where each hour comes first: an opt-in of an unknown zone is never later than it was, so that it wins by no guess.
_EARLIEST_ZONE = timezone(timedelta(hours=14))


def _dated(action: Action, written: datetime | None, event_id: str) -> tuple[datetime | None, str]:
    """When it happened, and the event's id, where the time may be one whose zone nobody knows."""
    if written is None or written.tzinfo is not None:
        return written, event_id
    if action is Action.OPT_IN:
        return written.replace(tzinfo=_EARLIEST_ZONE).astimezone(UTC), event_id
    # A guess that is hours early would lose against an older opt-in, so an opt-out counts from its receipt. What the
    # ESP wrote still tells a repetition from a second opt-out.
    return None, event_id or written.isoformat()


def _place(name: str, path: Where) -> str:
    return f"{name} ({path.text})"
