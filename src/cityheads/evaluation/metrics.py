"""Segmentation scores from one confusion matrix, and how far they would move with other parents.

Everything here takes confusion matrices of shape ``(..., C, C)``, rows true and columns predicted, so that one
function serves a chip, a parent, a whole split or two thousand resamples of it.

A class without a labelled pixel has no score: its IoU, precision, recall and F1 are NaN, never 0, and means leave it
out. That holds even where a model predicts such a class (those pixels count against the classes that they really
are). So two models scored on the same labels are always averaged over the same classes.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import Any

import numpy as np

from cityheads.core.classes import IGNORE

__all__ = [
    "BOOTSTRAP_SEED",
    "CONFIDENCE",
    "RESAMPLES",
    "accuracy",
    "class_iou",
    "confusion_matrix",
    "f1",
    "head_metric",
    "interval",
    "mean_defined",
    "or_none",
    "parent_variance",
    "precision",
    "recall",
    "resample_counts",
    "summary",
    "t_quantile",
]

#: Intervals of what an evaluation says about one model. The gate's own settings act on the differences between models
#: only, so that changing them does not call for a new evaluation.
CONFIDENCE, RESAMPLES, BOOTSTRAP_SEED = 0.95, 2000, 0

#: A statistic that is undefined in more than this share of the resamples has no variance that one could trust.
_MOST_UNDEFINED = 0.05

#: Above this many degrees of freedom Student's t is the normal distribution to five digits.
_NORMAL_DF = 1e5


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, classes: int, ignore: int = IGNORE) -> np.ndarray:
    """Count pixels by true and predicted class.

    Args:
        true: Labels of any shape, integers in 0..classes-1 or ``ignore``.
        predicted: Predictions of the same shape, integers in 0..classes-1 where the label is not ``ignore``.
        classes: Number of classes, C.
        ignore: Label value of pixels that do not count.

    Returns:
        (C, C) int64, rows true, columns predicted.

    Raises:
        ValueError: The shapes differ, or a value is no class.
    """
    if true.shape != predicted.shape:
        raise ValueError(f"labels of shape {true.shape} and predictions of shape {predicted.shape}")
    counted = true != ignore
    rows, columns = true[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for what, values in (("label", rows), ("prediction", columns)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"{what} {values.max() if values.max() >= classes else values.min()} of {classes} classes")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def _parts(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give hits, true pixels and predicted pixels per class, (..., C) float64 each."""
    confusion = np.asarray(confusion, dtype=np.float64)
    return np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1), confusion.sum(-2)


def _ratio(numerator: np.ndarray, denominator: np.ndarray, defined: np.ndarray) -> np.ndarray:
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=out, where=defined & (denominator > 0))
    return out


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Give intersection over union per class, (..., C); NaN for a class without a labelled pixel."""
    hits, true, predicted = _parts(confusion)
    return _ratio(hits, true + predicted - hits, true > 0)


def precision(confusion: np.ndarray) -> np.ndarray:
    """Give the share of a class's predictions that are right, (..., C).

    NaN for a class without a labelled pixel, and for one that was never predicted.
    """
    hits, true, predicted = _parts(confusion)
    return _ratio(hits, predicted, true > 0)


def recall(confusion: np.ndarray) -> np.ndarray:
    """Give the share of a class's pixels that were found, (..., C); NaN for a class without a labelled pixel."""
    hits, true, _ = _parts(confusion)
    return _ratio(hits, true, true > 0)


def f1(confusion: np.ndarray) -> np.ndarray:
    """Give the F1 score (Dice) per class, (..., C); NaN for a class without a labelled pixel."""
    hits, true, predicted = _parts(confusion)
    return _ratio(2 * hits, true + predicted, true > 0)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Give the share of labelled pixels that are right, (...); NaN without a labelled pixel."""
    hits, true, _ = _parts(confusion)
    total = true.sum(-1)
    return _ratio(hits.sum(-1), total, total > 0)


def mean_defined(values: np.ndarray) -> np.ndarray:
    """Average the last axis over its defined (not NaN) entries; NaN where there is none."""
    defined = ~np.isnan(values)
    count = defined.sum(-1)
    return _ratio(np.where(defined, values, 0.0).sum(-1), count.astype(float), count > 0)


def head_metric(confusion: np.ndarray, name: str) -> np.ndarray:
    """Give the score by which a head is judged, (...), in 0..1 or NaN.

    Args:
        confusion: (..., C, C).
        name: ``miou``, the mean IoU over the classes that have labelled pixels; or ``iou``, the IoU of the last class.
    """
    if name == "miou":
        return mean_defined(class_iou(confusion))
    if name == "iou":
        return class_iou(confusion)[..., -1]
    raise ValueError(f"metric '{name}' is neither miou nor iou")


def or_none(value: Any, digits: int | None = None) -> Any:
    """Turn NaN into None and numpy numbers into Python's, at any depth, for JSON."""
    if np.ndim(value):
        return [or_none(item, digits) for item in value]
    number = float(value)
    if math.isnan(number):
        return None
    return number if digits is None else round(number, digits)


def summary(confusion: np.ndarray) -> dict[str, Any]:
    """Give all scores of one (C, C) matrix as JSON values, undefined ones as None."""
    ious, f1s = class_iou(confusion), f1(confusion)
    return {
        "confusion": [[int(count) for count in row] for row in confusion],
        "iou": or_none(ious),
        "miou": or_none(mean_defined(ious)),
        "f1": or_none(f1s),
        "mf1": or_none(mean_defined(f1s)),
        "precision": or_none(precision(confusion)),
        "recall": or_none(recall(confusion)),
        "accuracy": or_none(accuracy(confusion)),
    }


def resample_counts(parents: int, resamples: int, seed: int) -> np.ndarray:
    """Draw bootstrap resamples: how often each parent was drawn, (resamples, parents) int64, rows summing to parents.

    The same seed gives the same draws, which is what pairs two models: both are scored on the same resampled parents.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(parents, np.full(parents, 1 / parents), size=resamples)


def parent_variance(samples: np.ndarray, parents: int) -> float:
    """Estimate the variance of a statistic over parents from its bootstrap resamples.

    The plain bootstrap variance of a mean of n is (n - 1) / n of the unbiased one, which matters at five parents;
    n / (n - 1) puts it right (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 3).

    Args:
        samples: (resamples,) values of the statistic; NaN where a resample left it undefined, which is left out.
        parents: Number of parents, n.

    Returns:
        The variance; NaN with fewer than two parents, or when more than one resample in twenty is undefined (a class
        that lies in very few parents).
    """
    defined = samples[~np.isnan(samples)]
    if parents < 2 or defined.size < (1 - _MOST_UNDEFINED) * samples.size:
        return math.nan
    return float(defined.var()) * parents / (parents - 1)


@functools.cache
def t_quantile(probability: float, df: float) -> float:
    """Give Student's t quantile, by integrating the density; ``df`` need not be whole.

    With t = sqrt(df) tan(a) the density becomes cos(a)^(df - 1) on an interval, which a trapezoid sum integrates.

    Args:
        probability: Strictly between 0 and 1.
        df: Degrees of freedom, at least 1.
    """
    if df > _NORMAL_DF:
        return NormalDist().inv_cdf(probability)
    # beyond this angle the remaining mass is below 1e-12 of the whole; a finer grid where the mass is narrow
    widest = min(math.pi / 2, 12 / math.sqrt(df)) if df > 60 else math.pi / 2
    # steps shrink towards the far end, where the density of a few degrees of freedom bends sharply
    angles = widest * (1 - np.linspace(1, 0, 20001) ** 2)
    density = np.cos(angles) ** (df - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(angles))])
    upper = np.interp(abs(probability - 0.5) * 2, mass / mass[-1], angles)
    return math.copysign(math.sqrt(df) * math.tan(float(upper)), probability - 0.5)


def interval(
    point: float, variance: float, df: float, confidence: float, bounds: tuple[float, float]
) -> tuple[float, float] | None:
    """Give the confidence interval of a statistic from its variance over parents, by Student's t.

    Percentiles of the resamples are too narrow for a handful of parents (docs/verdict.md shows how much); the bootstrap
    standard error with a t quantile is not.

    Args:
        point: The statistic on the whole split.
        variance: Its variance, `parent_variance`.
        df: Degrees of freedom of the variance, parents - 1 for one level.
        confidence: For example 0.95.
        bounds: Smallest and largest possible value, to which the interval is clipped.

    Returns:
        Lower and upper end, or None where the statistic or its variance is undefined.
    """
    if math.isnan(point) or math.isnan(variance):
        return None
    half = 0.0 if variance == 0 else t_quantile(0.5 + confidence / 2, df) * math.sqrt(variance)
    return max(bounds[0], point - half), min(bounds[1], point + half)
