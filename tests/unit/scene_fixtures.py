"""Scene choices and readings that are whole, of which a test states only what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cityheads.core.artifacts.reading import LayerReading, Reading
from cityheads.core.artifacts.scenes import ChosenItem, ChosenLayer, SceneChoice
from cityheads.core.grid import Parent


def chosen_item(identifier: str, **stated: Any) -> ChosenItem:
    """Make an item of a scene choice."""
    item: Any = {
        "id": identifier, "collection": "made", "datetime": "2024-07-10T15:50:00Z", "properties": {}, "assets": {},
    }  # fmt: skip
    return {**item, **stated}


def chosen_layer(items: Sequence[ChosenItem] = (), **stated: Any) -> ChosenLayer:
    """Make a layer of a scene choice; one that is to be generated has no items and ``synthesized=True``."""
    layer: Any = {
        "collection": "made", "why": "the only one", "considered": len(items), "rejected": [],
        "valid_fraction": None, "clear_fraction": None,
    }  # fmt: skip
    return {**layer, **stated, "items": list(items)}


def scene_choice(parent: Parent, layers: Mapping[str, ChosenLayer], **stated: Any) -> SceneChoice:
    """Make the scene choice of a parent."""
    place = {"parent_id": parent.parent_id, "epsg": parent.epsg, "left": parent.left, "top": parent.top}
    choice: Any = {"parent": place, "simulated": False, "catalog": "catalog.json"}
    return {**choice, **stated, "layers": dict(layers)}


def layer_reading(items: Sequence[str] = (), **stated: Any) -> LayerReading:
    """Make what was read of one layer."""
    layer: Any = {
        "items": list(items), "sources": {}, "resampling": {}, "unit_conversion": "none", "valid_fraction": 1.0,
        "clear_fraction": None, "sha256": "0" * 64,
    }  # fmt: skip
    return {**layer, **stated}


def reading(parent_id: str, layers: Mapping[str, LayerReading], **stated: Any) -> Reading:
    """Make what was read of a parent."""
    made: Any = {"parent_id": parent_id, "simulated": False, "versions": {}}
    return {**made, **stated, "layers": dict(layers)}
