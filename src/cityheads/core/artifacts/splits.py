"""``dataset/splits.json``: which parent belongs to which split, and what that means for the classes."""

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
        seed: Seed of the search; None where the sheet says the splits.
        test_lock: Hash of the test parents' ids and places.
        buffer_m: Least distance in metres of sub-chips from parents held out from them.
        parents: Split per parent id, in the order of the sheet.
        class_fractions: Share of each class among the labelled pixels, by split and label; None where none is labelled.
        missing: Classes that a split lacks.
    """

    method: str
    seed: int | None
    test_lock: str
    buffer_m: float
    parents: dict[str, Split]
    class_fractions: dict[str, dict[str, list[float | None]]]
    missing: list[MissingClass]


SPLIT_ASSIGNMENT = Artifact("split assignment", "assemble_dataset", 1, SplitAssignment)
