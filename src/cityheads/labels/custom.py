"""Further label layers: a folder of rasters or a vector file, either of which may say nothing about some parents.

Where nothing is known the mask is 255 throughout: such sub-chips train and count for the other heads only.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.archive.warp import Target
from cityheads.config import Config, RasterLabel, VectorLabel
from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, Parent, find_parent, parent_polygon, read_parents
from cityheads.labels.masks import write_mask
from cityheads.labels.section import label_section

__all__ = ["rasterize_layer"]

log = logging.getLogger(__name__)

_RASTERS = (".tif", ".tiff")


def rasterize_layer(
    config: Config,
    *,
    parents: Path,
    parent: str,
    label: str,
    source: Path,
    chips: Path,
    out: Path,
    boundary: Path | None = None,
) -> None:
    """Write one parent's mask of a raster or vector layer, and its sub-chips.

    Args:
        config: Config with sections ``grid`` and ``labels``.
        parents: Parent sheet.
        parent: Parent id.
        label: Name of the label layer, of kind raster or vector.
        source: Folder of GeoTIFFs of any CRS (kind raster) or vector file (kind vector).
        chips: Folder that takes ``MASK_{label}/{chip}.tif``.
        out: The parent's mask, written last.
        boundary: Vector file of the surveyed area, inside which a pixel without a polygon is background (kind vector).

    Raises:
        CityHeadsError: The source is missing or cannot be read, a code or value is not mapped, or the attribute is not
            a column.
    """
    grid = config.grid.grid
    row = find_parent(read_parents(parents, grid), parent, parents)
    raster = config.labels.get(label)
    tags: dict[str, str]
    if isinstance(raster, RasterLabel):
        names = raster.class_names
        mask, used = _from_rasters(source, row, grid, label, raster)
        tags = {"files": ";".join(used)}
    else:
        vector = label_section(config, label, VectorLabel)
        names = vector.class_names
        mask = _from_vectors(source, boundary, row, grid, label, vector)
        tags = {"file": Path(source).name, "rule": vector.rule}
    write_mask(mask, row, grid, label, names, out, chips, tags=tags)
    log.info("%s: %s, %.1f %% of the pixels ignored", parent, label, 100 * float((mask == IGNORE).mean()))


def _from_rasters(
    folder: Path, parent: Parent, grid: Grid, label: str, section: RasterLabel
) -> tuple[np.ndarray, list[str]]:
    """Map the codes of every raster that meets the parent; the first in the order of names wins."""
    import rasterio
    import shapely
    from rasterio.errors import RasterioError

    from cityheads.labels.landcover import code_table, map_codes, sample_nearest

    if not Path(folder).is_dir():
        raise CityHeadsError(f"{folder}: no such folder; see the config key 'labels.{label}.source'")
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _RASTERS)
    if not files:
        raise CityHeadsError(f"{folder}: holds no GeoTIFF (*.tif); see the config key 'labels.{label}.source'")
    table = code_table([item.codes or (number,) for number, item in enumerate(section.classes)], section.ignore_codes)
    target = Target.of_parent(parent, grid)
    squares: dict[str, Any] = {}
    mask = np.full(target.shape, IGNORE, np.uint8)
    used = []
    for path in files:
        try:
            with rasterio.open(path) as raster:
                if raster.crs is None:
                    raise CityHeadsError(f"{path}: the raster has no CRS")
                key = raster.crs.to_wkt()
                if key not in squares:
                    squares[key] = _square(parent, grid, key)
                if not shapely.box(*raster.bounds).intersects(squares[key]):
                    continue
                codes, valid = sample_nearest(raster, target)
        except RasterioError as error:
            raise CityHeadsError(f"{path}: cannot be read as a raster ({error})") from None
        valid &= mask == IGNORE
        mask[valid] = map_codes(codes[valid], table, f"label {label}, {path.name}")
        used.append(path.name)
    return mask, used


def _square(parent: Parent, grid: Grid, crs_wkt: str) -> Any:
    """Give the box around the parent in another CRS."""
    import shapely
    from pyproj import CRS

    from cityheads.labels.vector_files import project

    outline = shapely.segmentize(parent_polygon(parent, grid), grid.side_m / 16)
    return shapely.box(*project(np.array([outline]), parent.epsg, CRS.from_wkt(crs_wkt))[0].bounds)


def _from_vectors(
    source: Path, boundary: Path | None, parent: Parent, grid: Grid, label: str, section: VectorLabel
) -> np.ndarray:
    """Rasterize the polygons class by class, later classes over earlier ones, ignored values last."""
    from cityheads.labels.rasterize import rasterize_polygons

    target = Target.of_parent(parent, grid)
    polygons, attributes = _polygons_near(source, parent, grid)
    mask = np.full(target.shape, IGNORE, np.uint8)
    classes, attribute = section.classes, section.attribute
    background = 0
    if attribute is not None:
        background = next((number for number, item in enumerate(classes) if not item.values), -1)
    if background >= 0:
        if boundary is None:
            raise CityHeadsError(f"config key 'labels.{label}.boundary': name the vector file of the surveyed area")
        surveyed, _ = _polygons_near(boundary, parent, grid)
        mask[rasterize_polygons(surveyed, target, "centre")] = background
    if attribute is None:
        groups = {1: np.ones(len(polygons), bool)}
    else:
        if attribute not in attributes.column_names:
            raise CityHeadsError(
                f"{source}: no column '{attribute}' (labels.{label}.attribute); there are "
                f"{', '.join(attributes.column_names[:12])}"
            )
        values = np.array([str(value) for value in attributes[attribute].to_pylist()], object)
        listed = {value for item in classes for value in item.values} | set(section.ignore_values)
        unknown = sorted(set(values) - listed)
        if unknown:
            raise CityHeadsError(
                f"{source}: value '{unknown[0]}' of column '{attribute}' has no class; list it under a class's "
                f"'values' or labels.{label}.ignore_values"
            )
        groups = {number: np.isin(values, item.values) for number, item in enumerate(classes) if item.values}
        groups[IGNORE] = np.isin(values, section.ignore_values)
    for number, chosen in groups.items():
        mask[rasterize_polygons(polygons[chosen], target, section.rule, section.area_threshold)] = number
    return mask


def _polygons_near(path: Path, parent: Parent, grid: Grid) -> tuple[np.ndarray, Any]:
    """Read the valid polygons around a parent, in its CRS, with their attributes."""
    import shapely

    from cityheads.labels.vector_files import only_polygons, project, read_vectors

    vectors = read_vectors(path)
    square = shapely.segmentize(parent_polygon(parent, grid), grid.side_m / 16)
    left, bottom, right, top = project(np.array([square]), parent.epsg, vectors.crs)[0].bounds
    # what the outline's corners leave out between them
    margin = 0.01 * max(right - left, top - bottom)
    near = shapely.intersects(
        vectors.geometry, shapely.box(left - margin, bottom - margin, right + margin, top + margin)
    )
    polygons = only_polygons(vectors.geometry[near])
    usable = ~shapely.is_missing(polygons)
    rows, polygons = np.flatnonzero(near)[usable], polygons[usable]
    broken = ~shapely.is_valid(polygons)
    polygons[broken] = only_polygons(shapely.make_valid(polygons[broken]))
    usable = ~shapely.is_missing(polygons)
    return project(polygons[usable], vectors.crs, parent.epsg), vectors.attributes.take(rows[usable])
