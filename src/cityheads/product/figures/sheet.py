"""A figure with its heading, laid out by matplotlib's constrained layout.

Figures are as wide as the page; how high one is follows from its content: a module says how high its axes are to be,
and `Sheet.fit` adds what the layout engine found titles, tick labels and legends to need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.text import Annotation
from matplotlib.transforms import TransformedBbox

from cityheads.product.figures import style

__all__ = ["Drawing", "Sheet", "beside", "column", "key", "patch"]

#: Inches to lay a figure out in before its height is known; more than any text beside axes needs.
_ROOM_IN = 4.0

#: The layout of axes of a fixed aspect is exact only when their room has that aspect: a second pass sees it.
_PASSES, _ENOUGH_IN = 5, 0.005


@dataclass(frozen=True)
class Drawing:
    """A figure and what the report says about it.

    Attributes:
        id: Name of the file without its suffix.
        section: Section of the report that shows it.
        title: Heading.
        caption: What is to be seen, for people who see it.
        alt: What is to be seen, with the numbers, for people who do not.
        figure: The figure.
    """

    id: str
    section: str
    title: str
    caption: str
    alt: str
    figure: Figure


class Sheet:
    """A figure with a heading.

    Args:
        title: The heading.
        simulated: Whether to put a badge beside it that says so.
        height: Inches that the axes above each other will take together, about.

    Attributes:
        figure: The figure.
        body: What lies below the heading; a figure of its own, so that its legends keep clear of the heading.
    """

    def __init__(self, title: str, *, simulated: bool, height: float) -> None:
        self.figure = Figure(figsize=(style.WIDTH_IN, height + _ROOM_IN), dpi=style.DPI, layout="constrained")
        FigureCanvasAgg(self.figure)
        heading = self.figure.suptitle(title, x=0.006, ha="left")
        if simulated:
            # beside the title, where it stays in sight on a screen that shows the left part of the figure only
            self.figure.add_artist(
                Annotation(
                    "SIMULATED DATA", (1, 0.5), xycoords=heading, xytext=(18, 0), textcoords="offset points",
                    va="center", fontsize=7.5, fontweight="bold", color="#8a3b00", annotation_clip=False,
                    bbox={"boxstyle": "square,pad=0.4", "facecolor": "#fff3e0", "edgecolor": "#d98a3d",
                          "linewidth": 0.8},
                )
            )  # fmt: skip
        self.body = self.figure.add_subfigure(self.figure.add_gridspec(1, 1)[0])

    def size(self, axes: Axes) -> tuple[float, float]:
        """Give width and height in inches of the room that the layout has for axes, before an aspect shrinks them."""
        box = TransformedBbox(axes.get_position(original=True), axes.figure.transSubfigure)
        return box.width / self.figure.dpi, box.height / self.figure.dpi

    def width(self, axes: Axes) -> float:
        """Lay the figure out and give the width of axes in inches."""
        self.figure.draw_without_rendering()
        return self.size(axes)[0]

    def fit(self, stack: Sequence[Axes], height: float) -> None:
        """Choose the figure's height so that axes above each other come out ``height`` inches high together."""
        for _ in range(_PASSES):
            self.figure.draw_without_rendering()
            lacking = height - sum(self.size(axes)[1] for axes in stack)
            if abs(lacking) < _ENOUGH_IN:
                break
            self.figure.set_figheight(self.figure.get_figheight() + lacking)


def patch(text: str, color: str, hatch: str | None = None) -> Patch:
    """Make an entry of a legend: a small square."""
    return Patch(facecolor=color, edgecolor=style.EDGE, linewidth=0.5, hatch=hatch, label=text)


def key(parent: Axes | SubFigure | Figure, entries: Sequence[Patch], *, width: float, **where: Any) -> Legend:
    """Add a legend of as few lines as fit into a width.

    Args:
        parent: Axes or figure.
        entries: From `patch`.
        width: In inches.
        **where: ``loc``, ``bbox_to_anchor`` and what else a legend takes.
    """
    options: dict[str, Any] = {"handlelength": 1.1, "handleheight": 1.1, "handletextpad": 0.5, "columnspacing": 2.2}
    for columns in range(max(len(entries), 1), 0, -1):
        legend = parent.legend(handles=list(entries), ncols=columns, **options, **where)
        if columns == 1 or legend.get_window_extent().width <= width * style.DPI:
            break
        legend.remove()
    return legend


def beside(axes: Axes, y: float, text: str, *, right: bool = False, rise: float = 0, **more: Any) -> None:
    """Write beside axes at the height ``y`` (data), raised by ``rise`` points; the layout makes room for it."""
    axes.annotate(
        text, (1.0 if right else 0.0, y), (8 if right else -8, rise), xycoords=axes.get_yaxis_transform(),
        textcoords="offset points", ha="left" if right else "right", va="center_baseline", annotation_clip=False,
        **more,
    )  # fmt: skip


def column(axes: Axes, heading: str, texts: Sequence[str], *, ha: str) -> None:
    """Turn axes that share their y with bars into a column of texts with a heading; the layout makes it wide enough."""
    axes.set_axis_off()
    at = 0.0 if ha == "left" else 1.0
    for y, text in enumerate(texts):
        axes.text(at, y, text, ha=ha, va="center_baseline", fontsize=8, transform=axes.get_yaxis_transform())
    axes.annotate(
        heading, (at, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", ha=ha, va="bottom",
        fontsize=7.5, color=style.MUTED, annotation_clip=False,
    )  # fmt: skip
