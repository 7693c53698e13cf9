"""Which parent is held out when (``dataset/assignment.json``), and what a fold's splits are like (``splits.json``)."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact
from cityheads.core.grid import Split

__all__ = [
    "PARENT_ASSIGNMENT",
    "SPLIT_ASSIGNMENT",
    "GapToTraining",
    "MissingClass",
    "ParentAssignment",
    "SplitAssignment",
]

# "class" is a keyword of Python, so that this one cannot be written as a class
MissingClass = TypedDict("MissingClass", {"split": Split, "label": str, "class": str})


class ParentAssignment(TypedDict):
    """Who is tested when: sought once, and kept when labels, heads or pixels change.

    Attributes:
        method: ``sheet``, ``search``, ``folds`` or ``region NAME left out``.
        folds: Number of folds; 1 without a cross-validation.
        seed: Seed of the search; None where the sheet says the splits.
        parents: Split per parent id; empty for folds.
        tested_in: Fold in which a parent is tested; None for one that is tested in no fold.
        asked: Hash of what this answers: the places of the sheet and how they are to be split.
    """

    method: str
    folds: int
    seed: int | None
    parents: dict[str, Split]
    tested_in: dict[str, int | None]
    asked: str


class GapToTraining(TypedDict):
    """Distance of the kept test sub-chips from the nearest kept training sub-chip.

    Attributes:
        nearest_m: The least distance, in metres; 0 where two touch.
        median_m: The median over the test sub-chips.
        touching: Number of test sub-chips that touch training ground.
    """

    nearest_m: float
    median_m: float
    touching: int


class SplitAssignment(TypedDict):
    """Split of each parent.

    Attributes:
        method: ``sheet``, ``search``, ``fold K of N`` or ``region NAME left out``.
        fold: Number of the fold; 0 where there is one only.
        folds: Number of all folds, run or not.
        seed: Seed of the search; None where the sheet says the splits.
        test_lock: What the test set is: a hash of the tested squares (with folds, of all), one of their label pixels.
        buffer_m: Least distance in metres of sub-chips from parents held out from them.
        parents: Split per parent id, in the order of the sheet.
        tested_in: Fold in which a parent is tested, likewise; None for one that is tested in no fold.
        gap_to_training: Distance of the test ground from the training ground; None where either is empty.
        class_fractions: Share of each class among the labelled pixels, by split and label; None where none is labelled.
        missing: Classes that a split lacks.
    """

    method: str
    fold: int
    folds: int
    seed: int | None
    test_lock: str
    buffer_m: float
    parents: dict[str, Split]
    tested_in: dict[str, int | None]
    gap_to_training: GapToTraining | None
    class_fractions: dict[str, dict[str, list[float | None]]]
    missing: list[MissingClass]


SPLIT_ASSIGNMENT = Artifact("split assignment", "assemble_dataset", 3, SplitAssignment)
PARENT_ASSIGNMENT = Artifact("assignment of the parents", "assign_splits", 2, ParentAssignment)
