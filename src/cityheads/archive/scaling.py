"""What an asset says about its numbers: the scale and offset that make physical values of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cityheads.core.artifacts.scenes import Scaling

__all__ = ["IDENTITY", "declared", "is_identity"]

#: Of an asset whose numbers are the values themselves.
IDENTITY: Scaling = {"scale": 1.0, "offset": 0.0}


def declared(asset: Mapping[str, Any]) -> Scaling | None:
    """Give the scale and offset that an asset declares for its first band: value = number x scale + offset.

    Looked at are, in this order, the fields of the raster extension for a band, v1 (``raster:bands``) and v2 with STAC
    1.1 (``raster:scale`` and ``raster:offset`` in ``bands``), and v2's fields on the asset as a whole.

    Args:
        asset: The asset as its JSON.

    Returns:
        What is declared, 1 or 0 for the one of the two that is left out; None where neither is declared.

    Raises:
        ValueError: One of them is no number, or the scale is zero.
    """
    for place, prefix in ((_first(asset.get("raster:bands")), ""), (_first(asset.get("bands")), "raster:"),
                          (asset, "raster:")):  # fmt: skip
        scale, offset = place.get(f"{prefix}scale"), place.get(f"{prefix}offset")
        if scale is not None or offset is not None:
            return {"scale": _number(scale, 1.0, f"{prefix}scale"), "offset": _number(offset, 0.0, f"{prefix}offset")}
    return None


def is_identity(scaling: Scaling) -> bool:
    """Tell whether a scaling leaves the numbers as they are."""
    return scaling["scale"] == IDENTITY["scale"] and scaling["offset"] == IDENTITY["offset"]


def _first(bands: Any) -> Mapping[str, Any]:
    first = bands[0] if isinstance(bands, list) and bands else {}
    return first if isinstance(first, Mapping) else {}


def _number(value: Any, default: float, name: str) -> float:
    if value is None:
        return default
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or (name.endswith("scale") and value == 0):
        raise ValueError(f"its {name} is {value!r}")
    return float(value)
