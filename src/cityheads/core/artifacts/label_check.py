"""``labels/check.json``: how the labels fit each other and the imagery."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["LABEL_CHECK", "Agreement", "EdgeShift", "LabelCheck"]

# "class" is a keyword of Python, so that this one cannot be written as a class. It says where the polygons of one label
# lie on the classes of another.
Agreement = TypedDict(
    "Agreement",
    {
        "polygons": str,  # label of the polygons
        "class": str,  # their class
        "other": str,  # the other label
        "pixels": list[list[int]],  # per class of the polygons' label and class of the other
        "lies_on": dict[str, float | None],  # share of the polygons' pixels on each class; None where they have none
        "covers": dict[str, float | None],  # share of each class that they cover; None where it has no pixel
        "mostly_on": str | None,  # class that most of them lie on; None where there are none
    },
)


class EdgeShift(TypedDict):
    """How far the imagery's edges lie below and to the right of the label's, in pixels, and their correlation."""

    down_px: float
    right_px: float
    correlation: float


class Registration(TypedDict):
    """The shift over all parents, and of each; None where no edges are shared."""

    all: EdgeShift | None
    parents: dict[str, EdgeShift | None]


class IgnoredFraction(TypedDict):
    """Share of ignored pixels over all parents, and of each."""

    all: float
    parents: dict[str, float]


class LabelCheck(TypedDict):
    """What the comparison found.

    Attributes:
        simulated: Whether any pixel is simulated.
        agreement: Per pair of a label of polygons and another label.
        registration: Per label of polygons.
        ignored_fraction: Per label.
        balance: Share of each class among the labelled pixels of the kept sub-chips, by label and split.
        one_class_chips: Kept sub-chips that hold a single class, by label and class.
        unlabelled_chips: Kept sub-chips without a labelled pixel, by label.
    """

    simulated: bool
    agreement: list[Agreement]
    registration: dict[str, Registration]
    ignored_fraction: dict[str, IgnoredFraction]
    balance: dict[str, dict[str, dict[str, float | None]]]
    one_class_chips: dict[str, dict[str, list[str]]]
    unlabelled_chips: dict[str, list[str]]


LABEL_CHECK = Artifact("check of the labels", "check_labels", 1, LabelCheck)
