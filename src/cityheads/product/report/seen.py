"""When each parent was seen: the dates of its scenes on one line per parent, and the window that all agreed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cityheads.core.artifacts.agreement import Agreement
from cityheads.core.artifacts.scenes import SceneChoice, item_time
from cityheads.core.modalities import RADAR
from cityheads.core.times import parse_time

__all__ = ["Mark", "Seen", "seen"]

#: Width of the dates and height of a parent's line, in the units of the picture.
WIDTH, LINE = 300, 16


@dataclass(frozen=True)
class Mark:
    """A scene: its place, whether it is ``optical`` or ``radar``, and what it is."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Seen:
    """The picture: a line for each parent, marks on it, ticks of the dates, and the agreed window."""

    height: float
    lines: Sequence[tuple[float, str]]
    marks: Sequence[Mark]
    ticks: Sequence[tuple[float, str]]
    window: tuple[float, float] | None
    alt: str


def seen(choices: Mapping[str, SceneChoice], agreement: Agreement | None) -> Seen:
    """Draw when the parents were seen.

    Args:
        choices: Scene choice of each parent, in the order of the lines.
        agreement: What the choices keep to; None where nothing was agreed on.
    """
    found: list[tuple[int, str, datetime, str]] = []
    for row, (parent, choice) in enumerate(choices.items()):
        for name, layer in choice["layers"].items():
            if name != "S2L2A" and name not in RADAR:
                continue
            kind = "radar" if name in RADAR else "optical"
            for item in layer["items"]:
                when = parse_time(item_time(item))
                found.append((row, kind, when, f"{parent}: {name}, {when:%Y-%m-%d}"))
    times = [when for _, _, when, _ in found]
    window = agreement["window"] if agreement is not None else None
    ends = [parse_time(window["start"]), parse_time(window["end"])] if window is not None else []
    first, last = min(times + ends), max(times + ends)
    # with one day alone there would be nothing to scale by
    last = max(last, first + timedelta(days=1))

    def place(when: datetime) -> float:
        return round(WIDTH * ((when - first) / (last - first)), 1)

    optical = [when for _, kind, when, _ in found if kind == "optical"]
    days = (max(optical) - min(optical)).days
    agreed = f" They agreed on {ends[0]:%Y-%m-%d} to {ends[1]:%Y-%m-%d}." if ends else ""
    return Seen(
        height=LINE * len(choices),
        lines=[(LINE * (row + 0.5), parent) for row, parent in enumerate(choices)],
        marks=[Mark(place(when), LINE * (row + 0.5), kind, title) for row, kind, when, title in found],
        ticks=[(place(when), f"{when:%Y-%m-%d}") for when in (first, first + (last - first) / 2, last)],
        window=(place(ends[0]), place(ends[1]) - place(ends[0])) if ends else None,
        alt=f"Dates of the scenes of {len(choices)} parents; Sentinel-2 within {days} days.{agreed}",
    )
