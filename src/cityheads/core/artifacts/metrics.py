"""``metrics.json``: the scores of one training on a split. NaN (undefined) is null."""

from __future__ import annotations

from typing import TypeAlias

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = [
    "METRICS",
    "AblatedHead",
    "AblatedParent",
    "HeadScores",
    "Metrics",
    "ParentScore",
    "Score",
]

#: Confusion counts, rows true, columns predicted, both in the order of the class ids.
Counts: TypeAlias = list[list[int]]


class Score(TypedDict):
    """The score by which a head is compared.

    Attributes:
        name: ``miou`` or ``iou``.
        positive_class: Class whose IoU ``iou`` is; None for ``miou``.
        value: 0 to 1.
    """

    name: str
    positive_class: str | None
    value: float | None


class ParentScore(TypedDict):
    """One test parent."""

    confusion: Counts
    value: float | None


class HeadScores(TypedDict):
    """One head; lists run over its classes in the order of their ids.

    Attributes:
        miou: Mean of ``iou`` over the classes that have labelled pixels; ``mf1`` likewise of ``f1``.
        pixels: Number of labelled pixels.
        ignored: Number of pixels without a label.
        interval: Confidence interval of the score, over the choice of test parents.
    """

    label: str
    classes: list[str]
    confusion: Counts
    iou: list[float | None]
    miou: float | None
    f1: list[float | None]
    mf1: float | None
    precision: list[float | None]
    recall: list[float | None]
    accuracy: float | None
    pixels: int
    ignored: int
    metric: Score
    interval: list[float] | None
    per_parent: dict[str, ParentScore]


class AblatedParent(TypedDict):
    """One test parent without a modality; the difference in percentage points is to the whole model."""

    confusion: Counts
    value: float | None
    delta_pp: float | None


class AblatedHead(TypedDict):
    """One head of the model without a modality."""

    value: float | None
    delta_pp: float | None
    interval_pp: list[float] | None
    iou: list[float | None]
    confusion: Counts
    per_parent: dict[str, AblatedParent]


class Metrics(TypedDict):
    """The scores of one training.

    Attributes:
        simulated: Whether any of the data is.
        parents: Test parents.
        chips: Number of test sub-chips, and ``chips_sha256`` of their ids, a line each.
        confidence: Of all intervals.
        modality_ablation: Per modality and head, the scores without it; None where that was not asked for.
        not_ablated: Modalities that were not left out, and why.
    """

    run: str
    fold: int
    seed: int
    split: str
    simulated: bool
    parents: list[str]
    chips: int
    chips_sha256: str
    confidence: float
    heads: dict[str, HeadScores]
    modality_ablation: dict[str, dict[str, AblatedHead]] | None
    not_ablated: dict[str, str]


METRICS = Artifact("file of scores", "evaluate", 1, Metrics)
