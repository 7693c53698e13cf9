"""A label's own section of the config, of the kind that a verb can make."""

from __future__ import annotations

from typing import TypeVar

from cityheads.config import Config
from cityheads.core.errors import CityHeadsError

__all__ = ["label_section"]

_L = TypeVar("_L")


def label_section(config: Config, label: str, kind: type[_L]) -> _L:
    """Give the section of a label layer.

    Args:
        config: Config with section ``labels``.
        label: Name of the label layer.
        kind: What it must be, such as `cityheads.config.LandcoverLabel`.

    Raises:
        CityHeadsError: There is no such label, or it is of another kind.
    """
    found = config.labels.get(label)
    if found is None:
        raise CityHeadsError(f"config key 'labels.{label}': no such label; there are {', '.join(config.labels)}")
    if not isinstance(found, kind):
        raise CityHeadsError(f"config key 'labels.{label}.kind': {found.kind} is rasterized by another verb")
    return found
