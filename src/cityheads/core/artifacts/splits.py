"""``dataset/{fold}/splits.json``: which parent belongs to which split, and what that means for the classes."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact
from cityheads.core.grid import Split

__all__ = ["SPLIT_ASSIGNMENT", "MissingClass", "SplitAssignment"]

# "class" is a keyword of Python, so that this one cannot be written as a class
MissingClass = TypedDict("MissingClass", {"split": Split, "label": str, "class": str})


class SplitAssignment(TypedDict):
    """Split of each parent.

    Attributes:
        method: ``sheet``, ``search``, ``fold K of N`` or ``region NAME left out``.
        fold: Number of the fold; 0 where there is one only.
        folds: Number of all folds, run or not.
        seed: Seed of the search; None where the sheet says the splits.
        test_lock: Hash of who is tested: of the test parents' ids and places, with folds of the whole partition.
        buffer_m: Least distance in metres of sub-chips from parents held out from them.
        parents: Split per parent id, in the order of the sheet.
        tested_in: Fold in which a parent is tested, likewise; None for one that is tested in no fold.
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
    class_fractions: dict[str, dict[str, list[float | None]]]
    missing: list[MissingClass]


SPLIT_ASSIGNMENT = Artifact("split assignment", "assemble_dataset", 2, SplitAssignment)
