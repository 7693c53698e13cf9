"""Further label layers: a folder of rasters or a vector file, either of which may say nothing about some parents.

Where nothing is known the mask is 255 throughout: such sub-chips train and count for the other heads only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.archive.warp import Target
from cityheads.config import Config, RasterLabel, VectorLabel
from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, Parent, find_parent, parent_polygon, read_parents
from cityheads.labels.columns import texts
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
                if raster.count != 1 and section.band is None:
                    raise CityHeadsError(
                        f"{path}: has {raster.count} bands; set labels.{label}.band to the one with the codes"
                    )
                band = section.band or 1
                if band > raster.count:
                    raise CityHeadsError(f"{path}: has no band {band} (labels.{label}.band), but {raster.count}")
                codes, valid = sample_nearest(raster, target, band)
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

    from cityheads.labels.shapes import project

    outline = np.array([parent_polygon(parent, grid)], object)
    return shapely.box(*project(outline, parent.epsg, CRS.from_wkt(crs_wkt))[0].bounds)


def _from_vectors(
    source: Path, boundary: Path | None, parent: Parent, grid: Grid, label: str, section: VectorLabel
) -> np.ndarray:
    """Rasterize the polygons class by class, later classes over earlier ones, ignored values last."""
    from cityheads.labels.rasterize import rasterize_polygons

    target = Target.of_parent(parent, grid)
    layer = _Layer(source, section.layer, section.where, section.buffer_m, section.max_lost_percent)
    polygons, attributes = _polygons_near(layer, parent, grid, label)
    mask = np.full(target.shape, IGNORE, np.uint8)
    classes, attribute = section.classes, section.attribute
    background = 0
    if attribute is not None:
        background = next((number for number, item in enumerate(classes) if not item.values), -1)
    if background >= 0:
        if boundary is None:
            raise CityHeadsError(f"config key 'labels.{label}.boundary': name the vector file of the surveyed area")
        outline = _Layer(boundary, section.boundary_layer, {}, 0.0, section.max_lost_percent)
        surveyed, _ = _polygons_near(outline, parent, grid, label)
        mask[rasterize_polygons(surveyed, target, "centre")] = background
    if attribute is None:
        groups = {1: np.ones(len(polygons), bool)}
    else:
        if attribute not in attributes.column_names:
            raise CityHeadsError(
                f"{source}: no column '{attribute}' (labels.{label}.attribute); there are "
                f"{', '.join(attributes.column_names[:12])}"
            )
        values = texts(attributes[attribute])
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


@dataclass(frozen=True)
class _Layer:
    """A vector file and what is wanted of it."""

    path: Path
    layer: str | None
    where: Mapping[str, Sequence[str]]
    buffer_m: float
    max_lost_percent: float


def _polygons_near(wanted: _Layer, parent: Parent, grid: Grid, label: str) -> tuple[np.ndarray, Any]:
    """Read the valid polygons around a parent, in its CRS, with their attributes; lines are widened first."""
    import pyarrow as pa
    import shapely

    from cityheads.labels.losses import Losses
    from cityheads.labels.shapes import has_area, project, repair, widen
    from cityheads.labels.vector_files import open_vectors

    square = parent_polygon(parent, grid).buffer(wanted.buffer_m, join_style="mitre")

    def box_in(crs: Any) -> tuple[float, float, float, float]:
        left, bottom, right, top = project(np.array([square], object), parent.epsg, crs)[0].bounds
        # what the divided outline's corners leave out between them
        margin = 0.01 * max(right - left, top - bottom)
        return left - margin, bottom - margin, right + margin, top + margin

    reader = open_vectors(wanted.path, layer=wanted.layer, where=wanted.where, near=box_in)
    here = shapely.box(*box_in(reader.crs))
    losses = Losses(wanted.path)
    polygons, tables = [], []
    for batch in reader.batches():
        shapes = losses.shapes(batch, thin=wanted.buffer_m > 0)
        near = np.flatnonzero(shapely.intersects(shapes, here))
        shapes, _ = repair(widen(project(shapes[near], reader.crs, parent.epsg), wanted.buffer_m))
        solid = has_area(shapes)
        losses.counts["no_area"] += int((~solid).sum())
        polygons.append(shapes[solid])
        tables.append(batch.attributes.take(near[solid]))
    losses.finish(reader)
    losses.check(wanted.max_lost_percent, label)
    if not polygons:
        return np.empty(0, object), pa.table({name: pa.nulls(0) for name in reader.columns})
    return np.concatenate(polygons), pa.concat_tables(tables, promote_options="permissive")
