"""The sign-flip test: were two models alike, swapping them in any parent would change nothing.

It stands beside the interval since it assumes neither a distribution nor degrees of freedom. It is about the trained
models at hand: what another training would have given is not in it.
"""

from __future__ import annotations

import math

import numpy as np

from cityheads.core.artifacts.gate import PermutationTest
from cityheads.core.confusion import HeadMetric

__all__ = ["sign_flip"]

#: Differences of the score that are this close are the same; the sum of the same counts in another order is not exact.
_SAME = 1e-12


def sign_flip(
    first: np.ndarray, second: np.ndarray, metric: HeadMetric, most: int, seed: int
) -> PermutationTest | None:
    """Test a difference of zero by swapping the two models in some of the parents.

    Args:
        first: (seeds, parents, C, C) counts, rows true. A parent is swapped in all seeds at once.
        second: The same, of the other.
        metric: The head's score; the difference is that of the pooled counts, averaged over the seeds.
        most: All ways to swap are counted if there are no more than this, and otherwise that many are drawn.
        seed: Seed of the draws.

    Returns:
        None where the difference is undefined.
    """
    seeds, parents = first.shape[:2]
    exact = parents < 63 and 2**parents <= most
    if exact:
        swaps = (np.arange(2**parents)[:, None] >> np.arange(parents)) & 1
    else:
        swaps = np.random.default_rng(seed).integers(0, 2, (most, parents))
        # the data as they are belong to the draws, which keeps the test's level exact
        swaps[0] = 0
    shape = first.shape[2:]
    columns = np.concatenate([first, second]).astype(np.float64).transpose(1, 0, 2, 3).reshape(parents, -1)
    turned = np.concatenate([second, first]).astype(np.float64).transpose(1, 0, 2, 3).reshape(parents, -1)
    pooled = columns.sum(0) + swaps.astype(np.float64) @ (turned - columns)
    scores = metric(pooled.reshape(-1, 2, seeds, *shape)).mean(-1)
    differences = np.abs(scores[:, 0] - scores[:, 1])
    if math.isnan(differences[0]):
        return None
    extreme = int((differences >= differences[0] - _SAME).sum())
    return {"p": extreme / len(swaps), "flips": len(swaps), "exact": exact}
