"""Predictors that look at no image: the most frequent class, and a ready-made map of something else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cityheads.core.classes import IGNORE

__all__ = ["by_proxy", "most_frequent"]


def most_frequent(masks: np.ndarray, positions: Sequence[int], classes: int) -> int:
    """Give the class with the most labelled pixels in some sub-chips, of several the first; 0 where none has a label.

    Args:
        masks: (N, h, w) uint8, 255 = ignore.
        positions: Sub-chips that count.
        classes: Number of classes.
    """
    counts = np.zeros(classes, np.int64)
    for position in positions:
        labels = np.asarray(masks[position])
        counts += np.bincount(labels[labels != IGNORE], minlength=classes)
    return int(counts.argmax())


def by_proxy(proxy: np.ndarray, standing_in: Sequence[int], positive: int) -> np.ndarray:
    """Give what another label says about a head of two classes.

    Args:
        proxy: (..., h, w) uint8 ids of the other label, 255 = ignore.
        standing_in: Its classes that stand for the positive one.
        positive: Id of the positive class, 0 or 1.

    Returns:
        (..., h, w) uint8: ``positive`` where the other label has such a class, else, also where it knows nothing, the
        other class.
    """
    return np.where(np.isin(proxy, list(standing_in)), positive, 1 - positive).astype(np.uint8)
