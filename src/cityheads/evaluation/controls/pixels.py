"""Features of single pixels: the bands of all modalities, and their means and spreads over windows around the pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import MODALITIES

__all__ = ["PixelFeatures"]


@dataclass(frozen=True)
class PixelFeatures:
    """What a pixel-wise model sees of sub-chips.

    Attributes:
        images: (N, C, h, w) per modality, in stored units, with their nodata values.
        windows_px: Sides of the windows of the surroundings, odd; none for the pixel alone.

    Raises:
        CityHeadsError: A window is larger than a sub-chip.
    """

    images: Mapping[str, np.ndarray]
    windows_px: Sequence[int] = ()

    def __post_init__(self) -> None:
        side = next(iter(self.images.values())).shape[-1]
        for window in self.windows_px:
            if window > side:
                raise CityHeadsError(
                    f"config key 'controls.windows_px': {window} px is more than the {side} px of a sub-chip"
                )

    def __call__(self, position: int) -> np.ndarray:
        """Give the features of all pixels of one sub-chip.

        Args:
            position: Which of the N.

        Returns:
            (h * w, F) float32, the pixels row by row: the bands, then for each window their means and their standard
            deviations over the pixels with data; NaN where there is none. A window looks no further than the sub-chip,
            which is mirrored at its edge.
        """
        bands = np.concatenate([_valid(name, array[position]) for name, array in self.images.items()])
        parts = [bands, *(part for side in self.windows_px for part in _surroundings(bands, side))]
        return np.concatenate(parts).reshape(-1, bands[0].size).T.astype(np.float32, order="C")


def _valid(name: str, image: np.ndarray) -> np.ndarray:
    """Give (C, h, w) float64 with NaN in place of nodata."""
    found = np.asarray(image, np.float64)
    nodata = MODALITIES[name].nodata
    return found if np.isnan(nodata) else np.where(found == nodata, np.nan, found)


def _surroundings(bands: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Give mean and standard deviation of (C, h, w) over squares, of the pixels that have data; NaN where none has."""
    there = ~np.isnan(bands)
    known = np.where(there, bands, 0.0)

    def average(values: np.ndarray) -> np.ndarray:
        smooth: np.ndarray = uniform_filter(values, (1, side, side), mode="mirror")
        return smooth

    # a share below half a pixel is what a running sum leaves of zero
    share = average(there.astype(np.float64))
    share[share < 0.5 / side**2] = np.nan
    mean = average(known) / share
    return mean, np.sqrt(np.maximum(average(known**2) / share - mean**2, 0.0))
