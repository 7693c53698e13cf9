"""Agreement beyond chance."""

from __future__ import annotations

import numpy as np

from cityheads.evaluation.scores.over_parents import divide

__all__ = ["kappa"]


def kappa(confusion: np.ndarray) -> np.ndarray:
    """Give Cohen's kappa (Cohen 1960) of (..., C, C) counts: agreement above that of chance, over what is left.

    NaN without a labelled pixel, and where one class is all that is labelled and predicted: chance then agrees fully.
    """
    counts = np.asarray(confusion, np.float64)
    total = counts.sum((-2, -1))
    observed = divide(np.trace(counts, axis1=-2, axis2=-1), total)
    expected = divide((counts.sum(-1) * counts.sum(-2)).sum(-1), total**2)
    return divide(observed - expected, 1 - expected)
