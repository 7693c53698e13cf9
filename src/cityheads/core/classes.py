"""What a mask's values mean, wherever masks are written, learnt, scored or drawn."""

from __future__ import annotations

__all__ = ["CLOUD_MASK", "IGNORE", "IGNORE_COLOR", "fraction_layer", "mask_layer"]

#: Label value of a pixel that neither trains nor counts; nodata of every mask (uint8).
IGNORE = 255

#: Colour of such pixels on maps.
IGNORE_COLOR = "#ffffff"

#: Layer that says where the image does not show the ground; every label is ignored there.
CLOUD_MASK = "CLOUDMASK"


def mask_layer(label: str) -> str:
    """Name the layer that holds a label's class ids, such as ``MASK_LULC``."""
    return f"MASK_{label}"


def fraction_layer(label: str) -> str:
    """Name the layer of covered shares per pixel (float32, 0 to 1), such as ``FRACTION_BUILDINGS``."""
    return f"FRACTION_{label}"
