"""The histories of the trainings as charts."""

from __future__ import annotations

import numpy as np

from cityheads.config import Config
from cityheads.core.confusion import metric_title
from cityheads.core.text import number
from cityheads.product.report.charts import Chart, Series, chart
from cityheads.product.results import Results

__all__ = ["curves"]


def curves(config: Config, results: Results) -> list[Chart]:
    """Draw the validation metric of every head and the loss of every run, over all folds and seeds."""
    test = config.noninferiority
    charts = []
    for head in results.runs[test.run]:
        rule = config.heads[head]
        runs = {"shared": test.run, "single": test.baselines[head]}
        series = [
            _series(results, kind, run, seed, fold, f"val/{head}/{rule.metric}", 100.0, mark=True)
            for kind, run in runs.items()
            for fold in results.folds
            for seed in results.seeds
        ]
        key = [("shared", f"shared model ({test.run})"), ("single", f"single-task model ({test.baselines[head]})")]
        charts.append(
            _by_epoch(f"{head}: {metric_title(rule.metric, rule.positive_class)} on validation, %", series, key)
        )
    for run in results.runs:
        series = [
            _series(results, kind, run, seed, fold, f"{kind}/loss", 1.0, mark=False)
            for kind in ("train", "val")
            for fold in results.folds
            for seed in results.seeds
        ]
        charts.append(_by_epoch(f"{run}: loss", series, [("train", "training"), ("val", "validation")]))
    return charts


def _series(
    results: Results, kind: str, run: str, seed: int, fold: int, column: str, factor: float, *, mark: bool
) -> Series:
    """Give one column of a history by epoch, counted from 1 as people do; the kept epoch gets a circle."""
    history = results.history(run, seed, fold)
    there = np.isfinite(history[column])
    x, y = history["epoch"][there] + 1, history[column][there] * factor
    kept = results.training(run, seed, fold)["kept_epoch"] + 1
    return Series(kind, x, y, [(kept, float(value)) for value in y[x == kept]] if mark else ())


def _by_epoch(title: str, series: list[Series], key: list[tuple[str, str]]) -> Chart:
    told = []
    for kind, name in key:
        ends = [float(one.y[-1]) for one in series if one.kind == kind and len(one.y)]
        if ends:
            told.append(f"{name} ends at {number(float(np.mean(ends)), 2)}")
    return chart(title, series, key, x_title="epoch", alt=f"{title}, by epoch: {', '.join(told)}.", whole=True)
