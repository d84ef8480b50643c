"""Times and ids as ESPs send them, for every provider in one place."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from marshmallow import ValidationError

from webhook_app.providers.fields import Timestamp, VisitorId
from webhook_app.sync.times import PastTime, has_zone


@pytest.mark.parametrize(
    "written",
    [0, "0", -1, "20260201", 20260201, "46027.4", 946684799, 946684799999 / 1000, "1999-12-31T23:59:59Z", "0001-01-01"],
)
def test_a_time_before_the_year_2000_is_none(written: Any) -> None:
    """`20260201` is a date to whoever wrote it and August 1970 in seconds: it would lose against every other change."""
    with pytest.raises(ValidationError, match="before the year 2000"):
        Timestamp().deserialize(written)


@pytest.mark.parametrize("written", [946684800, "2000-01-01T00:00:00Z", "2000-01-01T01:00:00+01:00", 946684800000])
def test_from_the_year_2000_on_it_counts(written: Any) -> None:
    assert Timestamp().deserialize(written) == datetime(2000, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-05 10:15:30 UTC",
        "2026-01-05T10:15:30GMT",
        "2026-01-05 11:15:30 +01:00",
        "2026-01-05 11:15:30.000 +0100",
        "2026-01-05 10:15:30",
        "Mon, 05 Jan 2026 10:15:30 GMT",
        "Mon, 5 Jan 2026 11:15:30 +0100 (CET)",
        "05 Jan 2026 05:15:30 EST",
        "5 Jan 2026 10:15:30",
    ],
)
def test_a_time_whose_zone_is_a_word_or_stands_apart_and_a_mails_date_are_read(written: str) -> None:
    assert Timestamp().deserialize(written) == datetime(2026, 1, 5, 10, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize("field", [Timestamp, PastTime])
@pytest.mark.parametrize(
    "written",
    [
        1767608130,
        1767608130000,
        1767608130000000,
        1767608130000000000,
        "1767608130000000",
        "1.76760813E15",
        "2026-01-05T11:15:30+01:00[Europe/Berlin]",
        "2026-01-05T10:15:30.000Z[UTC]",
        20260105101530,
        "20260105101530",
        "20260105T101530Z",
        "20260105101530Z",
        "20260105111530+0100",
        "20260105101530 UTC",
    ],
)
def test_a_time_is_read_in_whatever_unit_and_as_java_and_databases_write_it(
    field: type[Timestamp], written: Any
) -> None:
    assert field().deserialize(written) == datetime(2026, 1, 5, 10, 15, 30, tzinfo=UTC)


def test_a_date_and_a_time_in_digits_alone_are_in_the_zone_that_is_said() -> None:
    """As milliseconds it would be in the year 2612, and so now: an old opt-in would win over a newer opt-out."""
    assert Timestamp(zone=ZoneInfo("Europe/Berlin")).deserialize("20260105111530").hour == 10
    assert Timestamp(zone=None).deserialize(20260105111530).tzinfo is None
    assert not has_zone("20260105111530")


@pytest.mark.parametrize("field", [Timestamp, PastTime])
@pytest.mark.parametrize(
    ("written", "micros"),
    [
        ("20260105101530123", 123000),
        (20260105101530123, 123000),
        ("20260105101530.123", 123000),
        (20260105101530.5, 500000),
        ("20260105101530123456", 123456),
        ("20260105101530123Z", 123000),
    ],
)
def test_parts_of_a_second_may_stand_behind_digits_alone(field: type[Timestamp], written: Any, micros: int) -> None:
    """As microseconds it would be in the year 2612, and so now."""
    assert field().deserialize(written) == datetime(2026, 1, 5, 10, 15, 30, micros, tzinfo=UTC)


def test_microseconds_that_look_like_a_date_are_microseconds() -> None:
    assert Timestamp().deserialize(2026010510153012).year == 2034


@pytest.mark.parametrize("field", [Timestamp, PastTime])
@pytest.mark.parametrize(
    "written",
    [
        "05 Jan 2026 10:15:30 PM",
        "5 Jan 2026 10:15 PM",
        "05 Jan 2026 10:15:30 CET",
        "2026-01-05 10:15:30 CET",
        "2026-01-05 10:15:30 PM",
        "05.01.2026 10:15",
        "UTC",
        "2026-01-05T10:15:30[Europe/Berlin]",
        "202601051015Z",
        "202601051015301Z",
    ],
)
def test_a_time_is_not_read_without_what_stands_behind_it(field: type[Timestamp], written: str) -> None:
    """Half a day or an hour early, an opt-out would lose against an older opt-in."""
    with pytest.raises(ValidationError, match="is not a time"):
        field().deserialize(written)


@pytest.mark.parametrize("written", [None, 7, 7.5, True, {}, {"id": "1"}, ["1"], "a\0b", "\ud800", "x" * 2000])
def test_a_visitor_id_that_is_no_text_is_dropped(written: Any) -> None:
    assert not VisitorId().deserialize(written)


def test_a_visitor_id_is_taken_as_it_is() -> None:
    assert VisitorId().deserialize(" -4350463893986789401 ") == "-4350463893986789401"
