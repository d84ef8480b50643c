"""The language of a providers file: what may stand in a provider's table, and what it becomes.

Every mistake is reported at once, at boot; an expression that cannot be compiled never reaches run time.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from webhook_app.consent import IdentityKind
from webhook_app.providers import flatten
from webhook_app.providers.auth_config import AuthConfig, AuthConfigs
from webhook_app.providers.bodies import FORMS
from webhook_app.providers.expressions import Condition, Where
from webhook_app.providers.known import KnownTypeNames
from webhook_app.providers.toml_fields import (
    Inner,
    Table,
    Word,
    condition,
    one_of,
    path,
    sample,
    time_format_hints,
    time_pattern,
    zone,
)

#: Key of a declaration → the kind of identity that stands there.
IDENTITIES = {
    "email": IdentityKind.EMAIL,
    "external_id": IdentityKind.EXTERNAL,
    "push_id": IdentityKind.PUSH,
}

#: What `largest_body` may be at most: as much as `MAX_BODY_BYTES` may.
MOST_MEBIBYTES = 64


class DeclarationError(Exception):
    """A declaration cannot be used. `lines` holds one line a mistake: the key, and what would be right."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlVerification:
    """An unsigned POST by which the ESP verifies the URL."""

    #: True of the body of such a POST.
    when: Condition
    #: What the person needs who connects the ESP.
    show: Where | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One provider of a providers file, checked and compiled."""

    title: str | None
    auth: tuple[AuthConfig, ...]
    probed_with: frozenset[str]
    url_verification: UrlVerification | None
    body: str
    json_in: Where | None
    skip: Condition | None
    events: Where | None
    for_each: Where | None
    #: Where an event's type stands, and the types that are known to say nothing; None: whatever is no change.
    type: Where | None
    known: KnownTypeNames | None
    ignore: Condition | None
    also_ignore: Condition | None
    opt_out: Condition | None
    opt_in: Condition | None
    #: Why an event that would be a change must be seen by a person instead → when that is so.
    quarantine: Mapping[str, Condition]
    is_test: Condition | None
    email: Where | None
    external_id: Where | None
    push_id: Where | None
    #: Names of identifiers, the one to look for first at the front.
    identify_by: tuple[str, ...]
    reason: Where | None
    time: Where | None
    time_format: str | None
    #: None where the ESP does not say in which zone its times are.
    time_zone: tzinfo | None
    #: Without, a date alone may be any moment of nearly two days.
    zone_is_said: bool
    event_id: Where | None
    message_id: Where | None
    visitor: Mapping[str, Where | None]
    push_channel: Where | None
    sample: str | None
    #: MiB of a body that this ESP may send; the receiver's own limit counts where it is higher.
    largest_body: int
    #: What may not be meant as it is written.
    hints: tuple[str, ...] = ()


class VisitorTable(Table):
    """The names are Dynamic Yield's; `dy` is the session of an ordinary section."""

    dyid = path()
    dyid_server = path()
    dy = path()
    user_id = path()
    session_id = path()


class UrlVerificationTable(Table):
    when = condition(required=False)
    show = path()

    @validates_schema
    def _has_a_condition(self, data: Any, **_: Any) -> None:
        if data.get("when") is None:
            raise ValidationError("is missing: a condition on the body", "when")
        _check_asks(data, "when")


def _check_asks(data: Mapping[str, Any], *keys: str) -> None:
    """Raises where a condition holds of whatever is none of its business: it would opt out who opened a mail."""
    holding = [key for key in keys if isinstance(data.get(key), Condition) and data[key].holds_of_unrelated_event()]
    if holding:
        line = "holds wherever what it looks at is absent; say what must stand there, like type == 'unsubscribed'"
        raise ValidationError({key: [line] for key in holding})


class Names(fields.Field[tuple[str, ...]]):
    """One name or a list of names."""

    def __init__(self, choices: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choices = choices

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        names = value if isinstance(value, list) else [value]
        if not names or any(name not in self.choices for name in names) or len(set(names)) < len(names):
            raise ValidationError(f"must be one or more of: {', '.join(self.choices)}")
        return tuple(names)


class KnownTypes(fields.Field[KnownTypeNames]):
    """The types of events that say nothing about consent."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> KnownTypeNames:
        if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
            raise ValidationError('must be a list of types like ["delivered", "open*"]')
        return KnownTypeNames(tuple(value))


class ConditionsByReason(fields.Field[Mapping[str, Condition]]):
    """Reasons, and the condition of each."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.condition = condition()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Mapping[str, Condition]:
        if not isinstance(value, dict):
            raise ValidationError("must be a table of reasons, like \"names two people\" = 'length(to) > `1`'")
        loaded: dict[str, Any] = {}
        problems = {}
        for reason, text in value.items():
            try:
                loaded[reason] = self.condition.deserialize(text)
            except ValidationError as error:
                problems[reason] = error.messages
        if problems:
            raise ValidationError(problems)
        return loaded


def _mebibytes() -> fields.Field[Any]:
    error = f"must be a whole number of MiB, from 1 to {MOST_MEBIBYTES}"
    return fields.Integer(
        load_default=0,
        strict=True,
        validate=validate.Range(1, MOST_MEBIBYTES, error=error),
        error_messages={"invalid": error},
    )


class ProviderTable(Table):
    """A provider's table in the file. What is not required has a default that suits most ESPs."""

    title = Word(load_default=None)
    auth = AuthConfigs(required=True, error_messages={"required": "is missing: say how the ESP proves who it is"})
    probed_with = fields.List(
        Word(validate=validate.OneOf(["GET", "HEAD"], error="must be GET or HEAD")),
        load_default=list,
        error_messages={"invalid": 'must be a list like ["GET"]'},
    )
    url_verification = Inner(UrlVerificationTable, data_key="greeting", load_default=None)
    body = one_of(*FORMS, load_default="json")
    json_in = path()
    skip = condition()
    events = path()
    for_each = path()
    type = path()
    known = KnownTypes(load_default=None)
    ignore = condition()
    also_ignore = condition()
    opt_out = condition()
    opt_in = condition()
    quarantine = ConditionsByReason(load_default=dict)
    is_test = condition()
    email = path()
    external_id = path()
    push_id = path()
    identify_by = Names(tuple(IDENTITIES), load_default=())
    reason = path()
    time = path()
    time_format = time_pattern(load_default=None)
    time_zone = zone(load_default=UTC)
    event_id = path()
    message_id = path()
    visitor = Inner(VisitorTable, load_default=dict)
    push_channel = path()
    sample = sample(load_default=None)
    largest_body = _mebibytes()

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _says_what_happened(self, _data: Any, original: Any, **_: Any) -> None:
        if "opt_out" not in original and "opt_in" not in original:
            raise ValidationError("is missing: the condition of an opt-out, like type == 'unsubscribed'", "opt_out")

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _says_who(self, data: Any, original: Any, **_: Any) -> None:
        declared = [name for name in IDENTITIES if name in original]
        if not declared:
            raise ValidationError("is missing: the path of the address (or external_id, or push_id)", "email")
        wanted = data.get("identify_by", ())
        if len(declared) > 1 and "identify_by" not in original:
            line = f"is missing: which does Dynamic Yield know the person by, {' or '.join(declared)}?"
            raise ValidationError(line, "identify_by")
        if missing := [name for name in wanted if name not in declared]:
            raise ValidationError(f"names {missing[0]}, but no path is given for it", "identify_by")

    @validates_schema(skip_on_field_errors=False)
    def _asks_for_something(self, data: Any, **_: Any) -> None:
        _check_asks(data, "skip", "ignore", "also_ignore", "opt_out", "opt_in", "is_test")

    @validates_schema(skip_on_field_errors=False)
    def _leaves_room_for_changes(self, data: Any, **_: Any) -> None:
        earlier: dict[str, str] = {}
        for key in ("ignore", "also_ignore", "opt_out", "opt_in"):
            text = getattr(data.get(key), "text", "")
            if text and text in earlier:
                raise ValidationError(f"says the same as {earlier[text]}, which comes first: it can never hold", key)
            earlier[text] = key

    @validates_schema(skip_on_field_errors=False)
    def _reads_them_from_the_event(self, data: Any, **_: Any) -> None:
        fixed = [key for key in (*IDENTITIES, "time", "event_id") if data.get(key) and data[key].is_constant]
        if fixed:
            line = "is a text that would be the same for everybody; a path stands without quotes of its own"
            raise ValidationError({key: [line] for key in fixed})

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _knows_types_by_their_place(self, _data: Any, original: Any, **_: Any) -> None:
        for key, other in (("known", "type"), ("type", "known")):
            if key in original and other not in original:
                raise ValidationError(f"is missing: {key} has no meaning without it", other)

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _keeps_to_one_way_of_time(self, _data: Any, original: Any, **_: Any) -> None:
        for key in ("time_format", "time_zone"):
            if key in original and "time" not in original:
                raise ValidationError("has no meaning without time, the path of the time", key)


def compile_declaration(table: Any, *, external_ids: bool, own: Collection[str] = ()) -> Declaration:
    """A provider's table, checked. Raises `DeclarationError` with all of them.

    `own`: the keys that the customer wrote. What the catalogue says is proved by its payloads instead.
    """
    if not isinstance(table, dict):
        raise DeclarationError(["must be a table like [acme]"])
    lines = []
    if "external_id" in table and not external_ids:
        lines.append(
            "external_id: Dynamic Yield takes external ids from custom ESPs and Emarsys only; send the email instead"
        )
    try:
        loaded = _TABLE.load(table)
    except ValidationError as error:
        lines += [f"{place}: {line}" for place, line in flatten(error.messages_dict)]
    if lines:
        raise DeclarationError(sorted(lines))
    loaded["identify_by"] = loaded["identify_by"] or tuple(name for name in IDENTITIES if name in table)
    loaded["zone_is_said"] = "time_zone" in table
    loaded["probed_with"] = frozenset(loaded["probed_with"])
    verification = loaded["url_verification"]
    loaded["url_verification"] = UrlVerification(**verification) if verification else None
    return Declaration(**loaded, hints=tuple(_hints(loaded, own)))


def _hints(loaded: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    """No mistakes: `channel != 'sms'` holds rightly where no channel is named, `consent != 'yes'` may not."""
    conditions = {key: loaded[key] for key in own if isinstance(loaded.get(key), Condition)}
    if "quarantine" in own:
        conditions |= {f"quarantine ({reason})": doubt for reason, doubt in loaded["quarantine"].items()}
    is_form = loaded["body"] == "form" and not loaded["json_in"]
    for key, asked in sorted(conditions.items()):
        lines = [*asked.words_of_json(), *(_compared_in_a_form(asked) if is_form else ())]
        if key in ("opt_out", "opt_in"):
            lines += asked.holds_by_absence()
        yield from (f"{key} {line}" for line in lines)
    if "time_format" in own:
        yield from (f"time_format {line}" for line in time_format_hints(loaded["time_format"]))


def _compared_in_a_form(asked: Condition) -> Iterator[str]:
    for comparison in asked.comparisons:
        if not isinstance(comparison.literal, str):
            value, name = json.dumps(comparison.literal), ".".join(comparison.field)
            yield f"compares {name} with `{value}`, but everything in a form is a text; for that write '{value}'"


_TABLE = ProviderTable()
