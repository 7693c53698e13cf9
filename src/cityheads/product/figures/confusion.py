"""Confusion matrices of a head: shared and single-task model beside each other."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy

from cityheads.core.text import number, percent
from cityheads.product.figures import style
from cityheads.product.figures.evidence import Evidence
from cityheads.product.figures.sheet import Drawing, Sheet

__all__ = ["draw_confusion"]

#: Side of a cell at its largest.
_CELL_IN = 0.92


def draw_confusion(evidence: Evidence, head: str) -> Drawing:
    """Draw the row-normalized confusion matrices of a head."""
    results, names = evidence.results, evidence.class_names(head)
    title = f"Confusion matrices: {head}"
    sheet = Sheet(title, simulated=evidence.simulated, height=style.WIDTH_IN / 2)
    pair = sheet.body.subplots(1, 2)
    pairs = [(evidence.shared_run, "shared model"), (evidence.baselines[head], "single-task model")]
    shares, told = [], []
    for axes, (run, kind) in zip(pair, pairs, strict=True):
        matrix = np.zeros((len(names), len(names)), np.int64)
        for seed in results.seeds:
            matrix += np.asarray(results.metrics(run, seed)["heads"][head]["confusion"], np.int64)
        pixels = matrix.sum(axis=1)
        share = np.divide(matrix, pixels[:, None], out=np.full(matrix.shape, np.nan), where=pixels[:, None] > 0)
        axes.set_title(f"{kind} ({run})", pad=6)
        # every seed saw the same pixels: they count once
        _frame(axes, share, evidence.classes(evidence.config.heads[head].label), pixels // len(results.seeds))
        shares.append(share)
        recalls = (None if np.isnan(value) else float(value) for value in np.diag(share))
        told.append(f"{kind}: " + ", ".join(f"{n} {percent(value)}" for n, value in zip(names, recalls, strict=True)))
    cell = min(_CELL_IN, sheet.width(pair[0]) / len(names))
    sheet.fit(pair[:1], cell * len(names))
    if _collide(pair[0]):
        for axes in pair:
            axes.tick_params(axis="x", rotation=35)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        sheet.fit(pair[:1], cell * len(names))
    for axes, share in zip(pair, shares, strict=True):
        _numbers(axes, share, cell)
    seeds = f", summed over {len(results.seeds)} seeds" if len(results.seeds) > 1 else ""
    return Drawing(
        id=f"confusion_{head}",
        section="confusion",
        title=title,
        caption="Of the pixels that are truly of the row's class, the share predicted as the column's class, in "
        f"percent; all test parents{seeds}. The diagonal is the recall.",
        alt=f"Two confusion matrices for head {head}. Recall per class, {'; '.join(told)}.",
        figure=sheet.figure,
    )


def _frame(axes: Axes, share: np.ndarray, classes: list[tuple[str, str]], pixels: np.ndarray) -> None:
    """Draw the cells with their names, the colours of the classes beside the rows."""
    names = [name for name, _ in classes]
    axes.imshow(share, cmap=style.SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest")
    axes.set_anchor("W")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), [f"{name}\n{count:,} px" for name, count in zip(names, pixels, strict=True)])
    axes.tick_params(axis="y", length=0, labelcolor=style.INK, pad=11)
    axes.tick_params(axis="x", length=0, labelcolor=style.INK, pad=4)
    where = offset_copy(axes.get_yaxis_transform(), axes.get_figure(root=True), x=-6, units="points")
    for row, (_, color) in enumerate(classes):
        for edge, width in ((style.EDGE, 5.3), (color, 4.5)):
            axes.add_artist(
                Line2D(
                    [0, 0], [row - 0.46, row + 0.46], transform=where, color=edge, linewidth=width,
                    solid_capstyle="butt", clip_on=False,
                )
            )  # fmt: skip
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class, % of the true class")


def _collide(axes: Axes) -> bool:
    """Say whether names below neighbouring columns touch, or nearly."""
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    return any(left.x1 + 0.05 * style.DPI > right.x0 for left, right in itertools.pairwise(boxes))


def _numbers(axes: Axes, share: np.ndarray, cell: float) -> None:
    """Write the shares into cells of ``cell`` inches."""
    for (row, column), value in np.ndenumerate(share):
        known = not np.isnan(value)
        axes.text(
            column, row, number(100 * value, 0 if cell < 0.45 else 1) if known else "n/a",
            ha="center", va="center_baseline", fontsize=min(9, 15 * cell),
            color="white" if value > 0.5 else style.INK if known else style.MUTED,
            fontweight="bold" if known and row == column else "normal",
        )  # fmt: skip
