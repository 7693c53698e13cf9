"""The choice of Sentinel-1 scenes: the pass nearest to the Sentinel-2 scene that covers the parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from cityheads.archive.catalogues.item import Item, within
from cityheads.archive.choose.cost import days_between
from cityheads.archive.choose.passes import Pass, fill, group_by_pass, measure_in_batches
from cityheads.archive.choose.search import NO_DATA, SPARE, Search, lack, nothing, reasons
from cityheads.archive.choose.verify import Flaws, flaws_of, pixels_of
from cityheads.archive.products import S1_NODATA
from cityheads.config import RadarConfig
from cityheads.core.artifacts.agreement import AgreedOrbit
from cityheads.core.artifacts.scenes import ChosenLayer
from cityheads.core.modalities import MODALITIES

__all__ = ["FULL_COVER", "candidates", "choose_sentinel1", "orbit_of", "s1_pass"]

#: A radar pass that covers this much of the parent counts as covering it; the rest is up to the quality test.
FULL_COVER = 0.995


def candidates(
    search: Search, name: str, rule: RadarConfig, when: datetime
) -> tuple[list[Item], list[Item], list[tuple[Item, str]]]:
    """Search for scenes near a time.

    Returns:
        All items over the parent; those near enough with all polarisations; and the others with the reason.
    """
    assert rule.collection is not None
    reach = timedelta(days=rule.max_days)
    interval = (when - reach, when + reach)
    items, allowed, rejected = search.find(rule.collection, interval)
    kept = []
    bands = _bands(name, rule)
    for item in allowed:
        polarisations = item.properties.get("sar:polarizations")
        lacking = [band for band in bands if polarisations and band not in polarisations]
        if not within(item, interval):
            rejected.append(
                (
                    item,
                    f"{days_between(item.when, when):.1f} days from the Sentinel-2 scene, more than {rule.max_days:g}",
                )
            )
        elif lacking:
            rejected.append((item, f"acquired without {', '.join(lacking)}"))
        else:
            kept.append(item)
    return items, kept, rejected


def choose_sentinel1(
    search: Search, name: str, rule: RadarConfig, when: datetime, agreed: AgreedOrbit | None = None
) -> ChosenLayer:
    """Choose the pass over the whole parent nearest to ``when``, of the agreed orbit and preferred direction first.

    Raises:
        CityHeadsError: No usable item where the config wants one, or one without a needed band.
    """
    collection = rule.collection
    if collection is None:
        return _absent(search, name, rule, [], [])
    bands = _bands(name, rule)
    items, kept, rejected = candidates(search, name, rule, when)
    if not kept:
        return _absent(search, name, rule, items, rejected)

    def other_orbit(one: Pass) -> bool:
        return agreed is not None and orbit_of(one)[0] != agreed["relative_orbit"]

    def other_way(one: Pass) -> bool:
        return rule.orbit != "any" and _direction(one) != rule.orbit

    def order(one: Pass) -> tuple[bool, bool, timedelta, datetime]:
        return other_orbit(one), other_way(one), abs(one.when - when), one.when

    flaws: Flaws = {}
    best = None
    while best is None:
        passes = sorted(group_by_pass((item for item in kept if item.id not in flaws), s1_pass), key=order)
        measured: list[Pass] = []
        for candidate in measure_in_batches(
            search.archive.workers, passes, lambda one: _measure(search, bands["VV"], one)
        ):
            measured.append(candidate)
            flaws |= candidate.flaws
            if candidate.valid >= FULL_COVER:
                break
        usable = [one for one in measured if one.valid > 0]
        if not usable:
            told = [(item, flaws.get(item.id, NO_DATA)) for item in kept]
            return _absent(search, name, rule, items, [*rejected, *told])
        best = min(usable, key=lambda one: (-_cover(one), *order(one)))
        found = flaws_of(search, name, best.items, bands)
        if found:
            flaws |= found
            best = None
    rejected += [(item, flaws[item.id]) for item in kept if item.id in flaws]

    def why_not(one: Pass) -> str:
        # a pass that was not measured has no items
        if one.items and _cover(one) < _cover(best):
            return f"covers {one.valid:.1%} of the parent, the chosen pass {best.valid:.1%}" if one.valid else NO_DATA
        if other_orbit(one) and not other_orbit(best):
            assert agreed is not None
            return f"its relative orbit is {orbit_of(one)[0]}, and all parents agreed on {agreed['relative_orbit']}"
        if other_way(one) and not other_way(best):
            return f"its direction is {_direction(one)}, and {rule.orbit} is preferred"
        return f"{days_between(one.when, when):.1f} days from the Sentinel-2 scene, the chosen pass {days:.1f}"

    chosen = {item.id for item in best.items}
    days = days_between(best.when, when)
    rejected += [(item, SPARE) for item in best.members if item.id not in chosen and item.id not in flaws]
    for one in [*measured, *passes[len(measured) :]]:
        if one is not best:
            rejected += [(item, why_not(one)) for item in one.members if item.id not in flaws]
    return {
        "collection": collection,
        "why": f"{best.valid:.1%} valid; {days:.1f} days from the Sentinel-2 scene; {_direction(best)}"
        + _kept_to(orbit_of(best)[0], agreed),
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


def _bands(name: str, rule: RadarConfig) -> dict[str, str]:
    """Give the items' asset keys by polarisation."""
    return {band: rule.assets.get(band, band.lower()) for band in MODALITIES[name].bands}


def _kept_to(orbit: int | None, agreed: AgreedOrbit | None) -> str:
    """Say whether the choice keeps to what all parents agreed on."""
    if agreed is None:
        return ""
    if orbit == agreed["relative_orbit"]:
        return f"; relative orbit {orbit}, as agreed"
    return f"; relative orbit {orbit}, since the agreed {agreed['relative_orbit']} covers less of the parent here"


def orbit_of(one: Pass) -> tuple[int | None, str | None]:
    """Give relative orbit and direction of a pass, as far as its items tell."""
    properties = one.members[0].properties
    number, state = properties.get("sat:relative_orbit"), properties.get("sat:orbit_state")
    return None if number is None else int(number), None if state is None else str(state)


def _direction(one: Pass) -> str:
    return str(one.members[0].properties.get("sat:orbit_state", "unknown"))


def _cover(one: Pass) -> float:
    """Give how much of the parent a pass covers, where full is full."""
    return round(min(one.valid, FULL_COVER), 2)


def s1_pass(item: Item) -> str:
    """Name the overflight: platform and absolute orbit, else platform, direction and day."""
    properties = item.properties
    orbit = properties.get("sat:absolute_orbit", properties.get("s1:datatake_id"))
    if orbit is not None:
        return f"{properties.get('platform', '')} {orbit}"
    return f"{properties.get('platform', '')} {properties.get('sat:orbit_state', '')} {item.when:%Y-%m-%d}"


def _measure(search: Search, key: str, one: Pass) -> Pass:
    """Measure how much of the parent the swath covers, and order the frames that are needed."""

    def read(item: Item) -> np.ndarray:
        pixels = search.coarse_pixels(item, key, "VV", S1_NODATA)
        return np.where(np.isfinite(pixels), pixels, S1_NODATA)

    layers, flaws = pixels_of(one.members, read)
    if not layers:
        return replace(one, flaws=flaws)
    layers.sort(key=lambda pair: (-int((pair[1] != S1_NODATA).sum()), pair[0].id))
    mosaic = np.full(search.coarse.shape, S1_NODATA, layers[0][1].dtype)
    needed, valid = fill(mosaic, layers, S1_NODATA)
    return replace(one, items=needed, valid=valid, flaws=flaws)
