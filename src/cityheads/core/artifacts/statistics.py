"""``dataset/{fold}/statistics.json``: counts of everything, and statistics of the training split's pixels."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["STATISTICS", "BandStatistics", "DatasetStatistics"]


class BandStatistics(TypedDict):
    """Mean and standard deviation of each band over the valid pixels of the training split, in stored units."""

    bands: list[str]
    mean: list[float]
    std: list[float]


class DatasetStatistics(TypedDict):
    """Statistics of the dataset.

    Splits go by their names (`cityheads.core.grid.SPLITS`).

    Attributes:
        modalities: Statistics per modality.
        class_pixels: Kept pixels of each class and, last, ignored ones, by split and label.
        chips: Kept sub-chips per split.
        synthesized: Kept sub-chips whose radar was generated, by modality and split.
        dropped: Dropped sub-chips per reason.
        simulated: Whether any pixel is simulated.
    """

    modalities: dict[str, BandStatistics]
    class_pixels: dict[str, dict[str, list[int]]]
    chips: dict[str, int]
    synthesized: dict[str, dict[str, int]]
    dropped: dict[str, int]
    simulated: bool


STATISTICS = Artifact("statistics of the dataset", "assemble_dataset", 1, DatasetStatistics)
