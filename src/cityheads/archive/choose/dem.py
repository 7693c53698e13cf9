"""The choice of elevation: every tile under the parent."""

from __future__ import annotations

from cityheads.archive.choose.search import Search, by_cover, nothing, reasons
from cityheads.config import DemConfig
from cityheads.core.artifacts.scenes import ChosenLayer

__all__ = ["choose_dem"]


def choose_dem(search: Search, rule: DemConfig) -> ChosenLayer:
    """Choose every tile under the parent, the one that covers most first."""
    items, kept, rejected = search.find(rule.collection, None)
    if not kept:
        raise nothing(search, "DEM", rule.collection, items, rejected)
    assets = {"DEM": rule.assets.get("DEM", "data")}
    return {
        "collection": rule.collection,
        "why": f"all {len(kept)} tile(s) under the parent",
        "considered": len(items),
        "rejected": reasons(rejected),
        "valid_fraction": None,
        "clear_fraction": None,
        "items": [search.frozen(item, assets) for item in by_cover(search, kept)],
    }
