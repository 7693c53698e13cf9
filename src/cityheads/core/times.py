"""Times and periods as STAC writes them."""

from __future__ import annotations

from datetime import UTC, datetime, time

__all__ = ["Interval", "parse_interval", "parse_time"]

#: Start and end of a period; None where it is open.
Interval = tuple[datetime | None, datetime | None]


def parse_time(text: str) -> datetime:
    """Read a time; one without a zone is UTC.

    Raises:
        ValueError: It is none; the message says so.
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a time as STAC writes it") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def parse_interval(text: str) -> Interval:
    """Read an interval: ``A/B``, ``A/..``, ``../B`` or one date; a date without a time is the whole day.

    Raises:
        ValueError: It is none, or ends before it starts; the message says so.
    """
    first, slash, last = text.partition("/")
    last = last if slash else first
    ends: list[datetime | None] = []
    for part, clock in ((first, time.min), (last, time.max)):
        if part in ("", ".."):
            ends.append(None)
            continue
        parsed = parse_time(part)
        ends.append(datetime.combine(parsed.date(), clock, UTC) if "T" not in part.upper() else parsed)
    if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
        raise ValueError(f"'{text}' ends before it starts")
    return ends[0], ends[1]
