"""What a design could have seen, and what another one would: power of the intervals of `crossed`.

Planning numbers: they take the variances at hand for the true ones. The variance over parents falls as 1 / parents,
that over trainings as 1 / seeds and not with the parents; the degrees of freedom grow along.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy import special

from cityheads.core.artifacts.gate import Needed, Power
from cityheads.evaluation.bootstrap import t_quantile
from cityheads.evaluation.crossed import Effect

__all__ = ["MOST_PARENTS", "MOST_SEEDS", "POWER", "Outlook", "power_of"]

POWER = 0.8

#: More than these are not an advice but a way to say that something cannot be had.
MOST_PARENTS = 1000
MOST_SEEDS = 50

#: Above this many degrees of freedom the t distributions are normal to four digits.
_NORMAL_DF = 1e4


@dataclass(frozen=True)
class Outlook:
    """An effect as it would be with other numbers of parents and seeds, were its value and its variances to stay.

    Attributes:
        point: In pp.
        parents_variance: Of one parent, in square pp.
        parents_df: Degrees of freedom that each parent brings.
        training_variance: Of one seed.
        training_df: Degrees of freedom that each seed after the first brings.
    """

    point: float
    parents_variance: float
    parents_df: float
    training_variance: float
    training_df: float

    @classmethod
    def of(cls, effect: Effect) -> Outlook:
        """Take the variances of an effect apart."""
        parents = effect.influence.shape[1]
        seeds = effect.seeds
        return cls(
            effect.point,
            effect.parents_variance * parents,
            effect.parents_df / max(1, parents - 1),
            effect.training_variance * seeds,
            effect.training_df / max(1, seeds - 1),
        )

    def half_width(self, parents: int, seeds: int, confidence: float) -> float:
        """Give half the width of the interval, as `Effect.half_width`."""
        return self._width(parents, seeds, lambda df: t_quantile(0.5 + confidence / 2, df))

    def detectable(self, parents: int, seeds: int, confidence: float) -> float:
        """Give the smallest difference whose interval excludes zero with a probability of `POWER`."""
        return self._width(parents, seeds, lambda df: _detectable_errors(0.5 + confidence / 2, df))

    def _width(self, parents: int, seeds: int, errors: Callable[[float], float]) -> float:
        if math.isnan(self.parents_variance):
            return math.nan
        return math.hypot(
            errors(max(1.0, self.parents_df * (parents - 1))) * math.sqrt(self.parents_variance / parents),
            errors(max(1.0, self.training_df * (seeds - 1))) * math.sqrt(self.training_variance / seeds),
        )


@functools.cache
def _detectable_errors(probability: float, df: float) -> float:
    """Give the difference, in standard errors, that a t test finds with `POWER`: by the noncentral t distribution."""
    if df > _NORMAL_DF:
        return t_quantile(probability, math.inf) + t_quantile(POWER, math.inf)
    return float(special.nctdtrinc(df, 1 - POWER, t_quantile(probability, df)))


def power_of(effect: Effect | None, confidence: float, margins_pp: Sequence[float]) -> Power:
    """Say what a design could have seen, and what the margins need.

    Args:
        effect: The difference; None where undefined.
        confidence: Of its interval.
        margins_pp: Margins; one of zero is left out, since nothing shows that two models are exactly alike.
    """
    if effect is None or math.isnan(effect.half_width(confidence)):
        return {"power": POWER, "detectable_pp": None, "needed": []}
    outlook = Outlook.of(effect)
    parents, seeds = effect.influence.shape[1], effect.seeds
    needed = []
    if seeds > 1:
        needed = [_needed(outlook, margin, parents, seeds, confidence) for margin in sorted({*margins_pp} - {0})]
    return {
        "power": POWER,
        "detectable_pp": round(outlook.detectable(parents, seeds, confidence), 2),
        "needed": needed,
    }


def _needed(outlook: Outlook, margin: float, parents: int, seeds: int, confidence: float) -> Needed:
    def fewest_parents(many_seeds: int) -> int | None:
        if outlook.detectable(MOST_PARENTS, many_seeds, confidence) > margin:
            return None
        low, high = 2, MOST_PARENTS
        while low < high:
            middle = (low + high) // 2
            if outlook.detectable(middle, many_seeds, confidence) <= margin:
                high = middle
            else:
                low = middle + 1
        return low

    enough = (n for n in range(2, MOST_SEEDS + 1) if outlook.detectable(parents, n, confidence) <= margin)
    pairs = [(fewest_parents(n), n) for n in range(2, MOST_SEEDS + 1)]
    both = min(((found * n, found, n) for found, n in pairs if found is not None), default=None)
    return {
        "margin_pp": margin,
        "parents": fewest_parents(seeds),
        "seeds": next(enough, None),
        "both": None if both is None else [both[1], both[2]],
    }
