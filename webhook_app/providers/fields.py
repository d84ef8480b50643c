"""Marshmallow fields for what ESPs send: lenient about form, strict about what a database cannot hold."""

import contextlib
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, ClassVar, TypeVar

from marshmallow import ValidationError, fields

from webhook_app.providers.addresses import read_address

MAX_TEXT_LENGTH = 1024

Read = TypeVar("Read")

#: What a required field says of itself when it is absent; the field's name stands before it.
MISSING: dict[str, Any] = {"required": "is missing", "null": "is missing"}

#: NUL breaks PostgreSQL's text, a lone surrogate cannot be encoded at all.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: No webhook tells of anything earlier. `0`, or `20260201` taken for seconds, would lose against every other change.
EARLIEST = 2000  # year
#: `2026-01-05 10:00:00 UTC`, `2026-01-05 10:00:00 +0100`: ISO 8601, were it not for the zone.
_ZONE_APART = re.compile(r"(.{1,40}\d)\s*(?:(UTC|GMT)|\s([+-]\d\d:?\d\d))", re.IGNORECASE)
#: `Mon, 05 Jan 2026 10:00:00 +0000`, as mail and HTTP have it (RFC 5322). With anything else behind it, it is none:
#: Python's own reader passes over `PM` and `CET`.
_MAIL_DATE = re.compile(
    r"(?:[a-z]{3}, ?)?\d{1,2} [a-z]{3} \d{4} \d\d:\d\d(?::\d\d)?"
    r"(?: (?:[+-]\d{4}|GMT|UTC?|[ECMP][SD]T))?(?: \([^()]*\))?",
    re.IGNORECASE,
)
#: `2026-01-05T10:15:30+01:00[Europe/Berlin]`, as Java writes it: the offset says all.
_ZONE_NAMED_TOO = re.compile(r"(.{10,40}(?:Z|[+-]\d\d:?\d\d))\[[\w/+-]{1,40}\]", re.IGNORECASE)
#: `20260105101530`, which as milliseconds would be in the year 2612, also with milliseconds or microseconds behind it.
_WITHOUT_SIGNS = re.compile(
    r"(20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))((?:[01]\d|2[0-3])[0-5]\d[0-5]\d)(\.\d+|\d{6}|\d{3})?(?!\d)",
    re.ASCII,
)
#: ISO 8601 without a time: `2026-01-05`, `2026-W02-1`. `20260105` never comes here: digits alone are Unix time.
_DATE = re.compile(r"\d{4}(?:-?\d\d-?\d\d|-?W\d\d(?:-?\d)?)", re.ASCII)
#: What in a pattern says the hour.
_CLOCK = re.compile("%[HIcX]")
#: Unix times above this are milliseconds, not seconds: in seconds it is the year 5138.
_MILLISECONDS_FROM = 1e11
#: In the same way: microseconds, and nanoseconds.
_SMALLER_FROM = ((1e17, 1e9), (1e14, 1e6), (_MILLISECONDS_FROM, 1e3))


def is_given(value: Any) -> bool:
    """Whether an identifier is there at all: null and blank ones are not."""
    return value is not None and not (isinstance(value, str) and not value.strip())


#: Keys that may be named to a person; any other might be an address itself.
_HARMLESS_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")
_NAMED = 20


def keys_of(event: Mapping[str, Any]) -> str:
    """The keys of an event, for a person who looks for one that is misspelt."""
    found = [key for key in event if _HARMLESS_KEY.fullmatch(key)][:_NAMED]
    return (
        f"there are: {', '.join(found)}{' …' if len(found) < len(event) else ''}" if found else "there is no other key"
    )


class Strict(fields.Field[Read]):
    """Base of the fields of an event: a value is converted and checked in one step, and what is absent is named."""

    default_error_messages = MISSING


class Text(Strict[str]):
    """An id or a name as the ESP wrote it, trimmed. Numbers are taken too; ESPs send ids either way."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if isinstance(value, str):
            text = value.strip()
        elif isinstance(value, int) and not isinstance(value, bool):
            text = str(value) if abs(value) < 2**64 else ""
        else:
            raise ValidationError("is not a text")
        if _UNSTORABLE.search(text):
            raise ValidationError("holds characters that cannot be stored")
        if len(text) > MAX_TEXT_LENGTH:
            raise ValidationError(f"is longer than {MAX_TEXT_LENGTH} characters")
        if self.required and not text:
            raise ValidationError("is empty")
        return text


#: What a program writes where it has no id, and the signs of a template that was not filled in: doubled ones anywhere,
#: and a name within single ones. `{3F2504E0-4F89-11D3-9A0C-0305E82C3301}` is an id.
_NO_ID = re.compile(
    r"null|nil|none|nan|undefined|unknown|anonymous|guest|n/a|true|false|0+|-+|\((?:null|none|unknown)\)|\[\]|\{\}"
    r"|\[object object\]|.*(?:\{\{|\{%|\$\{|%%|\*\||<%|\[%|\[\[|@\{).*"
    r"|\{[a-z_][\w. ]*\}|\[[a-z_][\w.: -]*\]|<[a-z_][\w.: -]*>|([#$%@]|__)[a-z_][\w. -]*\1",
    re.IGNORECASE | re.DOTALL,
)


class Id(Text):
    """A person's id or a device's token. Where the sender had none, an opt-out of it would only seem done."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if _NO_ID.fullmatch(text):
            raise ValidationError("is what stands where there was no id")
        return text


class Note(Text):
    """A text that is only of use if it can be read: nobody's opt-out waits for an odd message id."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            return super()._deserialize(value, attr, data, **kwargs)
        except ValidationError:
            return ""


class EventId(Note):
    """The ESP's id of an event. A placeholder would make each event a repetition of the person's last one."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        return "" if _NO_ID.fullmatch(text) else text


class VisitorId(Note):
    """One of Dynamic Yield's ids of a visitor. Whatever is no text is dropped: a guess would make a junk user."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(load_default="", allow_none=True, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return super()._deserialize(value, attr, data, **kwargs) if isinstance(value, str) else ""


class Address(Strict[str]):
    """An email address, as `read_address` takes it out of what stands around it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if isinstance(value, list):
            value = _only_one(value)
        if not isinstance(value, str):
            raise ValidationError("is not a text")
        try:
            return read_address(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


def _only_one(values: list[Any]) -> Any:
    """The one recipient of a list. Of several, nobody is opted out by a guess who is meant."""
    different = {_compared(value): value for value in values if is_given(value)}
    if not different:
        raise ValidationError("is missing")
    if len(different) > 1:
        raise ValidationError(f"names {len(different)} recipients, and not which of them is meant")
    return next(iter(different.values()))


def _compared(value: Any) -> str:
    """The same for `Jane <jane@example.com>` and `JANE@example.com`; anything for what is no address."""
    try:
        return read_address(value).lower() if isinstance(value, str) else str(value)
    except ValueError:
        return str(value)


class Timestamp(Strict[datetime]):
    """When it happened: a Unix time, as a number or a string, ISO 8601, or a date as mail has it.

    `pattern` is another way a text may be written, as `strptime` reads it; `zone` is that of a time without one.
    Aware, unless the zone is None: then a time without one stays so, and with `vague_dates` a date without a time.
    """

    earliest: ClassVar = EARLIEST

    def __init__(
        self, *, pattern: str | None = None, zone: tzinfo | None = UTC, vague_dates: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pattern = pattern
        self.zone = zone
        self.vague_dates = vague_dates

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        moment = self._moment(value)
        if moment.year < self.earliest:
            raise ValidationError(f"is before the year {self.earliest}")
        return moment

    def _moment(self, value: Any) -> datetime:
        if isinstance(value, str):
            text = value.strip()
            if self.pattern:
                # ESPs have changed their form, and mix two: what the pattern does not fit is read as any other.
                with contextlib.suppress(ValidationError):
                    read = partial(datetime.strptime, text, self.pattern)
                    return self._aware(read, is_date=not _CLOCK.search(self.pattern))
            # Nearly every text is ISO 8601, and finding that out by an exception is dear.
            try:
                value = None if text[4:5] == "-" or is_without_signs(text) else float(text)
            except ValueError:
                value = None
            if value is None:
                return self._aware(partial(_from_text, text), is_date=_DATE.fullmatch(text) is not None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("is not a time")
        if 2e13 <= value < 2.1e19 and is_without_signs(text := str(value)):
            return self._aware(partial(_from_text, text), is_date=False)
        return _from_unix(value)

    def _aware(self, read: Callable[[], datetime], *, is_date: bool) -> datetime:
        try:
            moment = read()
            if moment.tzinfo is None and (self.zone is None or (is_date and self.vague_dates)):
                return moment
            return (moment if moment.tzinfo else moment.replace(tzinfo=self.zone)).astimezone(UTC)
        except (ValueError, OverflowError, re.error):  # the last of a pattern with the same directive twice
            raise ValidationError("is not a time") from None


def is_without_signs(text: str) -> bool:
    """Whether it is a date with its time, in digits alone."""
    return len(text) >= 14 and _WITHOUT_SIGNS.fullmatch(text) is not None


def _from_text(text: str) -> datetime:
    if text[:9].isdigit():
        # Python takes the ninth for what stands between date and time.
        if not (found := _WITHOUT_SIGNS.match(text)):
            raise ValueError("is not a time")
        date, time, parts = found.groups("")
        text = f"{date}T{time}{parts and '.' + parts.lstrip('.')}{text[found.end() :]}"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if found := _ZONE_NAMED_TOO.fullmatch(text):
            return datetime.fromisoformat(found[1])
        if _MAIL_DATE.fullmatch(text):
            return parsedate_to_datetime(text)
        if found := _ZONE_APART.fullmatch(text):
            return datetime.fromisoformat(found[1] + (found[3] or "+00:00"))
        raise


def _from_unix(number: float) -> datetime:
    try:
        seconds = number / next((parts for least, parts in _SMALLER_FROM if abs(number) >= least), 1)
        if not math.isfinite(seconds) or abs(seconds) >= _MILLISECONDS_FROM:
            raise ValueError
        return _EPOCH + timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        raise ValidationError("is not a time") from None
