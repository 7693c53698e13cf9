"""Statistics that follow from sums, with their intervals over the choice of parents."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from cityheads.core.artifacts.metrics import Estimate
from cityheads.core.confusion import or_none
from cityheads.evaluation import bootstrap

__all__ = ["Bounds", "divide", "estimate", "sum_by_parent"]

#: Smallest and largest possible value of a statistic.
Bounds = tuple[float, float]


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide element by element in float64; NaN where the denominator is not above 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def sum_by_parent(values: np.ndarray, parents: Sequence[str]) -> np.ndarray:
    """Add (N, ...) values of sub-chips up to (parents, ...) float64, parents in the order of their first sub-chip."""
    names = list(dict.fromkeys(parents))
    of_chip = np.array([names.index(parent) for parent in parents])
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, of_chip, values)
    return sums


def estimate(statistic: Callable[[np.ndarray], np.ndarray], sums: np.ndarray, bounds: Bounds = (0.0, 1.0)) -> Estimate:
    """Give a statistic of all parents together and its interval over the choice of parents.

    Args:
        statistic: From (..., K) sums to (...) values, NaN where undefined.
        sums: (parents, K) sums of each parent, such as counts; parents whose sums are all 0 are left out.
        bounds: Smallest and largest possible value.
    """
    sums = sums[np.any(sums != 0, axis=1)]
    if not len(sums):
        return {"value": None, "interval": None}
    value = float(statistic(sums.sum(0)))
    if math.isnan(value):
        return {"value": None, "interval": None}
    variance = bootstrap.parent_variance(statistic(_draws(len(sums)) @ sums), len(sums))
    found = bootstrap.interval(value, variance, len(sums) - 1, bootstrap.CONFIDENCE, bounds)
    return {"value": or_none(value), "interval": None if found is None else list(found)}


@functools.cache
def _draws(parents: int) -> np.ndarray:
    """Give the resamples, (resamples, parents) float64; the same for all statistics of as many parents."""
    return bootstrap.resample_counts(parents, bootstrap.RESAMPLES, bootstrap.SEED).astype(np.float64)
