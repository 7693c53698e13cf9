"""``metrics.json``: the scores of one training on a split. NaN (undefined) is null."""

from __future__ import annotations

from typing import TypeAlias

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = [
    "METRICS",
    "AblatedHead",
    "AblatedParent",
    "Bin",
    "BoundaryScores",
    "CalibrationScores",
    "ClassBoundary",
    "ClassFractions",
    "ClassReliability",
    "Curve",
    "Estimate",
    "FractionErrors",
    "HeadScores",
    "Metrics",
    "OperatingPoint",
    "ParentScore",
    "PositiveClassScores",
    "Reliability",
    "Score",
    "WindowScores",
]

#: Confusion counts, rows true, columns predicted, both in the order of the class ids.
Counts: TypeAlias = list[list[int]]


class Score(TypedDict):
    """The score by which a head is compared.

    Attributes:
        name: ``miou`` or ``iou``.
        positive_class: Class whose IoU ``iou`` is; None for ``miou``.
        value: 0 to 1.
    """

    name: str
    positive_class: str | None
    value: float | None


class ParentScore(TypedDict):
    """One parent."""

    confusion: Counts
    value: float | None


class Estimate(TypedDict):
    """A statistic of the whole split with its confidence interval over the choice of parents."""

    value: float | None
    interval: list[float] | None


class FractionErrors(TypedDict):
    """How far estimated class fractions of windows are from the labelled ones; fractions are shares of 0 to 1.

    Attributes:
        bias: Mean of estimated minus labelled.
        relative_bias: ``bias`` over the labelled mean: 0.29 is 29 % too much.
        mae: Mean absolute error.
        rmse: Root mean square error.
        r2: Coefficient of determination: 1 minus the squared error over that of the labelled mean as the estimate.
    """

    bias: Estimate
    relative_bias: Estimate
    mae: Estimate
    rmse: Estimate
    r2: Estimate


class ClassFractions(TypedDict):
    """One class over the windows of one size.

    Attributes:
        mean: Labelled share, averaged over the windows.
        estimates: Errors by the way of estimating: ``argmax`` (share of the pixels on the map), ``softmax`` (mean
            score) and ``calibrated`` (mean calibrated probability); the last two only where there are probabilities.
    """

    mean: float | None
    estimates: dict[str, FractionErrors]


class WindowScores(TypedDict):
    """Class fractions over windows of one shape and size.

    Attributes:
        shape: ``square`` or ``circle``.
        size_m: Side or diameter as asked for, in metres; ``px``, the same in whole pixels.
        windows: Number of windows with enough labelled pixels, and ``parents``, of parents that have one.
    """

    shape: str
    size_m: float
    px: int
    windows: int
    parents: int
    classes: dict[str, ClassFractions]


class Bin(TypedDict):
    """Pixels whose probability lies in a bin: their number, mean probability, and the share that is really so."""

    low: float
    high: float
    pixels: int
    probability: float | None
    frequency: float | None


class ClassReliability(TypedDict):
    """Reliability of one class's probability."""

    ece: Estimate
    bins: list[Bin]


class Reliability(TypedDict):
    """How far probabilities can be taken at their word.

    Attributes:
        nll: Mean negative log-likelihood of the labels, in nats.
        brier: Mean over pixels of the squared difference between probabilities and label, summed over classes (0 to 2).
        ece: Expected calibration error of the most likely class.
        bins: Of the most likely class's probability, the bins of its reliability diagram.
        classes: The same of each class's probability.
    """

    nll: Estimate
    brier: Estimate
    ece: Estimate
    bins: list[Bin]
    classes: dict[str, ClassReliability]


class CalibrationScores(TypedDict):
    """Probabilities before and after calibration.

    Attributes:
        method: ``temperature`` or ``isotonic``; None where no calibration was at hand.
        temperature: Divisor of the logits; None for another method.
        softmax: As the model gives them.
        calibrated: After calibration; None where no calibration was at hand.
    """

    method: str | None
    temperature: float | None
    softmax: Reliability
    calibrated: Reliability | None


class ClassBoundary(TypedDict):
    """How well the outlines of one class fit.

    Attributes:
        precision: Share of the predicted outline within the distance of the labelled one.
        recall: Share of the labelled outline within the distance of the predicted one.
        f1: Their harmonic mean.
        iou: IoU of the class's pixels within the distance of its outlines.
    """

    precision: Estimate
    recall: Estimate
    f1: Estimate
    iou: Estimate


class BoundaryScores(TypedDict):
    """Outlines at one distance; the means are over the classes with a defined value."""

    distance_px: int
    mean_f1: float | None
    mean_iou: float | None
    classes: dict[str, ClassBoundary]


class Curve(TypedDict):
    """A precision-recall curve: what calling positive from each threshold on would give."""

    threshold: list[float]
    precision: list[float | None]
    recall: list[float | None]


class OperatingPoint(TypedDict):
    """Calling a pixel positive from a threshold on, which was chosen on the validation split for its F1."""

    threshold: float
    precision: Estimate
    recall: Estimate
    f1: Estimate
    iou: Estimate


class PositiveClassScores(TypedDict):
    """The positive class of a head, by its probability.

    Attributes:
        name: The class.
        prevalence: Its share of the labelled pixels, which is the average precision of chance.
        average_precision: Mean precision weighted by the gain in recall.
        curve: The precision-recall curve, thinned.
        operating_point: None where no threshold was chosen.
    """

    name: str
    prevalence: float | None
    average_precision: Estimate
    curve: Curve
    operating_point: OperatingPoint | None


class HeadScores(TypedDict):
    """One head; lists run over its classes in the order of their ids.

    Attributes:
        miou: Mean of ``iou`` over the classes that have labelled pixels; ``mf1`` likewise of ``f1``.
        pixels: Number of labelled pixels.
        ignored: Number of pixels without a label.
        interval: Confidence interval of the score, over the choice of parents.
        kappa: Cohen's kappa.
        application: Class fractions over windows, by ``{shape}_{size}m``; of those that fit inside a sub-chip.
        boundary: Outlines, by ``{distance}px``.
        calibration: None where the evaluation had no probabilities.
        positive: None for a head without a positive class, and where the evaluation had no probabilities.
    """

    label: str
    classes: list[str]
    confusion: Counts
    iou: list[float | None]
    miou: float | None
    f1: list[float | None]
    mf1: float | None
    precision: list[float | None]
    recall: list[float | None]
    accuracy: float | None
    pixels: int
    ignored: int
    metric: Score
    interval: list[float] | None
    per_parent: dict[str, ParentScore]
    kappa: Estimate
    application: dict[str, WindowScores]
    boundary: dict[str, BoundaryScores]
    calibration: CalibrationScores | None
    positive: PositiveClassScores | None


class AblatedParent(TypedDict):
    """One parent with a part of the model's input hidden; the difference in percentage points is to the whole model."""

    confusion: Counts
    value: float | None
    delta_pp: float | None


class AblatedHead(TypedDict):
    """One head with a part of the model's input hidden: a modality, the encoder's maps, or the image skip."""

    value: float | None
    delta_pp: float | None
    interval_pp: list[float] | None
    iou: list[float | None]
    confusion: Counts
    per_parent: dict[str, AblatedParent]


class Metrics(TypedDict):
    """The scores of one training, or of a control, on a split that it was not trained on.

    Attributes:
        run: Name of the run or control.
        fold: Fold whose splits these are.
        split: ``val`` or ``test``.
        kind: ``run``, or ``control`` for what was not trained by the workflow's training.
        simulated: Whether any of the data is.
        parents: Parents of the split.
        chips: Number of its sub-chips, and ``chips_sha256`` of their ids, a line each.
        confidence: Of all intervals.
        modality_ablation: Per modality and head, the scores without it; None where that was not asked for.
        not_ablated: Modalities that were not left out, and why.
        encoder_occlusion: Per ``zeroed`` (the encoder's maps are zeros), ``permuted`` (they are those of another chip)
            and ``image_skip`` (the decoders do not see the image), and per head, the scores with that hidden; None
            where that was not asked for or there is no encoder.
    """

    run: str
    fold: int
    seed: int
    split: str
    kind: str
    simulated: bool
    parents: list[str]
    chips: int
    chips_sha256: str
    confidence: float
    heads: dict[str, HeadScores]
    modality_ablation: dict[str, dict[str, AblatedHead]] | None
    not_ablated: dict[str, str]
    encoder_occlusion: dict[str, dict[str, AblatedHead]] | None


METRICS = Artifact("file of scores", "evaluate", 2, Metrics)
