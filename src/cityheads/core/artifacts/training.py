"""``training.json``: what a training did, as far as config, dataset and seed determine it.

What it cost in time, memory and energy differs from one time to the next and is in ``environment.json``.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["TRAINING", "Budget", "Parameters", "Schedule", "Training"]


class Parameters(TypedDict):
    """Numbers of parameters; ``heads`` without what heads share."""

    total: int
    trainable: int
    encoder: int
    heads: dict[str, int]


class Schedule(TypedDict):
    """What an optimizer step was.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Chips of a batch.
        accumulate: Batches of a step.
        lr: Peak learning rate.
        warmup_fraction: Share of the steps in which the learning rate rose; then it fell along a cosine to 0.
        weight_decay: Weight decay.
    """

    epochs: int
    batch_size: int
    accumulate: int
    lr: float
    warmup_fraction: float
    weight_decay: float


class Training(TypedDict):
    """One training.

    Attributes:
        run: Name of the run.
        fold: Fold whose test split it has not seen.
        seed: Its seed.
        schedule: What a step was.
        steps: Number of optimizer steps.
        chips_seen: Number of training chips that went through the model, each as often as it did.
        checkpoint: Rule by which the epoch was kept: ``last``, or ``best`` by validation score.
        kept_epoch: Epoch whose weights were kept, from 0.
        score: Validation score of that epoch, the mean of the heads' metrics; None where it is undefined.
        scores: Validation metric of each head in that epoch; None where it is undefined.
        settings: Settings by dotted key that a search on validation chose for the run, or that it tries in this
            training; empty without a search.
        candidates: Number of settings that the search tried; 1 without one.
        parameters: Size of the model as it was trained.
        chips: Number of sub-chips per split.
    """

    run: str
    fold: int
    seed: int
    schedule: Schedule
    steps: int
    chips_seen: int
    checkpoint: str
    kept_epoch: int
    score: float | None
    scores: dict[str, float | None]
    settings: dict[str, Any]
    candidates: int
    parameters: Parameters
    chips: dict[str, int]


class Budget(TypedDict):
    """What one training was given and what it took, for tables that stand runs side by side.

    Attributes:
        run: Name of the run.
        fold: Its fold.
        seed: Its seed.
        heads: Its heads.
        schedule: As in `Training`, and so are the next ones down to ``candidates``.
        parameters: All parameters of the model.
        trainable: Those that were trained.
        wall_s: As in ``environment.json``, and so are the last ones.
    """

    run: str
    fold: int
    seed: int
    heads: list[str]
    schedule: Schedule
    steps: int
    chips_seen: int
    checkpoint: str
    kept_epoch: int
    settings: dict[str, Any]
    candidates: int
    parameters: int
    trainable: int
    wall_s: float
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None
    cpu_energy_j: float | None
    inference_chips_per_s: float
    device: str


TRAINING = Artifact("record of a training", "train", 2, Training)
