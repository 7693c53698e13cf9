"""The parents of a dataset as places on Earth: which of them holds a point."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, Parent, parent_geobox

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from pyproj import Transformer

__all__ = ["Place", "bounds", "find", "read_places"]

_COLUMNS = (
    "parent_id", "row", "col", "split", "kept", "reason", "epsg", "left", "top", "chip_px", "resolution_m", "simulated",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A parent of the dataset and what the chip table says about it.

    Attributes:
        parent: The parent, with the split that it was assigned to.
        px: Its side in pixels.
        resolution_m: Pixel size in metres.
        chip_px: Side of a sub-chip in pixels.
        dropped: Reason by (row, col) of the sub-chips that were left out of the dataset.
        simulated: Whether its pixels were made up.
    """

    parent: Parent
    px: int
    resolution_m: float
    chip_px: int
    dropped: dict[tuple[int, int], str]
    simulated: bool

    @property
    def side_m(self) -> float:
        """Side in metres."""
        return self.px * self.resolution_m

    @property
    def geobox(self) -> GeoBox:
        """The grid of its pixels."""
        return parent_geobox(self.parent, Grid(self.resolution_m, self.px, 1))

    def distance_m(self, x: float, y: float) -> float:
        """Give how far outside the square (x, y) lies, in metres; 0 inside. Left and top edges belong to it."""
        right, bottom = self.parent.left + self.side_m, self.parent.top - self.side_m
        if self.parent.left <= x < right and bottom < y <= self.parent.top:
            return 0.0
        dx = max(self.parent.left - x, 0.0, x - right)
        dy = max(bottom - y, 0.0, y - self.parent.top)
        return max(math.hypot(dx, dy), 1e-9)

    def centre(self, rows: slice, cols: slice) -> tuple[float, float]:
        """Give longitude and latitude of a window's centre in degrees (WGS 84)."""
        x = self.parent.left + self.resolution_m * (cols.start + cols.stop) / 2
        y = self.parent.top - self.resolution_m * (rows.start + rows.stop) / 2
        lon, lat = _transformer(self.parent.epsg, 4326).transform(x, y)
        return lon, lat


def read_places(chips: Path) -> dict[str, Place]:
    """Read the parents from the chip table, by id in its order."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in CHIPS.read(chips, _COLUMNS):
        rows.setdefault(row["parent_id"], []).append(row)
    return {name: _place(name, of_parent) for name, of_parent in rows.items()}


def _place(name: str, rows: Sequence[dict[str, Any]]) -> Place:
    first = rows[0]
    return Place(
        parent=Parent(
            name, first["epsg"], min(row["left"] for row in rows), max(row["top"] for row in rows), first["split"]
        ),
        px=(max(row["row"] for row in rows) + 1) * first["chip_px"],
        resolution_m=first["resolution_m"],
        chip_px=first["chip_px"],
        dropped={(row["row"], row["col"]): row["reason"] for row in rows if not row["kept"]},
        simulated=any(row["simulated"] for row in rows),
    )


def find(places: Mapping[str, Place], lat: float, lon: float) -> tuple[Place, float, float]:
    """Find the parent that holds a point, and the point's coordinates in the parent's CRS.

    Args:
        places: The parents.
        lat: Latitude in degrees (WGS 84).
        lon: Longitude in degrees.

    Raises:
        CityHeadsError: No such place on Earth, or no parent holds it; the message names the covered area.
    """
    if not (math.isfinite(lat) and math.isfinite(lon) and abs(lat) <= 90 and abs(lon) <= 180):
        raise CityHeadsError(f"latitude {lat:g}, longitude {lon:g}: no such place; latitude comes first, in degrees")
    nearest: tuple[float, str] | None = None
    at: dict[int, tuple[float, float]] = {}
    for place in places.values():
        epsg = place.parent.epsg
        if epsg not in at:
            at[epsg] = _transformer(4326, epsg).transform(lon, lat)
        x, y = at[epsg]
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        distance = place.distance_m(x, y)
        if distance == 0:
            return place, x, y
        if nearest is None or distance < nearest[0]:
            nearest = (distance, place.parent.parent_id)
    south, west, north, east = bounds(places)
    hint = f"; the nearest, {nearest[1]}, is {nearest[0] / 1000:.1f} km away" if nearest else ""
    raise CityHeadsError(
        f"latitude {lat:g}, longitude {lon:g}: outside the covered area, {len(places)} parents between "
        f"latitudes {south:.3f} and {north:.3f}, longitudes {west:.3f} and {east:.3f}{hint}"
    )


def bounds(places: Mapping[str, Place]) -> tuple[float, float, float, float]:
    """Give the covered area's south, west, north and east in degrees."""
    lats, lons = [], []
    for place in places.values():
        left, top, side = place.parent.left, place.parent.top, place.side_m
        back = _transformer(place.parent.epsg, 4326)
        for x, y in ((left, top), (left + side, top), (left, top - side), (left + side, top - side)):
            lon, lat = back.transform(x, y)
            lats.append(lat)
            lons.append(lon)
    return min(lats), min(lons), max(lats), max(lons)


@functools.cache
def _transformer(source: int, target: int) -> Transformer:
    from pyproj import Transformer

    return Transformer.from_crs(source, target, always_xy=True)
