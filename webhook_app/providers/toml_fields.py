"""Marshmallow fields for what stands in a providers file. Every message says what would be right."""

import difflib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from string import Formatter, Template
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema

from webhook_app.auth.keyed_hash import PARTS, Place, ValueSource
from webhook_app.providers.expressions import Condition, FirstOf, Path
from webhook_app.providers.fields import MISSING

#: RFC 9110, section 5.1.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
#: What differs each time, in a sample.
FILLED_IN = ("email", "id", "unix", "unix_ms", "iso", "datetime")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
#: Letters and digits in turns, and nothing between them: a key like AKIAIOSFODNN7EXAMPLE04 rather than a name.
_KEY_IN_CAPITALS = re.compile(r"(?=(?:[A-Z]*\d){3})[A-Z0-9]{16,}")

#: What `date` and other languages know and `strptime` does not → what to write.
_UNREAD = {
    "e": "%d",
    "k": "%H",
    "l": "%I",
    "h": "%b",
    "P": "%p",
    "F": "%Y-%m-%d",
    "T": "%H:%M:%S",
    "R": "%H:%M",
    "D": "%m/%d/%y",
    "L": "%f",
    "N": "%f",
    "s": "read without a time_format: Unix seconds or milliseconds",
}
#: Another day than month and year, in the afternoon.
_MOMENT = datetime(2026, 11, 25, 21, 43, 57, tzinfo=UTC)


class Table(Schema):
    """A table whose unknown keys are mistakes, each with the nearest known one."""

    class Meta:
        unknown = EXCLUDE

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _knows_every_key(self, _data: Any, original: Any, **_: Any) -> None:
        if not isinstance(original, dict):
            return  # marshmallow has said so already
        known = [field.data_key or name for name, field in self.fields.items()]
        problems = {key: [unknown_key(key, known)] for key in original if key not in known}
        if problems:
            raise ValidationError(problems)


def unknown_key(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"is not known; did you mean {close[0]}?" if close else f"is not known; there are: {', '.join(known)}"


class Word(fields.Field[str]):
    """A text that is not empty."""

    default_error_messages = MISSING

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValidationError("must be a text in quotes that is not empty")
        return value


class Inner(fields.Nested):
    """A table within the table."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError('must be a table like { key = "value" }')
        return super()._deserialize(value, *args, **kwargs)


class Parsed(Word):
    """A text, and what is made of it by something that raises `ValueError` with the mistake."""

    def __init__(self, make: Callable[[str], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.make = make

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            return self.make(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class Variable(Word):
    """The name of an environment variable that holds a secret, never the secret."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not _VARIABLE.fullmatch(text) or _KEY_IN_CAPITALS.fullmatch(text):
            # The text is not repeated: it may be the secret itself.
            raise ValidationError(
                "must be the NAME of an environment variable, like ACME_TOKENS, never the secret itself"
            )
        return text


class Alternatives(fields.Field[Any]):
    """One text, or a list of them of which the first that yields something counts; a tuple of what is made of them."""

    default_error_messages = MISSING

    def __init__(self, make: Callable[[str], Any], combine: Callable[[tuple[Any, ...]], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.one = Parsed(make)
        self.combine = combine

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if value == []:
            raise ValidationError("must be a text in quotes, or a list of them")
        texts = value if isinstance(value, list) else [value]
        return self.combine(tuple(self.one.deserialize(text) for text in texts))


def path(**kwargs: Any) -> fields.Field[Any]:
    return Alternatives(
        Path, lambda paths: paths[0] if len(paths) == 1 else FirstOf(paths), load_default=None, **kwargs
    )


def condition(**kwargs: Any) -> fields.Field[Any]:
    return Parsed(Condition, load_default=None, **kwargs)


def source(**kwargs: Any) -> fields.Field[Any]:
    return Alternatives(_source, tuple, **({} if kwargs.get("required") else {"load_default": None}), **kwargs)


def signed_template(**kwargs: Any) -> fields.Field[Any]:
    return Parsed(_signed_template, **kwargs)


def zone(**kwargs: Any) -> fields.Field[Any]:
    return Parsed(_zone, **kwargs)


def time_pattern(**kwargs: Any) -> fields.Field[Any]:
    return Parsed(_time_pattern, **kwargs)


def sample(**kwargs: Any) -> fields.Field[Any]:
    return Parsed(_sample, **kwargs)


def one_of(*choices: str, **kwargs: Any) -> fields.Field[Any]:
    return Word(validate=validate.OneOf(choices, error="must be one of: {choices}"), **kwargs)


def header_name(**kwargs: Any) -> fields.Field[Any]:
    return Parsed(_header_name, **kwargs)


def _header_name(text: str) -> str:
    if "_" in text:
        # gunicorn does, and proxies before it: `X_Key` and `X-Key` would be one and the same to an application.
        right = text.replace("_", "-")
        raise ValueError(f"cannot arrive: servers drop headers with an underscore; write {right}, here and at the ESP")
    if not _HEADER_NAME.fullmatch(text):
        raise ValueError("is no header's name; write it like X-Signature (a part of it like header:X-Signature#v1)")
    return text


def _sample(text: str) -> str:
    try:
        json.loads(Template(text).safe_substitute(dict.fromkeys(FILLED_IN, 1)))
    except ValueError as error:
        right = ", ".join(f"${name}" for name in FILLED_IN)
        raise ValueError(f"is no JSON: {error}; {right} are filled in, within the quotes of a text") from None
    return text


def _source(text: str) -> ValueSource:
    try:
        source = ValueSource.parse(text)
    except ValueError:
        raise ValueError(
            "must be like header:X-Signature, header:X-Signature#v1 (the part behind v1=), form:signature or "
            "json:signature.token"
        ) from None
    if source.place is Place.HEADER:
        _header_name(source.name)
    return source


def _signed_template(text: str) -> str:
    right = f"; it may name {', '.join(f'{{{name}}}' for name in sorted(PARTS))}"
    try:
        names = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"cannot be read: {error}{right}") from None
    if names - PARTS:
        raise ValueError(f"names {{{min(names - PARTS)}}}, which no request has{right}")
    if not names:
        raise ValueError(f"names no part of the request, so anybody could repeat the signature{right}")
    return text


def _zone(text: str) -> tzinfo | None:
    if text == "unknown":
        return None
    if text == "UTC":
        return UTC  # also where the machine has no time zone database
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is no time zone; write it like Europe/Berlin, or unknown") from None


def _time_pattern(text: str) -> str:
    if "%" not in text:
        raise ValueError("must be a strptime pattern like %Y-%m-%d %H:%M:%S")
    return text


def time_format_hints(text: str) -> Iterator[str]:
    """Why a time pattern may not do what is meant. It is no mistake: what it does not fit is read as any other time."""
    unread = [f"%{letter}" for letter in re.findall("%(.)", text.replace("%%", "")) if letter in _UNREAD]
    try:
        read = datetime.strptime(_MOMENT.strftime(text), text)  # noqa: DTZ007 (only day and hour are looked at)
    except (ValueError, re.error) as error:
        right = "; ".join(f"{directive} is {_UNREAD[directive[1]]}" for directive in dict.fromkeys(unread))
        yield f"cannot be read by strptime, so that it counts for nothing: {right or error}"
        return
    if read.date() != _MOMENT.date():
        yield "does not say the day with its year, like %d.%m.%Y"
    elif read.hour not in (0, _MOMENT.hour):
        yield "does not tell the morning from the evening; write %H, or %p beside %I"
