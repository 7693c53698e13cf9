"""Times and periods as STAC writes them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cityheads.core.times import parse_interval, parse_time


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2024-05-01/2024-09-30", datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 9, 30, 23, 59, 59, 999999, UTC)),
        ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, 23, 59, 59, 999999, UTC)),
        ("../2024-05-01T12:00:00Z", None, datetime(2024, 5, 1, 12, tzinfo=UTC)),
        ("2024-05-01/", datetime(2024, 5, 1, tzinfo=UTC), None),
    ],
)
def test_intervals_include_whole_days(text: str, start: datetime | None, end: datetime | None) -> None:
    assert parse_interval(text) == (start, end)


@pytest.mark.parametrize("text", ["soon", "2024-09-30/2024-05-01", "2024-13-01"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_interval(text)


def test_a_time_without_a_zone_is_utc() -> None:
    assert parse_time("2024-07-15T12:00:00") == parse_time("2024-07-15T14:00:00+02:00")
