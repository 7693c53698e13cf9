"""``leaderboard.json`` and the table beside it: runs and experiments by validation score, with what they cost."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact, Table

__all__ = ["LEADERBOARD", "LEADERBOARD_TABLE", "Entry", "EntryCost", "EntryHead", "Leaderboard"]


class EntryHead(TypedDict):
    """One head of an entry.

    Attributes:
        metric: ``miou`` or ``iou``.
        positive_class: Class whose IoU ``iou`` is; None for ``miou``.
        score: The metric over all validation parents, averaged over the seeds; 0 to 1.
        interval: Its confidence interval over the choice of validation parents and, with several seeds, over trainings.
        delta_pp: Score minus that of the run under test, in percentage points, on the same parents; None for that run
            itself, for a head that it has not, and where the seeds are others.
        delta_interval_pp: Confidence interval of the difference.
    """

    metric: str
    positive_class: str | None
    score: float | None
    interval: list[float] | None
    delta_pp: float | None
    delta_interval_pp: list[float] | None


class EntryCost(TypedDict):
    """What a training of an entry costs: means over its folds and seeds; None where it was not measured in all of them.

    Attributes:
        parameters: All parameters of the model.
        trainable: Those that are trained.
        steps: Optimizer steps.
        candidates: Settings that a search tried first; 1 without one.
        train_s: Seconds of one training.
        peak_memory_mb: Most memory of one training's process, in MB; the largest of all.
        cpu_energy_j: Joules of the processor packages in one training.
        inference_chips_per_s: Sub-chips that a pass over the validation split takes in a second.
    """

    parameters: int
    trainable: int
    steps: float
    candidates: int
    train_s: float
    peak_memory_mb: float | None
    cpu_energy_j: float | None
    inference_chips_per_s: float


class Entry(TypedDict):
    """A run of the config, or an experiment.

    Attributes:
        name: Its name.
        experiment: Whether it is a row of the sheet.
        set: What it sets otherwise than the config, by dotted key.
        settings: What a search on validation chose for each fold, in the order of the folds; empty without one.
        comment: Remark of the sheet.
        seeds: Its seeds.
        parents: Number of validation parents.
        heads: Scores by head.
        score: Mean of the heads' scores; None where one is undefined.
        cost: What a training costs.
        front: For each kind of cost, whether no entry with the same heads is at least as good and as cheap, and better
            in one of the two.
    """

    name: str
    experiment: bool
    set: dict[str, Any]
    settings: list[dict[str, Any]]
    comment: str
    seeds: list[int]
    parents: int
    heads: dict[str, EntryHead]
    score: float | None
    cost: EntryCost
    front: dict[str, bool]


class Leaderboard(TypedDict):
    """All entries: those with the heads of the run under test first, then by score.

    Attributes:
        split: Split on which was scored, ``val``.
        folds: Folds that were trained.
        confidence: Of the intervals.
        simulated: Whether any of the data is.
        notes: What a reader must know beside the numbers.
    """

    split: str
    folds: list[int]
    confidence: float
    simulated: bool
    entries: list[Entry]
    notes: list[str]


LEADERBOARD = Artifact("leaderboard", "leaderboard", 1, Leaderboard)

#: A row for each entry and head.
LEADERBOARD_TABLE = Table("table of the leaderboard", "leaderboard", 1)
