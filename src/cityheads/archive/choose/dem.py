"""The choice of elevation: every tile under the parent."""

from __future__ import annotations

from cityheads.archive.choose.search import Search, by_cover, nothing
from cityheads.config import DemConfig
from cityheads.core.artifacts.scenes import ChosenLayer

__all__ = ["choose_dem"]


def choose_dem(search: Search, rule: DemConfig) -> ChosenLayer:
    """Choose every tile under the parent, the one that covers most first."""
    items = search.catalog.search(rule.collection, search.polygon, None)
    if not items:
        raise nothing(search, "DEM", rule.collection, items, [])
    assets = {"DEM": rule.assets.get("DEM", "data")}
    return {
        "collection": rule.collection,
        "why": f"all {len(items)} tile(s) under the parent",
        "considered": len(items),
        "rejected": [],
        "valid_fraction": None,
        "clear_fraction": None,
        "items": [search.frozen(item, assets) for item in by_cover(search, items)],
    }
