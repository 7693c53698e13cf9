"""Frozen scene choices, as the verbs after the choice read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json
from cityheads.core.grid import Parent

__all__ = ["acquired", "read_scenes"]


def read_scenes(path: Path, parent: Parent) -> dict[str, Any]:
    """Read a frozen scene choice and check that it was made for this parent.

    Raises:
        CityHeadsError: The file is missing, has another format, or is of another place.
    """
    scenes = read_json(path)
    if not isinstance(scenes, dict) or scenes.get("format") != 1:
        raise CityHeadsError(f"{path}: not a scene choice of format 1; delete it and run again")
    of = scenes["parent"]
    same = of["parent_id"] == parent.parent_id and of["epsg"] == parent.epsg
    if not (same and abs(of["left"] - parent.left) < 1e-6 and abs(of["top"] - parent.top) < 1e-6):
        raise CityHeadsError(
            f"{path}: chosen for {of['parent_id']} at {of['left']}, {of['top']} (EPSG:{of['epsg']}), which is not "
            f"where {parent.parent_id} lies now; delete it and run again"
        )
    return scenes


def acquired(item: Mapping[str, Any]) -> str:
    """Give the time of an item of a frozen choice, or the start of its period."""
    return str(item["datetime"] or item["properties"]["start_datetime"])
