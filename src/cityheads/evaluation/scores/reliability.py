"""How far probabilities can be taken at their word: NLL, Brier score, and expected calibration error with its bins.

Guo, Pleiss, Sun, Weinberger (2017), On calibration of modern neural networks, ICML: ECE of the most likely class.
Kull et al. (2019), Beyond temperature scaling, NeurIPS: the same for each class's probability.
"""

from __future__ import annotations

import numpy as np

from cityheads.core.classes import IGNORE
from cityheads.evaluation.scores.over_parents import divide

__all__ = ["BINS", "EDGES", "TINY", "ProbabilitySums", "bin_means", "ece", "probability_sums"]

#: Number of bins of equal width of the reliability diagram, as Guo et al. have it.
BINS = 15
EDGES = np.linspace(0, 1, BINS + 1)

#: Lower probabilities count as this in logarithms: one wrong pixel of probability 0 must not make the NLL infinite.
TINY = 1e-6


class ProbabilitySums:
    """Sums over the labelled pixels of each sub-chip.

    Attributes:
        pixels: (N,) number of labelled pixels.
        nll: (N,) sum of the negative log-likelihoods of the labels, in nats.
        brier: (N,) sum of the squared differences between probabilities and label, over all classes.
        bins: (N, 1 + C, BINS, 3) of each bin the number of pixels, the sum of their probabilities, and the number of
            them that are so; first of the most likely class, then of each class.
    """

    def __init__(self, chips: int, classes: int) -> None:
        self.pixels = np.zeros(chips)
        self.nll = np.zeros(chips)
        self.brier = np.zeros(chips)
        self.bins = np.zeros((chips, 1 + classes, BINS, 3))


def probability_sums(probabilities: np.ndarray, masks: np.ndarray) -> ProbabilitySums:
    """Compare probabilities with labels, sub-chip by sub-chip.

    Args:
        probabilities: (N, C, h, w), summing to 1 over C.
        masks: (N, h, w) uint8 labels, 255 = ignore.
    """
    count, classes = probabilities.shape[:2]
    sums = ProbabilitySums(count, classes)
    for index in range(count):
        labelled = masks[index] != IGNORE
        scores = probabilities[index][:, labelled].astype(np.float64)
        truth = masks[index][labelled].astype(np.int64)
        pixels = np.arange(truth.size)
        hit = np.zeros_like(scores)
        hit[truth, pixels] = 1
        sums.pixels[index] = truth.size
        sums.nll[index] = -np.log(np.maximum(scores[truth, pixels], TINY)).sum()
        sums.brier[index] = ((scores - hit) ** 2).sum()
        best = scores.argmax(0)
        sums.bins[index, 0] = _bins(scores[best, pixels], best == truth)
        for class_id in range(classes):
            sums.bins[index, 1 + class_id] = _bins(scores[class_id], hit[class_id])
    return sums


def _bins(probability: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Sort (n,) probabilities into bins [low, high), the last with its end: (BINS, 3) count, probability, hits."""
    which = np.clip(np.searchsorted(EDGES, probability, side="right") - 1, 0, BINS - 1)
    parts = (np.bincount(which, weights, BINS) for weights in (None, probability, hit.astype(np.float64)))
    return np.stack(list(parts), axis=1)


def bin_means(bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give mean probability and frequency of each bin, (..., BINS) each, from (..., BINS, 3); NaN for empty ones."""
    return divide(bins[..., 1], bins[..., 0]), divide(bins[..., 2], bins[..., 0])


def ece(bins: np.ndarray) -> np.ndarray:
    """Give the expected calibration error, (...), from (..., BINS, 3) sums.

    The difference of mean probability and frequency, averaged over bins with the weight of their pixels; NaN without
    pixels.
    """
    return divide(np.abs(bins[..., 1] - bins[..., 2]).sum(-1), bins[..., 0].sum(-1))
