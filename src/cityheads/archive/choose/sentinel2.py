"""The choice of Sentinel-2 scenes: the pass that costs least in cloud, missing ground and days over the parent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import shapely

from cityheads.archive.catalogues.item import Item, within
from cityheads.archive.choose.cost import cost_of, day_points, days_between, told
from cityheads.archive.choose.passes import Pass, fill, group_by_pass, measure_in_batches
from cityheads.archive.choose.search import NO_DATA, SPARE, Search, nothing, reasons
from cityheads.archive.choose.verify import Flaws, flaws_of, pixels_of
from cityheads.archive.products import OFFSET_BASELINE, OFFSET_DN
from cityheads.config import OpticalConfig
from cityheads.core.artifacts.agreement import AgreedWindow
from cityheads.core.artifacts.scenes import ChoiceCost, ChosenLayer, Scaling
from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import MODALITIES, SCL_CLEAR, SCL_NODATA
from cityheads.core.times import parse_time

__all__ = ["choose_sentinel2", "measured_passes", "offset_dn"]

#: Two processings of a product have footprints that differ by their rounding; this share may stick out.
_SUPERSEDED_REST = 0.02


def _candidates(search: Search, rule: OpticalConfig) -> tuple[list[Item], list[Item], list[tuple[Item, str]]]:
    """Give all items over the parent; those of the period that are clear enough; and the others with the reason."""
    interval = rule.period
    items, allowed, rejected = search.find(rule.collection, interval)
    kept = []
    for item in allowed:
        cloud = item.properties.get("eo:cloud_cover")
        if not within(item, interval):
            rejected.append((item, f"acquired {item.when:%Y-%m-%d}, outside {rule.datetime}"))
        elif cloud is not None and cloud > rule.max_cloud_percent:
            rejected.append((item, f"tile cloud cover {cloud:.1f} % is above {rule.max_cloud_percent:g} %"))
        else:
            kept.append(item)
    return items, _drop_superseded(kept, search.polygon, rejected), rejected


def measured_passes(search: Search, rule: OpticalConfig) -> list[Pass]:
    """Measure all passes over a parent, and give those that show something of it."""
    _, kept, _ = _candidates(search, rule)
    passes = group_by_pass(kept, _s2_pass)
    measure = measure_in_batches(search.archive.workers, passes, lambda one: _measure(search, rule, one))
    return [one for one in measure if one.valid > 0] if passes else []


def choose_sentinel2(search: Search, rule: OpticalConfig, window: AgreedWindow | None = None) -> ChosenLayer:
    """Choose the pass that costs least over the parent (`cityheads.archive.choose.cost`), of equals the nearest.

    Args:
        search: The parent and its catalogue.
        rule: The config's ``archive.imagery.S2L2A``.
        window: What all parents agreed on; a pass within it goes before one that costs not much less.

    Raises:
        CityHeadsError: No usable item, or one without a needed band or baseline.
    """
    collection, target = rule.collection, rule.target_time
    items, kept, rejected = _candidates(search, rule)
    if not kept:
        raise nothing(search, "S2L2A", collection, items, rejected)
    assets = {band: rule.assets.get(band, band) for band in MODALITIES["S2L2A"].bands}
    if rule.scl_asset is not None:
        assets["SCL"] = rule.scl_asset
    if rule.cloud_asset is not None:
        assets["CLD"] = rule.cloud_asset
    flaws: Flaws = {}
    best = None
    while best is None:
        passes = group_by_pass((item for item in kept if item.id not in flaws), _s2_pass)
        passes.sort(key=lambda one: (abs(one.when - target), one.when))
        measured = _measure_nearest(search, rule, passes)
        unseen = passes[len(measured) :]
        if window is not None:
            late = [one for one in unseen if _inside(one, window)]
            measured += measure_in_batches(search.archive.workers, late, lambda one: _measure(search, rule, one))
            unseen = [one for one in unseen if not _inside(one, window)]
        for one in measured:
            flaws |= one.flaws
        usable = [one for one in measured if one.valid > 0]
        if not usable:
            told_all = [(item, flaws.get(item.id, NO_DATA)) for item in kept]
            raise nothing(search, "S2L2A", collection, items, [*rejected, *told_all])
        best = _best(usable, rule, window, search.archive.together.tolerance_points)
        found = flaws_of(search, "S2L2A", best.items, assets)
        if found:
            flaws |= found
            best = None
    cost = cost_of(best, rule)
    chosen = {item.id for item in best.items}
    rejected += [(item, flaws[item.id]) for item in kept if item.id in flaws]
    kept = [item for item in kept if item.id not in flaws]
    rejected += [(item, SPARE) for item in best.members if item.id not in chosen and item in kept]
    for one in measured:
        if one is not best:
            rejected += [(item, _why_not(one, rule, cost)) for item in one.members if item in kept]
    for one in unseen:
        reason = (
            f"{days_between(one.when, target):.0f} days from {target:%Y-%m-%d} cost as much as all of the chosen one"
        )
        rejected += [(item, reason) for item in one.members]
    return {
        "collection": collection,
        "why": f"{told(cost, target)}, of {len(passes)} pass(es){_kept_to(best, window)}; {len(best.items)} tile(s)",
        "considered": len(items),
        "rejected": reasons(rejected),
        "valid_fraction": round(best.valid, 6),
        "clear_fraction": None if best.clear is None else round(best.clear, 6),
        "cost": cost,
        "items": [
            {**search.frozen(item, assets), "offset_dn": offset_dn(item, rule.offset, search.scaling(item, assets))}
            for item in best.items
        ],
    }


def _inside(one: Pass, window: AgreedWindow) -> bool:
    return parse_time(window["start"]) <= one.when <= parse_time(window["end"])


def _best(usable: Sequence[Pass], rule: OpticalConfig, window: AgreedWindow | None, tolerance: float) -> Pass:
    """Give the pass that costs least; within the window, if there the parent loses no more points than is tolerated."""

    def points(one: Pass) -> float:
        return cost_of(one, rule)["points"]

    best = min(usable, key=points)
    inside = [one for one in usable if window is not None and _inside(one, window)]
    together = min(inside, key=points, default=best)
    return together if points(together) <= points(best) + tolerance else best


def _kept_to(best: Pass, window: AgreedWindow | None) -> str:
    """Say whether the choice keeps to what all parents agreed on."""
    if window is None:
        return ""
    dates = f"the agreed {window['start'][:10]} to {window['end'][:10]}"
    return f" within {dates}" if _inside(best, window) else f", since {dates} has none that is good enough here"


def _measure_nearest(search: Search, rule: OpticalConfig, passes: Sequence[Pass]) -> list[Pass]:
    """Measure passes in their order, the nearest to the target date first, until none that follows can cost less."""
    measured: list[Pass] = []
    least = math.inf
    for one in measure_in_batches(search.archive.workers, passes, lambda one: _measure(search, rule, one)):
        measured.append(one)
        if one.valid > 0:
            least = min(least, cost_of(one, rule)["points"])
        if len(measured) < len(passes) and day_points(passes[len(measured)].when, rule) >= least:
            break
    return measured


def offset_dn(item: Item, rule: str, scaling: Mapping[str, Scaling] | None = None) -> int:
    """Give what must be subtracted from the item's digital numbers.

    Args:
        item: A Sentinel-2 Level-2A item.
        rule: ``baseline``, ``asset``, ``none`` or ``item`` (config key ``archive.imagery.S2L2A.offset``).
        scaling: What its assets declare, by band.

    Raises:
        CityHeadsError: The item lacks what the rule looks at.
    """
    key = "config key 'archive.imagery.S2L2A.offset'"
    if rule == "none":
        return 0
    if rule == "asset":
        scaling = scaling or {}
        lacking = [band for band in MODALITIES["S2L2A"].bands if band not in scaling]
        if lacking:
            raise CityHeadsError(
                f"item {item.id}: band {lacking[0]}: its asset declares neither scale nor offset, at which {key} = "
                "asset looks; use baseline"
            )
        return round(-scaling["B02"]["offset"] / scaling["B02"]["scale"])
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
    layers, flaws = pixels_of(one.members, lambda item: search.coarse_pixels(item, key, band, SCL_NODATA))
    if not layers:
        return replace(one, flaws=flaws)
    clear_codes = sorted(SCL_CLEAR)

    def worth(pixels: np.ndarray) -> int:
        return int(np.isin(pixels, clear_codes).sum()) if with_scl else int((pixels != SCL_NODATA).sum())

    layers.sort(key=lambda pair: (-worth(pair[1]), pair[0].id))
    mosaic = np.zeros(search.coarse.shape, layers[0][1].dtype)
    needed, valid = fill(mosaic, layers, SCL_NODATA)
    clear: float | None = None
    if with_scl:
        data = mosaic != SCL_NODATA
        clear = float(np.isin(mosaic[data], clear_codes).mean()) if data.any() else 0.0
    return replace(one, items=needed, valid=valid, clear=clear, flaws=flaws)


def _why_not(one: Pass, rule: OpticalConfig, chosen: ChoiceCost) -> str:
    if one.valid == 0:
        return NO_DATA
    cost = cost_of(one, rule)
    if cost["points"] == chosen["points"]:
        return f"{told(cost, rule.target_time)}, as many as the chosen one, which is nearer or earlier"
    if cost["points"] < chosen["points"]:
        return f"{told(cost, rule.target_time)}, but outside the dates that all parents agreed on"
    return f"{told(cost, rule.target_time)}, the chosen one {chosen['points']:.1f}"
