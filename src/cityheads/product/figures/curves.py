"""Validation scores and losses by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cityheads.product.figures.evidence import Evidence, LineStyle
from cityheads.product.figures.sheet import Drawing, Sheet

__all__ = ["draw_curves"]

_HEIGHT_IN = 2.35
_TRAIN = "#8b95a1"


def draw_curves(evidence: Evidence) -> list[Drawing]:
    """Draw the validation metric per head and the loss per run."""
    results = evidence.results
    kept: dict[tuple[str, int], int] = {
        (run, seed): results.training(run, seed)["kept_epoch"] for run in results.runs for seed in results.seeds
    }
    return [_scores(evidence, kept), _losses(evidence, kept)]


def _scores(evidence: Evidence, kept: dict[tuple[str, int], int]) -> Drawing:
    runs = evidence.results.runs
    heads = list(dict.fromkeys(head for of_run in runs.values() for head in of_run))
    title = "Validation score by epoch"
    sheet, cells = _cells(evidence, len(heads), title)
    for axes, head in zip(cells, heads, strict=True):
        lines = []
        for run in (run for run, of_run in runs.items() if head in of_run):
            color, dashes = evidence.run_style(run)
            _plot(evidence, axes, run, f"val/{head}/{evidence.metric(head).name}", kept, 100.0, color, dashes)
            lines.append(_line(run, color, dashes))
        _frame(axes, f"{head}: {evidence.metric(head).title}, %", lines)
    _fit(sheet, cells)
    epochs = "; ".join(f"{run} seed {seed} epoch {epoch + 1}" for (run, seed), epoch in kept.items())
    return Drawing(
        id="curves_score",
        section="curves",
        title=title,
        caption="Each line is one training; the dot marks the epoch whose weights were kept. The shared model is solid "
        "blue, single-task models are dashed orange.",
        alt=f"Line charts of the validation metric by epoch for the heads {', '.join(heads)}. Kept epochs: {epochs}.",
        figure=sheet.figure,
    )


def _losses(evidence: Evidence, kept: dict[tuple[str, int], int]) -> Drawing:
    runs = list(evidence.results.runs)
    title = "Loss by epoch"
    sheet, cells = _cells(evidence, len(runs), title)
    for axes, run in zip(cells, runs, strict=True):
        color, _ = evidence.run_style(run)
        _plot(evidence, axes, run, "train/loss", kept, 1.0, _TRAIN, "-", mark=False)
        _plot(evidence, axes, run, "val/loss", kept, 1.0, color, "-")
        _frame(axes, f"{run}: loss", [_line("train", _TRAIN, "-"), _line("val", color, "-")])
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _fit(sheet, cells)
    return Drawing(
        id="curves_loss",
        section="curves",
        title=title,
        caption="Loss on train and val. A run with several heads sums their losses, so the heights of different runs "
        "do not compare; the gap between train and val does.",
        alt=f"Line charts of training and validation loss by epoch for the runs {', '.join(runs)}.",
        figure=sheet.figure,
    )


def _cells(evidence: Evidence, count: int, title: str) -> tuple[Sheet, list[Axes]]:
    """Start a figure of axes for ``count`` charts, row by row."""
    columns = 2 if count in (2, 4) else min(3, count)
    rows = math.ceil(count / columns)
    sheet = Sheet(title, simulated=evidence.simulated, height=rows * _HEIGHT_IN)
    grid = sheet.body.add_gridspec(rows, columns)
    cells = [sheet.body.add_subplot(grid[divmod(index, columns)]) for index in range(count)]
    for axes in cells[-columns:]:
        axes.set_xlabel("epoch")
    return sheet, cells


def _fit(sheet: Sheet, cells: Sequence[Axes]) -> None:
    first = [axes for axes in cells if axes.get_subplotspec().colspan.start == 0]  # type: ignore[union-attr]
    sheet.fit(first, len(first) * _HEIGHT_IN)


def _plot(
    evidence: Evidence,
    axes: Axes,
    run: str,
    column: str,
    kept: dict[tuple[str, int], int],
    factor: float,
    color: str,
    dashes: LineStyle,
    *,
    mark: bool = True,
) -> None:
    """Plot one column of the histories of a run, a line for each seed."""
    results = evidence.results
    several = len(results.seeds) > 1
    for seed in results.seeds:
        history = results.history(run, seed)
        there = np.isfinite(history[column])
        # people count epochs from 1, as the progress messages do
        epoch, values = history["epoch"][there] + 1, history[column][there] * factor
        axes.plot(
            epoch, values, color=color, linestyle=dashes, linewidth=1.3 if several else 1.7,
            alpha=0.75 if several else 1,
        )  # fmt: skip
        at = np.flatnonzero(epoch == kept[run, seed] + 1)
        if mark and len(at):
            axes.plot(
                epoch[at[0]], values[at[0]], "o", color=color, markersize=5.5, markeredgecolor="white",
                markeredgewidth=1, zorder=5,
            )  # fmt: skip


def _line(name: str, color: str, dashes: LineStyle) -> Line2D:
    return Line2D([], [], color=color, linestyle=dashes, linewidth=1.7, label=name)


def _frame(axes: Axes, title: str, lines: Sequence[Line2D]) -> None:
    axes.grid(True, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.02, y=0.12)
    options: dict[str, Any] = {"handlelength": 2.0, "columnspacing": 1.2, "handletextpad": 0.5, "fontsize": 7.5}
    axes.legend(
        handles=list(lines), title=title, alignment="left", title_fontproperties={"weight": "bold", "size": 9},
        loc="lower left", bbox_to_anchor=(0, 1), ncols=min(3, len(lines)), borderaxespad=0.2, **options,
    )  # fmt: skip
