"""Everything that is written about one model on one split, from its predictions and, where it has them, probabilities.

`cityheads.evaluation.evaluate` writes so about trained runs, and the controls about themselves, so that a page that
compares them compares the same things.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cityheads.config.evaluation import EvaluationConfig
from cityheads.core.artifacts.calibration import CALIBRATION, Calibration, HeadCalibration
from cityheads.core.artifacts.metrics import (
    METRICS,
    AblatedHead,
    Bin,
    BoundaryScores,
    CalibrationScores,
    ClassBoundary,
    ClassFractions,
    Estimate,
    HeadScores,
    Metrics,
    PositiveClassScores,
    Reliability,
    WindowScores,
)
from cityheads.core.artifacts.predictions import PREDICTIONS, write_confusions
from cityheads.core.artifacts.scores import ScoreRows, write_scores
from cityheads.core.classes import IGNORE
from cityheads.core.confusion import (
    HeadMetric,
    accuracy,
    class_iou,
    confusion_matrix,
    f1,
    mean_defined,
    or_none,
    precision,
    recall,
)
from cityheads.core.files import sha256_bytes, write_bytes
from cityheads.core.layout import EvaluationFolder
from cityheads.evaluation import bootstrap
from cityheads.evaluation.scores import boundary, ranking, windows
from cityheads.evaluation.scores.agreement import kappa
from cityheads.evaluation.scores.calibration import calibrate
from cityheads.evaluation.scores.over_parents import divide, estimate, sum_by_parent
from cityheads.evaluation.scores.reliability import BINS, EDGES, ProbabilitySums, bin_means, ece, probability_sums

__all__ = ["HeadResult", "by_parent", "confusions_of", "write_evaluation"]


@dataclass(frozen=True)
class HeadResult:
    """What a model says of the sub-chips of a split, for one head, and what the labels say.

    Attributes:
        label: Label layer.
        metric: The head's score, which also names its classes.
        masks: (N, h, w) uint8 labels, 255 = ignore.
        predictions: (N, h, w) uint8 class ids.
        probabilities: (N, C, h, w) float32, summing to 1 over the classes; None for a model that has none. What
            rests on them is then left out.
    """

    label: str
    metric: HeadMetric
    masks: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray | None = None


def write_evaluation(
    out: EvaluationFolder,
    *,
    run: str,
    fold: int,
    seed: int,
    split: str,
    kind: str,
    simulated: bool,
    chips: Sequence[str],
    parents: Sequence[str],
    resolution_m: float,
    heads: Mapping[str, HeadResult],
    settings: EvaluationConfig,
    calibration: Calibration | None = None,
    modality_ablation: dict[str, dict[str, AblatedHead]] | None = None,
    not_ablated: dict[str, str] | None = None,
    encoder_occlusion: dict[str, dict[str, AblatedHead]] | None = None,
) -> Metrics:
    """Write predictions, confusion counts, the table of scores, the calibration that was used, and ``metrics.json``.

    Args:
        out: Folder of the evaluation; ``metrics.json`` is written last.
        run: Name of the run or control.
        fold: Its fold.
        seed: Its seed; 0 for a control without one.
        split: ``val`` or ``test``.
        kind: ``run`` or ``control``.
        simulated: Whether any of the data is.
        chips: N ids of the sub-chips, in the order of the arrays.
        parents: The parent of each of them.
        resolution_m: Pixel size in metres.
        heads: What was predicted, by head.
        settings: The config's section ``evaluation``.
        calibration: What was fitted on validation parents; None for a model without calibrated probabilities, whose
            folder then has no ``calibration.json``.
        modality_ablation: As in ``metrics.json``.
        not_ablated: As in ``metrics.json``.
        encoder_occlusion: As in ``metrics.json``.

    Returns:
        What ``metrics.json`` holds.
    """
    rows = ScoreRows(chips, parents)
    confusions = {head: confusions_of(result) for head, result in heads.items()}
    scores = {
        head: _score(
            head,
            result,
            confusions[head],
            parents,
            resolution_m,
            settings,
            None if calibration is None else calibration["heads"].get(head),
            rows,
        )
        for head, result in heads.items()
    }
    for head, result in heads.items():
        buffer = io.BytesIO()
        np.save(buffer, result.predictions, allow_pickle=False)
        write_bytes(out.prediction(head), buffer.getvalue())
    PREDICTIONS.write(out.predictions, {"chips": list(chips)})
    write_confusions(out.confusion, chips, parents, confusions)
    write_scores(out.scores, rows, run=run, fold=fold, seed=seed, split=split)
    if calibration is not None:
        CALIBRATION.write(out.calibration, calibration)
    else:
        # one of an earlier evaluation must not pass for this one's
        out.calibration.unlink(missing_ok=True)
    metrics: Metrics = {
        "run": run,
        "fold": fold,
        "seed": seed,
        "split": split,
        "kind": kind,
        "simulated": simulated,
        "parents": list(dict.fromkeys(parents)),
        "chips": len(chips),
        "chips_sha256": sha256_bytes("\n".join(chips).encode()),
        "confidence": bootstrap.CONFIDENCE,
        "heads": scores,
        "modality_ablation": modality_ablation,
        "not_ablated": not_ablated or {},
        "encoder_occlusion": encoder_occlusion,
    }
    METRICS.write(out.metrics, metrics)
    return metrics


def confusions_of(result: HeadResult) -> np.ndarray:
    """Count hits and errors of each sub-chip, (N, C, C) int64, rows true."""
    classes = len(result.metric.classes)
    pairs = zip(result.masks, result.predictions, strict=True)
    return np.stack([confusion_matrix(np.asarray(mask), predicted, classes) for mask, predicted in pairs])


def by_parent(parents: Sequence[str], counts: np.ndarray) -> dict[str, np.ndarray]:
    """Add (N, ...) integer counts of the sub-chips up per parent, in the order of their first sub-chip."""
    of_chip = np.array(parents)
    return {parent: counts[of_chip == parent].sum(0) for parent in dict.fromkeys(parents)}


def _score(
    head: str,
    result: HeadResult,
    confusions: np.ndarray,
    parents: Sequence[str],
    resolution_m: float,
    settings: EvaluationConfig,
    calibration: HeadCalibration | None,
    rows: ScoreRows,
) -> HeadScores:
    """Score one head in every way, and add its rows to the table."""
    metric = result.metric
    per_parent = by_parent(parents, confusions)
    pooled = confusions.sum(0)
    ious, f1s = class_iou(pooled), f1(pooled)
    classes = len(metric.classes)

    def over_parents(statistic: Callable[[np.ndarray], np.ndarray], lowest: float) -> Estimate:
        """Give a statistic of the confusion matrix with its interval."""
        flat = sum_by_parent(confusions.reshape(len(confusions), -1), parents)
        return estimate(lambda sums: statistic(sums.reshape(*sums.shape[:-1], classes, classes)), flat, (lowest, 1.0))

    value = over_parents(metric, 0.0)
    _count_rows(head, metric, confusions, rows)
    raw, calibrated = result.probabilities, None
    if raw is not None and calibration is not None and calibration["method"] is not None:
        calibrated = np.stack([calibrate(chip, calibration) for chip in raw])
    return {
        "label": result.label,
        "classes": list(metric.classes),
        "confusion": pooled.tolist(),
        "iou": or_none(ious),
        "miou": or_none(mean_defined(ious)),
        "f1": or_none(f1s),
        "mf1": or_none(mean_defined(f1s)),
        "precision": or_none(precision(pooled)),
        "recall": or_none(recall(pooled)),
        "accuracy": or_none(accuracy(pooled)),
        "pixels": int(pooled.sum()),
        "ignored": int(np.count_nonzero(result.masks == IGNORE)),
        "metric": {"name": metric.name, "positive_class": metric.positive_class, "value": value["value"]},
        "interval": value["interval"],
        "per_parent": {
            parent: {"confusion": counts.tolist(), "value": or_none(metric(counts))}
            for parent, counts in per_parent.items()
        },
        "kappa": over_parents(kappa, -1.0),
        "application": _application(head, result, calibrated, parents, resolution_m, settings, rows),
        "boundary": _boundary(head, result, parents, settings, rows),
        "calibration": None if raw is None else _calibration(head, result, raw, calibrated, calibration, parents, rows),
        "positive": None if raw is None else _positive(head, result, raw, calibrated, calibration, parents, rows),
    }


def _count_rows(head: str, metric: HeadMetric, confusions: np.ndarray, rows: ScoreRows) -> None:
    """Add the counts of each class and the scores that follow from them, for each sub-chip."""
    pixels = confusions.sum((1, 2))
    for name, values in (
        (metric.name, metric(confusions)),
        ("accuracy", accuracy(confusions)),
        ("kappa", kappa(confusions)),
    ):
        rows.add(head, name, values, pixels)
    parts = {
        "hits": np.diagonal(confusions, axis1=1, axis2=2),
        "labelled": confusions.sum(2),
        "predicted": confusions.sum(1),
        "class_iou": class_iou(confusions),
        "class_f1": f1(confusions),
        "precision": precision(confusions),
        "recall": recall(confusions),
    }
    for name, values in parts.items():
        for index, class_name in enumerate(metric.classes):
            rows.add(head, name, values[:, index], pixels, class_name=class_name)


def _application(
    head: str,
    result: HeadResult,
    calibrated: np.ndarray | None,
    parents: Sequence[str],
    resolution_m: float,
    settings: EvaluationConfig,
    rows: ScoreRows,
) -> dict[str, WindowScores]:
    names = result.metric.classes
    estimates = {"argmax": result.predictions}
    if result.probabilities is not None:
        estimates["softmax"] = result.probabilities
    if calibrated is not None:
        estimates["calibrated"] = calibrated
    found: dict[str, WindowScores] = {}
    chips = len(result.masks)
    for window in windows.windows(settings.windows_m, resolution_m, min(result.masks.shape[1:])):
        shares = windows.fractions(result.masks, estimates, len(names), window, settings.min_labelled_fraction)
        sums = {name: windows.error_sums(shares, name, chips) for name in estimates}
        count = sums["argmax"][:, 0, 0]
        totals = {name: sum_by_parent(one, parents) for name, one in sums.items()}
        classes: dict[str, ClassFractions] = {}
        for index, class_name in enumerate(names):
            pooled = totals["argmax"][:, index].sum(0)
            classes[class_name] = {
                "mean": None if pooled[0] == 0 else float(pooled[4] / pooled[0]),
                "estimates": {name: windows.errors(one[:, index]) for name, one in totals.items()},
            }
            labelled = sums["argmax"][:, index]
            for label, position in (("labelled_fraction", 4), ("labelled_fraction_squared", 5)):
                _mean_rows(rows, head, label, labelled[:, position], count, class_name, window.name)
            for name, one in sums.items():
                for label, position in (("error", 1), ("absolute_error", 2), ("squared_error", 3)):
                    _mean_rows(rows, head, f"{name}_{label}", one[:, index, position], count, class_name, window.name)
        found[window.name] = {
            "shape": window.shape,
            "size_m": window.size_m,
            "px": window.px,
            "windows": int(count.sum()),
            "parents": int((totals["argmax"][:, 0, 0] > 0).sum()),
            "classes": classes,
        }
    return found


def _mean_rows(
    rows: ScoreRows, head: str, metric: str, sums: np.ndarray, n: np.ndarray, class_name: str | None, scale: str | None
) -> None:
    """Add the means of sums over n pixels or windows of each sub-chip."""
    rows.add(head, metric, sums / np.maximum(n, 1), n, class_name=class_name, scale=scale)


def _boundary(
    head: str, result: HeadResult, parents: Sequence[str], settings: EvaluationConfig, rows: ScoreRows
) -> dict[str, BoundaryScores]:
    names = result.metric.classes
    counts = boundary.boundary_counts(result.masks, result.predictions, len(names), settings.boundary_px)
    totals = sum_by_parent(counts, parents)
    pixels = (result.masks != IGNORE).sum((1, 2))
    found: dict[str, BoundaryScores] = {}
    for place, distance in enumerate(settings.boundary_px):
        scale = f"{distance}px"
        classes: dict[str, ClassBoundary] = {}
        for index, class_name in enumerate(names):
            sums = totals[:, index, place]
            classes[class_name] = {
                "precision": estimate(boundary.boundary_precision, sums),
                "recall": estimate(boundary.boundary_recall, sums),
                "f1": estimate(boundary.boundary_f1, sums),
                "iou": estimate(boundary.boundary_iou, sums),
            }
            own = counts[:, index, place]
            for metric, values in (("boundary_f1", boundary.boundary_f1), ("boundary_iou", boundary.boundary_iou)):
                rows.add(head, metric, values(own), pixels, class_name=class_name, scale=scale)
            for position, name in enumerate(boundary.COUNTS):
                rows.add(head, f"boundary_{name}", own[:, position], pixels, class_name=class_name, scale=scale)
        pooled = totals.sum(0)[:, place]
        found[scale] = {
            "distance_px": distance,
            "mean_f1": or_none(mean_defined(boundary.boundary_f1(pooled))),
            "mean_iou": or_none(mean_defined(boundary.boundary_iou(pooled))),
            "classes": classes,
        }
    return found


def _calibration(
    head: str,
    result: HeadResult,
    raw: np.ndarray,
    calibrated: np.ndarray | None,
    calibration: HeadCalibration | None,
    parents: Sequence[str],
    rows: ScoreRows,
) -> CalibrationScores:
    return {
        "method": None if calibration is None else calibration["method"],
        "temperature": None if calibration is None else calibration["temperature"],
        "softmax": _reliability(head, "softmax", result, raw, parents, rows),
        "calibrated": None
        if calibrated is None
        else _reliability(head, "calibrated", result, calibrated, parents, rows),
    }


def _reliability(
    head: str, name: str, result: HeadResult, probabilities: np.ndarray, parents: Sequence[str], rows: ScoreRows
) -> Reliability:
    classes = result.metric.classes
    sums = probability_sums(probabilities, result.masks)
    _probability_rows(head, name, sums, classes, rows)

    def average(pair: np.ndarray) -> np.ndarray:
        return divide(pair[..., 0], pair[..., 1])

    def error(flat: np.ndarray) -> np.ndarray:
        return ece(flat.reshape(*flat.shape[:-1], BINS, 3))

    bins = sum_by_parent(sums.bins, parents)
    flat = bins.reshape(*bins.shape[:2], -1)
    return {
        "nll": estimate(average, sum_by_parent(np.stack([sums.nll, sums.pixels], axis=1), parents), (0.0, np.inf)),
        "brier": estimate(average, sum_by_parent(np.stack([sums.brier, sums.pixels], axis=1), parents), (0.0, 2.0)),
        "ece": estimate(error, flat[:, 0]),
        "bins": _bins(bins[:, 0].sum(0)),
        "classes": {
            class_name: {"ece": estimate(error, flat[:, 1 + index]), "bins": _bins(bins[:, 1 + index].sum(0))}
            for index, class_name in enumerate(classes)
        },
    }


def _bins(bins: np.ndarray) -> list[Bin]:
    probability, frequency = bin_means(bins)
    return [
        {
            "low": float(EDGES[index]),
            "high": float(EDGES[index + 1]),
            "pixels": int(bins[index, 0]),
            "probability": or_none(probability[index]),
            "frequency": or_none(frequency[index]),
        }
        for index in range(BINS)
    ]


def _probability_rows(head: str, name: str, sums: ProbabilitySums, classes: Sequence[str], rows: ScoreRows) -> None:
    for metric, values in (("nll", sums.nll), ("brier", sums.brier)):
        _mean_rows(rows, head, f"{name}_{metric}", values, sums.pixels, None, None)
    for position, class_name in enumerate((None, *classes)):
        for index in range(BINS):
            part = sums.bins[:, position, index]
            for metric, place in (("probability", 1), ("frequency", 2)):
                scale = f"bin_{index + 1:02d}"
                _mean_rows(rows, head, f"{name}_{metric}", part[:, place], part[:, 0], class_name, scale)


def _positive(
    head: str,
    result: HeadResult,
    raw: np.ndarray,
    calibrated: np.ndarray | None,
    calibration: HeadCalibration | None,
    parents: Sequence[str],
    rows: ScoreRows,
) -> PositiveClassScores | None:
    metric = result.metric
    if metric.positive is None or metric.positive_class is None:
        return None
    scores = (raw if calibrated is None else calibrated)[:, metric.positive]
    labelled = result.masks != IGNORE
    counts = np.stack(
        [
            ranking.histogram(score[there], mask[there] == metric.positive)
            for score, mask, there in zip(scores, result.masks, labelled, strict=True)
        ]
    )
    pixels = labelled.sum((1, 2))
    rows.add(head, "average_precision", ranking.average_precision(counts), pixels, class_name=metric.positive_class)
    totals = sum_by_parent(counts, parents)
    flat = totals.reshape(len(totals), -1)
    thresholds, precisions, recalls = ranking.thin_curve(totals.sum(0))
    positives, negatives = totals.sum((0, 2))
    found: PositiveClassScores = {
        "name": metric.positive_class,
        "prevalence": None if pixels.sum() == 0 else float(positives / (positives + negatives)),
        "average_precision": estimate(
            lambda sums: ranking.average_precision(sums.reshape(*sums.shape[:-1], *counts.shape[1:])), flat
        ),
        "curve": {
            "threshold": thresholds.tolist(),
            "precision": or_none(precisions, 6),
            "recall": or_none(recalls, 6),
        },
        "operating_point": None,
    }
    chosen = None if calibration is None else calibration["threshold"]
    if chosen is not None and calibrated is not None:
        cut = ranking.threshold_counts(counts, chosen)
        for index, name in enumerate(("hits", "false_alarms", "misses")):
            rows.add(
                head, f"threshold_{name}", cut[:, index], pixels, class_name=metric.positive_class, scale=f"{chosen:g}"
            )
        sums = sum_by_parent(cut, parents)
        found["operating_point"] = {
            "threshold": chosen,
            "precision": estimate(ranking.precision_at, sums),
            "recall": estimate(ranking.recall_at, sums),
            "f1": estimate(ranking.f1_at, sums),
            "iou": estimate(ranking.iou_at, sums),
        }
    return found
