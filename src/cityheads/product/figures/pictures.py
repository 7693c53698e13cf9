"""Sub-chips as pictures: reflectance, backscatter and classes turned into RGB."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb

from cityheads.core.classes import IGNORE
from cityheads.core.modalities import MODALITIES
from cityheads.product.figures import style

__all__ = ["VV_RANGE_DB", "grey", "paint", "stretch", "true_colour"]

#: Grey scale of the radar panels in dB: from calm water to double bounce.
VV_RANGE_DB = (-24.0, 2.0)

_RGB = [MODALITIES["S2L2A"].bands.index(name) for name in ("B04", "B03", "B02")]


def stretch(optical: np.ndarray, rows: Sequence[int]) -> tuple[float, float]:
    """Give one black and one white point for all shown sub-chips, so that their brightness compares.

    Args:
        optical: (N, 12, h, w) reflectance x 10000, 0 = nodata.
        rows: Indices of the sub-chips shown.
    """
    values = np.concatenate([np.asarray(optical[row][_RGB]).ravel() for row in rows]) if rows else np.array([0])
    values = values[values != MODALITIES["S2L2A"].nodata]
    if not values.size:
        return 0.0, 1.0
    # the brightest 2 % are roofs and clouds; with them as white, the rest of a city is black
    low, high = np.percentile(values, (0.5, 98))
    return float(low), float(max(high, low + 1))


def true_colour(array: np.ndarray, points: tuple[float, float]) -> np.ndarray:
    """Make an RGB picture (h, w, 3) of bands B04, B03 and B02; missing pixels are white.

    Args:
        array: (12, h, w) reflectance x 10000, 0 = nodata.
        points: Black and white point, from `stretch`.
    """
    light = (array[_RGB].astype(float) - points[0]) / (points[1] - points[0])
    picture: np.ndarray = np.clip(light, 0, 1).transpose(1, 2, 0) ** (1 / 1.4)
    picture[(array[_RGB] == MODALITIES["S2L2A"].nodata).any(axis=0)] = 1
    return picture


def grey(vv_db: np.ndarray) -> np.ndarray:
    """Make an RGB picture (h, w, 3) of backscatter in dB (h, w); missing pixels are white."""
    low, high = VV_RANGE_DB
    light = np.clip((np.nan_to_num(vv_db, nan=high) - low) / (high - low), 0, 1)
    return np.repeat(light[..., None], 3, axis=2)


def paint(layer: np.ndarray, palette: Sequence[str], hatches: Sequence[str | None] = ()) -> np.ndarray:
    """Make an RGB picture of classes, enlarged to whole screen pixels; ignored pixels are hatched grey.

    Args:
        layer: (h, w) uint8 class ids, 255 = ignore.
        palette: Colour per class id.
        hatches: Per class id ``////``, ``....`` or None, as matplotlib calls them: dark strokes over the colour.

    Returns:
        (H, W, 3) floats in 0 to 1.
    """
    table = np.ones((IGNORE + 1, 3))
    table[: len(palette)] = [to_rgb(color) for color in palette]
    factor = math.ceil(280 / layer.shape[0])
    large = np.repeat(np.repeat(layer, factor, axis=0), factor, axis=1)
    picture = table[large]
    down, across = np.indices(large.shape)
    strokes = {"////": (down + across) % 6 == 0, "....": (down % 4 == 0) & (across % 4 == 0)}
    for number, hatch in enumerate(hatches):
        if hatch is not None:
            picture[(large == number) & strokes[hatch]] = to_rgb(style.INK)
    stripe = (down + across) // 4 % 3 == 0
    ignored = large == IGNORE
    picture[ignored] = to_rgb(style.IGNORED)
    picture[ignored & stripe] = to_rgb("#b4bcc5")
    return picture
