"""What an app would use: class fractions of windows, probabilities, outlines, and the point at which it decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cityheads.config import Config
from cityheads.core.artifacts.metrics import Bin, ClassFractions, Estimate, HeadScores
from cityheads.core.text import number, percent, signed
from cityheads.evaluation.scores.pooled import pooled_fractions
from cityheads.product.report.charts import Chart, Series, chart
from cityheads.product.report.tables import Cell, Column, Table, count, score, words
from cityheads.product.results import Results, require

__all__ = ["Application", "application"]

_WAYS = {"argmax": "share on the map", "softmax": "mean score", "calibrated": "mean calibrated probability"}


@dataclass(frozen=True)
class Application:
    """The scores of one head for use; what was not measured is None or empty.

    Attributes:
        head: Name of the head.
        summary: One sentence about the fractions, in plain words.
        fractions: Errors of class fractions by window, class and way of estimating.
        outlines: Boundary scores.
        probabilities: Calibration before and after.
        reliability: Reliability diagram.
        curve: Precision-recall curve with the operating point.
        operating: The operating point.
    """

    head: str
    summary: str
    fractions: Table | None
    outlines: Table | None
    probabilities: Table | None
    reliability: Chart | None
    curve: Chart | None
    operating: Table | None


@dataclass(frozen=True)
class _Window:
    """Windows of one shape and size: how many, and the errors of the class fractions over them."""

    shape: str
    size_m: float
    windows: int
    classes: Mapping[str, ClassFractions]


def application(config: Config, results: Results) -> list[Application]:
    """Sum up how useful the shared model's maps are: fractions over all folds and seeds, the rest of the first seed."""
    run, heads = config.noninferiority.run, results.runs[config.noninferiority.run]
    several = len(results.folds) * len(results.seeds) > 1
    # one training has the intervals of its own windows in its metrics already
    pooled = pooled_fractions(
        [
            require(results.layout.evaluation(run, fold, seed).scores)
            for fold in results.folds
            for seed in results.seeds
            if several
        ]
    )
    found = []
    for head in heads:
        of = {fold: results.metrics(run, results.seeds[0], fold)["heads"][head] for fold in results.folds}
        first = of[results.folds[0]]
        windows = [
            _Window(
                one["shape"],
                one["size_m"],
                sum(part["application"][key]["windows"] for part in of.values()),
                pooled[head].get(key, {}) if several else one["classes"],
            )
            for key, one in first["application"].items()
        ]
        positive = config.heads[head].positive_class
        names = config.labels[config.heads[head].label].class_names
        # of two classes, the fraction of the other one says the same
        asked = (positive,) if positive is not None and len(names) == 2 else names
        found.append(
            Application(
                head,
                _summary(windows, asked),
                _fractions(head, windows, asked),
                _outlines(head, of),
                _probabilities(head, of),
                _reliability(head, first),
                _curve(head, first),
                _operating(head, of),
            )
        )
    return found


def _estimate(found: Estimate, factor: float = 1.0, digits: int = 2) -> Cell:
    """Make a cell of a statistic with its interval below."""
    if found["value"] is None:
        return Cell("n/a", defined=False)
    ends = found["interval"]
    interval = "no interval" if ends is None else " to ".join(number(factor * end, digits) for end in ends)
    return Cell(number(factor * found["value"], digits), factor * found["value"], notes=(interval,))


def _summary(windows: Sequence[_Window], asked: Sequence[str]) -> str:
    """Tell of the smallest circles, or of the smallest windows where there is no circle."""
    for one in sorted(windows, key=lambda one: (one.shape != "circle", one.size_m)):
        found = ((name, one.classes.get(name)) for name in asked)
        known = {name: of_class for name, of_class in found if of_class is not None and of_class["mean"] is not None}
        if not known:
            continue
        # of several classes, the one there is most of
        name = max(known, key=lambda name: known[name]["mean"] or 0.0)
        ways = known[name]["estimates"]
        way = next(way for way in ("calibrated", "softmax", "argmax") if way in ways)
        bias, error, fit = (ways[way][key]["value"] for key in ("bias", "mae", "r2"))
        if bias is None or error is None:
            continue
        told = "" if fit is None else f" It explains {percent(max(fit, 0.0))} of what differs between places."
        return (
            f"In {one.shape}s of {one.size_m:g} m, the estimated share of {name} ({_WAYS[way]}) is on average "
            f"{signed(100 * bias)} percentage points off (bias), and a single one typically {number(100 * error)} "
            f"points (mean absolute error).{told}"
        )
    return ""


_Found = dict[int, HeadScores]


def _fold(fold: int, found: _Found) -> list[Cell]:
    return [count(fold)] if len(found) > 1 else []


def _fold_column(found: _Found) -> list[Column]:
    return [Column("fold")] if len(found) > 1 else []


def _fractions(head: str, windows: Sequence[_Window], asked: Sequence[str]) -> Table | None:
    rows = []
    for one in windows:
        for name in asked:
            of_class = one.classes.get(name)
            if of_class is None:
                continue
            for way, errors in of_class["estimates"].items():
                rows.append(
                    [
                        words(f"{one.shape} {one.size_m:g} m"), words(name), words(_WAYS.get(way, way)),
                        count(one.windows), score(of_class["mean"]), _estimate(errors["bias"], 100, 1),
                        _estimate(errors["relative_bias"], 100, 0), _estimate(errors["mae"], 100, 1),
                        _estimate(errors["r2"]),
                    ]
                )  # fmt: skip
    columns = [
        Column("window", number=False), Column("class", number=False),
        Column("estimate", number=False), Column("windows"), Column("labelled mean, %"), Column("bias, pp"),
        Column("bias, % of the mean"), Column("mean error, pp"), Column("R2"),
    ]  # fmt: skip
    caption = (
        f"{head}: shares of classes in windows, estimated against labelled. Bias above zero: too much. R2 is 1 for a "
        "perfect estimate and 0 for one as good as the mean. Below each number its interval over test parents."
    )
    return Table(f"{head}-fractions", caption, columns, rows) if rows else None


def _outlines(head: str, found: _Found) -> Table | None:
    rows = [
        [
            words(f"{one['distance_px']} px"), *_fold(fold, found), words(name),
            *(_estimate(of_class[key], 100, 1) for key in ("precision", "recall", "f1", "iou")),
        ]
        for fold, part in found.items()
        for one in part["boundary"].values()
        for name, of_class in one["classes"].items()
    ]  # fmt: skip
    columns = [
        Column("within", number=False), *_fold_column(found), Column("class", number=False), Column("precision"),
        Column("recall"), Column("boundary F1"), Column("boundary IoU"),
    ]  # fmt: skip
    caption = f"{head}: how well outlines fit, in percent, within a distance of the labelled ones."
    return Table(f"{head}-outlines", caption, columns, rows) if rows else None


def _probabilities(head: str, found: _Found) -> Table | None:
    rows = []
    for fold, part in found.items():
        scores = part["calibration"]
        if scores is None:
            continue
        how = scores["method"] or "none"
        if scores["temperature"] is not None:
            how += f", temperature {number(scores['temperature'], 2)}"
        for title, one in (
            ("as the model gives them", scores["softmax"]),
            (f"calibrated ({how})", scores["calibrated"]),
        ):
            if one is not None:
                rows.append(
                    [
                        words(title), *_fold(fold, found), _estimate(one["ece"], 100), _estimate(one["nll"], 1, 3),
                        _estimate(one["brier"], 1, 3),
                    ]
                )  # fmt: skip
    columns = [
        Column("probabilities", number=False), *_fold_column(found), Column("calibration error (ECE), pp"),
        Column("log loss, nats"), Column("Brier score"),
    ]  # fmt: skip
    caption = f"{head}: whether probabilities can be taken at their word; calibrated on validation parents."
    return Table(f"{head}-probabilities", caption, columns, rows) if rows else None


def _points(bins: Sequence[Bin]) -> Iterator[tuple[float, float]]:
    for one in bins:
        if one["probability"] is not None and one["frequency"] is not None:
            yield one["probability"], one["frequency"]


def _reliability(head: str, part: HeadScores) -> Chart | None:
    scores = part["calibration"]
    if scores is None:
        return None
    series = [Series("ideal", np.array([0.0, 1.0]), np.array([0.0, 1.0]))]
    key = [("ideal", "could be taken at its word"), ("single", "as the model gives it")]
    known = [("single", scores["softmax"])]
    if scores["calibrated"] is not None:
        known.append(("shared", scores["calibrated"]))
        key.append(("shared", "calibrated"))
    told = []
    for kind, one in known:
        points = list(_points(one["bins"]))
        x, y = (np.array([point[axis] for point in points]) for axis in (0, 1))
        series.append(Series(kind, x, y, points))
        value = one["ece"]["value"]
        told.append(f"{dict(key)[kind]}: error {percent(value)}")
    return chart(
        f"{head}: how often the most likely class is right", series, key, x_title="its probability",
        alt=f"Reliability diagram of head {head}; {'; '.join(told)}.", x_range=(0, 1), y_range=(0, 1),
    )  # fmt: skip


def _curve(head: str, part: HeadScores) -> Chart | None:
    scores = part["positive"]
    if scores is None:
        return None
    pairs = [
        (recall, precision)
        for recall, precision in zip(scores["curve"]["recall"], scores["curve"]["precision"], strict=True)
        if recall is not None and precision is not None
    ]
    x, y = (np.array([pair[axis] for pair in pairs]) for axis in (0, 1))
    chosen = scores["operating_point"]
    circles, told = [], "no operating point"
    if chosen is not None and chosen["recall"]["value"] is not None and chosen["precision"]["value"] is not None:
        circles = [(chosen["recall"]["value"], chosen["precision"]["value"])]
        told = f"operating point at recall {percent(circles[0][0])}, precision {percent(circles[0][1])}"
    ap = scores["average_precision"]["value"]
    return chart(
        f"{head}: precision of {scores['name']}", [Series("shared", x, y, circles)],
        [("shared", "shared model; the circle is the operating point")], x_title="recall",
        alt=f"Precision-recall curve of {scores['name']}: average precision {percent(ap)}, {told}.",
        x_range=(0, 1), y_range=(0, 1),
    )  # fmt: skip


def _operating(head: str, found: _Found) -> Table | None:
    rows = []
    for fold, part in found.items():
        scores = part["positive"]
        chosen = None if scores is None else scores["operating_point"]
        if scores is not None and chosen is not None:
            prevalence = scores["prevalence"]
            rows.append(
                [
                    words(scores["name"]), *_fold(fold, found),
                    score(prevalence), _estimate(scores["average_precision"], 100, 1),
                    Cell(number(chosen["threshold"], 2), chosen["threshold"]),
                    *(_estimate(chosen[key], 100, 1) for key in ("precision", "recall", "f1", "iou")),
                ]
            )  # fmt: skip
    columns = [
        Column("class", number=False), *_fold_column(found), Column("share of pixels"), Column("average precision"),
        Column("threshold"), Column("precision"), Column("recall"), Column("F1"), Column("IoU"),
    ]  # fmt: skip
    caption = (
        f"{head}: calling a pixel positive from a calibrated probability on, chosen on validation for its F1; percent."
    )
    return Table(f"{head}-operating", caption, columns, rows) if rows else None
