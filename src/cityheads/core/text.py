"""Numbers and names as people read them, one way on every page and figure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["counted", "duration", "ends", "number", "percent", "points", "score", "share", "signed"]


def number(value: float, digits: int = 1) -> str:
    """Write a number with a true minus and without a negative zero."""
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int = 1) -> str:
    """Write a number with its sign, a true minus, and zero without one."""
    text = number(value, digits)
    return text if text.startswith("\N{MINUS SIGN}") or not text.strip("0.,") else f"+{text}"


def percent(value: float | None) -> str:
    """Write a score as percent with one digit; n/a where it is undefined."""
    return "n/a" if value is None else f"{number(100 * value)}\N{NO-BREAK SPACE}%"


def share(value: float) -> str:
    """Write a setting such as 0.95 as percent, with no more digits than it has."""
    return f"{100 * value:g}\N{NO-BREAK SPACE}%"


def counted(number_of: int, what: str) -> str:
    """Write a number of things: ``1 parent``, ``1,240 sub-chips``."""
    return f"{number_of:,} {what}{'' if number_of == 1 else 's'}"


def score(value: float | None) -> str:
    """Write a score from 0 to 1 as it was decided on, with four digits."""
    return "undefined" if value is None else f"{value:.4f}"


def points(value: float | None) -> str:
    """Write a difference in percentage points in plain ASCII, with its sign."""
    return "undefined" if value is None else f"{value:+.2f}"


def ends(interval: Sequence[float] | None) -> str:
    """Write an interval in percentage points in plain ASCII."""
    return "undefined" if interval is None else f"{points(interval[0])} to {points(interval[1])}"


def duration(seconds: float) -> str:
    """Write a duration: ``8.4 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
