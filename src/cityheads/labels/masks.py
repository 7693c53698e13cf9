"""Masks: the classes of one label on a parent's grid, and their exact cuts to the sub-chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from cityheads.archive.warp import Target
from cityheads.core.classes import IGNORE, mask_layer
from cityheads.core.grid import Grid, Parent, chip_id
from cityheads.core.layout import chip_file
from cityheads.core.raster import write_raster

__all__ = ["write_cuts", "write_mask"]


def write_mask(
    array: np.ndarray,
    parent: Parent,
    grid: Grid,
    label: str,
    classes: Sequence[str],
    out: Path,
    chips: Path,
    *,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a parent's mask and its cuts, the parent's last.

    Args:
        array: (parent_px, parent_px) uint8 class ids, 255 = ignore.
        parent: The parent.
        grid: Size of parents and sub-chips.
        label: Name of the label layer, upper case.
        classes: Names of the classes, in the order of their ids; they are recorded in the files.
        out: The parent's mask.
        chips: Folder that takes ``MASK_{label}/{chip}.tif``.
        tags: What else to record in the files, such as the rule of rasterization.

    Raises:
        ValueError: The array is not uint8, not on the parent's grid, or holds a value that is no class.
    """
    if array.dtype != np.uint8 or array.shape != (grid.parent_px, grid.parent_px):
        raise ValueError(f"{out}: a mask is uint8 of {grid.parent_px} px square, not {array.dtype} {array.shape}")
    strange = np.setdiff1d(np.unique(array), [*range(len(classes)), IGNORE])
    if strange.size:
        raise ValueError(f"{out}: value {strange[0]} is no class of {label}")
    names = ";".join(f"{number}={name}" for number, name in enumerate(classes))
    text = {"label": label, "classes": names, "ignore": str(IGNORE), "parent_id": parent.parent_id, **(tags or {})}
    write_cuts(array, parent, grid, mask_layer(label), out, chips, nodata=IGNORE, bands=[label], tags=text)


def write_cuts(array: np.ndarray, parent: Parent, grid: Grid, layer: str, out: Path, chips: Path, **how: Any) -> None:
    """Write a layer's exact cuts to ``chips/{layer}/{chip}.tif``, then the parent's raster.

    Args:
        array: (parent_px, parent_px).
        parent: The parent.
        grid: Size of parents and sub-chips.
        layer: Folder of the cuts.
        out: The parent's raster.
        chips: Folder of all layers' sub-chips.
        **how: What `cityheads.core.raster.write_raster` takes besides.
    """
    target: Any = Target.of_parent(parent, grid)  # write_raster takes what has a shape, a transform and a CRS
    px = grid.chip_px
    for row, col in product(range(grid.chips_per_side), repeat=2):
        place: Any = Target((px, px), target.transform * Affine.translation(col * px, row * px), target.crs)
        cut = array[row * px : (row + 1) * px, col * px : (col + 1) * px]
        write_raster(chip_file(chips, layer, chip_id(parent.parent_id, row, col)), cut, place, **how)
    write_raster(out, array, target, **how)
