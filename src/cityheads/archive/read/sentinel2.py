"""Sentinel-2 Level-2A on the parent's grid: reflectance x 10000 without the offset, and the scene classification."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cityheads.archive.read.layers import Layer, Wanted, item_ids, mosaic, sources
from cityheads.config import OpticalConfig
from cityheads.core.artifacts.reading import LayerRecord
from cityheads.core.artifacts.scenes import ChosenLayer
from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import MODALITIES, SCL_CLEAR, SCL_NODATA

__all__ = ["stack", "wanted"]

#: More pixels than this share beyond physics is a unit error, fewer are glints and defects.
_OUT_OF_RANGE = 0.01

#: A band whose median is below this was not scaled by 10000: 0.0005 reflectance is darker than clear deep water in
#: the near infrared.
_LEAST_MEDIAN_DN = 5

#: Blue reflectance over land and water is above zero after atmospheric correction; when subtracting the offset sends
#: more than this share of the blue band to the floor, the archive had already removed it.
_FLOORED = 0.5


def wanted(rule: OpticalConfig) -> dict[str, Wanted]:
    """Say what is to be read: all bands and, where the archive has them, scene classification and cloud probability."""
    bands = Wanted("S2L2A", MODALITIES["S2L2A"].bands, rule.resampling, 0, 0, dict(rule.resampling_of.items()))
    found = {"S2L2A": bands}
    if rule.scl_asset is not None:
        found["SCL"] = Wanted("S2L2A", ["SCL"], "nearest", SCL_NODATA, SCL_NODATA)
    if rule.cloud_asset is not None:
        # Sen2Cor declares 0 % its nodata; nothing is known and no cloud are one value
        found["CLD"] = Wanted("S2L2A", ["CLD"], "nearest", 0, 0)
    return found


def stack(
    parent_id: str, chosen: ChosenLayer, found: Mapping[str, Layer], rule: OpticalConfig
) -> tuple[np.ndarray, dict[str, np.ndarray], LayerRecord]:
    """Make reflectance of what was read.

    Args:
        parent_id: For messages.
        chosen: The layer in the scene choice.
        found: What was read of `wanted`.
        rule: The config's ``archive.imagery.S2L2A``.

    Returns:
        (12, H, W) uint16 reflectance x 10000, 0 for nodata; what lies beside it, (H, W) uint8 each: ``SCL``, the
        scene classification, and ``CLD``, the cloud probability in percent, where the archive has them; and what the
        reading records.

    Raises:
        CityHeadsError: There is no pixel with data, or the values betray a unit error.
    """
    modality = MODALITIES["S2L2A"]
    items = chosen["items"]
    offsets = [int(item["offset_dn"]) for item in items]
    where = f"{parent_id}: S2L2A: item {', '.join(item_ids(chosen))}"
    bands = []
    floored = 0.0
    for band in modality.bands:
        layers = []
        for pixels, offset, item in zip(found["S2L2A"].pixels[band], offsets, items, strict=True):
            if pixels.dtype.kind == "f":
                raise CityHeadsError(
                    f"collection {chosen['collection']}: item {item['id']}: band {band}: values are {pixels.dtype}, "
                    "not digital numbers; CityHeads reads reflectance x 10000"
                )
            wide = pixels.astype(np.int32)
            data = wide != 0
            if band == "B02" and offset and data.any():
                floored = max(floored, float((wide[data] <= offset).mean()))
            layers.append(np.where(data, np.clip(wide - offset, 1, 65535), 0).astype(np.uint16))
        bands.append(mosaic(layers, 0))
    reflectance = np.stack(bands)
    if floored > _FLOORED:
        raise CityHeadsError(
            f"{where}: subtracting the offset of {max(offsets)} leaves nothing in {floored:.0%} of the blue band, so "
            "the archive has already removed it; set the config key 'archive.imagery.S2L2A.offset'"
        )
    valid = (reflectance != 0).all(axis=0)
    if not valid.any():
        raise CityHeadsError(f"{where}: not one pixel of the parent has data; delete the scene choice and run again")
    data = reflectance[:, valid]
    in_range = float((data <= modality.valid_max).mean())
    if in_range < 1 - _OUT_OF_RANGE:
        raise CityHeadsError(
            f"{where}: unit error: {1 - in_range:.1%} of the values are above reflectance "
            f"{modality.valid_max / 10000:g}; CityHeads reads reflectance x 10000"
        )
    medians = np.median(data, axis=1)
    # water is black in the infrared, so one dark band is no proof; all of them are
    if medians.max() < _LEAST_MEDIAN_DN:
        raise CityHeadsError(
            f"{where}: unit error: the brightest band's median is {medians.max():g}; "
            "CityHeads reads reflectance x 10000"
        )
    beside = {}
    clear: float | None = None
    if rule.scl_asset is not None:
        beside["SCL"] = mosaic(found["SCL"].pixels["SCL"], SCL_NODATA).astype(np.uint8)
        clear = float(np.isin(beside["SCL"][valid], sorted(SCL_CLEAR)).mean())
    if rule.cloud_asset is not None:
        beside["CLD"] = _cloud_probability(found, len(items), where)
    return reflectance, beside, {
        "items": item_ids(chosen),
        "sources": sources(chosen),
        "offset_dn": dict(zip(item_ids(chosen), offsets, strict=True)),
        "resampling": found["S2L2A"].resampling,
        "unit_conversion": "digital numbers minus offset_dn, not below 1; 0 stays nodata",
        "valid_fraction": round(float(valid.mean()), 6),
        "clear_fraction": None if clear is None else round(clear, 6),
        "in_range_fraction": round(in_range, 6),
        "median": {band: float(value) for band, value in zip(modality.bands, medians, strict=True)},
    }  # fmt: skip


def _cloud_probability(found: Mapping[str, Layer], items: int, where: str) -> np.ndarray:
    """Lay the cloud probabilities of the items under each other as their bands are: by where blue has data."""
    layers, blue = found["CLD"].pixels["CLD"], found["S2L2A"].pixels["B02"]
    percent = np.zeros(layers[0].shape)
    for index in reversed(range(items)):
        percent = np.where(blue[index] != 0, layers[index], percent)
    if percent.max() > 100:
        raise CityHeadsError(
            f"{where}: unit error: cloud probabilities up to {percent.max():g}; the asset that the config key "
            "'archive.imagery.S2L2A.cloud_asset' names is not in percent"
        )
    return percent.astype(np.uint8)
