"""Geometries: their polygonal part, repair, the widths of lines, and the way into another CRS."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import shapely

__all__ = ["has_area", "hilbert_keys", "only_polygons", "project", "repair", "widen"]

#: Edges longer than this are divided before they are projected: a straight edge is a curve in another CRS. An edge of
#: 1 km along a parallel is 2 cm off at 40 degrees of latitude and 0.2 m at 84, where UTM ends; a degree is 111 km.
_EDGE_M = 1000.0
_EDGE_DEG = 0.01

#: What is wider than the Earth is no place, and is not divided into edges without end.
_WORLD_M = 4.1e7


def only_polygons(geometry: np.ndarray) -> np.ndarray:
    """Keep the polygonal part of every geometry, in two dimensions; None where there is none."""
    if shapely.has_z(geometry).any():
        geometry = shapely.force_2d(geometry)
    kind = shapely.get_type_id(geometry)
    kept = np.full(geometry.shape, None, object)
    whole = np.isin(kind, (3, 6)) & ~shapely.is_empty(geometry)
    kept[whole] = geometry[whole]
    for index in np.flatnonzero(kind == 7):
        parts = shapely.get_parts(shapely.get_parts(geometry[index]))
        faces = parts[shapely.get_type_id(parts) == 3]
        if len(faces):
            kept[index] = faces[0] if len(faces) == 1 else shapely.multipolygons(faces)
    return kept


def has_area(geometry: np.ndarray) -> np.ndarray:
    """Say which geometries have a positive, finite area; missing ones have none."""
    area = shapely.area(geometry)
    return np.asarray((area > 0) & np.isfinite(area))


def repair(polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give valid polygons, None where nothing with an area is left, and which rings crossed themselves.

    Args:
        polygons: Polygons and MultiPolygons with finite corners, (N,).
    """
    broken = ~shapely.is_valid(polygons)
    if broken.any():
        polygons = polygons.copy()
        polygons[broken] = only_polygons(shapely.make_valid(polygons[broken]))
    return polygons, broken


def widen(geometry: np.ndarray, buffer_m: float) -> np.ndarray:
    """Give lines and points an area: all that lies within a distance of them.

    Args:
        geometry: Geometries of any kind in a metric CRS, (N,).
        buffer_m: Distance in metres to each side; 0 leaves everything as it is. Polygons stay as they are.
    """
    thin = np.isin(shapely.get_type_id(geometry), (0, 1, 2, 4, 5))
    if buffer_m > 0 and thin.any():
        geometry = geometry.copy()
        geometry[thin] = shapely.buffer(geometry[thin], buffer_m)
    return geometry


def project(geometry: np.ndarray, source: Any, target: Any) -> np.ndarray:
    """Reproject geometries; x is east or longitude in both CRS.

    Long edges are divided first, so that a straight edge of the file stays where it was. A geometry in degrees that
    jumps over the antimeridian goes across it, not around the Earth.
    """
    from pyproj import CRS

    source, target = CRS.from_user_input(source), CRS.from_user_input(target)
    if source == target or not len(geometry):
        return geometry
    to = _transformer(source, target)
    return shapely.transform(_dense(geometry, source), lambda xy: np.column_stack(to.transform(xy[:, 0], xy[:, 1])))


@lru_cache(maxsize=16)
def _transformer(source: Any, target: Any) -> Any:
    """Give the transformer between two CRS; finding one takes PROJ a tenth of a second."""
    from pyproj import Transformer

    return Transformer.from_crs(source, target, always_xy=True)


def _dense(geometry: np.ndarray, crs: Any) -> np.ndarray:
    """Divide the long edges of the geometries that can have any."""
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    size = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
    if crs.is_geographic:
        step, world = _EDGE_DEG, 360.0
    else:
        metre = crs.axis_info[0].unit_conversion_factor or 1.0
        step, world = _EDGE_M / metre, _WORLD_M / metre
    long = (size > step) & (size <= world)
    if not long.any():
        return geometry
    geometry = geometry.copy()
    if crs.is_geographic:
        for index in np.flatnonzero(long & (bounds[:, 2] - bounds[:, 0] > 180)):
            geometry[index] = _across(geometry[index])
    geometry[long] = shapely.segmentize(geometry[long], step)
    return geometry


def _across(geometry: shapely.Geometry) -> shapely.Geometry:
    """Move the western part of a geometry that jumps over the antimeridian behind its eastern part."""
    if not any(np.abs(np.diff(shapely.get_coordinates(line)[:, 0])).max(initial=0) > 180 for line in _lines(geometry)):
        return geometry
    moved = shapely.transform(
        geometry, lambda xy: np.column_stack([np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]])
    )
    west, _, east, _ = moved.bounds
    return moved if 0 < east - west < 180 else geometry


def _lines(geometry: shapely.Geometry) -> np.ndarray:
    """Give the rings of polygons and the lines of all else."""
    parts = shapely.get_parts(geometry)
    flat = parts[shapely.get_type_id(parts) != 3]
    return np.concatenate([shapely.get_rings(parts), flat])


def hilbert_keys(bounds: np.ndarray, frame: tuple[float, float, float, float]) -> np.ndarray:
    """Give places on a Hilbert curve through a frame: what is near in space is near on it.

    Args:
        bounds: Boxes (left, bottom, right, top), (N, 4).
        frame: The frame, (left, bottom, right, top).

    Returns:
        (N,) uint32, 0 to 2**32 - 1.
    """
    import geopandas as gpd

    middle = shapely.points((bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2)
    return gpd.GeoSeries(middle).hilbert_distance(total_bounds=frame, level=16).to_numpy().astype(np.uint32)
