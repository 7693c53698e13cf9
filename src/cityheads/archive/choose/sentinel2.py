"""The choice of Sentinel-2 scenes: the pass that is clearest over the parent itself, near the target date."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

import numpy as np
import shapely

from cityheads.archive.catalogues.item import Item, within
from cityheads.archive.choose.passes import Pass, fill, group_by_pass, measure_in_batches
from cityheads.archive.choose.search import Search, nothing, reasons
from cityheads.archive.products import OFFSET_BASELINE, OFFSET_DN
from cityheads.config import OpticalConfig
from cityheads.core.artifacts.scenes import ChosenLayer
from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import MODALITIES, SCL_CLEAR, SCL_NODATA

__all__ = ["choose_sentinel2", "offset_dn"]

#: Two processings of a product have footprints that differ by their rounding; this share may stick out.
_SUPERSEDED_REST = 0.02


def choose_sentinel2(search: Search, rule: OpticalConfig) -> ChosenLayer:
    """Choose the pass that is clearest over the parent and, among equals, nearest to the target date.

    Raises:
        CityHeadsError: No usable item, or one without a needed band or baseline.
    """
    collection = rule.collection
    interval, target = rule.period, rule.target_time
    items = search.catalog.search(collection, search.polygon, interval)
    kept, rejected = [], []
    for item in items:
        cloud = item.properties.get("eo:cloud_cover")
        if not within(item, interval):
            rejected.append((item, f"acquired {item.when:%Y-%m-%d}, outside {rule.datetime}"))
        elif cloud is not None and cloud > rule.max_cloud_percent:
            rejected.append((item, f"tile cloud cover {cloud:.1f} % is above {rule.max_cloud_percent:g} %"))
        else:
            kept.append(item)
    kept = _drop_superseded(kept, search.polygon, rejected)
    if not kept:
        raise nothing(search, "S2L2A", collection, items, rejected)
    passes = group_by_pass(kept, _s2_pass)
    passes.sort(key=lambda one: (abs(one.when - target), one.when))
    best: Pass | None = None
    for candidate in measure_in_batches(search.archive.workers, passes, lambda one: _measure(search, rule, one)):
        # nearer passes come first, so only a clearer one can win; to the percent, or noise would outweigh the date
        if best is None or _score(candidate) > _score(best):
            best = candidate
        if _score(best) >= 100:
            break
    assert best is not None
    if best.valid == 0:
        raise nothing(search, "S2L2A", collection, items, [*rejected, *((item, "no valid pixel") for item in kept)])
    chosen = {item.id for item in best.items}
    for candidate in passes:
        for item in candidate.items:
            if item.id not in chosen:
                rejected.append((item, _why_not(candidate, best, target)))
    for item in kept:
        if item.id not in chosen and not any(item is other for other, _ in rejected):
            rejected.append((item, "another tile of the same pass already covers its part of the parent"))
    assets = {band: rule.assets.get(band, band) for band in MODALITIES["S2L2A"].bands}
    if rule.scl_asset is not None:
        assets["SCL"] = rule.scl_asset
    cover = f"{best.valid:.1%} valid" + ("" if best.clear is None else f", {best.clear:.1%} of it clear")
    days = abs((best.when - target).total_seconds()) / 86400
    return {
        "collection": collection,
        "why": f"{cover}; {days:.0f} days from {target:%Y-%m-%d}; {len(best.items)} tile(s) of {len(passes)} pass(es)",
        "considered": len(items),
        "rejected": reasons(rejected),
        "valid_fraction": round(best.valid, 6),
        "clear_fraction": None if best.clear is None else round(best.clear, 6),
        "items": [{**search.frozen(item, assets), "offset_dn": offset_dn(item, rule.offset)} for item in best.items],
    }


def offset_dn(item: Item, rule: str) -> int:
    """Give what must be subtracted from the item's digital numbers.

    Args:
        item: A Sentinel-2 Level-2A item.
        rule: ``baseline``, ``none`` or ``item`` (config key ``archive.imagery.S2L2A.offset``).

    Raises:
        CityHeadsError: The item lacks what the rule looks at.
    """
    key = "config key 'archive.imagery.S2L2A.offset'"
    if rule == "none":
        return 0
    if rule == "item":
        applied = item.properties.get("earthsearch:boa_offset_applied")
        if not isinstance(applied, bool):
            raise CityHeadsError(
                f"item {item.id}: no 'earthsearch:boa_offset_applied', at which {key} = item looks; "
                "use baseline or none"
            )
        if applied:
            return 0
    baseline = item.properties.get("s2:processing_baseline", item.properties.get("processing:version"))
    match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})", str(baseline))
    if match is None:
        raise CityHeadsError(
            f"item {item.id}: no usable 's2:processing_baseline' ({baseline}), so whether its values carry +1000 is "
            f"unknown; see the {key}"
        )
    return OFFSET_DN if (int(match[1]), int(match[2])) >= OFFSET_BASELINE else 0


def _drop_superseded(items: Iterable[Item], polygon: shapely.Geometry, rejected: list[tuple[Item, str]]) -> list[Item]:
    """Drop older processings of a tile and pass, which archives keep.

    A pass may also come in two products of one tile that lie beside each other, where a data strip ends in it: only
    what a newer product covers is superseded.
    """
    groups: dict[tuple[str, str], list[Item]] = {}

    def age(item: Item) -> tuple[str, str, str]:
        properties = item.properties
        return (
            str(properties.get("s2:processing_baseline", "")).zfill(5),
            str(properties.get("s2:generation_time", properties.get("created", ""))),
            item.id,
        )

    for item in items:
        tile = item.properties.get("s2:mgrs_tile", item.properties.get("grid:code"))
        groups.setdefault((_s2_pass(item), str(tile) if tile else item.id), []).append(item)
    kept: list[Item] = []
    for group in groups.values():
        newer: list[Item] = []
        for item in sorted(group, key=age, reverse=True):
            here = item.footprint.intersection(polygon)
            left = here.difference(shapely.union_all([other.footprint for other in newer])) if newer else here
            if newer and left.area <= _SUPERSEDED_REST * here.area:
                rejected.append((item, f"superseded by {newer[0].id}"))
            else:
                newer.append(item)
        kept += newer
    return sorted(kept, key=lambda item: item.id)


def _s2_pass(item: Item) -> str:
    """Name the overflight: the datatake without its processing baseline, else platform and day."""
    datatake = item.properties.get("s2:datatake_id")
    if datatake:
        return str(datatake).rpartition("_N")[0] or str(datatake)
    return f"{item.properties.get('platform', '')} {item.when:%Y-%m-%d}"


def _measure(search: Search, rule: OpticalConfig, one: Pass) -> Pass:
    """Measure valid and clear fractions over the parent, and order the tiles that are needed."""
    with_scl = rule.scl_asset is not None
    band, key = ("B02", rule.assets.get("B02", "B02")) if rule.scl_asset is None else ("SCL", rule.scl_asset)
    layers = [search.coarse_pixels(item, key, band, SCL_NODATA) for item in one.items]
    clear_codes = sorted(SCL_CLEAR)

    def worth(pixels: np.ndarray) -> int:
        return int(np.isin(pixels, clear_codes).sum()) if with_scl else int((pixels != SCL_NODATA).sum())

    order = sorted(range(len(layers)), key=lambda index: (-worth(layers[index]), one.items[index].id))
    mosaic = np.zeros(search.coarse.shape, layers[0].dtype)
    one.items, one.valid = fill(mosaic, [(one.items[index], layers[index]) for index in order], SCL_NODATA)
    if with_scl:
        valid = mosaic != SCL_NODATA
        one.clear = float(np.isin(mosaic[valid], clear_codes).mean()) if valid.any() else 0.0
    return one


def _score(one: Pass) -> int:
    """Percent of the parent that is valid and clear."""
    return round(100 * one.valid * (1.0 if one.clear is None else one.clear))


def _why_not(candidate: Pass, best: Pass, target: datetime) -> str:
    if candidate.when != best.when and abs(candidate.when - target) >= abs(best.when - target) and _score(best) >= 100:
        return f"farther from {target:%Y-%m-%d} than a scene that is clear all over"
    return f"{_score(candidate)} % of the parent valid and clear, against {_score(best)} %"
