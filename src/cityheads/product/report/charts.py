"""Small line charts, each about as wide as a phone, so that their text is never scaled down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from cityheads.core.text import number

__all__ = ["HEIGHT", "WIDTH", "Chart", "Line", "Series", "chart"]

#: Of the drawing area, in the units of the chart.
WIDTH, HEIGHT = 300, 150


@dataclass(frozen=True)
class Series:
    """What a line shows: its kind, which decides how it is drawn, its points, and those that get a circle."""

    kind: str
    x: np.ndarray
    y: np.ndarray
    circles: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Line:
    """A line: its kind, its points as SVG has them, and its circles."""

    kind: str
    points: str
    circles: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart: lines in a frame with ticks, positions in its units; what its axes are, and the kinds of its lines."""

    title: str
    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    x_title: str
    key: Sequence[tuple[str, str]]
    alt: str


def chart(
    title: str,
    series: Sequence[Series],
    key: Sequence[tuple[str, str]],
    *,
    x_title: str,
    alt: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    whole: bool = False,
) -> Chart:
    """Draw lines.

    Args:
        title: What is on the vertical axis.
        series: The lines; all of them empty gives a chart that says so.
        key: Kind and name of the lines.
        x_title: What is on the horizontal axis.
        alt: What is to be seen, in words.
        x_range: Ends of the axis; None takes those of the lines, and ``y_range`` likewise with some room.
        y_range: As ``x_range``.
        whole: Whether only whole numbers are ticks of the horizontal axis.
    """
    x_all = np.concatenate([one.x for one in series]) if series else np.zeros(0)
    if not len(x_all):
        return Chart(title, (), (), (), x_title, key, f"{title}: nothing was recorded.")
    y_all = np.concatenate([one.y for one in series])
    left, right = x_range or (float(x_all.min()), float(x_all.max()))
    right = max(right, left + (1.0 if whole else 1e-9))
    low, high = y_range or (float(y_all.min()), float(y_all.max()))
    if y_range is None:
        pad = 0.06 * (high - low or 1.0)
        low, high = low - pad if low else low, high + pad

    def place(x: float, y: float) -> tuple[float, float]:
        return round(WIDTH * (x - left) / (right - left), 1), round(HEIGHT * (high - y) / (high - low), 1)

    lines = [
        Line(
            one.kind,
            " ".join("{},{}".format(*place(float(x), float(y))) for x, y in zip(one.x, one.y, strict=True)),
            [place(*at) for at in one.circles],
        )
        for one in series
    ]
    y_ticks = [float(value) for value in MaxNLocator(4).tick_values(low, high) if low <= value <= high]
    x_ticks = [float(v) for v in MaxNLocator(5, integer=whole).tick_values(left, right) if left <= v <= right]
    digits = next((n for n in range(3) if all(abs(value - round(value, n)) < 1e-9 for value in y_ticks)), 3)
    return Chart(
        title,
        lines,
        [(place(value, low)[0], f"{value:g}") for value in x_ticks],
        [(place(left, value)[1], number(value, digits)) for value in y_ticks],
        x_title,
        key,
        alt,
    )
