"""``classes.json`` of a bundle: what the class ids of the published maps mean, and how they are coloured."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["BUNDLE_CLASSES", "BundleClass", "BundleClasses"]


class BundleClass(TypedDict):
    """One class; ``color`` is ``#rrggbb``."""

    id: int
    name: str
    color: str


class BundleClasses(TypedDict):
    """Classes by label, in the order of their ids; only labels that a head of the model learned."""

    labels: dict[str, list[BundleClass]]


BUNDLE_CLASSES = Artifact("class table of a bundle", "publish", 1, BundleClasses)
