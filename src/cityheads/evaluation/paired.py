"""Two ways to predict, compared on the same test parents: the difference, its variances and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cityheads.core.confusion import HeadMetric
from cityheads.evaluation import bootstrap

__all__ = ["PP_DIGITS", "SCORE_DIGITS", "Comparison", "Estimate", "compare_paired", "sum_of"]

#: Scores are rounded to this many digits (0.01 pp) before they are subtracted, and all that follows uses the rounded
#: numbers: what a page prints is what was decided on, and its columns subtract exactly.
SCORE_DIGITS = 4
PP_DIGITS = SCORE_DIGITS - 2


@dataclass(frozen=True)
class Estimate:
    """A difference in percentage points with the two variances that make it uncertain.

    Attributes:
        point: The difference on the whole test split, averaged over seeds.
        by_parents: Its variance over the choice of test parents, which falls as 1 / parents.
        by_seeds: Its variance over the seeds, which falls as 1 / seeds; 0 with one seed, which cannot show it.
        parents: Number of test parents, n.
        seeds: Number of seeds, S.
    """

    point: float
    by_parents: float
    by_seeds: float
    parents: int
    seeds: int

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Give the confidence interval, or None where it is undefined.

        The degrees of freedom of the two variances together follow Satterthwaite (1946).
        """
        variance = self.by_parents + self.by_seeds
        df = math.inf
        if variance > 0:
            share = self.by_parents / variance
            df = 1 / (share**2 / (self.parents - 1) + ((1 - share) ** 2 / (self.seeds - 1) if self.seeds > 1 else 0))
        found = bootstrap.interval(self.point, variance, df, confidence, (-math.inf, math.inf))
        return None if found is None else (_round_pp(found[0]), _round_pp(found[1]))

    def with_more(self, parents: int, seeds: int) -> Estimate:
        """Give what this estimate would be with other numbers of parents and seeds, were the point to stay."""
        return replace(
            self,
            by_parents=self.by_parents * self.parents / parents,
            by_seeds=self.by_seeds * self.seeds / seeds,
            parents=parents,
            seeds=seeds,
        )


@dataclass(frozen=True)
class Comparison:
    """Two ways to predict, scored on the same parents with the same seeds.

    Attributes:
        scores: Their scores on the whole split, averaged over seeds and rounded; NaN where undefined.
        delta_pp: The first minus the second in percentage points; NaN where undefined.
        per_seed: (2, seeds) scores, rounded.
        per_seed_pp: (seeds,) differences in percentage points.
        samples: (resamples,) differences in percentage points; None where ``delta_pp`` is undefined.
        estimate: The difference with its variances; None where ``delta_pp`` is undefined.
    """

    scores: tuple[float, float]
    delta_pp: float
    per_seed: np.ndarray
    per_seed_pp: np.ndarray
    samples: np.ndarray | None
    estimate: Estimate | None

    def interval(self, confidence: float) -> list[float] | None:
        """Give the confidence interval of the difference, or None where it is undefined."""
        found = None if self.estimate is None else self.estimate.interval(confidence)
        return None if found is None else list(found)


def compare_paired(
    first: np.ndarray, second: np.ndarray, metric: HeadMetric, draws: np.ndarray | None = None
) -> Comparison:
    """Compare two ways to predict on the same resampled parents: what both find hard cancels out.

    Args:
        first: (seeds, parents, C, C) counts, rows true.
        second: The same, of the other.
        metric: The head's score.
        draws: (resamples, parents), `bootstrap.resample_counts`; None gives the difference without an interval.
    """
    # (seeds,) each: the metric of the confusion pooled over parents
    pooled = [np.round(metric(one.sum(1)), SCORE_DIGITS) for one in (first, second)]
    means = [round(float(one.mean()), SCORE_DIGITS) for one in pooled]
    point = _round_pp(100 * (means[0] - means[1]))
    per_seed = np.round(100 * (pooled[0] - pooled[1]), PP_DIGITS) + 0.0
    samples = estimate = None
    if draws is not None and not math.isnan(point):
        samples = 100 * (_resampled(first, draws, metric) - _resampled(second, draws, metric))
        estimate = _estimate(point, samples, per_seed, first.shape[1])
    return Comparison((means[0], means[1]), point, np.stack(pooled), per_seed, samples, estimate)


def sum_of(comparisons: Sequence[Comparison]) -> Estimate | None:
    """Give the sum of differences that were found with the same draws; None where one of them is undefined."""
    estimates = [one.estimate for one in comparisons if one.estimate is not None]
    samples = [one.samples for one in comparisons if one.samples is not None]
    if len(estimates) < len(comparisons):
        return None
    return _estimate(
        _round_pp(sum(one.point for one in estimates)),
        np.sum(samples, axis=0),
        np.sum([one.per_seed_pp for one in comparisons], axis=0),
        estimates[0].parents,
    )


def _resampled(confusions: np.ndarray, draws: np.ndarray, metric: HeadMetric) -> np.ndarray:
    """Give the metric of every resample, averaged over seeds, (resamples,), from (seeds, parents, C, C) counts."""
    # float64 holds every count below 2**53 exactly, and multiplies faster than integers
    weights = draws.astype(np.float64)
    values = [metric(np.tensordot(weights, one.astype(np.float64), axes=(1, 0))) for one in confusions]
    return np.mean(values, axis=0)


def _estimate(point: float, samples: np.ndarray, per_seed: np.ndarray, parents: int) -> Estimate:
    seeds = len(per_seed)
    by_seeds = float(np.var(per_seed, ddof=1)) / seeds if seeds > 1 else 0.0
    return Estimate(point, bootstrap.parent_variance(samples, parents), by_seeds, parents, seeds)


def _round_pp(value: float) -> float:
    # adding 0.0 turns -0.0 into 0.0, which would read as a loss
    return round(value, PP_DIGITS) + 0.0
