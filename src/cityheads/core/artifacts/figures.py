"""``figures.json``: the figures in the order of the report, with what it says about them."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["FIGURE_LIST", "FigureEntry", "FigureList"]


class FigureEntry(TypedDict):
    """One figure.

    Attributes:
        id: Name of the figure.
        file: Name of its PNG in the same folder.
        title: Heading.
        caption: What is to be seen, for people who see it.
        section: Section of the report that shows it.
        alt: What is to be seen, with the numbers, for people who do not.
    """

    id: str
    file: str
    title: str
    caption: str
    section: str
    alt: str


class FigureList(TypedDict):
    """All figures."""

    figures: list[FigureEntry]


FIGURE_LIST = Artifact("list of figures", "draw_figures", 1, FigureList)
