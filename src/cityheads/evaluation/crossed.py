"""How far a score, or a difference of scores, would move with other test parents and with other trainings.

The design is crossed: every seed tests every parent, and a model (one fold, one seed) tests many of them. Two chances
are at work, and each leaves its own trace:

- *Parents.* Pixels of a parent resemble each other, so parents are what was drawn. What each of them contributes to the
  pooled score (its influence: the derivative of the score by the parent's weight, averaged over the seeds) gives the
  variance over parents, as for every ratio of sums.
- *Trainings.* A model's errors go into all of its parents at once, and no number of parents averages them out. They are
  seen by holding all but one fold at their mean over the seeds and letting that fold's seeds vary.

`Effect.interval` puts the two together. docs/verdict.md shows by simulation what that covers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cityheads.core.confusion import HeadMetric
from cityheads.evaluation.bootstrap import t_quantile

__all__ = ["LEAST_EFFECTIVE", "Effect", "crossed", "effective_parents", "total"]

#: A class of fewer effective parents than this (nine tenths of its pixels in one of two) does not show how it varies.
LEAST_EFFECTIVE = 1.25

#: Variances below this, in square percentage points, are rounding errors of counts that are the same.
_NOTHING = 1e-18


@dataclass(frozen=True)
class Effect:
    """A score or a difference of scores in percentage points, with what it is made of; sums of them are effects again.

    Attributes:
        point: Its value over all parents, averaged over the seeds; NaN where undefined.
        influence: (seeds, parents) what each parent contributes to the deviation from the truth, corrected for the
            share that the parent has in the pooled score; NaN where a class lies in too few parents to show how it
            varies.
        parent_shape: (parents, parents) covariance that the influences would have, up to a factor, were all parents
            alike but for their sizes: it gives the degrees of freedom.
        models: (folds, seeds) the value with one fold's models of one seed, and the mean over the seeds elsewhere.
        fold_shares: (folds,) how much of the score's training variance each fold would have, were its models as noisy
            as all others.
        fold_influence: (seeds, folds) as ``influence``, of whole folds.
        fold_shape: (folds, folds) as ``parent_shape``.
    """

    point: float
    influence: np.ndarray
    parent_shape: np.ndarray
    models: np.ndarray
    fold_shares: np.ndarray
    fold_influence: np.ndarray
    fold_shape: np.ndarray

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return self.models.shape[1]

    @cached_property
    def by_folds(self) -> bool:
        """Whether parents and trainings are told together, from whole folds.

        With one seed a model's noise is only seen as a difference between folds, whose models are different ones.
        """
        return self.seeds == 1 and len(self.models) > 1 and not math.isnan(_sum_of_squares(self.fold_influence))

    @property
    def includes_training(self) -> bool:
        """Whether the interval holds the chance in the trainings; if not, it is about these trained models."""
        return self.seeds > 1 or self.by_folds

    @cached_property
    def parents_variance(self) -> float:
        """Variance over the choice of parents, in square pp; NaN where nothing shows it.

        What the trainings put into the parents' influences is taken out again, since `training_variance` has it.
        """
        if self.by_folds:
            return _sum_of_squares(self.fold_influence)
        found = _sum_of_squares(self.influence)
        if self.seeds == 1 or math.isnan(found):
            return found
        apart = self.influence - self.influence.mean(0)
        return max(0.0, found - float((apart**2).sum()) / (self.seeds * (self.seeds - 1)))

    @cached_property
    def parents_df(self) -> float:
        """Degrees of freedom of `parents_variance` (Bell and McCaffrey 2002), which follow from the sizes alone."""
        return _shape_df(self.fold_shape if self.by_folds else self.parent_shape)

    @cached_property
    def _training(self) -> tuple[float, float]:
        """Variance over the trainings and its degrees of freedom."""
        if self.seeds == 1:
            return 0.0, math.inf
        apart = float(self.models.var(axis=1, ddof=1).sum()) / self.seeds
        df = (self.seeds - 1) * float(self.fold_shares.sum()) ** 2 / float((self.fold_shares**2).sum())
        together = float(self.models.sum(0).var(ddof=1)) / self.seeds
        if together <= max(apart, _NOTHING):
            return (apart, df) if apart > _NOTHING else (0.0, df)
        # the folds of a seed move together: what they have in common is seen seeds - 1 times only
        return together, together**2 / (apart**2 / df + (together - apart) ** 2 / (self.seeds - 1))

    @property
    def training_variance(self) -> float:
        """Variance over the trainings, in square pp; 0 with one seed: left out, or held by the folds."""
        return self._training[0]

    @property
    def training_df(self) -> float:
        """Degrees of freedom of `training_variance`; infinite with one seed."""
        return self._training[1]

    @property
    def standard_error(self) -> float:
        """Standard error in pp; NaN where undefined."""
        return math.sqrt(self.parents_variance + self.training_variance)

    @property
    def df(self) -> float:
        """Degrees of freedom of both variances together (Satterthwaite 1946); infinite where nothing varies."""
        parents, training = self.parents_variance, self.training_variance
        below = parents**2 / self.parents_df + training**2 / self.training_df
        return (parents + training) ** 2 / below if below > 0 else math.inf

    def half_width(self, confidence: float) -> float:
        """Give half the width of the interval, in pp; NaN where undefined.

        Each variance keeps the t quantile of its own degrees of freedom, t1² V1 + t2² V2, which covers at least as
        often as it says (Banerjee 1960). One quantile for their sum, from Satterthwaite's degrees of freedom, does not:
        two seeds that happen to agree would hide how noisy they are.
        """
        parents, training = self.parents_variance, self.training_variance
        if math.isnan(parents) or math.isnan(training):
            return math.nan
        return math.hypot(
            t_quantile(0.5 + confidence / 2, self.parents_df) * math.sqrt(parents),
            t_quantile(0.5 + confidence / 2, self.training_df) * math.sqrt(training),
        )

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Give the confidence interval, or None where it is undefined."""
        half = self.half_width(confidence)
        return None if math.isnan(self.point) or math.isnan(half) else (self.point - half, self.point + half)

    def at(self, point: float) -> Effect:
        """Give the same with another value, such as the rounded one."""
        return replace(self, point=point)


def crossed(
    first: np.ndarray, second: np.ndarray | None, metric: HeadMetric, folds: Sequence[int] | None = None
) -> Effect:
    """Analyse a score, or the difference of two on the same parents.

    Args:
        first: (seeds, parents, C, C) counts, rows true.
        second: The same, of what is subtracted; one seed stands for all of the first's (a model without chance in it).
            None analyses the score of the first alone.
        metric: The head's score.
        folds: (parents,) fold in which each parent was tested; None if there is one.

    Returns:
        In percentage points. Classes without a labelled pixel are left out, as the metric does.
    """
    seeds, parents = first.shape[:2]
    groups = np.zeros(parents, np.int64) if folds is None else np.unique(np.asarray(folds), return_inverse=True)[1]
    number = int(groups.max()) + 1 if parents else 1
    member = (groups[None, :] == np.arange(number)[:, None]).astype(np.float64)
    models = [first.astype(np.float64)]
    if second is not None:
        models.append(np.broadcast_to(second.astype(np.float64), first.shape))
    true = models[0][0].sum(-1)
    held = true.sum(0)
    scored = np.flatnonzero(held > 0) if metric.positive is None else np.array([metric.positive])
    if parents == 0 or not (held[scored] > 0).all() or not scored.size:
        nothing = np.full((seeds, parents), math.nan)
        unknown = np.full((number, seeds), math.nan)
        return Effect(
            math.nan, nothing, np.eye(parents), unknown, np.ones(number), unknown[:, 0], np.eye(number)
        )  # fmt: skip
    shares = true[:, scored] / held[scored]
    raw = np.zeros((seeds, parents, scored.size))
    values = np.zeros((number, seeds))
    point = 0.0
    for sign, counts in zip((1, -1), models, strict=False):
        raw += sign * _class_influence(counts, scored)
        point += sign * float(metric(counts.sum(1)).mean())
        # (folds, seeds, C, C): one fold's counts of one seed, and the mean over the seeds elsewhere
        pooled = np.einsum("fp,spij->fsij", member, counts)
        middle = pooled.mean(1, keepdims=True)
        values += sign * metric(pooled - middle + middle.sum(0))
    scale = 100 / scored.size
    by_class = scale * raw
    influence, shape = _corrected(by_class, shares)
    fold_shares = member @ shares
    if number > 1:
        fold_influence, fold_shape = _corrected(member @ by_class, fold_shares)
    else:
        fold_influence, fold_shape = np.full((seeds, 1), math.nan), np.eye(1)
    return Effect(
        100 * point, influence, shape, 100 * values, (fold_shares**2).sum(1), fold_influence, fold_shape
    )  # fmt: skip


def effective_parents(labelled: np.ndarray) -> np.ndarray:
    """Give the number of equal parents that would vary as much as these: 1 / sum of squared shares.

    Args:
        labelled: (parents, classes) labelled pixels.

    Returns:
        (classes,); 0 for a class without a pixel.
    """
    held = labelled.sum(0).astype(np.float64)
    squares = (labelled.astype(np.float64) ** 2).sum(0)
    return np.divide(held**2, squares, out=np.zeros_like(held), where=squares > 0)


def total(effects: Sequence[Effect]) -> Effect:
    """Give the sum of effects on the same parents, folds and seeds."""
    return Effect(
        point=sum(one.point for one in effects),
        influence=np.sum([one.influence for one in effects], axis=0),
        parent_shape=np.sum([one.parent_shape for one in effects], axis=0),
        models=np.sum([one.models for one in effects], axis=0),
        fold_shares=np.sum([one.fold_shares for one in effects], axis=0),
        fold_influence=np.sum([one.fold_influence for one in effects], axis=0),
        fold_shape=np.sum([one.fold_shape for one in effects], axis=0),
    )


def _class_influence(counts: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Give the derivative of each class's pooled IoU by each parent's weight, (seeds, parents, classes)."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)[..., scored]
    union = counts.sum(-1)[..., scored] + counts.sum(-2)[..., scored] - hits
    whole = union.sum(1, keepdims=True)
    return (hits - hits.sum(1, keepdims=True) / whole * union) / whole


def _corrected(by_class: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the influences over classes, each corrected for how few parents hold the class; and give their shape.

    A parent that holds most of a class pulls the pooled score towards itself, so that the influences show too little of
    how the class varies. Were the class's IoU equally variable in all parents, with shares h of its pixels, the sum of
    squared influences would be short by the factor sum h² (1 - 2 h + sum h²) / sum h²; dividing by it puts that right,
    n / (n - 1) for n equal parents; for one parent nothing does.

    Args:
        by_class: (seeds, parents, classes) influences.
        shares: (parents, classes) shares of the class's labelled pixels, summing to 1 over parents.

    Returns:
        (seeds, parents) corrected influences, NaN where a class lies in too few parents; (parents, parents) their
        covariance under that model with classes independent of each other.
    """
    squares = (shares**2).sum(0)
    alone = squares * LEAST_EFFECTIVE > 1
    seen = (shares**2 * (1 - 2 * shares + squares)).sum(0)
    factors = np.where(alone, math.nan, squares / np.where(alone, 1, seen))
    influence = (np.sqrt(factors) * by_class).sum(-1)
    # covariance of h_p (r_p - sum h r) for independent r
    weights = np.where(alone, 1, factors)
    scaled = shares * weights
    shape = np.diag((shares * scaled).sum(1)) - (shares * scaled) @ shares.T - shares @ (shares * scaled).T
    shape += (scaled * squares) @ shares.T
    return influence, shape


def _sum_of_squares(influence: np.ndarray) -> float:
    """Give the variance over parents, or folds, from (seeds, parents) influences."""
    if influence.shape[1] < 2:
        return math.nan
    found = float((influence.mean(0) ** 2).sum())
    return 0.0 if found < _NOTHING else found


def _shape_df(shape: np.ndarray) -> float:
    square = float((shape**2).sum())
    return max(1.0, float(np.trace(shape)) ** 2 / square) if square > 0 else 1.0
