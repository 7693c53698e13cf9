"""The share of every class in each split."""

from __future__ import annotations

import numpy as np

from cityheads.core.grid import SPLITS
from cityheads.core.text import number, percent
from cityheads.product.figures import style
from cityheads.product.figures.evidence import Evidence
from cityheads.product.figures.sheet import Drawing, Sheet, key, patch

__all__ = ["draw_balance"]

_TITLE = "Class balance"
_ROW_IN = 0.36
_HATCH = "//////"


def draw_balance(evidence: Evidence) -> Drawing:
    """Draw the share of every class per split and label."""
    pixels = evidence.results.statistics["class_pixels"]
    labels = list(evidence.results.classes)
    height = _ROW_IN * len(SPLITS) * len(labels)
    sheet = Sheet(_TITLE, simulated=evidence.simulated, height=height)
    rows = sheet.body.subplots(len(labels), 1, squeeze=False)[:, 0]
    told = []
    for axes, label in zip(rows, labels, strict=True):
        parts = [*((name, color, None) for name, color in evidence.classes(label)), ("ignored", style.IGNORED, _HATCH)]
        for line, split in enumerate(SPLITS):
            counts = np.asarray(pixels[split][label], float)
            shares = counts / counts.sum() if counts.sum() else counts
            at = 0.0
            for (_, color, hatch), share in zip(parts, shares, strict=True):
                axes.barh(line, share, left=at, height=0.72, color=color, edgecolor="white", linewidth=0.8)
                if hatch:
                    axes.barh(
                        line, share, left=at, height=0.72, facecolor="none", hatch=hatch, edgecolor=style.EDGE,
                        linewidth=0,
                    )  # fmt: skip
                if share > 0.045:
                    axes.text(
                        at + share / 2, line, number(100 * share), ha="center", va="center_baseline", fontsize=8,
                        color="white" if style.luminance(color) < 0.5 else style.INK,
                        bbox={"boxstyle": "square,pad=0.15", "facecolor": color, "edgecolor": "none"},
                    )  # fmt: skip
                at += share
            listed = ", ".join(f"{part[0]} {percent(float(s))}" for part, s in zip(parts, shares, strict=True))
            told.append(f"{label} {split}: {listed}")
        axes.set_yticks(range(len(SPLITS)), SPLITS)
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.set_ylim(len(SPLITS) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        key(
            axes, [patch(*part) for part in parts], width=sheet.width(axes), title=label, alignment="left",
            title_fontproperties={"weight": "bold", "size": 9}, loc="lower left", bbox_to_anchor=(0, 1),
        )  # fmt: skip
    sheet.fit(list(rows), height)
    return Drawing(
        id="balance",
        section="balance",
        title=_TITLE,
        caption="Share of all pixels of the kept sub-chips per split, in percent. Ignored pixels neither train nor "
        "count." + (f" Shown is {evidence.results.splits['method']}." if evidence.results.splits["folds"] > 1 else ""),
        alt=f"Stacked bars of class shares. {'; '.join(told)}.",
        figure=sheet.figure,
    )
