"""``calibration.json``: what makes probabilities of a model's scores, fitted on its validation parents."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["CALIBRATION", "Calibration", "HeadCalibration", "IsotonicCurve"]


class IsotonicCurve(TypedDict):
    """A monotone map of one class's score to its frequency, linear between its points and level beyond them."""

    score: list[float]
    frequency: list[float]


class HeadCalibration(TypedDict):
    """The calibration of one head.

    Attributes:
        classes: Its classes, in the order of their ids.
        method: ``temperature`` or ``isotonic``; None where the split had no labelled pixel to fit it on.
        temperature: Divisor of the logits; None for another method.
        isotonic: A curve for each class, whose values are then divided by their sum; None for another method.
        parents: Number of validation parents with labelled pixels.
        pixels: Number of pixels that it was fitted on.
        cross_fitted_nll: Mean negative log-likelihood over the validation parents, each calibrated by what was fitted
            on the others, per method and for ``softmax``; None with fewer than three parents.
        positive_class: The class that the threshold is for; None for a head without one.
        threshold: Calibrated probability from which on the positive class has the highest F1 on the validation
            parents; None where that is undefined.
    """

    classes: list[str]
    method: str | None
    temperature: float | None
    isotonic: list[IsotonicCurve] | None
    parents: int
    pixels: int
    cross_fitted_nll: dict[str, float] | None
    positive_class: str | None
    threshold: float | None


class Calibration(TypedDict):
    """The calibration of one training; ``parents`` are those of the validation split that it was fitted on."""

    run: str
    fold: int
    seed: int
    parents: list[str]
    heads: dict[str, HeadCalibration]


CALIBRATION = Artifact("calibration", "evaluate", 1, Calibration)
