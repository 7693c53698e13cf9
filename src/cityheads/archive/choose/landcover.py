"""The choice of a land-cover map: the newest that covers most of the parent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import shapely

from cityheads.archive.catalogues.item import Item, within
from cityheads.archive.choose.search import Search, by_cover, nothing, reasons
from cityheads.config import LandcoverLabel
from cityheads.core.artifacts.scenes import ChosenLayer

__all__ = ["choose_landcover"]


def choose_landcover(search: Search, name: str, label: LandcoverLabel) -> ChosenLayer:
    """Choose the newest map of the period that covers most of the parent, and all its tiles there."""
    collection = label.collection
    interval = label.period
    items, allowed, rejected = search.find(collection, interval)
    years: dict[datetime, list[Item]] = {}
    for item in allowed:
        if interval is not None and not within(item, interval):
            rejected.append((item, f"of {item.when:%Y-%m-%d}, outside {label.datetime}"))
        else:
            years.setdefault(item.when, []).append(item)
    if not years:
        raise nothing(search, name, collection, items, rejected)

    def cover(group: Sequence[Item]) -> float:
        union = shapely.union_all([item.footprint for item in group])
        return round(float(union.intersection(search.polygon).area / search.polygon.area), 2)

    newest = max(years, key=lambda when: (cover(years[when]), when))
    for when, group in years.items():
        if when != newest:
            rejected += [(item, f"of {when:%Y-%m-%d}; {newest:%Y-%m-%d} is newer or covers more") for item in group]
    chosen = by_cover(search, years[newest])
    return {
        "collection": collection,
        "why": f"newest that covers most ({newest:%Y-%m-%d}), {len(chosen)} tile(s) under the parent",
        "considered": len(items),
        "rejected": reasons(rejected),
        "valid_fraction": None,
        "clear_fraction": None,
        "items": [search.frozen(item, {"map": label.asset}) for item in chosen],
    }
