"""Windows of a parent: reading them, which of their pixels have data, and how tiles cover a whole parent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cityheads.core.errors import CityHeadsError
from cityheads.core.layout import ParentFolder
from cityheads.core.modalities import MODALITIES
from cityheads.product.places import Place

__all__ = ["pixels_within", "read_window", "tile_starts", "tile_weights", "valid_pixels", "window_around"]


def window_around(centre: float, tile: int, size: int) -> slice:
    """Give the window of ``tile`` px nearest to a centre, in pixels, that lies within ``size`` px."""
    start = min(max(round(centre - tile / 2), 0), size - tile)
    return slice(start, start + tile)


def read_window(
    folder: ParentFolder, place: Place, rows: slice, cols: slice, modalities: Sequence[str]
) -> dict[str, np.ndarray]:
    """Read a window of some modalities, (C, h, w) float32 in stored units, with all bands.

    Args:
        folder: The parent's rasters.
        place: The parent.
        rows: Rows of the window.
        cols: Columns of the window.
        modalities: Names of stored modalities.

    Raises:
        CityHeadsError: A raster is missing, unreadable, or not on the parent's grid.
    """
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    images = {}
    window = Window.from_slices(rows, cols)
    transform = place.geobox.transform
    for name in modalities:
        path = folder.raster(name)
        if not path.is_file():
            raise CityHeadsError(f"{path}: no such file; run the workflow again to make it")
        try:
            with rasterio.open(path) as source:
                there = (source.count, source.height, source.width)
                fits = source.transform.almost_equals(transform, precision=1e-6 * place.resolution_m)
                if there != (len(MODALITIES[name].bands), place.px, place.px) or not fits:
                    raise CityHeadsError(f"{path}: is not on the grid of the dataset; run the workflow again")
                images[name] = source.read(window=window).astype(np.float32)
        except RasterioError as error:
            raise CityHeadsError(f"{path}: cannot be read as a raster ({error}); delete it and run again") from None
    return images


def valid_pixels(images: Mapping[str, np.ndarray], bands: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Give the pixels, (h, w) bool, at which every band that the model looks at has data.

    Args:
        images: (C, h, w) per modality, with all bands.
        bands: The bands that the model looks at, per modality.
    """
    valid = np.ones(next(iter(images.values())).shape[1:], bool)
    for name, image in images.items():
        nodata, stored = MODALITIES[name].nodata, MODALITIES[name].bands
        used = image[[stored.index(band) for band in bands[name]]]
        missing = np.isnan(used) if math.isnan(nodata) else used == nodata
        valid &= ~missing.any(0)
    return valid


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Give the first pixels of tiles that cover ``size`` and overlap by at least ``overlap``; the last ends flush."""
    return [*range(0, size - tile, tile - overlap), size - tile]


def tile_weights(tile: int, overlap: int) -> np.ndarray:
    """Give the weight of each pixel of a tile, (tile, tile) float32, rising linearly over the overlap from its edges.

    Never 0, so that a pixel that one tile alone covers keeps its scores.
    """
    from_edge = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1))
    ramp = np.minimum(from_edge, overlap + 1).astype(np.float32) / (overlap + 1)
    return np.outer(ramp, ramp)


def pixels_within(row: float, col: float, radius_px: float) -> int:
    """Count the pixels whose centres lie within a circle, on a grid without edges."""
    reach = math.ceil(radius_px) + 1

    def centres(value: float) -> np.ndarray:
        return np.arange(math.floor(value) - reach, math.floor(value) + reach + 1) + 0.5 - value

    return int((np.hypot(centres(row)[:, None], centres(col)) <= radius_px).sum())
