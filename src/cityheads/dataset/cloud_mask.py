"""Which pixels of a parent's image do not show the ground, and why: there every label is ignored."""

from __future__ import annotations

import math

import numpy as np

from cityheads.config import CloudMaskConfig
from cityheads.core.modalities import SCL_CLASSES

__all__ = ["HIDDEN", "SEEN", "cloud_mask"]

#: Value of a pixel whose labels count.
SEEN = 0

#: Values of a pixel whose labels are ignored, by the reason; where several hold, the last one is told.
HIDDEN: dict[str, int] = {"near_cloud": 5, "cloud": 1, "shadow": 2, "saturated": 3, "no_data": 4, "other": 6}

_CLOUD = ("cloud_medium_probability", "cloud_high_probability", "thin_cirrus")
_REASON = dict.fromkeys(_CLOUD, "cloud") | {
    "cloud_shadow": "shadow",
    "saturated_or_defective": "saturated",
    "no_data": "no_data",
}


def cloud_mask(
    rule: CloudMaskConfig,
    has_data: np.ndarray,
    scl: np.ndarray | None,
    probability_percent: np.ndarray | None,
    resolution_m: float,
) -> np.ndarray:
    """Say of each pixel whether the image shows the ground there, and if not, why.

    Args:
        rule: The config's ``quality.cloud_mask``.
        has_data: (H, W) bool, whether Sentinel-2 has data in every band.
        scl: (H, W) uint8 scene classification; None where the archive has none.
        probability_percent: (H, W) uint8 cloud probability, 0 where it is unknown; None where the archive has none.
        resolution_m: Side of a pixel in metres.

    Returns:
        (H, W) uint8: `SEEN`, or one of `HIDDEN`.
    """
    mask = np.full(has_data.shape, SEEN, np.uint8)
    if not rule.enabled:
        return mask
    found = {reason: np.zeros(has_data.shape, bool) for reason in HIDDEN}
    if scl is not None:
        for name in rule.scl_classes:
            found[_REASON.get(name, "other")] |= scl == SCL_CLASSES[name]
    if probability_percent is not None:
        found["cloud"] |= probability_percent >= rule.min_cloud_probability_percent
    found["no_data"] |= ~has_data
    overcast = found["cloud"] | found["shadow"]
    if rule.smallest_m2:
        overcast = _without_small(overcast, rule.smallest_m2 / resolution_m**2)
        found["cloud"] &= overcast
        found["shadow"] &= overcast
    if rule.dilation_m:
        found["near_cloud"] = _near(overcast, rule.dilation_m / resolution_m)
    for reason, value in HIDDEN.items():
        mask[found[reason]] = value
    return mask


def _without_small(flagged: np.ndarray, least_px: float) -> np.ndarray:
    """Leave out connected groups (over edges and corners) of fewer pixels."""
    from scipy.ndimage import label

    groups, count = label(flagged, structure=np.ones((3, 3), int))
    sizes = np.bincount(groups.ravel(), minlength=count + 1)
    large = sizes >= least_px
    large[0] = False
    kept: np.ndarray = large[groups]
    return kept


def _near(flagged: np.ndarray, radius_px: float) -> np.ndarray:
    """Give the pixels whose centre is at most this far from the centre of a flagged one."""
    if not flagged.any():
        return flagged
    from scipy.ndimage import distance_transform_edt

    # a hair more, or rounding decides about the pixels at exactly this distance
    near: np.ndarray = distance_transform_edt(~flagged) <= math.nextafter(radius_px, math.inf)
    return near
