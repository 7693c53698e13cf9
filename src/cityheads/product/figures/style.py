"""Colours and type of all figures.

Classes keep the colours of the config everywhere. The run under test is blue and solid, its baselines are orange and
dashed; splits run from light to dark. Blue, orange and vermilion are taken from the palette that Okabe and Ito chose
to be told apart under every common colour vision deficiency ("Color Universal Design", 2008), darkened where they
carry text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

__all__ = [
    "DPI",
    "DROPPED",
    "EDGE",
    "ERRORS",
    "FOLD",
    "IGNORED",
    "INK",
    "KEPT",
    "LINE",
    "MUTED",
    "OTHER_RUNS",
    "SEQUENTIAL",
    "SHARED",
    "SINGLE",
    "SINGLE_INK",
    "SPLIT_COLOR",
    "WIDTH_IN",
    "fold_colors",
    "luminance",
    "style",
]

INK, MUTED, LINE, EDGE = "#1f2933", "#5f6b77", "#c9d0d7", "#9aa5b1"
SPLIT_COLOR = {"train": "#b7c4d2", "val": "#e0a030", "test": "#1f4e79"}
#: Name of a fold.
FOLD = "fold {}"
SHARED, SINGLE = "#1f5f99", "#c8641b"
#: Of the single-task models where it carries text.
SINGLE_INK = "#a84f10"
OTHER_RUNS = ("#00795c", "#a85584", "#7a6a00", "#4b4b4b")
KEPT = "#dfe6ed"
DROPPED = ("#c8641b", "#7b5ea7", "#00795c", "#a8324a", "#7a6a00", "#4b4b4b")
IGNORED = "#e4e7ea"
#: What two models have wrong: colour, and a hatch that tells the two apart without it.
ERRORS: dict[str, tuple[str, str | None]] = {
    "both right": ("#eef1f4", None),
    "only the shared model wrong": ("#d9731f", "////"),
    "only the single-task model wrong": ("#3f8fc5", "...."),
    "both wrong": ("#3b3b46", None),
}
SEQUENTIAL = LinearSegmentedColormap.from_list(
    "cityheads", ["#ffffff", "#c5d8ea", "#6d9dc9", "#1f5f99", "#123c66"]
).with_extremes(bad="#eef0f2")

DPI = 180
WIDTH_IN = 10.0

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#e6eaee",
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.borderpad": 0.2,
    "legend.borderaxespad": 0.4,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    # inches around everything; gaps that are shares of the figure's height would follow the height that they change
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.wspace": 0,
    "figure.constrained_layout.hspace": 0,
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def fold_colors(folds: int) -> dict[str, str]:
    """Give each fold a colour, from light to dark, by its name."""
    return {FOLD.format(fold): to_hex(SEQUENTIAL(0.2 + 0.75 * fold / max(folds - 1, 1))) for fold in range(folds)}


@contextmanager
def style() -> Iterator[None]:
    """Draw with our style alone, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]
        yield


def luminance(color: str) -> float:
    """Give the relative luminance of a colour (WCAG 2.2), on a perceptual scale from 0 to 1."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    return float((0.2126 * red + 0.7152 * green + 0.0722 * blue) ** 0.5)
