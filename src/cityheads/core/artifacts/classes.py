"""``dataset/{fold}/classes.json``: the class ids of each label that trains, with their names."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["CLASSES", "ClassEntry", "ClassTables"]


class ClassEntry(TypedDict):
    """One class: its value in the masks, and its name. Its colour is the config's."""

    id: int
    name: str


class ClassTables(TypedDict):
    """The classes of each label, in the order of their ids."""

    labels: dict[str, list[ClassEntry]]


CLASSES = Artifact("class table", "assemble_dataset", 1, ClassTables)
