"""Inputs that are computed from Sentinel-2: NDVI and true colour."""

from __future__ import annotations

import torch
from torch import Tensor

from cityheads.core.modalities import DERIVED_FROM_S2, MODALITIES, TRUE_COLOUR_MAX_DN

__all__ = ["derive", "ndvi", "true_colour"]


def derive(name: str, s2: Tensor) -> Tensor:
    """Compute a derived modality, ``NDVI`` or ``RGB``, of Sentinel-2 (B, 12, H, W), also with a time axis."""
    return {"NDVI": ndvi, "RGB": true_colour}[name](s2)


def ndvi(s2: Tensor) -> Tensor:
    """Give the normalized difference vegetation index of Sentinel-2 (B, 12, ...), NaN where a band is missing.

    (B08 - B04) / (B08 + B04), Rouse et al. 1974, "Monitoring vegetation systems in the Great Plains with ERTS".
    """
    red, near = _bands_behind("NDVI", s2).split(1, dim=1)
    return ((near - red) / (near + red)).where((near > 0) & (red > 0), torch.nan)


def true_colour(s2: Tensor) -> Tensor:
    """Give red, green and blue from 0 to 255 of Sentinel-2 (B, 12, ...) reflectance x 10000, NaN where one is missing.

    See ``cityheads.core.modalities.TRUE_COLOUR_MAX_DN`` for the stretch.
    """
    visible = _bands_behind("RGB", s2)
    return (visible * (255 / TRUE_COLOUR_MAX_DN)).clamp(max=255).where(visible > 0, torch.nan)


def _bands_behind(name: str, s2: Tensor) -> Tensor:
    bands = MODALITIES["S2L2A"].bands
    return s2[:, [bands.index(band) for band in DERIVED_FROM_S2[name]]].float()
