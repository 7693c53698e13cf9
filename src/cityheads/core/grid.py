"""The grid: parent squares, their sub-chips, and the sheet that lists the parents.

Everything that touches pixels speaks in `odc.geo.geobox.GeoBox` (shape, affine, CRS).
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cityheads.core.errors import CityHeadsError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely.geometry import Polygon

__all__ = [
    "SPLITS",
    "Grid",
    "Parent",
    "Split",
    "SubChip",
    "chip_id",
    "chip_ids",
    "find_parent",
    "parent_geobox",
    "parent_polygon",
    "read_parents",
    "subchips",
]

#: Name of a split.
Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
_REQUIRED = ("parent_id", "epsg", "left", "top")
_OPTIONAL = ("split", "region")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}(_[A-Za-z0-9-]+)*")


@dataclass(frozen=True)
class Grid:
    """Size of parents and sub-chips.

    Attributes:
        resolution_m: Pixel size in metres.
        parent_px: Side of a parent in pixels.
        chips_per_side: Sub-chips along one side of a parent.
    """

    resolution_m: float
    parent_px: int
    chips_per_side: int

    @property
    def chip_px(self) -> int:
        """Side of a sub-chip in pixels."""
        return self.parent_px // self.chips_per_side

    @property
    def side_m(self) -> float:
        """Side of a parent in metres."""
        return self.parent_px * self.resolution_m


@dataclass(frozen=True)
class Parent:
    """One row of the parent sheet: the square's upper left corner in a metric CRS.

    Attributes:
        parent_id: Unique name, used in paths.
        epsg: CRS of ``left`` and ``top``; projected, in metres.
        left: x of the upper left corner, in metres.
        top: y of the upper left corner, in metres.
        split: ``train``, ``val`` or ``test`` where the sheet fixes it, else None.
        region: Name of the part of the city, for leaving one region out, else None.
    """

    parent_id: str
    epsg: int
    left: float
    top: float
    split: Split | None = None
    region: str | None = None


@dataclass(frozen=True)
class SubChip:
    """A sub-chip of a parent; row 0, column 0 is the upper left one."""

    chip_id: str
    row: int
    col: int
    geobox: GeoBox
    row_slice: slice
    col_slice: slice


def chip_id(parent_id: str, row: int, col: int) -> str:
    """Name a sub-chip: ``{parent}_r{row}c{col}``."""
    return f"{parent_id}_r{row}c{col}"


def chip_ids(parent_id: str, chips_per_side: int) -> list[str]:
    """Name all sub-chips of a parent, row by row."""
    return [chip_id(parent_id, row, col) for row in range(chips_per_side) for col in range(chips_per_side)]


def parent_geobox(parent: Parent, grid: Grid) -> GeoBox:
    """Give the parent's grid, ``(parent_px, parent_px)``, north up."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    affine = Affine(grid.resolution_m, 0.0, parent.left, 0.0, -grid.resolution_m, parent.top)
    return GeoBox((grid.parent_px, grid.parent_px), affine, f"EPSG:{parent.epsg}")


def subchips(parent: Parent, grid: Grid) -> list[SubChip]:
    """Cut a parent into its sub-chips, row by row; together they cover it to the pixel."""
    box = parent_geobox(parent, grid)
    px = grid.chip_px
    cut = []
    for row in range(grid.chips_per_side):
        for col in range(grid.chips_per_side):
            rows, cols = slice(row * px, (row + 1) * px), slice(col * px, (col + 1) * px)
            cut.append(SubChip(chip_id(parent.parent_id, row, col), row, col, box[rows, cols], rows, cols))
    return cut


def parent_polygon(parent: Parent, grid: Grid, epsg: int | None = None) -> Polygon:
    """Give the parent's square as a polygon, in its own CRS or densified and reprojected to ``epsg``."""
    import numpy as np
    import shapely
    from pyproj import Transformer

    side = grid.side_m
    square = shapely.box(parent.left, parent.top - side, parent.left + side, parent.top)
    if epsg is None or epsg == parent.epsg:
        return square
    to = Transformer.from_crs(parent.epsg, epsg, always_xy=True)
    dense = shapely.segmentize(square, side / 16)
    return shapely.transform(dense, lambda xy: np.column_stack(to.transform(xy[:, 0], xy[:, 1])))


def read_parents(path: Path, grid: Grid) -> list[Parent]:
    """Read and check the parent sheet: tab-separated, ``#`` lines are comments.

    Columns: ``parent_id``, ``epsg``, ``left``, ``top`` and, optionally, ``split`` and ``region``.

    Raises:
        CityHeadsError: A missing or unknown column, an empty sheet, a value that is no number, a duplicate or unfit
            id, an EPSG code that is unknown or not in metres, an unknown split, parents that overlap.
    """
    path = Path(path)
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    except FileNotFoundError:
        raise CityHeadsError(f"{path}: no such parent sheet; the config key 'parents' names it") from None
    if not lines:
        raise CityHeadsError(f"{path}: the parent sheet is empty; it needs the columns {', '.join(_REQUIRED)}")
    reader = csv.DictReader(lines, delimiter="\t")
    columns = list(reader.fieldnames or [])
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        raise CityHeadsError(
            f"{path}: missing column {', '.join(missing)}; the sheet is tab-separated with {', '.join(_REQUIRED)}"
        )
    unknown = [name for name in columns if name not in _REQUIRED + _OPTIONAL]
    if unknown:
        raise CityHeadsError(
            f"{path}: unknown column {', '.join(map(str, unknown))}; known are {', '.join(_REQUIRED + _OPTIONAL)}"
        )
    parents: list[Parent] = []
    for number, row in enumerate(reader, start=1):
        parents.append(_parse_row(path, number, row))
    if not parents:
        raise CityHeadsError(f"{path}: the parent sheet has no rows")
    _check(path, parents, grid)
    return parents


def _parse_row(path: Path, number: int, row: Mapping[str, str | None]) -> Parent:
    where = f"{path}: row {number}"
    identifier = row["parent_id"] or ""
    if not _ID.fullmatch(identifier):
        raise CityHeadsError(
            f"{where}: parent_id '{identifier}' is unfit for a file name; use letters, digits, '-' and '_'"
        )
    if re.search(r"_r\d+c\d+$", identifier):
        raise CityHeadsError(f"{where}: parent_id '{identifier}' ends like a sub-chip's; rename it")
    numbers: dict[str, float] = {}
    for key, kind in (("epsg", int), ("left", float), ("top", float)):
        try:
            numbers[key] = kind(row[key] or "")
            if not math.isfinite(numbers[key]):
                raise ValueError
        except ValueError:
            raise CityHeadsError(f"{where} ({identifier}): {key} '{row[key] or ''}' is not a number") from None
    given = (row.get("split") or "").strip()
    split = next((name for name in SPLITS if name == given), None)
    if given and split is None:
        raise CityHeadsError(f"{where} ({identifier}): split '{given}' is none of {', '.join(SPLITS)}")
    region = (row.get("region") or "").strip() or None
    return Parent(identifier, int(numbers["epsg"]), numbers["left"], numbers["top"], split, region)


def _check(path: Path, parents: list[Parent], grid: Grid) -> None:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    seen: set[str] = set()
    for parent in parents:
        if parent.parent_id.lower() in seen:
            raise CityHeadsError(f"{path}: parent_id '{parent.parent_id}' stands twice; ids must be unique")
        seen.add(parent.parent_id.lower())
    for epsg in {parent.epsg for parent in parents}:
        first = next(parent.parent_id for parent in parents if parent.epsg == epsg)
        try:
            crs = CRS.from_epsg(epsg)
        except CRSError:
            raise CityHeadsError(f"{path}: EPSG:{epsg} ({first}) is unknown; use a metric CRS such as 32618") from None
        if not crs.is_projected or crs.axis_info[0].unit_name != "metre":
            raise CityHeadsError(
                f"{path}: EPSG:{epsg} ({first}) is not a projected CRS in metres; use the place's UTM zone"
            )
    with_split = [parent for parent in parents if parent.split]
    if with_split and len(with_split) != len(parents):
        without = next(parent.parent_id for parent in parents if not parent.split)
        raise CityHeadsError(f"{path}: {without} has no split while others have; fill the column or leave it empty")
    for first_parent, second_parent in overlapping(parents, grid):
        raise CityHeadsError(
            f"{path}: parents {first_parent.parent_id} and {second_parent.parent_id} overlap; move them apart by "
            f"{grid.side_m:g} m (grid.parent_px x grid.resolution_m), or pixels leak between splits"
        )


def overlapping(parents: Iterable[Parent], grid: Grid) -> Iterable[tuple[Parent, Parent]]:
    """Yield the pairs of parents whose squares share area.

    Pairs in one CRS are compared exactly, with a tolerance of a millionth of a pixel; others in longitude and
    latitude.
    """
    parents = list(parents)
    slack = grid.resolution_m * 1e-6
    for index, one in enumerate(parents):
        for two in parents[index + 1 :]:
            if one.epsg == two.epsg:
                dx, dy = abs(one.left - two.left), abs(one.top - two.top)
                if dx < grid.side_m - slack and dy < grid.side_m - slack:
                    yield one, two
            else:
                a, b = parent_polygon(one, grid, 4326), parent_polygon(two, grid, 4326)
                if a.intersects(b) and a.intersection(b).area > 1e-12:
                    yield one, two


def find_parent(parents: Iterable[Parent], parent_id: str, sheet: Path) -> Parent:
    """Pick one parent by id.

    Raises:
        CityHeadsError: No such parent in the sheet.
    """
    for parent in parents:
        if parent.parent_id == parent_id:
            return parent
    raise CityHeadsError(f"{sheet}: no parent '{parent_id}'")
