"""Two ways to predict, compared on the same test parents: the difference of their scores and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cityheads.core.confusion import HeadMetric
from cityheads.evaluation.crossed import Effect, crossed, total

__all__ = [
    "PP_DIGITS",
    "SCORE_DIGITS",
    "Comparison",
    "compare_paired",
    "round_pp",
    "rounded_interval",
    "score_interval",
    "sum_of",
]

#: Scores are rounded to this many digits (0.01 pp) before they are subtracted, and all that follows uses the rounded
#: numbers: what a page prints is what was decided on, and its columns subtract exactly.
SCORE_DIGITS = 4
PP_DIGITS = SCORE_DIGITS - 2


@dataclass(frozen=True)
class Comparison:
    """Two ways to predict, scored on the same parents with the same seeds.

    Attributes:
        scores: Their scores over all parents, averaged over seeds and rounded; NaN where undefined.
        delta_pp: The first minus the second in percentage points; NaN where undefined.
        per_seed: (2, seeds) scores, rounded.
        per_seed_pp: (seeds,) differences in percentage points.
        effect: The difference with what it varies with; None where ``delta_pp`` is undefined.
    """

    scores: tuple[float, float]
    delta_pp: float
    per_seed: np.ndarray
    per_seed_pp: np.ndarray
    effect: Effect | None

    def interval(self, confidence: float) -> list[float] | None:
        """Give the confidence interval of the difference, or None where it is undefined."""
        return None if self.effect is None else rounded_interval(self.effect, confidence)


def compare_paired(
    first: np.ndarray, second: np.ndarray, metric: HeadMetric, folds: Sequence[int] | None = None
) -> Comparison:
    """Compare two ways to predict on the same parents: what both find hard cancels out.

    Args:
        first: (seeds, parents, C, C) counts, rows true.
        second: The same, of the other; one seed stands for all of the first's.
        metric: The head's score.
        folds: (parents,) fold in which each parent was tested; None if there is one.
    """
    second = np.broadcast_to(second, first.shape)
    # (seeds,) each: the metric of the confusion pooled over parents
    pooled = [np.round(metric(one.sum(1)), SCORE_DIGITS) for one in (first, second)]
    means = [round(float(one.mean()), SCORE_DIGITS) for one in pooled]
    point = round_pp(100 * (means[0] - means[1]))
    per_seed = np.round(100 * (pooled[0] - pooled[1]), PP_DIGITS) + 0.0
    effect = None if math.isnan(point) else crossed(first, second, metric, folds).at(point)
    return Comparison((means[0], means[1]), point, np.stack(pooled), per_seed, effect)


def sum_of(comparisons: Sequence[Comparison]) -> Effect | None:
    """Give the sum of differences on the same parents; None where one of them is undefined."""
    effects = [one.effect for one in comparisons if one.effect is not None]
    if len(effects) < len(comparisons):
        return None
    found = total(effects)
    return found.at(round_pp(found.point))


def rounded_interval(effect: Effect, confidence: float) -> list[float] | None:
    """Give a confidence interval in percentage points, rounded; None where it is undefined."""
    found = effect.interval(confidence)
    return None if found is None else [round_pp(found[0]), round_pp(found[1])]


def score_interval(
    counts: np.ndarray, metric: HeadMetric, confidence: float, folds: Sequence[int] | None = None
) -> list[float] | None:
    """Give the confidence interval of one model's score, 0 to 1, from (seeds, parents, C, C) counts."""
    found = crossed(counts, None, metric, folds).interval(confidence)
    if found is None:
        return None
    return [round(max(0.0, found[0] / 100), SCORE_DIGITS), round(min(1.0, found[1] / 100), SCORE_DIGITS)]


def round_pp(value: float) -> float:
    """Round percentage points; adding 0.0 turns -0.0 into 0.0, which would read as a loss."""
    return round(value, PP_DIGITS) + 0.0
