"""Land cover: the codes of a categorical product become classes on a parent's grid.

Every pixel takes the code of the source cell that its centre lies in: nearest neighbour, computed through the exact
projection and not through GDAL's warper, whose approximation (an eighth of a pixel by default) moves class edges.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.archive.hrefs import base_of
from cityheads.archive.raster import open_raster
from cityheads.archive.warp import Target
from cityheads.config import Config, LandcoverLabel
from cityheads.core.artifacts.scenes import read_scenes, years_of
from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import find_parent, read_parents
from cityheads.labels.masks import write_mask
from cityheads.labels.section import label_section

__all__ = ["code_table", "map_codes", "rasterize_landcover", "sample_nearest"]

log = logging.getLogger(__name__)

#: Catalogues round transforms at about 1e-9 m. Where a pixel centre falls on a cell's edge to within this share of a
#: cell, it counts to the cell right of and below the edge, whichever way the rounding went.
_SNAP_CELLS = 1e-6


def code_table(codes: Sequence[Iterable[int]], ignore_codes: Iterable[int]) -> dict[int, int]:
    """Give the class id of every known source code.

    Args:
        codes: Source codes of each class, in the order of the ids.
        ignore_codes: Source codes that become 255.
    """
    table = dict.fromkeys(ignore_codes, IGNORE)
    for number, of_class in enumerate(codes):
        table |= dict.fromkeys(of_class, number)
    return table


def map_codes(codes: np.ndarray, table: Mapping[int, int], where: str) -> np.ndarray:
    """Map source codes to class ids.

    Args:
        codes: Codes, any shape; whole numbers, of whatever type.
        table: Class id (or 255) per code.
        where: What the codes belong to, for the error message.

    Returns:
        uint8 class ids of the same shape.

    Raises:
        CityHeadsError: A code has no class and is not ignored, or is no whole number.
    """
    present, places = np.unique(codes, return_inverse=True)
    if present.dtype.kind not in "iuf":
        raise CityHeadsError(f"{where}: holds values of type {present.dtype}; a class mask holds whole numbers")
    broken = present[present % 1 != 0] if present.dtype.kind == "f" else []
    if len(broken):
        raise CityHeadsError(f"{where}: holds the value {broken[0]:g}; a class mask holds whole numbers, one per class")
    unknown = [int(code) for code in present if int(code) not in table]
    if unknown:
        number = int((codes == unknown[0]).sum())
        raise CityHeadsError(
            f"{where}: code {unknown[0]} ({number} px) has no class; list it under a class's 'codes' or 'ignore_codes'"
        )
    mapped = np.array([table[int(code)] for code in present], np.uint8)
    return mapped[places].reshape(codes.shape)


def sample_nearest(source: Any, target: Target, band: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Give the source cell under every pixel centre of a grid.

    Args:
        source: Open rasterio dataset of any CRS, of which only the needed window is read.
        target: Grid of the result, (H, W).
        band: Band to read, counted from 1.

    Returns:
        Values (H, W) in the source's dtype, and (H, W) bool: inside the source, not its nodata, and a number.
    """
    from pyproj import CRS, Transformer
    from rasterio.windows import Window

    height, width = target.shape
    affine = target.transform
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = affine * (cols.ravel(), rows.ravel())
    here, there = CRS.from_wkt(target.crs.to_wkt()), CRS.from_wkt(source.crs.to_wkt())
    if here != there:
        x, y = Transformer.from_crs(here, there, always_xy=True).transform(x, y)
    u, v = ~source.transform * (x, y)
    # a centre outside the projection's domain comes back as inf: it is outside the source
    finite = np.isfinite(u) & np.isfinite(v)
    column = np.floor(np.where(finite, u, -1) + _SNAP_CELLS).astype(np.int64)
    row = np.floor(np.where(finite, v, -1) + _SNAP_CELLS).astype(np.int64)
    inside = finite & (column >= 0) & (column < source.width) & (row >= 0) & (row < source.height)
    values = np.zeros(height * width, source.dtypes[band - 1])
    valid = np.zeros(height * width, bool)
    if inside.any():
        left, top = int(column[inside].min()), int(row[inside].min())
        window = Window(left, top, int(column[inside].max()) - left + 1, int(row[inside].max()) - top + 1)
        read = source.read(band, window=window, masked=True)
        at = row[inside] - top, column[inside] - left
        values[inside] = read.data[at]
        valid[inside] = ~(np.ma.getmaskarray(read)[at] | (read.data[at] != read.data[at]))  # NaN differs from itself
    return values.reshape(height, width), valid.reshape(height, width)


def rasterize_landcover(
    config: Config, *, parents: Path, parent: str, label: str, scenes: Path, chips: Path, out: Path
) -> None:
    """Write one parent's land-cover mask and its sub-chips.

    Several items are laid over each other in the order of the scene file; the first one that gives a pixel a class
    wins. Pixels that no item covers, nodata and ignored codes become 255.

    Args:
        config: Config with sections ``grid``, ``archive`` and ``labels``.
        parents: Parent sheet.
        parent: Parent id.
        label: Name of the label layer, of kind landcover.
        scenes: The parent's frozen scene choice.
        chips: Folder that takes ``MASK_{label}/{chip}.tif``.
        out: The parent's mask, written last.

    Raises:
        CityHeadsError: No item is chosen, an asset cannot be read, or a code is not mapped.
    """
    grid = config.grid.grid
    row = find_parent(read_parents(parents, grid), parent, parents)
    section = label_section(config, label, LandcoverLabel)
    table = code_table([item.codes for item in section.classes], section.ignore_codes)
    target = Target.of_parent(row, grid)
    chosen = read_scenes(scenes, row)
    layer = chosen["layers"].get(label)
    if not layer or not layer["items"]:
        raise CityHeadsError(f"{scenes}: no item is chosen for label {label}; delete the file and run again")
    base = base_of(chosen["catalog"], config.archive.asset_base)
    mask = np.full(target.shape, IGNORE, np.uint8)
    for item in layer["items"]:
        href = item["assets"]["map"]
        where = f"label {label}, item {item['id']}"
        with open_raster(href, base, archive=config.archive, where=where) as source:
            if source.crs is None:
                raise CityHeadsError("the raster has no CRS")
            if source.count != 1:
                raise CityHeadsError(f"the raster has {source.count} bands; a map of classes has one")
            codes, valid = sample_nearest(source, target)
        valid &= mask == IGNORE
        mask[valid] = map_codes(codes[valid], table, where)
    unlabelled = float((mask == IGNORE).mean())
    log.info(
        "%s: %s from %d items, %.1f %% of the pixels ignored", parent, label, len(layer["items"]), 100 * unlabelled
    )
    mapped, seen = years_of(chosen, label), years_of(chosen, "S2L2A")
    if mapped and seen and not set(mapped) & set(seen):
        log.warning(
            "%s: the labels of %s are of %s, the images of %s; what changed in between is wrong in the mask",
            parent,
            label,
            *(", ".join(map(str, years)) for years in (mapped, seen)),
        )
    items = ";".join(item["id"] for item in layer["items"])
    tags = {"items": items, "collection": str(layer["collection"]), "label_years": ";".join(map(str, mapped))}
    write_mask(mask, row, grid, label, section.class_names, out, chips, tags=tags)
