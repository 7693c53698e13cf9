"""GeoTIFFs that are either whole or not there: written in memory first, read whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes

if TYPE_CHECKING:
    import numpy as np
    from odc.geo.geobox import GeoBox

__all__ = ["read_raster", "write_raster"]


def write_raster(
    path: Path,
    array: np.ndarray,
    geobox: GeoBox,
    *,
    nodata: float | None,
    bands: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    colors: Mapping[int, str] | None = None,
) -> None:
    """Write a GeoTIFF (tiled where it is larger than 256 px, deflate with predictor), whole or not at all.

    The file is composed in memory first: GDAL reports a full disk only as a warning when it closes a file.

    Args:
        path: Target.
        array: (H, W) or (C, H, W), of a dtype that GeoTIFF holds.
        geobox: Grid of the array, ``geobox.shape == (H, W)``.
        nodata: Value that marks missing pixels, NaN allowed, None for no such value.
        bands: Band descriptions, in order.
        tags: Dataset tags; written in sorted order, so that equal input gives equal bytes.
        colors: Colour per value (``#rrggbb``) for a one-band uint8 layer.
    """
    from rasterio.io import MemoryFile

    stack = array[None] if array.ndim == 2 else array
    if stack.shape[1:] != tuple(geobox.shape):
        raise ValueError(f"{path}: array of {stack.shape[1:]} on a grid of {tuple(geobox.shape)}")
    if geobox.crs is None:
        raise ValueError(f"{path}: the grid has no CRS")
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": stack.shape[0],
        "height": stack.shape[1],
        "width": stack.shape[2],
        "dtype": stack.dtype.name,
        "crs": geobox.crs.to_wkt(),
        "transform": geobox.transform,
        "nodata": nodata,
        "compress": "deflate",
        "predictor": 3 if stack.dtype.kind == "f" else 2,
        "zlevel": 6,
    }
    if max(stack.shape[1:]) > 256:
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    with MemoryFile() as memory:
        with memory.open(**profile) as target:
            target.write(stack)
            for index, name in enumerate(bands or (), start=1):
                target.set_band_description(index, name)
            if tags:
                target.update_tags(**dict(sorted(tags.items())))
            if colors:
                target.write_colormap(1, {value: _rgba(color) for value, color in sorted(colors.items())})
        content = bytes(memory.getbuffer())
    write_bytes(path, content)


def _rgba(color: str) -> tuple[int, int, int, int]:
    return (int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16), 255)


def read_raster(path: Path) -> tuple[np.ndarray, GeoBox]:
    """Read a whole raster as (C, H, W) with its grid.

    Raises:
        CityHeadsError: The file is missing, truncated or not a raster.
    """
    import rasterio
    from odc.geo.geobox import GeoBox
    from rasterio.errors import RasterioError

    if not Path(path).exists():
        raise CityHeadsError(f"{path}: no such file")
    try:
        with rasterio.open(path) as source:
            return source.read(), GeoBox(source.shape, source.transform, source.crs.to_wkt())
    except RasterioError as error:
        raise CityHeadsError(f"{path}: cannot be read as a raster ({error}); delete it and run again") from None
