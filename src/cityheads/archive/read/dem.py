"""Elevation on the parent's grid, in metres."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cityheads.archive.read.layers import Layer, Wanted, item_ids, mosaic, sources
from cityheads.config import DemConfig
from cityheads.core.artifacts.reading import LayerRecord
from cityheads.core.artifacts.scenes import ChosenLayer
from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import MODALITIES

__all__ = ["stack", "wanted"]


def wanted(rule: DemConfig) -> dict[str, Wanted]:
    """Say what is to be read; the product declares no nodata, since every pixel has a height."""
    return {"DEM": Wanted("DEM", MODALITIES["DEM"].bands, rule.resampling, np.nan, None, scaled=True)}


def stack(parent_id: str, chosen: ChosenLayer, found: Mapping[str, Layer]) -> tuple[np.ndarray, LayerRecord]:
    """Make elevation of what was read.

    Args:
        parent_id: For messages.
        chosen: The layer in the scene choice.
        found: What was read of `wanted`.

    Returns:
        (1, H, W) float32 metres, without gaps; and what the reading records.

    Raises:
        CityHeadsError: A part of the parent has no elevation, or the values are not of this world.
    """
    modality = MODALITIES["DEM"]
    where = f"{parent_id}: DEM: item {', '.join(item_ids(chosen))}"
    elevation = mosaic([pixels.astype(np.float32) for pixels in found["DEM"].pixels["DEM"]], np.nan)
    missing = float((~np.isfinite(elevation)).mean())
    if missing:
        raise CityHeadsError(
            f"{where}: {missing:.2%} of the parent has no elevation; a missing DEM is not taken for sea level, so add "
            "the tiles to the catalogue or move the parent"
        )
    low, high = float(elevation.min()), float(elevation.max())
    if low < modality.valid_min or high > modality.valid_max:
        raise CityHeadsError(f"{where}: unit error: elevations from {low:.0f} to {high:.0f} m are not of this world")
    record: LayerRecord = {
        "items": item_ids(chosen),
        "sources": sources(chosen),
        "resampling": found["DEM"].resampling,
        "unit_conversion": "scale and offset of the asset" if found["DEM"].scaling else "none, metres",
        "valid_fraction": 1.0,
        "clear_fraction": None,
        "range_m": [round(low, 3), round(high, 3)],
    }
    if found["DEM"].scaling:
        record["scaling"] = found["DEM"].scaling
    return elevation[None], record
