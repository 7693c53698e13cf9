"""The positive class by its probability: average precision, the precision-recall curve, and where to cut."""

from __future__ import annotations

import math

import numpy as np

from cityheads.evaluation.scores.over_parents import divide

__all__ = [
    "LEVELS",
    "average_precision",
    "best_threshold",
    "f1_at",
    "histogram",
    "iou_at",
    "precision_at",
    "recall_at",
    "thin_curve",
    "threshold_counts",
]

#: Probabilities are counted in this many steps for curves and intervals; the threshold is one of the steps.
LEVELS = 1000


def histogram(probability: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Count pixels by their probability, rounded down to a thousandth: (2, LEVELS + 1) float64, positives first.

    Args:
        probability: (n,) probability of the positive class.
        positive: (n,) bool, what the label says.
    """
    level = np.clip(np.floor(np.asarray(probability, np.float64) * LEVELS + 1e-6), 0, LEVELS).astype(np.int64)
    return np.stack(
        [np.bincount(level[kept], minlength=LEVELS + 1) for kept in (positive, ~np.asarray(positive, bool))]
    ).astype(np.float64)


def _above(counts: np.ndarray) -> np.ndarray:
    """Add (..., LEVELS + 1) counts up from the highest level down: those called positive from each level on."""
    return np.asarray(counts[..., ::-1].cumsum(-1)[..., ::-1])


def average_precision(counts: np.ndarray) -> np.ndarray:
    """Give the average precision, (...), from (..., 2, LEVELS + 1) counts; NaN without a positive.

    The sum over thresholds of precision times the gain in recall, without interpolation.
    """
    hits, alarms = _above(counts[..., 0, :]), _above(counts[..., 1, :])
    total = hits[..., 0]
    precision = np.nan_to_num(divide(hits, hits + alarms))
    return divide((precision * counts[..., 0, :]).sum(-1), total)


def best_threshold(counts: np.ndarray) -> float | None:
    """Give the threshold with the highest F1, the higher of equals, from (2, LEVELS + 1); None without a positive."""
    hits, alarms = _above(counts[0]), _above(counts[1])
    if hits[0] == 0:
        return None
    score = 2 * hits / np.maximum(hits + alarms + hits[0], 1)
    level = len(score) - 1 - int(score[::-1].argmax())
    return level / LEVELS


def threshold_counts(counts: np.ndarray, threshold: float) -> np.ndarray:
    """Give hits, false alarms and misses, (..., 3), of calling positive from a threshold on."""
    level = math.ceil(threshold * LEVELS - 1e-6)
    hits, alarms = counts[..., 0, level:].sum(-1), counts[..., 1, level:].sum(-1)
    return np.stack([hits, alarms, counts[..., 0, :level].sum(-1)], axis=-1)


def thin_curve(counts: np.ndarray, points: int = 101) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give thresholds from 0 to 1 with precision and recall from each on, (points,) each; NaN where undefined."""
    levels = np.linspace(0, LEVELS, points).round().astype(np.int64)
    hits, alarms = _above(counts[0])[levels], _above(counts[1])[levels]
    return levels / LEVELS, divide(hits, hits + alarms), divide(hits, np.full(points, counts[0].sum()))


def precision_at(counts: np.ndarray) -> np.ndarray:
    """Give the share of the pixels called positive that are, from (..., 3) hits, false alarms and misses.

    NaN without a positive, and where nothing was called positive.
    """
    return np.where(_positives(counts) > 0, divide(counts[..., 0], counts[..., 0] + counts[..., 1]), np.nan)


def recall_at(counts: np.ndarray) -> np.ndarray:
    """Give the share of the positives that were called so, from (..., 3); NaN without a positive."""
    return divide(counts[..., 0], _positives(counts))


def f1_at(counts: np.ndarray) -> np.ndarray:
    """Give the F1 score, from (..., 3); NaN without a positive."""
    return divide(
        np.where(_positives(counts) > 0, 2 * counts[..., 0], np.nan), 2 * counts[..., 0] + counts[..., 1:].sum(-1)
    )


def iou_at(counts: np.ndarray) -> np.ndarray:
    """Give the intersection over union, from (..., 3); NaN without a positive."""
    return divide(np.where(_positives(counts) > 0, counts[..., 0], np.nan), counts.sum(-1))


def _positives(counts: np.ndarray) -> np.ndarray:
    return np.asarray(counts[..., 0] + counts[..., 2])
