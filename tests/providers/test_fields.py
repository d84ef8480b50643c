"""Times and ids as ESPs send them, for every provider in one place."""

from datetime import UTC, datetime
from typing import Any

import pytest
from marshmallow import ValidationError

from webhook_app.providers.fields import Timestamp, VisitorId


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


@pytest.mark.parametrize("written", [None, 7, 7.5, True, {}, {"id": "1"}, ["1"], "a\0b", "\ud800", "x" * 2000])
def test_a_visitor_id_that_is_no_text_is_dropped(written: Any) -> None:
    assert not VisitorId().deserialize(written)


def test_a_visitor_id_is_taken_as_it_is() -> None:
    assert VisitorId().deserialize(" -4350463893986789401 ") == "-4350463893986789401"
