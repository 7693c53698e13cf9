"""One band of one raster onto one grid, reading only the pixels that the grid touches.

Three cases, from cheap to dear: the raster lies on the grid (a window is copied), it shares the CRS but not the grid
(20 and 60 m bands), or it has another CRS (elevation and land cover in degrees). The last two read one padded window
and resample it in memory. Where the raster ends, the result holds nodata: nothing is stretched and nothing is filled
with zeros.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import reproject
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, Parent

__all__ = ["Plan", "Target", "plan", "read_onto"]

# rasterio hides this one about its own in-memory rasters, but not in all threads; rasters without a place are refused
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

#: Two grids whose pixels differ by less than this are one: a centimetre at 10 m. Catalogues round their origins (the
#: same place's rasters differ by 1e-9 m), while real offsets between grids are whole fractions of a pixel.
_ALIGNED_PX = 1e-3

#: Source pixels around the window that a cubic kernel may reach, and one for the approximation of the transform.
_PAD_PX = 3

#: Largest window and largest block that is read, in pixels; a 10980 px Sentinel-2 tile holds 1.2e8.
_MAX_WINDOW_PX = 2**28
_MAX_BLOCK_PX = 2**26


@dataclass(frozen=True)
class Target:
    """A north-up grid, as light as can be.

    Attributes:
        shape: (rows, columns).
        transform: Pixel to CRS coordinates.
        crs: CRS of the grid.
    """

    shape: tuple[int, int]
    transform: Affine
    crs: CRS

    @classmethod
    def of_parent(cls, parent: Parent, grid: Grid, factor: int = 1) -> Target:
        """Give the parent's grid with pixels ``factor`` times as large (the factor divides ``parent_px``)."""
        step = grid.resolution_m * factor
        side = grid.parent_px // factor
        return cls((side, side), Affine(step, 0, parent.left, 0, -step, parent.top), CRS.from_epsg(parent.epsg))


@dataclass(frozen=True)
class Plan:
    """How one raster comes onto one grid.

    Attributes:
        window: Source window to read, clipped to the raster; None where the raster does not touch the grid.
        read_shape: (rows, columns) that the window is read as; smaller than the window where the grid is coarser.
        paste: Rows and columns of the result that an aligned window fills; None when the window is to be resampled.
    """

    window: Window | None
    read_shape: tuple[int, int]
    paste: tuple[slice, slice] | None


def plan(source: Any, target: Target) -> Plan:
    """Find the source window that a grid touches.

    Args:
        source: Open rasterio dataset.
        target: Grid of the result.

    Raises:
        CityHeadsError: The raster has no CRS, or its window or blocks are too large to be what they say.
    """
    if source.crs is None:
        raise CityHeadsError("the raster has no CRS")
    if any(rows * columns > _MAX_BLOCK_PX for rows, columns in source.block_shapes):
        raise CityHeadsError(f"the raster has blocks of {source.block_shapes[0]} px; make it a cloud-optimised GeoTIFF")
    same_crs = source.crs == target.crs
    to_source = ~source.transform
    if same_crs:
        aligned = _aligned(to_source * target.transform, target.shape, (source.height, source.width))
        if aligned is not None:
            return aligned
    rows, columns = target.shape
    # the outline is enough: what lies inside it stays inside, and the padding takes up the sag between its points
    edge = np.linspace(0, 1, 33)
    zeros, ones = np.zeros_like(edge), np.ones_like(edge)
    x = np.concatenate([edge, ones, edge, zeros]) * columns
    y = np.concatenate([zeros, edge, ones, edge]) * rows
    x, y = _apply(target.transform, x, y)
    if not same_crs:
        x, y = map(np.asarray, transform_points(target.crs, source.crs, x, y))
    column, row = _apply(to_source, x, y)
    if not (np.isfinite(column).all() and np.isfinite(row).all()):
        return Plan(None, (0, 0), None)
    span_columns, span_rows = float(np.ptp(column)), float(np.ptp(row))
    factor = max(1, math.floor(min(span_columns / columns, span_rows / rows) + _ALIGNED_PX))
    first_column, last_column = _span(column.min(), column.max(), factor, source.width)
    first_row, last_row = _span(row.min(), row.max(), factor, source.height)
    width, height = last_column - first_column, last_row - first_row
    if width <= 0 or height <= 0:
        return Plan(None, (0, 0), None)
    if (width // factor) * (height // factor) > _MAX_WINDOW_PX:
        raise CityHeadsError(f"the window of {width} x {height} px is too large to read")
    shape = (math.ceil(height / factor), math.ceil(width / factor))
    return Plan(Window(first_column, first_row, width, height), shape, None)


def _apply(affine: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _span(low: float, high: float, factor: int, size: int) -> tuple[int, int]:
    """Give the first and last pixel of a padded range, on whole steps of ``factor`` and inside the raster."""
    first = math.floor(low / factor - _PAD_PX) * factor
    last = math.ceil(high / factor + _PAD_PX) * factor
    return max(0, first), min(size, last)


def _aligned(affine: Affine, shape: tuple[int, int], size: tuple[int, int]) -> Plan | None:
    """Plan the copy of a window, where grid pixels (``affine`` gives them in source pixels) are source pixels."""
    slack = _ALIGNED_PX / max(shape)
    if abs(affine.a - 1) > slack or abs(affine.e - 1) > slack or abs(affine.b) > slack or abs(affine.d) > slack:
        return None
    column, row = round(affine.c), round(affine.f)
    if abs(affine.c - column) > _ALIGNED_PX or abs(affine.f - row) > _ALIGNED_PX:
        return None
    top, bottom = max(row, 0), min(row + shape[0], size[0])
    left, right = max(column, 0), min(column + shape[1], size[1])
    if top >= bottom or left >= right:
        return Plan(None, (0, 0), None)
    paste = (slice(top - row, bottom - row), slice(left - column, right - column))
    return Plan(Window(left, top, right - left, bottom - top), (bottom - top, right - left), paste)


def read_onto(
    source: Any,
    target: Target,
    *,
    resampling: str,
    fill: float,
    default_nodata: float | None = None,
    planned: Plan | None = None,
) -> np.ndarray:
    """Read band 1 of a raster onto a grid.

    Args:
        source: Open rasterio dataset.
        target: Grid of the result.
        resampling: ``nearest``, ``bilinear`` or ``cubic``, for rasters that do not lie on the grid.
        fill: Value of the result where the raster has no data or ends.
        default_nodata: The raster's nodata where it declares none; None for a product that has none.
        planned: What `plan` gave, where it was asked before.

    Returns:
        (H, W) in the raster's dtype, or in float32 where that cannot hold ``fill``.
    """
    how = plan(source, target) if planned is None else planned
    nodata = source.nodata if source.nodata is not None else default_nodata
    dtype = np.dtype(source.dtypes[0])
    if dtype.kind != "f" and (math.isnan(fill) or not np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max):
        dtype = np.dtype(np.float32)
    result = np.full(target.shape, fill, dtype)
    if how.window is None:
        return result
    method = Resampling[resampling]
    # a decimated read picks the raster's overview; categories must not be averaged
    shrink = Resampling.nearest if method is Resampling.nearest else Resampling.average
    pixels = source.read(1, window=how.window, out_shape=how.read_shape, resampling=shrink)
    if how.paste is not None:
        if nodata is not None and not math.isnan(nodata):
            pixels = np.where(pixels == nodata, np.array(fill, dtype), pixels.astype(dtype))
        result[how.paste] = pixels
        return result
    scale = Affine.scale(how.window.width / how.read_shape[1], how.window.height / how.read_shape[0])
    origin = Affine.translation(how.window.col_off, how.window.row_off)
    if nodata is None and dtype.kind == "f":
        # every pixel is data, but where the raster ends the result must say so
        nodata = math.nan
    reproject(
        pixels.astype(dtype),
        result,
        src_transform=source.transform * origin * scale,
        src_crs=source.crs,
        src_nodata=nodata,
        dst_transform=target.transform,
        dst_crs=target.crs,
        dst_nodata=fill if nodata is not None else None,
        init_dest_nodata=nodata is not None,
        resampling=method,
    )
    return result
