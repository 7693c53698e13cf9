"""``training.json``: what a training did."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["TRAINING", "Parameters", "Training"]


class Parameters(TypedDict):
    """Numbers of parameters; ``heads`` without what heads share."""

    total: int
    trainable: int
    encoder: int
    heads: dict[str, int]


class Training(TypedDict):
    """One training.

    Attributes:
        run: Name of the run.
        fold: Fold whose test split it has not seen.
        seed: Its seed.
        best_epoch: Epoch whose weights were kept, from 0.
        epochs_run: Number of epochs.
        monitor: Column of the history that chose the best epoch.
        best_score: Its highest value; None where it was never defined.
        stopped_early: Whether it ended because the score no longer rose.
        parameters: Size of the model as it was trained.
        chips: Number of sub-chips per split.
        steps: Number of optimizer steps.
    """

    run: str
    fold: int
    seed: int
    best_epoch: int
    epochs_run: int
    monitor: str
    best_score: float | None
    stopped_early: bool
    parameters: Parameters
    chips: dict[str, int]
    steps: int


TRAINING = Artifact("record of a training", "train", 1, Training)
