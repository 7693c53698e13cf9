"""``labels/{label}/summary.json``: what became of the rows of a footprints file when it was prepared."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["FOOTPRINTS_SUMMARY", "BoundarySummary", "FootprintsSummary", "RowCounts", "VectorSource"]


class VectorSource(TypedDict):
    """A vector file: its name, SHA-256 (None for a folder), its CRS, and whether that had to be assumed."""

    file: str
    sha256: str | None
    crs: str
    crs_assumed: bool


class BoundarySummary(VectorSource):
    """The surveyed area: rows read, polygons kept, those repaired, and their area together."""

    rows: int
    kept: int
    repaired: int
    area_km2: float


class RowCounts(TypedDict):
    """Rows read, those near the parents per feature code, dropped rows per reason, and those that were repaired."""

    rows: int
    feature_codes: dict[str, int]
    dropped: dict[str, int]
    repaired: int


class FootprintsSummary(RowCounts):
    """What was kept, repaired and dropped.

    Attributes:
        label: Name of the label layer.
        source: The footprints file.
        columns: Its column behind each of our attributes; None where it has none.
        epsg: CRS of what was written.
        kept: Rows written.
        ignored: Those of them that are neither building nor ground, or not sure to stand.
        unreadable_values: Values that could not be read, per attribute.
        unknown_construction_year: Kept rows without a year.
        unknown_height: Kept rows without a height.
        area_km2: Area of the kept footprints.
        boundary: The surveyed area.
    """

    label: str
    source: VectorSource
    columns: dict[str, str | None]
    epsg: int
    kept: int
    ignored: int
    unreadable_values: dict[str, int]
    unknown_construction_year: int
    unknown_height: int
    area_km2: float
    boundary: BoundarySummary


FOOTPRINTS_SUMMARY = Artifact("summary of footprints", "prepare_footprints", 2, FootprintsSummary)
