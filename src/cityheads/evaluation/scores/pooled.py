"""Class fractions of several evaluations together: of all folds, so that every parent counts, and of all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.core.artifacts.metrics import ClassFractions
from cityheads.core.artifacts.scores import SCORES
from cityheads.evaluation.scores import windows

__all__ = ["pooled_fractions"]

#: Names of the estimates, in the order in which they are given.
_ESTIMATES = ("argmax", "softmax", "calibrated")

#: Rows of the table that make up the sums of `windows.ERROR_SUMS`, from the second one on.
_ROWS = ("{}_error", "{}_absolute_error", "{}_squared_error", "labelled_fraction", "labelled_fraction_squared")


def pooled_fractions(tables: Sequence[Path]) -> dict[str, dict[str, dict[str, ClassFractions]]]:
    """Score the class fractions of one run over all its folds and seeds.

    Seeds see the same windows, so biases and absolute errors are averages over them. Intervals are for the choice of
    parents and leave the chance in the training out.

    Args:
        tables: ``scores.parquet`` of each fold and seed of a run, all of one split.

    Returns:
        By head, window (``circle_160m``) and class, as ``application`` in ``metrics.json``; an estimate that one of
        the evaluations lacks is left out.

    Raises:
        CityHeadsError: A table cannot be read.
    """
    sums: dict[tuple[str, str, str, str], dict[str, np.ndarray]] = {}
    wanted = {row.format(name) for row in _ROWS for name in _ESTIMATES}
    for path in tables:
        for row in _selected(path, wanted):
            key = (row["head"], row["scale"], row["class"], row["metric"])
            parents = sums.setdefault(key, {})
            # the sum over the sub-chip's windows, and their number
            own = np.array([row["value"] * row["n"], row["n"]])
            parents[row["parent"]] = parents.get(row["parent"], np.zeros(2)) + own
    found: dict[str, dict[str, dict[str, ClassFractions]]] = {}
    for head, scale, class_name in dict.fromkeys(key[:3] for key in sums):
        labelled = sums[head, scale, class_name, "labelled_fraction"]
        estimates = {}
        for name in _ESTIMATES:
            parts = [sums.get((head, scale, class_name, row.format(name)), {}) for row in _ROWS]
            # all windows, in every table
            if sum(one[1] for one in parts[0].values()) != sum(one[1] for one in labelled.values()):
                continue
            columns = [[labelled[parent][1] for parent in labelled]]
            columns += [[part[parent][0] for parent in labelled] for part in parts]
            estimates[name] = windows.errors(np.array(columns).T)
        total = np.sum(list(labelled.values()), axis=0)
        found.setdefault(head, {}).setdefault(scale, {})[class_name] = {
            "mean": float(total[0] / total[1]),
            "estimates": estimates,
        }
    return found


def _selected(path: Path, metrics: set[str]) -> list[dict[str, Any]]:
    """Read the rows of some metrics."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = SCORES.read_arrow(path, ("head", "parent", "metric", "class", "scale", "value", "n"))
    kept = pc.is_in(table["metric"].cast(pa.string()), value_set=pa.array(sorted(metrics)))
    rows: list[dict[str, Any]] = table.filter(kept).to_pylist()
    return rows
