"""Overflights: the items of one pass belong together, and are measured together over the parent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from cityheads.archive.catalogues.item import Item

__all__ = ["Pass", "fill", "group_by_pass", "measure_in_batches"]


@dataclass(frozen=True)
class Pass:
    """The items of one overflight and, once it is measured, how well they cover the parent.

    Attributes:
        members: All its items over the parent.
        when: Time of the earliest.
        items: Those that are needed to cover the parent, best first; none before it is measured.
        valid: Fraction of the parent with data.
        clear: Fraction of that which is clear; None where nothing tells.
        flaws: Members whose files are gone or damaged, by id, and how.
    """

    members: Sequence[Item]
    when: datetime
    items: Sequence[Item] = field(default=())
    valid: float = 0.0
    clear: float | None = None
    flaws: Mapping[str, str] = field(default_factory=dict)


def group_by_pass(items: Iterable[Item], name: Callable[[Item], str]) -> list[Pass]:
    """Put the items of one overflight together, which ``name`` names."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(name(item), []).append(item)
    return [Pass(group, min(item.when for item in group)) for _, group in sorted(groups.items())]


def measure_in_batches(workers: int, passes: Sequence[Pass], measure: Callable[[Pass], Pass]) -> Iterator[Pass]:
    """Measure passes in order, a few at once; stopping early costs at most one batch."""
    if workers == 1 or len(passes) == 1:
        yield from map(measure, passes)
        return
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(passes), workers):
            yield from pool.map(measure, passes[start : start + workers])


def fill(mosaic: np.ndarray, layers: Sequence[tuple[Item, np.ndarray]], nodata: float) -> tuple[list[Item], float]:
    """Lay tiles under each other, in place; give those that add pixels and the fraction that has data."""
    used: list[Item] = []
    for item, pixels in layers:
        gaps = (mosaic == nodata) & (pixels != nodata)
        if gaps.any() or not used:
            mosaic[gaps] = pixels[gaps]
            used.append(item)
    return used, float((mosaic != nodata).mean())
