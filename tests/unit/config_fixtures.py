"""Configs for tests: a small valid one, with what a test wants changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from cityheads.config import Config, resolve

__all__ = ["MINIMAL", "make_config", "merge"]

#: Two labels, two heads and three runs on a simulated archive; all else is left to the defaults.
MINIMAL: dict[str, Any] = {
    "archive": {"provider": "simulated"},
    "labels": {
        "LULC": {
            "kind": "landcover",
            "classes": [
                {"name": "water", "color": "#3a7bc8", "codes": [80, 90, 95]},
                {"name": "developed", "color": "#c8574d", "codes": [50]},
                {"name": "forest", "color": "#2e7d4f", "codes": [10, 20]},
                {"name": "herbaceous", "color": "#b5cf6b", "codes": [30, 40]},
                {"name": "other", "color": "#c9b79c", "codes": [60, 70, 100]},
            ],
        },
        "BUILDINGS": {
            "kind": "footprints",
            "classes": [{"name": "not building", "color": "#e8e6e1"}, {"name": "building", "color": "#4b3f72"}],
        },
    },
    "heads": {
        "lulc": {"label": "LULC", "metric": "miou"},
        "buildings": {"label": "BUILDINGS", "metric": "iou", "positive_class": "building"},
    },
    "runs": {
        "multihead": {"heads": ["lulc", "buildings"]},
        "lulc": {"heads": ["lulc"]},
        "buildings": {"heads": ["buildings"]},
    },
}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, at every depth; lists and scalars are replaced."""
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def make_config(raw: Mapping[str, Any] = MINIMAL, /, **overrides: Any) -> Config:
    """Give a config: `MINIMAL`, or another raw one, with some sections changed.

    ``make_config(train={"epochs": 2}, seeds=[0, 1])`` lays these over it. To replace a whole mapping of names, such as
    ``labels``, pass a raw config of your own in place of `MINIMAL`.
    """
    return resolve(merge(raw, overrides))
