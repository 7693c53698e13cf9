"""Confusion counts and what follows from them: the one place that decides which pixels count and what an IoU is.

Scores take confusion matrices of shape ``(..., C, C)``, rows true and columns predicted, so that one function serves a
chip, a parent, a whole split or two thousand resamples of it.

A class without a labelled pixel has no score: its IoU, precision, recall and F1 are NaN, never 0, and means leave it
out. That holds even where a model predicts such a class (those pixels count against the classes that they really
are). So two models scored on the same labels are always averaged over the same classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cityheads.core.classes import IGNORE

__all__ = [
    "METRICS",
    "HeadMetric",
    "accuracy",
    "class_iou",
    "confusion_matrix",
    "f1",
    "mean_defined",
    "metric_title",
    "or_none",
    "pair_counts",
    "precision",
    "recall",
]

#: Scores by which a head can be compared.
METRICS = ("miou", "iou")


def pair_counts(one: np.ndarray, two: np.ndarray, n_one: int, n_two: int) -> np.ndarray:
    """Count the pixels of each pair of classes.

    Args:
        one: Class ids of any shape, integers in 0..n_one-1.
        two: Class ids of the same shape, integers in 0..n_two-1.
        n_one: Number of classes of ``one``.
        n_two: Number of classes of ``two``.

    Returns:
        (n_one, n_two) int64.

    Raises:
        ValueError: A value is no class.
    """
    _check_ids("first id", one, n_one)
    _check_ids("second id", two, n_two)
    pairs = one.astype(np.int64) * n_two + two
    return np.bincount(pairs.ravel(), minlength=n_one * n_two).reshape(n_one, n_two)


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, classes: int, ignore: int = IGNORE) -> np.ndarray:
    """Count the labelled pixels by true and predicted class.

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
    rows, columns = true[counted], predicted[counted]
    _check_ids("label", rows, classes)
    _check_ids("prediction", columns, classes)
    return pair_counts(rows, columns, classes, classes)


def _check_ids(what: str, values: np.ndarray, classes: int) -> None:
    if values.size and not 0 <= values.min() <= values.max() < classes:
        raise ValueError(f"{what} {values.max() if values.max() >= classes else values.min()} of {classes} classes")


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


@dataclass(frozen=True)
class HeadMetric:
    """The score by which a head is compared: called with (..., C, C) counts it gives (...) in 0..1, or NaN.

    Attributes:
        name: ``miou``, the mean IoU over the classes that have labelled pixels; or ``iou``, the IoU of one class.
        classes: Names of the head's classes, in the order of their ids.
        positive_class: Name of the class whose IoU ``iou`` is; None for ``miou``.
    """

    name: str
    classes: tuple[str, ...]
    positive_class: str | None = None

    @classmethod
    def of(cls, name: str, classes: Sequence[str], positive_class: str | None = None) -> HeadMetric:
        """Make the metric that a config or a model names.

        Raises:
            ValueError: There is no such metric, or ``iou`` without a class of the head.
        """
        if name not in METRICS:
            raise ValueError(f"metric '{name}' is neither miou nor iou")
        if name == "iou" and positive_class not in classes:
            raise ValueError(f"metric iou: the positive class {positive_class} is none of {', '.join(classes)}")
        return cls(name, tuple(classes), positive_class if name == "iou" else None)

    @property
    def positive(self) -> int | None:
        """Id of the positive class; None for ``miou``."""
        return None if self.positive_class is None else self.classes.index(self.positive_class)

    @property
    def title(self) -> str:
        """What people call it: ``mIoU``, or ``IoU of building``."""
        return metric_title(self.name, self.positive_class)

    def __call__(self, confusion: np.ndarray) -> np.ndarray:
        """Score (..., C, C) counts, rows true."""
        ious = class_iou(confusion)
        return mean_defined(ious) if self.positive is None else ious[..., self.positive]


def metric_title(name: str, positive_class: str | None) -> str:
    """Say what a head's metric is, for people: ``mIoU``, or ``IoU of building``."""
    return f"IoU of {positive_class}" if name == "iou" else "mIoU"


def or_none(value: Any, digits: int | None = None) -> Any:
    """Turn undefined scores (NaN) into None and numpy numbers into Python's, at any depth, for JSON."""
    if np.ndim(value):
        return [or_none(item, digits) for item in value]
    number = float(value)
    if math.isnan(number):
        return None
    return number if digits is None else round(number, digits)
