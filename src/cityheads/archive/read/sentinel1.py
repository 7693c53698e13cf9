"""Sentinel-1 backscatter on the parent's grid, in dB."""

from __future__ import annotations

import logging
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


#: What amplitude taken for power looks like, in dB: its logarithm is half that of power, so that the polarisations are
#: too bright and too near to each other. Over land, gamma naught of VV lies about 6 dB above that of VH (TerraMesh:
#: 5.3 to 6.2 in power, 2.7 to 3.1 as amplitude); bright city blocks reach these levels, but with VV well above VH.
_AMPLITUDE_VV_DB, _AMPLITUDE_VH_DB, _AMPLITUDE_GAP_DB = -8.5, -11.5, 4.2

#: A pixel of calibrated power or amplitude is about one or less; digital numbers are hundreds.
_DIGITAL_NUMBERS = 20

log = logging.getLogger(__name__)

_CONVERSION = {
    "linear_power": "10 log10 of linear power; not above 0 is nodata",
    "amplitude": "20 log10 of amplitude; not above 0 is nodata",
    "db": "none, the archive is in dB",
}


def to_db(linear: np.ndarray, factor: float = 10) -> np.ndarray:
    """Convert linear power (or amplitude, with a factor of 20) to decibels; what is not above zero becomes NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(linear > 0, factor * np.log10(linear), np.nan).astype(np.float32)


def wanted(name: str, rule: RadarConfig) -> dict[str, Wanted]:
    """Say what is to be read: both polarisations."""
    return {name: Wanted(name, MODALITIES[name].bands, rule.resampling, np.nan, S1_NODATA, scaled=True)}


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
    layer = found[name]
    where = f"{parent_id}: {name}: item {', '.join(item_ids(chosen))}"
    bands = []
    for band in modality.bands:
        _refuse_digital_numbers(layer, band, chosen, rule)
        _refuse_other_sign(layer.pixels[band], f"{where}: band {band}", name, rule)
        if rule.units == "db":
            layers = [pixels.astype(np.float32) for pixels in layer.pixels[band]]
        else:
            layers = [to_db(pixels, 10 if rule.units == "linear_power" else 20) for pixels in layer.pixels[band]]
        bands.append(mosaic(layers, np.nan))
    decibels = np.stack(bands)
    decibels[~np.isfinite(decibels)] = np.nan
    medians: dict[str, float | None] = {}
    for band, pixels in zip(modality.bands, decibels, strict=True):
        data = pixels[np.isfinite(pixels)]
        if not data.size:
            raise CityHeadsError(f"{where}: band {band}: not one pixel of the parent has data; choose another scene")
        median = medians[band] = round(float(np.median(data)), 4)
        if not limits[0] <= median <= limits[1]:
            raise CityHeadsError(
                f"{where}: band {band}: unit error: the median is {median:.1f} dB, outside "
                f"[{limits[0]:g}, {limits[1]:g}]; see the config key 'archive.imagery.{name}.units'"
            )
    _judge_power(medians, where, name, rule)
    record: LayerRecord = {
        "items": item_ids(chosen),
        "sources": sources(chosen),
        "resampling": layer.resampling,
        "unit_conversion": _CONVERSION[rule.units],
        "valid_fraction": round(float(np.isfinite(decibels).all(axis=0).mean()), 6),
        "clear_fraction": None,
        "median_db": medians,
    }
    if layer.scaling:
        record["scaling"] = layer.scaling
    return decibels, record


def _refuse_digital_numbers(layer: Layer, band: str, chosen: ChosenLayer, rule: RadarConfig) -> None:
    """Refuse what was never calibrated: whole numbers, unless their asset says what they stand for."""
    for item, dtype, pixels in zip(chosen["items"], layer.dtypes[band], layer.pixels[band], strict=True):
        if item["id"] in layer.scaling or rule.units == "db":
            continue
        data = pixels[np.isfinite(pixels)]
        if np.dtype(dtype).kind != "f" or (data.size and float(np.median(data)) > _DIGITAL_NUMBERS):
            raise CityHeadsError(
                f"collection {chosen['collection']}: item {item['id']}: band {band}: values are {dtype} digital "
                "numbers, the amplitude of a Level-1 GRD, and no calibrated backscatter; take a collection that is "
                "calibrated and terrain corrected, such as sentinel-1-rtc"
            )


def _refuse_other_sign(layers: Sequence[np.ndarray], where: str, name: str, rule: RadarConfig) -> None:
    """Refuse dB that is said to be linear, and the reverse: backscatter in dB is below zero nearly everywhere."""
    data = np.concatenate([pixels[np.isfinite(pixels)] for pixels in layers])
    if not data.size:
        return
    key = f"see the config key 'archive.imagery.{name}.units'"
    if rule.units == "db" and data.min() > 0:
        raise CityHeadsError(f"{where}: unit error: no value is below 0 dB, so this is linear power; {key}")
    if rule.units != "db" and float((data < 0).mean()) > 0.5:
        raise CityHeadsError(
            f"{where}: unit error: {float((data < 0).mean()):.0%} of the values are below zero, so this is dB; {key}"
        )


def _judge_power(medians: Mapping[str, float | None], where: str, name: str, rule: RadarConfig) -> None:
    """Hold what is said to be power against what amplitude would look like.

    Raises:
        CityHeadsError: It looks like amplitude, and the config does not say to go on.
    """
    vv, vh = medians["VV"], medians["VH"]
    if rule.units != "linear_power" or vv is None or vh is None:
        return
    if vv > _AMPLITUDE_VV_DB and vh > _AMPLITUDE_VH_DB and vv - vh < _AMPLITUDE_GAP_DB:
        text = (
            f"{where}: unit error: as power the medians are VV {vv:.1f} dB and VH {vh:.1f} dB, too bright and too near "
            f"to each other; as amplitude they are {2 * vv:.1f} and {2 * vh:.1f} dB"
        )
        if rule.units_check == "error":
            raise CityHeadsError(
                f"{text}; set archive.imagery.{name}.units: amplitude, or units_check: warn if it is power"
            )
        log.warning("%s; they are taken for power", text)
