"""From polygons to pixels: pixel centre, all touched, or the exactly covered area.

The rules differ much at 10 m, where a building is about as wide as a pixel. ``centre`` and ``all_touched`` are GDAL's:
for pixel centres rusterize gives the same pixels as ``rasterio.features.rasterize``, several times faster; what is
touched GDAL itself says, as rusterize 0.9 also burns a row and a column beside polygons whose edges lie on pixel edges.
The covered area of each pixel is computed exactly, by exactextract (https://isciences.github.io/exactextract).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from cityheads.archive.warp import Target
from cityheads.config import PixelRule

__all__ = ["AREA_TOLERANCE", "covered_fraction", "rasterize_polygons"]

#: exactextract keeps fractions in single precision; a fraction this close below a threshold reaches it.
AREA_TOLERANCE = 1e-6

#: Corners are snapped to this share of a pixel, less than a micrometre at 10 m. On such a lattice corners lie on pixel
#: edges or clear of them; exactextract 0.3 crashes on corners that are a few 1e-300 off an edge.
_SNAP_PX = 2.0**-24


def rasterize_polygons(
    polygons: np.ndarray, target: Target, rule: PixelRule, area_threshold: float = 0.5
) -> np.ndarray:
    """Say which pixels the polygons cover under a rule.

    Args:
        polygons: Polygons and MultiPolygons in the grid's CRS, as WKB or shapely objects, (N,).
        target: Grid of the result, north up, (H, W).
        rule: ``centre`` (the pixel's centre is covered), ``all_touched`` (any part of the pixel is touched) or
            ``area`` (at least ``area_threshold`` of the pixel is covered).
        area_threshold: Least covered fraction under rule ``area``, within 1e-6.

    Returns:
        (H, W) bool.
    """
    if rule == "area":
        return covered_fraction(polygons, target) >= area_threshold - AREA_TOLERANCE
    if not len(polygons):
        return np.zeros(target.shape, bool)
    if rule == "all_touched":
        return _touched(polygons, target)
    from rusterize import rusterize

    covered = rusterize(
        list(polygons),
        out_shape=tuple(target.shape),
        extent=_extent(target),
        burn=1,
        background=0,
        fun="any",
        encoding="numpy",
        dtype="uint8",
    )
    return covered.reshape(target.shape).astype(bool)


def _touched(polygons: np.ndarray, target: Target) -> np.ndarray:
    """Say which pixels GDAL takes to be touched, (H, W) bool."""
    from rasterio.features import rasterize

    shapes = shapely.from_wkb(polygons) if isinstance(polygons[0], bytes) else polygons
    burnt = rasterize(shapes.tolist(), tuple(target.shape), transform=target.transform, all_touched=True, dtype="uint8")
    return np.asarray(burnt).astype(bool)


def covered_fraction(polygons: np.ndarray, target: Target) -> np.ndarray:
    """Give the fraction of each pixel that the polygons cover together; where they overlap, area counts once.

    Args:
        polygons: Valid polygons and MultiPolygons in the grid's CRS, as WKB or shapely objects, (N,).
        target: Grid of the result, north up, (H, W).

    Returns:
        (H, W) float64 in [0, 1], right to about 1e-6.
    """
    from exactextract import exact_extract
    from exactextract.feature import Feature, FeatureSource
    from exactextract.raster import NumPyRasterSource
    from exactextract.writer import Writer

    fraction = np.zeros(target.shape)
    flat = fraction.reshape(-1)

    class Polygon(Feature):
        """A polygon that hands its WKB over."""

        def __init__(self, wkb: bytes) -> None:
            Feature.__init__(self)
            self.wkb = wkb

        def geometry(self) -> bytes:
            return self.wkb

        def fields(self) -> list[str]:
            return []

    class Polygons(FeatureSource):
        """All polygons, one after the other."""

        def __init__(self, wkbs: list[bytes]) -> None:
            super().__init__()
            self.wkbs = wkbs

        def count(self) -> int:
            return len(self.wkbs)

        def __iter__(self) -> Any:
            return map(Polygon, self.wkbs)

        def srs_wkt(self) -> None:
            return None

    class Cells(Feature):
        """What exactextract found for one polygon, by operation."""

        def __init__(self) -> None:
            Feature.__init__(self)
            self.found: dict[str, np.ndarray] = {}

        def set(self, name: str, value: np.ndarray) -> None:
            self.found[name] = value

        def set_geometry(self, geometry: Any) -> None:
            """Take no geometry: the cells are all that is wanted."""

    class Sum(Writer):
        """Adds every polygon's cells to the fractions; a polygon names a cell once."""

        def write(self, feature: Any) -> None:
            cells = Cells()
            feature.copy_to(cells)
            flat[cells.found["cell_id"]] += cells.found["coverage"]

        def features(self) -> None:
            """Return nothing: the sum is all that is wanted."""

    if not len(polygons):
        return fraction
    shapes = _without_overlap(_on_lattice(polygons, target))
    # exactextract would read pixel values where only the cells are wanted: one zero, repeated, stands for all
    zeros = np.broadcast_to(np.zeros((), np.uint8), target.shape)
    height, width = target.shape
    source = NumPyRasterSource(zeros, 0, -height, width, 0)
    exact_extract(source, Polygons(shapely.to_wkb(shapes).tolist()), ["cell_id", "coverage"], output=Sum())
    return np.clip(fraction, 0, 1)


def _extent(target: Target) -> tuple[float, float, float, float]:
    """Give (left, bottom, right, top) of a north-up grid."""
    transform = target.transform
    height, width = target.shape
    return (transform.c, transform.f + transform.e * height, transform.c + transform.a * width, transform.f)


def _on_lattice(polygons: np.ndarray, target: Target) -> np.ndarray:
    """Give the polygons in pixels, x to the right and y up from the grid's upper left corner, on a fine lattice."""
    shapes = shapely.from_wkb(polygons) if isinstance(polygons[0], bytes) else np.asarray(polygons, object)
    transform = target.transform
    origin, step = np.array([transform.c, transform.f]), np.array([transform.a, -transform.e])
    local = shapely.transform(shapes, lambda xy: (xy - origin) / step)
    snapped = shapely.transform(local, lambda xy: np.round(xy / _SNAP_PX) * _SNAP_PX)
    # rounding may fold a sliver over; GEOS's own, slower way keeps such a polygon valid
    folded = ~shapely.is_valid(snapped)
    snapped[folded] = shapely.set_precision(local[folded], _SNAP_PX)
    return snapped[~shapely.is_empty(snapped)]


def _without_overlap(shapes: np.ndarray) -> np.ndarray:
    """Merge polygons whose interiors meet, so that the rest can be summed; neighbours that only touch stay apart."""
    tree = shapely.STRtree(shapes)
    one, two = tree.query(shapes, predicate="intersects")
    once = one < two
    one, two = one[once], two[once]
    overlapping = shapely.relate_pattern(shapes[one], shapes[two], "T********")
    one, two = one[overlapping], two[overlapping]
    if not one.size:
        return shapes
    group = np.arange(len(shapes))
    while True:  # every polygon takes the smallest number among those it overlaps, until nothing changes
        smallest = group.copy()
        np.minimum.at(smallest, one, group[two])
        np.minimum.at(smallest, two, group[one])
        smallest = smallest[smallest]
        if np.array_equal(smallest, group):
            break
        group = smallest
    merged = np.unique(group[np.concatenate([one, two])])
    alone = ~np.isin(group, merged)
    unions = [shapely.union_all(shapes[group == number], grid_size=_SNAP_PX) for number in merged]
    return np.concatenate([shapes[alone], np.array(unions, object)])
