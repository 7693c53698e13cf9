"""TEMPORARY, until the tests of every folder build typed configs (`config_fixtures.make_config`): configs as dicts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cityheads.config import load_config as typed_file
from cityheads.config import resolve as typed
from cityheads.config.bridge import _NEW

__all__ = ["load_config", "pick", "resolve"]

_OLD = {new: old for old, new in _NEW.items()}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value


def resolve(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Give a resolved config as dicts with the keys of before; ``raw`` may have either."""
    config = _renamed(copy.deepcopy(dict(raw)), _NEW)
    for head in config.get("heads", {}).values():
        label = config.get("labels", {}).get(head.get("label"))
        if head.get("metric") == "iou" and label:
            head.setdefault("positive_class", label["classes"][-1]["name"])
    dumped: dict[str, Any] = _renamed(typed(config).model_dump(mode="json"), _OLD)
    return dumped


def load_config(path: Path) -> dict[str, Any]:
    """Read a config file as dicts with the keys of before."""
    return resolve(typed_file(path).model_dump(mode="json"))


def pick(config: Mapping[str, Any], sections: tuple[str, ...]) -> Any:
    """Give the typed config of a resolved one in dicts, restricted to the sections of one verb."""
    return typed(_renamed(copy.deepcopy(dict(config)), _NEW)).restricted_to(sections)
