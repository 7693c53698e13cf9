"""Sentinel-1 backscatter on the parent's grid, in dB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cityheads.archive.products import S1_NODATA
from cityheads.archive.read.layers import Layer, Wanted, item_ids, mosaic, sources
from cityheads.config import RadarConfig
from cityheads.core.artifacts.reading import LayerRecord
from cityheads.core.artifacts.scenes import ChosenLayer
from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import MODALITIES

__all__ = ["stack", "to_db", "wanted"]


def to_db(power: np.ndarray) -> np.ndarray:
    """Convert linear power to decibels; what is not above zero becomes NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(power > 0, 10 * np.log10(power), np.nan).astype(np.float32)


def wanted(name: str, rule: RadarConfig) -> dict[str, Wanted]:
    """Say what is to be read: both polarisations."""
    return {name: Wanted(name, MODALITIES[name].bands, rule.resampling, np.nan, S1_NODATA)}


def stack(
    parent_id: str,
    name: str,
    chosen: ChosenLayer,
    found: Mapping[str, Layer],
    rule: RadarConfig,
    limits: Sequence[float],
) -> tuple[np.ndarray, LayerRecord]:
    """Make backscatter in dB of what was read.

    Args:
        parent_id: For messages.
        name: S1RTC or S1GRD.
        chosen: The layer in the scene choice.
        found: What was read of `wanted`.
        rule: The config's ``archive.imagery.{name}``.
        limits: Least and largest median in dB (``quality.s1_median_db``).

    Returns:
        (2, H, W) float32 VV and VH in dB, NaN for nodata; and what the reading records.

    Raises:
        CityHeadsError: A band has no data, or its values betray a unit error.
    """
    modality = MODALITIES[name]
    linear = rule.units == "linear_power"
    bands = []
    for band in modality.bands:
        layers = [to_db(pixels) if linear else pixels.astype(np.float32) for pixels in found[name].pixels[band]]
        bands.append(mosaic(layers, np.nan))
    decibels = np.stack(bands)
    decibels[~np.isfinite(decibels)] = np.nan
    where = f"{parent_id}: {name}: item {', '.join(item_ids(chosen))}"
    medians: dict[str, float | None] = {}
    for band, pixels in zip(modality.bands, decibels, strict=True):
        data = pixels[np.isfinite(pixels)]
        if not data.size:
            raise CityHeadsError(f"{where}: band {band}: not one pixel of the parent has data; choose another scene")
        if not linear and data.min() > 0:
            raise CityHeadsError(
                f"{where}: band {band}: unit error: no value is below 0 dB, so this is linear power; see the config "
                f"key 'archive.imagery.{name}.units'"
            )
        median = medians[band] = round(float(np.median(data)), 4)
        if not limits[0] <= median <= limits[1]:
            raise CityHeadsError(
                f"{where}: band {band}: unit error: the median is {median:.1f} dB, outside "
                f"[{limits[0]:g}, {limits[1]:g}]; see the config key 'archive.imagery.{name}.units'"
            )
    return decibels, {
        "items": item_ids(chosen),
        "sources": sources(chosen),
        "resampling": found[name].resampling,
        "unit_conversion": "10 log10 of linear power; not above 0 is nodata"
        if linear
        else "none, the archive is in dB",
        "valid_fraction": round(float(np.isfinite(decibels).all(axis=0).mean()), 6),
        "clear_fraction": None,
        "median_db": medians,
    }
