"""``quality/{parent}.json``: what was measured in each sub-chip of a parent, and why it is dropped."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["QUALITY", "ChipQuality", "ParentQuality"]


class ChipQuality(TypedDict):
    """Quality of one sub-chip.

    Attributes:
        chip_id: Id of the sub-chip.
        row: Row within the parent, from the north.
        col: Column within the parent, from the west.
        valid_fraction: Share of pixels with data in every band, per modality.
        in_range_fraction: Share of the values within physical limits, per modality; None where there is no data.
        clear_fraction: Share of the classified pixels that are clear ground; None without a scene classification.
        hidden_fraction: Share of the pixels whose image does not show the ground, by reason (``cloud``, ``shadow``,
            ``saturated``, ``no_data``, ``near_cloud``, ``other``); the labels are ignored there.
        reasons: Why it is dropped; empty for a sub-chip that is kept.
    """

    chip_id: str
    row: int
    col: int
    valid_fraction: dict[str, float]
    in_range_fraction: dict[str, float | None]
    clear_fraction: float | None
    hidden_fraction: dict[str, float]
    reasons: list[str]


class ParentQuality(TypedDict):
    """Quality of all sub-chips of a parent, row by row."""

    parent_id: str
    chips: list[ChipQuality]


QUALITY = Artifact("quality of sub-chips", "slice_parent", 2, ParentQuality)
