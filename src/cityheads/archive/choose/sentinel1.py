"""The choice of Sentinel-1 scenes: the pass nearest to the Sentinel-2 scene that covers the parent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from cityheads.archive.catalogues.item import Item, within
from cityheads.archive.choose.passes import Pass, fill, group_by_pass, measure_in_batches
from cityheads.archive.choose.search import Search, lack, nothing, reasons
from cityheads.archive.products import S1_NODATA
from cityheads.config import RadarConfig
from cityheads.core.artifacts.scenes import ChosenLayer
from cityheads.core.modalities import MODALITIES

__all__ = ["choose_sentinel1"]

#: A radar pass that covers this much of the parent counts as covering it; the rest is up to the quality test.
_FULL_COVER = 0.995


def choose_sentinel1(search: Search, name: str, rule: RadarConfig, when: datetime) -> ChosenLayer:
    """Choose the pass that covers the parent and is nearest to ``when``, of the preferred direction first.

    Raises:
        CityHeadsError: No usable item where the config wants one, or one without a needed band.
    """
    collection = rule.collection
    if collection is None:
        return _absent(search, name, rule, [], [])
    reach = timedelta(days=rule.max_days)
    interval = (when - reach, when + reach)
    items = search.catalog.search(collection, search.polygon, interval)
    kept, rejected = [], []
    bands = {band: rule.assets.get(band, band.lower()) for band in MODALITIES[name].bands}
    for item in items:
        polarisations = item.properties.get("sar:polarizations")
        lacking = [band for band in bands if polarisations and band not in polarisations]
        if not within(item, interval):
            days = abs((item.when - when).total_seconds()) / 86400
            rejected.append((item, f"{days:.1f} days from the Sentinel-2 scene, more than {rule.max_days:g}"))
        elif lacking:
            rejected.append((item, f"acquired without {', '.join(lacking)}"))
        else:
            kept.append(item)
    if not kept:
        return _absent(search, name, rule, items, rejected)

    def other_way(one: Pass) -> bool:
        return rule.orbit != "any" and one.items[0].properties.get("sat:orbit_state") != rule.orbit

    def order(one: Pass) -> tuple[bool, timedelta, datetime]:
        return other_way(one), abs(one.when - when), one.when

    passes = sorted(group_by_pass(kept, _s1_pass), key=order)
    measured: list[Pass] = []
    for candidate in measure_in_batches(search.archive.workers, passes, lambda one: _measure(search, bands["VV"], one)):
        measured.append(candidate)
        if candidate.valid >= _FULL_COVER:
            break
    best = min(measured, key=lambda one: (-round(min(one.valid, _FULL_COVER), 2), *order(one)))
    if best.valid == 0:
        return _absent(search, name, rule, items, [*rejected, *((item, "no valid pixel") for item in kept)])
    chosen = {item.id for item in best.items}
    for candidate in passes:
        for item in candidate.items:
            if item.id not in chosen:
                looked = candidate in measured
                rejected.append(
                    (item, f"covers {candidate.valid:.1%}" if looked else "a nearer pass covers the parent")
                )
    for item in kept:
        if item.id not in chosen and not any(item is other for other, _ in rejected):
            rejected.append((item, "another frame of the same pass already covers its part of the parent"))
    direction = best.items[0].properties.get("sat:orbit_state", "unknown direction")
    days = abs((best.when - when).total_seconds()) / 86400
    return {
        "collection": collection,
        "why": f"{best.valid:.1%} valid; {days:.1f} days from the Sentinel-2 scene; {direction}",
        "considered": len(items),
        "rejected": reasons(rejected),
        "valid_fraction": round(best.valid, 6),
        "clear_fraction": None,
        "items": [search.frozen(item, bands) for item in best.items],
    }


def _absent(
    search: Search,
    name: str,
    rule: RadarConfig,
    items: Sequence[Item],
    rejected: Sequence[tuple[Item, str]],
) -> ChosenLayer:
    """Fail where no scene is left, or choose to have the layer made of the others, as the config says."""
    if rule.missing != "synthesize":
        raise nothing(search, name, rule.collection, items, rejected)
    return {
        "collection": rule.collection,
        "why": f"synthesized: {lack(items, rejected) if rule.collection else 'the catalogue has no collection'}",
        "considered": len(items),
        "rejected": reasons(rejected),
        "valid_fraction": None,
        "clear_fraction": None,
        "synthesized": True,
        "items": [],
    }


def _s1_pass(item: Item) -> str:
    """Name the overflight: platform and absolute orbit, else platform, direction and day."""
    properties = item.properties
    orbit = properties.get("sat:absolute_orbit", properties.get("s1:datatake_id"))
    if orbit is not None:
        return f"{properties.get('platform', '')} {orbit}"
    return f"{properties.get('platform', '')} {properties.get('sat:orbit_state', '')} {item.when:%Y-%m-%d}"


def _measure(search: Search, key: str, one: Pass) -> Pass:
    """Measure how much of the parent the swath covers, and order the frames that are needed."""
    layers = []
    for item in one.items:
        pixels = search.coarse_pixels(item, key, "VV", S1_NODATA)
        layers.append((item, np.where(np.isfinite(pixels), pixels, S1_NODATA)))
    layers.sort(key=lambda pair: (-int((pair[1] != S1_NODATA).sum()), pair[0].id))
    mosaic = np.full(search.coarse.shape, S1_NODATA, layers[0][1].dtype)
    one.items, one.valid = fill(mosaic, layers, S1_NODATA)
    return one
