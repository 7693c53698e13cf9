"""The grid: parent squares, their sub-chips, and the sheet that lists the parents.

Everything that touches pixels speaks in `odc.geo.geobox.GeoBox` (shape, affine, CRS).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cityheads.core.errors import CityHeadsError
from cityheads.core.sheets import read_sheet

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely.geometry import Polygon

__all__ = [
    "SPLITS",
    "Grid",
    "Parent",
    "Split",
    "SubChip",
    "area",
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
#: Width of a UTM zone: cities that lie on two are mapped in one of them.
_ZONE_DEG = 6.0
#: Side of the squares for which files of a whole city are read, in metres.
AREA_M = 50_000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}(_[A-Za-z0-9-]+)*")


@dataclass(frozen=True)
class Grid:
    """Size of parents and sub-chips.

    Attributes:
        resolution_m: Pixel size in metres.
        parent_px: Side of a parent in pixels.
        chips_per_side: Sub-chips along one side of a parent.
        aligned: Whether the sheet's corners must be multiples of the pixel size.
    """

    resolution_m: float
    parent_px: int
    chips_per_side: int
    aligned: bool = True

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


def area(parent: Parent, grid: Grid) -> tuple[int, int, int, int]:
    """Give the squares of 50 km that a parent touches: left, bottom, right, top in metres of its CRS.

    What is read for the parents of a city as a whole is read for these, so that a parent more changes nothing for the
    others.
    """
    left, top, right, bottom = parent.left, parent.top, parent.left + grid.side_m, parent.top - grid.side_m
    return (
        math.floor(left / AREA_M) * AREA_M,
        math.floor(bottom / AREA_M) * AREA_M,
        math.ceil(right / AREA_M) * AREA_M,
        math.ceil(top / AREA_M) * AREA_M,
    )


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
        CityHeadsError: The file is no such sheet (see `core.sheets.read_sheet`) or has no rows; a value that is no
            number, a duplicate or unfit id, an EPSG code that is unknown or not in metres, a corner far from where the
            CRS is used or off the grid, an unknown split, parents that overlap.
    """
    path = Path(path)
    rows = read_sheet(path, _REQUIRED, _OPTIONAL, what="parent sheet", key="parents")
    if not rows:
        raise CityHeadsError(f"{path}: the parent sheet has no rows")
    parents = [_parse_row(path, number, row) for number, row in rows]
    _check(path, parents, grid)
    return parents


def _parse_row(path: Path, number: int, row: Mapping[str, str]) -> Parent:
    where = f"{path}: line {number}"
    identifier = row["parent_id"]
    if not _ID.fullmatch(identifier):
        raise CityHeadsError(
            f"{where}: parent_id '{identifier}' is unfit for a file name; use letters, digits, '-' and '_'"
        )
    if re.search(r"_r\d+c\d+$", identifier):
        raise CityHeadsError(f"{where}: parent_id '{identifier}' ends like a sub-chip's; rename it")
    numbers: dict[str, float] = {}
    for key, kind in (("epsg", int), ("left", float), ("top", float)):
        try:
            numbers[key] = kind(row[key])
            if not math.isfinite(numbers[key]):
                raise ValueError
        except ValueError:
            raise CityHeadsError(f"{where} ({identifier}): {key} '{row[key]}' is not a number") from None
    given = row.get("split", "")
    split = next((name for name in SPLITS if name == given), None)
    if given and split is None:
        raise CityHeadsError(f"{where} ({identifier}): split '{given}' is none of {', '.join(SPLITS)}")
    return Parent(
        identifier, int(numbers["epsg"]), numbers["left"], numbers["top"], split, row.get("region", "") or None
    )


def _check(path: Path, parents: list[Parent], grid: Grid) -> None:
    seen: set[str] = set()
    for parent in parents:
        if parent.parent_id.lower() in seen:
            raise CityHeadsError(f"{path}: parent_id '{parent.parent_id}' stands twice; ids must be unique")
        seen.add(parent.parent_id.lower())
    for epsg in sorted({parent.epsg for parent in parents}):
        _check_places(path, [parent for parent in parents if parent.epsg == epsg], epsg, grid)
    with_split = [parent for parent in parents if parent.split]
    if with_split and len(with_split) != len(parents):
        without = next(parent.parent_id for parent in parents if not parent.split)
        raise CityHeadsError(f"{path}: {without} has no split while others have; fill the column or leave it empty")
    for first_parent, second_parent in overlapping(parents, grid):
        raise CityHeadsError(
            f"{path}: parents {first_parent.parent_id} and {second_parent.parent_id} overlap; move them apart by "
            f"{grid.side_m:g} m (grid.parent_px x grid.resolution_m), or pixels leak between splits"
        )
    for parent in parents if grid.aligned else ():
        for key in ("left", "top"):
            value: float = getattr(parent, key)
            nearest = round(value / grid.resolution_m) * grid.resolution_m
            # a thousandth of a pixel: what a corner loses that was written with few digits
            if abs(value - nearest) > grid.resolution_m * 1e-3:
                raise CityHeadsError(
                    f"{path}: {parent.parent_id}: {key} {value:.10g} is not a multiple of {grid.resolution_m:g} m, so "
                    f"that every pixel would be interpolated; write {nearest:.10g}, or set grid.aligned: false for "
                    "imagery that lies on such a grid itself"
                )


def _check_places(path: Path, parents: list[Parent], epsg: int, grid: Grid) -> None:
    """Refuse a CRS that is unknown or not in metres, and squares far from where it is used."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError

    first = parents[0].parent_id
    try:
        crs = CRS.from_epsg(epsg)
    except CRSError:
        raise CityHeadsError(f"{path}: EPSG:{epsg} ({first}) is unknown; use a metric CRS such as 32618") from None
    if not crs.is_projected or crs.axis_info[0].unit_name != "metre":
        raise CityHeadsError(
            f"{path}: EPSG:{epsg} ({first}) is not a projected CRS in metres; use the place's UTM zone"
        )
    to_degrees, used = Transformer.from_crs(crs, 4326, always_xy=True), crs.area_of_use
    for parent in parents:
        lon, lat = to_degrees.transform(parent.left + grid.side_m / 2, parent.top - grid.side_m / 2)
        known = math.isfinite(lon) and math.isfinite(lat)
        if known and (used is None or _near(lon, lat, used.bounds)):
            continue
        where = f"at longitude {lon:.1f}, latitude {lat:.1f}" if known else "nowhere on Earth"
        there = ""
        if used is not None:
            there = (
                f", which is used from {used.west:g} to {used.east:g} east and {used.south:g} to {used.north:g} north"
            )
        raise CityHeadsError(
            f"{path}: {parent.parent_id}: left {parent.left:g}, top {parent.top:g} lies {where} in EPSG:{epsg}"
            f"{there}; are left and top swapped, or is it another CRS?"
        )


def _near(lon: float, lat: float, bounds: tuple[float, float, float, float]) -> bool:
    """Say whether a place is where a CRS is used or within a UTM zone (6 degrees) of that."""
    west, south, east, north = bounds
    beside = (lon - west + _ZONE_DEG) % 360 <= (east - west) % 360 + 2 * _ZONE_DEG or east - west >= 360
    return beside and south - _ZONE_DEG <= lat <= north + _ZONE_DEG


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
