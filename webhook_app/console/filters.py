"""Filters in the address line, checked: one that is not understood must never widen an action."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import abort
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from webhook_app.outbox import State
from webhook_app.outbox.queries import Filter, Sort

_UNDERSTANDABLE = validate.Length(max=400, error="is too long")


class Moment(fields.Field[datetime]):
    """A day or a time in UTC; as the end of a stretch, a day counts whole."""

    def __init__(self, *, ends: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ends = ends

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
            if self.ends and len(value) == len("2026-01-31"):
                moment += timedelta(days=1)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            raise ValidationError("is not a day like 2026-01-31") from None


class Query(Schema):
    class Meta:
        unknown = EXCLUDE

    person = fields.String(load_default="", validate=_UNDERSTANDABLE)
    state = fields.Enum(State, by_value=True, error_messages={"unknown": "is none of the states"})
    provider = fields.String(load_default="", validate=_UNDERSTANDABLE)
    since = Moment(data_key="from")
    until = Moment(data_key="to", ends=True)
    sort = fields.Enum(Sort, by_value=True, load_default=Sort.RECEIVED, error_messages={"unknown": "is no column"})
    order = fields.String(load_default="desc", validate=validate.OneOf(["asc", "desc"], error="is asc or desc"))


#: The parts of an address that say which changes are meant.
NARROWING = ("person", "state", "provider", "from", "to")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventListQuery:
    """What was asked for. With `problems`, nothing may be listed and nothing done."""

    given: Mapping[str, str]
    filter: Filter = field(default_factory=Filter)
    sort: Sort = Sort.RECEIVED
    ascending: bool = False
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def narrowing(self) -> dict[str, str]:
        return {name: self.given[name] for name in NARROWING if name in self.given}

    def address(self, **changes: str) -> str:
        """The query string of the same list with something changed; an empty value leaves a part out."""
        kept = {name: self.given[name] for name in (*NARROWING, "sort", "order") if name in self.given}
        return urlencode({name: value for name, value in (kept | changes).items() if value})


_QUERY = Query()


def read_filter(arguments: Mapping[str, str]) -> EventListQuery:
    given = {name: value.strip() for name, value in arguments.items() if value.strip()}
    try:
        loaded = _QUERY.load(given)
    except ValidationError as error:
        problems = {name: "; ".join(lines) for name, lines in error.messages_dict.items()}
        return EventListQuery(given=given, problems=problems)
    return EventListQuery(
        given=given,
        filter=Filter(
            person=loaded["person"],
            state=loaded.get("state"),
            provider=loaded["provider"],
            since=loaded.get("since"),
            until=loaded.get("until"),
        ),
        sort=loaded["sort"],
        ascending=loaded["order"] == "asc",
    )


def understood(arguments: Mapping[str, str]) -> EventListQuery:
    """Raises `BadRequest` where a filter is not understood."""
    asked = read_filter(arguments)
    if asked.problems:
        abort(400, "; ".join(f"“{name}” {problem}" for name, problem in asked.problems.items()))
    return asked
