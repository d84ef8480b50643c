"""Times as exports write them: what can be read for sure is read, and for the rest a person is asked."""

import itertools
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from marshmallow import ValidationError

from webhook_app.providers.fields import Timestamp, is_without_signs

#: Numbers below this are no Unix times but dates without separators (20260105) or Excel's days (45662).
FIRST_UNIX_TIME = 1_000_000_000
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
#: How far in the future a time may lie: a clock that goes wrong, or a zone that is not UTC.
TOLERANCE = timedelta(days=1)

_DATES = (
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y",
    "%d %b %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%Y", "%Y%m%d",
)  # fmt: skip
_CLOCKS = (
    "",
    " %H:%M",
    " %H:%M:%S",
    " %I:%M %p",
    " %I:%M:%S %p",
    ", %H:%M",
    ", %H:%M:%S",
    ", %I:%M %p",
    ", %I:%M:%S %p",
)


class PastTime(Timestamp):
    """A time that has been. What a spreadsheet may have made of a date is refused, not guessed.

    `pattern` and `zone` are what a person has said of times that are not ISO 8601, or say no zone.
    """

    earliest = 1  # what is too early it says itself, in words for whoever exported the file

    def __init__(self, *, pattern: str | None = None, zone: tzinfo = UTC, **kwargs: Any) -> None:
        super().__init__(zone=zone, **kwargs)
        self.only_pattern = pattern

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise ValidationError("is not a time")
        try:
            moment = self._read(value, attr, data, **kwargs)
        except ValidationError:
            raise ValidationError(
                f"is not written like {self.only_pattern}"
                if self.only_pattern
                else "is not a time; write it like 2026-01-05T10:15:30Z, or as Unix seconds"
            ) from None
        if not self.only_pattern and value.replace(".", "", 1).isdecimal() and float(value) < FIRST_UNIX_TIME:
            raise ValidationError("is a date without separators or a spreadsheet's number; write it like 2026-01-05")
        if moment < EARLIEST:
            raise ValidationError("lies before the year 2000")
        if moment > datetime.now(UTC) + TOLERANCE:
            raise ValidationError("lies in the future")
        return moment

    def _read(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        if self.only_pattern:
            return self._in_zone(_parsed(value, self.only_pattern))
        return super()._deserialize(value, attr, data, **kwargs)

    def _in_zone(self, moment: datetime) -> datetime:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=self.zone)
        try:
            return aware.astimezone(UTC)
        except OverflowError:
            # On the first or the last day there is: too early or too late in any zone.
            return aware.replace(tzinfo=UTC)


def _parsed(text: str, pattern: str) -> datetime:
    try:
        return datetime.strptime(text, pattern)  # noqa: DTZ007 (whoever asks knows the zone)
    except ValueError:
        raise ValidationError("is not written like the pattern") from None


def is_time(text: str) -> bool:
    """Whether it can be read without asking."""
    try:
        PastTime().deserialize(text)
    except ValidationError:
        return False
    return True


def formats(texts: Iterable[str]) -> Iterator[str]:
    """Every usual way of writing times that reads all of these."""
    texts = list(texts)
    for date, clock in itertools.product(_DATES, _CLOCKS):
        if texts and all(_fits(text, date + clock) for text in texts):
            yield date + clock


def has_zone(text: str) -> bool:
    """Whether a time says where it was that time: Unix times do."""
    return (_is_number(text) and not is_without_signs(text)) or bool(
        re.search(r"(Z|UTC|GMT|[+-]\d\d:?\d\d)$", text, re.IGNORECASE)
    )


def is_pattern(pattern: str) -> bool:
    """Whether `strptime` can read something like this, with a day in it."""
    sample = datetime(2001, 11, 22, 13, 14, 15, tzinfo=UTC)
    try:
        read = datetime.strptime(sample.strftime(pattern), pattern)  # noqa: DTZ007 (only its day is looked at)
    except (ValueError, re.error):
        return False
    return read.date() == sample.date()


def _fits(text: str, pattern: str) -> bool:
    try:
        _parsed(text, pattern)
    except ValidationError:
        return False
    return True


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()
