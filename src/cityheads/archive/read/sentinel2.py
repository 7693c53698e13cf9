"""Sentinel-2 Level-2A on the parent's grid: reflectance x 10000 without the offset, and the scene classification."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cityheads.archive.products import OFFSET_DN
from cityheads.archive.read.layers import Layer, Wanted, item_ids, mosaic, sources
from cityheads.archive.read.offset_check import judge_offset
from cityheads.config import OpticalConfig
from cityheads.core.artifacts.reading import LayerRecord, OffsetCheck
from cityheads.core.artifacts.scenes import ChosenItem, ChosenLayer
from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import MODALITIES, SCL_CLEAR, SCL_NODATA

__all__ = ["stack", "wanted"]

#: More pixels than this share beyond physics is a unit error, fewer are glints and defects.
_OUT_OF_RANGE = 0.01

#: A band whose median is below this was not scaled by 10000: 0.0005 reflectance is darker than clear deep water in
#: the near infrared.
_LEAST_MEDIAN_DN = 5

#: Numbers per unit of reflectance, as they are stored.
_STORED = 10000

log = logging.getLogger(__name__)


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
    where = f"{parent_id}: S2L2A: item {', '.join(item_ids(chosen))}"
    layers: dict[str, list[np.ndarray]] = {band: [] for band in modality.bands}
    offsets: dict[str, int] = {}
    checks: dict[str, OffsetCheck] = {}
    for index, item in enumerate(items):
        ways = _conversion(item, rule)
        numbers = {}
        for band in modality.bands:
            pixels = found["S2L2A"].pixels[band][index]
            if pixels.dtype.kind == "f" and rule.offset != "asset":
                raise CityHeadsError(
                    f"collection {chosen['collection']}: item {item['id']}: band {band}: values are {pixels.dtype}, "
                    "not digital numbers; CityHeads reads reflectance x 10000"
                )
            numbers[band] = _numbers(pixels, ways[band].factor)
        offsets[item["id"]] = ways["B02"].subtracted
        checks[item["id"]] = _check(parent_id, item["id"], numbers, ways["B02"].subtracted, rule)
        for band, whole in numbers.items():
            value = np.clip(whole - ways[band].subtracted, 1, 65535)
            layers[band].append(np.where(whole != 0, value, 0).astype(np.uint16))
    reflectance = np.stack([mosaic(layers[band], 0) for band in modality.bands])
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
    record: LayerRecord = {
        "items": item_ids(chosen),
        "sources": sources(chosen),
        "offset_dn": offsets,
        "offset_check": checks,
        "resampling": found["S2L2A"].resampling,
        "unit_conversion": "digital numbers minus offset_dn, not below 1; 0 stays nodata",
        "valid_fraction": round(float(valid.mean()), 6),
        "clear_fraction": None if clear is None else round(clear, 6),
        "in_range_fraction": round(in_range, 6),
        "median": {band: float(value) for band, value in zip(modality.bands, medians, strict=True)},
    }
    if rule.offset == "asset":
        record["scaling"] = {item["id"]: item["scaling"] for item in items}
    return reflectance, beside, record


class _Way(NamedTuple):
    """How the numbers of one band become reflectance x 10000: times ``factor``, less ``subtracted``."""

    factor: float
    subtracted: int


def _conversion(item: ChosenItem, rule: OpticalConfig) -> dict[str, _Way]:
    """Say how each band of an item becomes reflectance x 10000."""
    bands = MODALITIES["S2L2A"].bands
    own = rule.offset_of.get(item["id"])
    if rule.offset != "asset":
        return dict.fromkeys(bands, _Way(1.0, int(item["offset_dn"]) if own is None else own))
    ways = {}
    for band in bands:
        scaling = item.get("scaling", {}).get(band)
        if scaling is None:
            raise CityHeadsError(
                f"item {item['id']}: band {band}: the scene choice knows no scale and offset of it, at which the "
                "config key 'archive.imagery.S2L2A.offset' = asset looks; delete the choice and run again"
            )
        # 0.0001 x 10000 is one, but not in binary
        factor = round(scaling["scale"] * _STORED, 9)
        subtracted = round(-scaling["offset"] * _STORED) if own is None else round(own * factor)
        ways[band] = _Way(factor, subtracted)
    return ways


def _numbers(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Give an archive's numbers as int32 in units of reflectance x 10000; 0 is no data."""
    if pixels.dtype.kind != "f" and factor == 1:
        return pixels.astype(np.int32)
    data = np.isfinite(pixels) & (pixels != 0)
    # a number that is data is no nodata, however small
    scaled = np.rint(np.where(data, pixels, 0).astype(np.float64) * factor).astype(np.int32)
    return np.where(data & (scaled == 0), 1, scaled)


def _check(
    parent_id: str, identifier: str, numbers: Mapping[str, np.ndarray], subtracted: int, rule: OpticalConfig
) -> OffsetCheck:
    """Hold what is subtracted against the pixels.

    Raises:
        CityHeadsError: They contradict each other, and the config does not say to go on.
    """
    if identifier in rule.offset_of:
        return {"verdict": "set", "because": "archive.imagery.S2L2A.offset_of", "floor_dn": None}
    check = judge_offset(numbers, subtracted)
    if check["verdict"] == "disagrees":
        tags = f"carry +{subtracted}" if subtracted else "carry no offset"
        truth, right = ("it was removed already", 0) if subtracted else (f"they carry +{OFFSET_DN}", OFFSET_DN)
        text = (
            f"{parent_id}: S2L2A: item {identifier}: by its tags (archive.imagery.S2L2A.offset: {rule.offset}) its "
            f"values {tags}, but {check['because']}, as if {truth}"
        )
        if rule.offset_check == "error":
            raise CityHeadsError(
                f"{text}; set archive.imagery.S2L2A.offset_of: {{{identifier}: {right}}}, or offset_check: warn to "
                "follow the tags"
            )
        log.warning("%s; the tags are followed", text)
    return check


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
