"""How far a score would move with other test parents: resampled parents, and intervals by Student's t."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

__all__ = ["CONFIDENCE", "RESAMPLES", "SEED", "interval", "parent_variance", "resample_counts", "t_quantile"]

#: Intervals of what an evaluation says about one model. The settings of the non-inferiority test act on the
#: differences between models only, so that changing them does not call for a new evaluation.
CONFIDENCE, RESAMPLES, SEED = 0.95, 2000, 0

#: A statistic that is undefined in more than this share of the resamples has no variance that one could trust.
_MOST_UNDEFINED = 0.05


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


def t_quantile(probability: float, df: float) -> float:
    """Give the quantile of Student's t; ``df`` need not be whole and may be infinite."""
    return float(special.stdtrit(df, probability))


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
