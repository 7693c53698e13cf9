"""Rows of a vector file that cannot be used: counted by reason, and refused where they are too many.

A building that is lost becomes ground in the mask, without a trace. A cut shapefile still opens, and gives its missing
rows without a geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely

from cityheads.core.errors import CityHeadsError
from cityheads.labels.shapes import only_polygons
from cityheads.labels.vector_files import VectorReader, Vectors

__all__ = ["Losses"]

#: Reasons why a row is lost, and what they are called to people.
_REASONS = {
    "unread": "announced but not there",
    "unreadable": "unreadable",
    "empty": "without geometry",
    "not_polygon": "lines or points, not polygons",
    "not_finite": "with corners that are no numbers",
    "no_area": "without area",
}


class Losses:
    """The account of one file.

    Attributes:
        rows: Rows read or announced.
        counts: Rows dropped per reason; those of ``other`` reasons are dropped on purpose and are no loss.
    """

    def __init__(self, path: Path, other: Sequence[str] = ()) -> None:
        self._path = path
        self.rows = 0
        self.counts = dict.fromkeys([*_REASONS, *other], 0)

    def shapes(self, vectors: Vectors, *, thin: bool = False) -> np.ndarray:
        """Give the polygonal part of each row, None for those that have none; these are counted.

        Args:
            vectors: Rows of the file, (N,).
            thin: Lines and points are wanted too, and stay as they are.
        """
        given = vectors.geometry
        bare = shapely.is_missing(given) | shapely.is_empty(given)
        kept = only_polygons(given)
        if thin:
            others = ~bare & np.isin(shapely.get_type_id(given), (0, 1, 2, 4, 5))
            kept[others] = given[others]
        flat = shapely.is_missing(kept) & ~bare
        strange = ~bare & ~flat & ~np.isfinite(shapely.area(kept))
        kept[strange] = None
        self.rows += len(given)
        self.counts["unreadable"] += vectors.unreadable
        self.counts["empty"] += int(bare.sum()) - vectors.unreadable
        self.counts["not_polygon"] += int(flat.sum())
        self.counts["not_finite"] += int(strange.sum())
        return kept

    def finish(self, read: VectorReader | Vectors) -> None:
        """Add the rows that never came."""
        self.counts["unread"] += read.unread
        self.rows += read.unread
        if isinstance(read, VectorReader):
            self.counts["empty"] += read.empty
            self.rows += read.empty

    def check(self, max_lost_percent: float, label: str) -> None:
        """Refuse a file of which more is lost than the config allows.

        Raises:
            CityHeadsError: It is; the message says how many rows, and why.
        """
        lost = {words: self.counts[reason] for reason, words in _REASONS.items() if self.counts[reason]}
        number = sum(lost.values())
        if number > self.rows * max_lost_percent / 100:
            why = ", ".join(f"{count} {words}" for words, count in lost.items())
            raise CityHeadsError(
                f"{self._path}: {number} of {self.rows} rows are lost ({why}), more than labels.{label}."
                f"max_lost_percent ({max_lost_percent:g}) allows; repair or fetch the file again, or raise that key"
            )
