"""Calibration of a head's scores on validation parents: temperature scaling, or isotonic regression if it is better.

Guo, Pleiss, Sun, Weinberger (2017), On calibration of modern neural networks, ICML: one divisor of all logits, fitted
by the likelihood; it leaves the map (the most likely class) as it is. Zadrozny and Elkan (2002), Transforming
classifier scores into accurate multiclass probability estimates, KDD: a monotone map for each class, whose values are
divided by their sum. Isotonic regression has many more degrees of freedom, so it has to prove itself on parents that it
has not seen: each validation parent is scored with what was fitted on the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cityheads.core.artifacts.calibration import HeadCalibration, IsotonicCurve
from cityheads.core.classes import IGNORE
from cityheads.evaluation.scores.ranking import best_threshold, histogram
from cityheads.evaluation.scores.reliability import TINY

__all__ = ["calibrate", "fit_head", "fit_isotonic", "fit_temperature", "nll", "temper"]

#: Pixels that a fit looks at, at most; neighbours are so alike that more add little.
_MOST_PIXELS = 400_000

#: Fewest validation parents for cross-fitting to mean anything.
_FEWEST_PARENTS = 3

#: Steps of the scores that isotonic regression looks at, which bounds the number of its points.
_STEPS = 200

#: Limits of the temperature.
_LOWEST, _HIGHEST = 0.05, 20.0


def temper(probabilities: np.ndarray, temperature: float, axis: int = 0) -> np.ndarray:
    """Divide logits by a temperature, given and returned as probabilities along an axis."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)) / temperature
    logits -= logits.max(axis, keepdims=True)
    scores = np.exp(logits)
    return np.asarray(scores / scores.sum(axis, keepdims=True))


def nll(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Give the mean negative log-likelihood, in nats, of (C, n) probabilities and (n,) labels; NaN without pixels."""
    if truth.size == 0:
        return math.nan
    return float(-np.log(np.maximum(probabilities[truth, np.arange(truth.size)], TINY)).mean())


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Find the temperature with the highest likelihood.

    Args:
        probabilities: (C, n) softmax scores.
        truth: (n,) class ids, n at least 1.
    """
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
    logits -= logits.max(0)
    of_truth = logits[truth, np.arange(truth.size)]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        return float((np.log(np.exp(scale * logits).sum(0)) - scale * of_truth).mean())

    found = minimize_scalar(
        loss, bounds=(math.log(_LOWEST), math.log(_HIGHEST)), method="bounded", options={"xatol": 1e-4}
    )
    # more digits than the fit has would only differ between machines
    return round(math.exp(found.x), 3)


def fit_isotonic(probabilities: np.ndarray, truth: np.ndarray) -> list[IsotonicCurve]:
    """Fit a monotone map of each class's score to its frequency.

    Args:
        probabilities: (C, n) softmax scores.
        truth: (n,) class ids, n at least 1.
    """
    from scipy.optimize import isotonic_regression

    curves: list[IsotonicCurve] = []
    for class_id, scores in enumerate(probabilities):
        step = np.minimum((scores * _STEPS).astype(np.int64), _STEPS - 1)
        count = np.bincount(step, minlength=_STEPS)
        there = count > 0
        mean = np.bincount(step, scores, _STEPS)[there] / count[there]
        share = np.bincount(step, truth == class_id, _STEPS)[there] / count[there]
        fitted = isotonic_regression(share, weights=count[there]).x
        curves.append({"score": mean.round(6).tolist(), "frequency": np.round(fitted, 6).tolist()})
    return curves


def calibrate(probabilities: np.ndarray, found: HeadCalibration) -> np.ndarray:
    """Turn softmax scores into calibrated probabilities, as they are where no calibration could be fitted.

    Args:
        probabilities: (C, ...) softmax scores.
        found: The head's calibration.

    Returns:
        The same shape, float32, summing to 1 over the classes.
    """
    if found["method"] == "temperature" and found["temperature"] is not None:
        return temper(probabilities, found["temperature"]).astype(np.float32)
    if found["method"] == "isotonic" and found["isotonic"] is not None:
        return _apply_isotonic(probabilities, found["isotonic"]).astype(np.float32)
    return np.asarray(probabilities, np.float32)


def _apply_isotonic(probabilities: np.ndarray, curves: Sequence[IsotonicCurve]) -> np.ndarray:
    values = np.stack(
        [
            np.interp(scores, curve["score"], curve["frequency"])
            for scores, curve in zip(probabilities, curves, strict=True)
        ]
    )
    values = np.maximum(values, TINY)
    return np.asarray(values / values.sum(0))


def fit_head(
    probabilities: np.ndarray,
    masks: np.ndarray,
    parents: Sequence[str],
    classes: Sequence[str],
    positive_class: str | None,
) -> HeadCalibration:
    """Fit the calibration of one head on the validation split, and the threshold of its positive class.

    Args:
        probabilities: (N, C, h, w) softmax scores.
        masks: (N, h, w) uint8 labels, 255 = ignore.
        parents: The parent of each of the N sub-chips.
        classes: Names of the C classes.
        positive_class: Name of the positive class; None for a head without one.
    """
    scores, truth, names = _pixels(probabilities, masks, parents)
    there = list(dict.fromkeys(names.tolist()))
    result: HeadCalibration = {
        "classes": list(classes),
        "method": None,
        "temperature": None,
        "isotonic": None,
        "parents": len(there),
        "pixels": int(truth.size),
        "cross_fitted_nll": None,
        "positive_class": positive_class,
        "threshold": None,
    }
    if truth.size == 0:
        return result
    result["method"] = "temperature"
    if len(there) >= _FEWEST_PARENTS:
        losses = _cross_fitted(scores, truth, names)
        result["cross_fitted_nll"] = {name: round(float(loss.mean()), 6) for name, loss in losses.items()}
        gain = losses["temperature"] - losses["isotonic"]
        # better by more than one standard error: the simpler one keeps the benefit of the doubt
        if gain.mean() > gain.std(ddof=1) / math.sqrt(gain.size):
            result["method"] = "isotonic"
    if result["method"] == "isotonic":
        result["isotonic"] = fit_isotonic(scores, truth)
    else:
        result["temperature"] = fit_temperature(scores, truth)
    if positive_class is not None:
        positive = list(classes).index(positive_class)
        counts = sum(
            histogram(calibrate(chip[:, mask != IGNORE], result)[positive], mask[mask != IGNORE] == positive)
            for chip, mask in zip(probabilities, masks, strict=True)
        )
        result["threshold"] = best_threshold(np.asarray(counts))
    return result


def _cross_fitted(scores: np.ndarray, truth: np.ndarray, parents: np.ndarray) -> dict[str, np.ndarray]:
    """Give the mean NLL of each parent, calibrated by what was fitted on the others, by method."""
    losses: dict[str, list[float]] = {"softmax": [], "temperature": [], "isotonic": []}
    for parent in dict.fromkeys(parents.tolist()):
        own = parents == parent
        seen, labels = scores[:, ~own], truth[~own]
        held, held_labels = scores[:, own], truth[own]
        losses["softmax"].append(nll(held, held_labels))
        losses["temperature"].append(nll(temper(held, fit_temperature(seen, labels)), held_labels))
        losses["isotonic"].append(nll(_apply_isotonic(held, fit_isotonic(seen, labels)), held_labels))
    return {name: np.array(values) for name, values in losses.items()}


def _pixels(
    probabilities: np.ndarray, masks: np.ndarray, parents: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give (C, n) scores, (n,) labels and (n,) parents of the labelled pixels, evenly thinned to what a fit takes."""
    step = max(1, math.ceil(np.count_nonzero(masks != IGNORE) / _MOST_PIXELS))
    scores, truth, names = [], [], []
    for chip, mask, parent in zip(probabilities, masks, parents, strict=True):
        labelled = np.flatnonzero(mask.ravel() != IGNORE)[::step]
        scores.append(chip.reshape(len(chip), -1)[:, labelled].astype(np.float64))
        truth.append(mask.ravel()[labelled].astype(np.int64))
        names.append(np.full(labelled.size, parent))
    return np.concatenate(scores, axis=1), np.concatenate(truth), np.concatenate(names)
