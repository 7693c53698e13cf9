"""Backscatter that no satellite measured here: TerraMind generates it of the modalities that were read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cityheads.config import SynthesisConfig
from cityheads.core.artifacts.reading import LayerRecord
from cityheads.core.modalities import MODALITIES

__all__ = ["stack"]


def stack(
    parent_id: str, name: str, inputs: Mapping[str, np.ndarray], options: SynthesisConfig, *, window_px: int
) -> tuple[np.ndarray, LayerRecord]:
    """Have TerraMind generate one layer from those that were read.

    Args:
        parent_id: Seeds the generator, so that a parent's layer does not depend on other parents.
        name: S1RTC or S1GRD.
        inputs: Modality to (C, H, W) in stored units.
        options: The config's ``archive.synthesis``.
        window_px: Side of the windows that are generated one by one.

    Returns:
        (2, H, W) float32 VV and VH in dB, NaN where an input has no data; and what the reading records.
    """
    # here and not above: torch takes seconds and a gigabyte, and most runs never generate
    from cityheads.model.synthesis import synthesize

    decibels, made = synthesize(inputs, name, options, window_px=window_px, name=parent_id)
    valid = np.isfinite(decibels).all(axis=0)
    medians = [float(np.median(pixels[valid])) if valid.any() else None for pixels in decibels]
    return decibels, {
        "items": [],
        "sources": {},
        "resampling": {},
        "unit_conversion": "none, made in dB",
        "valid_fraction": round(float(valid.mean()), 6),
        "clear_fraction": None,
        "median_db": {
            band: None if value is None else round(value, 4)
            for band, value in zip(MODALITIES[name].bands, medians, strict=True)
        },
        "synthesized": made,
    }
