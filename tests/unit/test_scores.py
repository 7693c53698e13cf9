"""Scores of what the app uses, each against scikit-learn, scipy, torchmetrics or loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from cityheads.core.classes import IGNORE
from cityheads.core.confusion import confusion_matrix
from cityheads.evaluation import bootstrap
from cityheads.evaluation.scores import boundary, calibration, ranking, reliability, windows
from cityheads.evaluation.scores.agreement import kappa
from cityheads.evaluation.scores.over_parents import divide, estimate, sum_by_parent

RNG = np.random.default_rng(5)


def labels(shape: tuple[int, ...], classes: int, ignore: float = 0.1, seed: int = 0) -> np.ndarray:
    """Blobs of classes with some pixels without a label."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=shape), (0, 2, 2))
    cuts = np.quantile(field, np.arange(1, classes) / classes)
    found = np.digitize(field, cuts).astype(np.uint8)
    found[rng.random(shape) < ignore] = IGNORE
    return found


def probabilities(masks: np.ndarray, classes: int, sharpness: float = 2.0, seed: int = 1) -> np.ndarray:
    """Scores that lean towards the labels, (N, C, h, w)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(masks), classes, *masks.shape[1:]))
    logits += np.stack([1.5 * (masks == index) for index in range(classes)], axis=1)
    return softmax(sharpness * logits, axis=1).astype(np.float32)


# --- sums over parents ------------------------------------------------------------------------------------------------


def test_estimate_is_the_bootstrap_of_the_pooled_statistic() -> None:
    sums = np.abs(RNG.normal(size=(7, 2))) + 0.1
    found = estimate(lambda one: divide(one[..., 0], one[..., 1]), sums, (-math.inf, math.inf))
    assert found["value"] == pytest.approx(sums[:, 0].sum() / sums[:, 1].sum())
    draws = bootstrap.resample_counts(7, bootstrap.RESAMPLES, bootstrap.SEED)
    samples = np.array([(row @ sums[:, 0]) / (row @ sums[:, 1]) for row in draws])
    half = bootstrap.t_quantile(0.975, 6) * math.sqrt(samples.var() * 7 / 6)
    assert found["interval"] == pytest.approx([found["value"] - half, found["value"] + half])


def test_estimate_without_anything_is_undefined_and_one_parent_has_no_interval() -> None:
    def ratio(one: np.ndarray) -> np.ndarray:
        return divide(one[..., 0], one[..., 1])

    assert estimate(ratio, np.zeros((3, 2))) == {"value": None, "interval": None}
    assert estimate(ratio, np.array([[1.0, 2.0], [0.0, 0.0]])) == {"value": 0.5, "interval": None}
    assert estimate(ratio, np.array([[1.0, 0.0], [1.0, 0.0]])) == {"value": None, "interval": None}


def test_sums_by_parent_keep_the_order_of_the_first_sub_chip() -> None:
    found = sum_by_parent(np.array([[1], [2], [4], [8]]), ["b", "a", "b", "a"])
    assert found.tolist() == [[5.0], [10.0]]


# --- windows ----------------------------------------------------------------------------------------------------------


def test_windows_that_fit() -> None:
    found = windows.windows((100, 160, 500), 10.0, 32)
    assert [(one.name, one.px) for one in found] == [
        ("square_100m", 10), ("circle_100m", 10), ("square_160m", 16), ("circle_160m", 16),
    ]  # fmt: skip
    assert windows.windows((4.0,), 10.0, 32) == []


def test_circle_holds_the_pixels_whose_centres_lie_within() -> None:
    found = windows.Window("circle", 50, 5).footprint
    expected = [[math.hypot(row - 2, col - 2) <= 2.5 for col in range(5)] for row in range(5)]
    assert found.tolist() == expected
    assert windows.Window("circle", 100, 10).footprint.sum() == pytest.approx(math.pi * 25, rel=0.05)


@pytest.mark.parametrize("shape", ["square", "circle"])
def test_fractions_agree_with_loops_over_pixels(shape: str) -> None:
    masks, classes, px = labels((3, 23, 26), 3, ignore=0.3), 3, 7
    scores, window = probabilities(masks, classes), windows.Window(shape, 70, px)
    predicted = scores.argmax(1).astype(np.uint8)
    found = windows.fractions(masks, {"map": predicted, "soft": scores}, classes, window, 0.7)
    expected = []
    for chip in range(3):
        for top in range(1, 1 + 3 * px, px):  # 23 px hold three of 7, one pixel from the edge
            for left in range(2, 2 + 3 * px, px):
                inside = [
                    (row, col)
                    for row in range(top, top + px)
                    for col in range(left, left + px)
                    if shape == "square" or math.hypot(row - top - 3, col - left - 3) <= 3.5
                ]
                counted = [(row, col) for row, col in inside if masks[chip, row, col] != IGNORE]
                if len(counted) < 0.7 * len(inside):
                    continue
                for class_id in range(classes):
                    expected.append(
                        [
                            np.mean([masks[chip, row, col] == class_id for row, col in counted]),
                            np.mean([predicted[chip, row, col] == class_id for row, col in counted]),
                            np.mean([scores[chip, class_id, row, col] for row, col in counted]),
                            chip,
                        ]
                    )
    table = np.array(expected).reshape(-1, classes, 4)
    assert 0 < len(table) < 27, "some windows lack labels"
    np.testing.assert_allclose(found.labelled, table[..., 0])
    np.testing.assert_allclose(found.estimated["map"], table[..., 1])
    np.testing.assert_allclose(found.estimated["soft"], table[..., 2], rtol=1e-6)
    assert found.chip.tolist() == table[:, 0, 3].tolist()


def test_errors_agree_with_sklearn() -> None:
    masks = labels((6, 32, 32), 3, ignore=0.02)
    scores = probabilities(masks, 3)
    found = windows.fractions(masks, {"soft": scores}, 3, windows.Window("square", 80, 8), 0.9)
    sums = windows.error_sums(found, "soft", 6).sum(0)
    for index in range(3):
        true, guess = found.labelled[:, index], found.estimated["soft"][:, index]
        assert windows.bias(sums[index]) == pytest.approx((guess - true).mean())
        assert windows.relative_bias(sums[index]) == pytest.approx(guess.sum() / true.sum() - 1)
        assert windows.mae(sums[index]) == pytest.approx(sk.mean_absolute_error(true, guess))
        assert windows.rmse(sums[index]) == pytest.approx(sk.root_mean_squared_error(true, guess))
        assert windows.r2(sums[index]) == pytest.approx(sk.r2_score(true, guess))


def test_errors_of_nothing_and_of_a_constant_are_undefined() -> None:
    none = np.zeros(6)
    for score in (windows.bias, windows.relative_bias, windows.mae, windows.rmse, windows.r2):
        assert math.isnan(score(none))
    same = windows.Fractions(np.full((10, 1), 0.1), {"x": np.full((10, 1), 0.3)}, np.zeros(10, int))
    sums = windows.error_sums(same, "x", 1)[0, 0]
    assert windows.bias(sums) == pytest.approx(0.2)
    assert math.isnan(windows.r2(sums)), "labels that never differ leave nothing to explain"


# --- agreement --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 200), st.integers(0, 1000))
def test_kappa_agrees_with_sklearn(classes: int, pixels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, classes, (2, pixels)).astype(np.uint8)
    found = kappa(confusion_matrix(true, predicted, classes))
    if len({*true.tolist(), *predicted.tolist()}) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(sk.cohen_kappa_score(true, predicted, labels=range(classes)))


def test_kappa_without_pixels_is_undefined() -> None:
    assert math.isnan(kappa(np.zeros((2, 2))))


# --- outlines ---------------------------------------------------------------------------------------------------------


def outline(mask: np.ndarray, labelled: np.ndarray, depth: float) -> set[tuple[int, int]]:
    """Pixels of a mask within a distance of a labelled pixel that is not in it, pixel by pixel."""
    inside, outside = np.argwhere(mask), np.argwhere(labelled & ~mask)
    return {
        (int(row), int(col))
        for row, col in inside
        if any(math.hypot(row - other, col - far) <= depth for other, far in outside)
    }


def near(some: set[tuple[int, int]], others: set[tuple[int, int]], distance: float) -> int:
    return sum(any(math.hypot(a - c, b - d) <= distance for c, d in others) for a, b in some)


def test_outlines_agree_with_loops_over_pixels() -> None:
    masks = labels((2, 17, 15), 3, ignore=0.05)
    predictions = labels((2, 17, 15), 3, ignore=0, seed=3)
    found = boundary.boundary_counts(masks, predictions, 3, (1, 3))
    for chip in range(2):
        labelled = masks[chip] != IGNORE
        for class_id in range(3):
            true, pred = labelled & (masks[chip] == class_id), labelled & (predictions[chip] == class_id)
            edges = outline(true, labelled, 1), outline(pred, labelled, 1)
            for place, distance in enumerate((1, 3)):
                bands = outline(true, labelled, distance), outline(pred, labelled, distance)
                assert found[chip, class_id, place].tolist() == [
                    near(edges[1], edges[0], distance), len(edges[1]), near(edges[0], edges[1], distance),
                    len(edges[0]), len(bands[0] & bands[1]), len(bands[0] | bands[1]),
                ]  # fmt: skip


def test_square_moved_by_two_pixels() -> None:
    mask, moved = np.zeros((1, 20, 20), np.uint8), np.zeros((1, 20, 20), np.uint8)
    mask[0, 5:11, 5:11] = 1
    moved[0, 5:11, 7:13] = 1
    counts = boundary.boundary_counts(mask, moved, 2, (1, 3))[0, 1]
    assert boundary.boundary_f1(counts)[1] == 1, "no outline pixel is more than 3 px off"
    assert boundary.boundary_f1(counts)[0] < 0.7
    # at 3 px the bands are the whole 6 x 6 squares, so that boundary IoU is the IoU of the masks
    assert boundary.boundary_iou(counts)[1] == pytest.approx(24 / 48)
    same = boundary.boundary_counts(mask, mask, 2, (1,))[0, 1, 0]
    assert boundary.boundary_f1(same) == boundary.boundary_iou(same) == 1


def test_outline_that_is_not_there_is_undefined_and_one_that_was_missed_is_zero() -> None:
    empty, square = np.zeros((1, 9, 9), np.uint8), np.zeros((1, 9, 9), np.uint8)
    square[0, 3:6, 3:6] = 1
    absent = boundary.boundary_counts(empty, square, 2, (1,))[0, 1, 0]
    assert math.isnan(boundary.boundary_f1(absent))
    assert math.isnan(boundary.boundary_iou(absent))
    missed = boundary.boundary_counts(square, empty, 2, (1,))[0, 1, 0]
    assert boundary.boundary_f1(missed) == boundary.boundary_iou(missed) == 0
    assert math.isnan(boundary.boundary_precision(missed)), "nothing was predicted that could be right"
    unlabelled = np.full((1, 9, 9), IGNORE, np.uint8)
    assert not boundary.boundary_counts(unlabelled, square, 2, (1,)).any()


def test_pixels_without_a_label_make_no_outline() -> None:
    mask = np.zeros((1, 9, 9), np.uint8)
    mask[0, :, :4] = 1
    mask[0, :, 4:] = IGNORE
    assert not boundary.boundary_counts(mask, mask * 0, 2, (3,))[0, 1, 0, 2:4].any()


# --- reliability ------------------------------------------------------------------------------------------------------


def test_losses_and_calibration_errors_agree_with_sklearn_and_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    masks = labels((4, 30, 30), 3, ignore=0.2)
    scores = probabilities(masks, 3)
    sums = reliability.probability_sums(scores, masks)
    counted = masks != IGNORE
    flat, truth = scores.transpose(0, 2, 3, 1)[counted].astype(np.float64), masks[counted]
    flat /= flat.sum(1, keepdims=True)
    assert sums.pixels.tolist() == counted.sum((1, 2)).tolist()
    assert sums.nll.sum() / truth.size == pytest.approx(sk.log_loss(truth, flat), rel=1e-5)
    one_hot = np.eye(3)[truth]
    assert sums.brier.sum() / truth.size == pytest.approx(((flat - one_hot) ** 2).sum(1).mean(), rel=1e-5)
    oracle = multiclass_calibration_error(torch.tensor(flat), torch.tensor(truth.astype(int)), 3, n_bins=15)
    assert reliability.ece(sums.bins[:, 0].sum(0)) == pytest.approx(float(oracle), abs=1e-6)
    for index in range(3):
        oracle = binary_calibration_error(torch.tensor(flat[:, index]), torch.tensor(one_hot[:, index]), n_bins=15)
        assert reliability.ece(sums.bins[:, 1 + index].sum(0)) == pytest.approx(float(oracle), abs=1e-6)


def test_brier_score_of_two_classes_is_twice_that_of_sklearn() -> None:
    masks = labels((2, 20, 20), 2, ignore=0)
    scores = probabilities(masks, 2)
    found = reliability.probability_sums(scores, masks).brier.sum() / masks.size
    assert found == pytest.approx(2 * sk.brier_score_loss(masks.ravel(), scores[:, 1].ravel()), rel=1e-5)


def test_reliability_without_labels_is_undefined() -> None:
    masks = np.full((1, 4, 4), IGNORE, np.uint8)
    sums = reliability.probability_sums(np.full((1, 2, 4, 4), 0.5, np.float32), masks)
    assert sums.pixels.tolist() == [0]
    assert math.isnan(reliability.ece(sums.bins[:, 0].sum(0)))
    assert np.isnan(reliability.bin_means(sums.bins)[0]).all()


def test_certain_pixels_fall_into_the_last_bin() -> None:
    scores = np.array([[[[0.0]], [[1.0]]]], np.float32)
    bins = reliability.probability_sums(scores, np.ones((1, 1, 1), np.uint8)).bins[0]
    assert bins[0, -1].tolist() == bins[2, -1].tolist() == [1, 1, 1]
    assert bins[1, 0].tolist() == [1, 0, 0]


# --- calibration ------------------------------------------------------------------------------------------------------


def test_temperature_that_was_planted_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 200_000)) * 2
    honest = softmax(logits, axis=0)
    truth = (rng.random(logits.shape[1]) > honest.cumsum(0)).sum(0)
    overconfident = softmax(2.5 * logits, axis=0)
    assert calibration.fit_temperature(overconfident, truth) == pytest.approx(2.5, rel=0.02)
    np.testing.assert_allclose(calibration.temper(overconfident, 2.5), honest, atol=1e-5)
    np.testing.assert_array_equal(calibration.temper(overconfident, 2.5).argmax(0), overconfident.argmax(0))


def test_temperature_has_the_highest_likelihood_of_a_grid() -> None:
    masks = labels((3, 40, 40), 3)
    scores, truth, _ = calibration._pixels(probabilities(masks, 3, sharpness=3), masks, ["a", "b", "c"])
    best = calibration.fit_temperature(scores, truth)
    losses = [calibration.nll(calibration.temper(scores, t), truth) for t in (best, *np.geomspace(0.1, 10, 60))]
    assert losses[0] <= min(losses) + 1e-6


def test_isotonic_curves_agree_with_sklearn() -> None:
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(2)
    score = rng.random(50_000)
    truth = (rng.random(50_000) < score**3).astype(np.int64)
    curves = calibration.fit_isotonic(np.stack([1 - score, score]), truth)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(score, truth)
    at = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.interp(at, curves[1]["score"], curves[1]["frequency"]), oracle.predict(at), atol=0.02)


def fitted(masks: np.ndarray, scores: np.ndarray, positive: str | None = "b") -> calibration.HeadCalibration:
    parents = [f"P{index // 2}" for index in range(len(masks))]
    return calibration.fit_head(scores, masks, parents, ["a", "b"], positive)


def test_temperature_is_taken_where_it_is_right_and_isotonic_where_it_is_not() -> None:
    rng = np.random.default_rng(4)
    logit = rng.normal(size=(8, 64, 64)) * 2
    masks = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.uint8)

    def scores(p: np.ndarray) -> np.ndarray:
        return np.stack([1 - p, p], axis=1).astype(np.float32)

    right = fitted(masks, scores(1 / (1 + np.exp(-3 * logit))))
    assert right["method"] == "temperature"
    assert right["temperature"] == pytest.approx(3, rel=0.05)
    assert right["isotonic"] is None
    losses = right["cross_fitted_nll"]
    assert losses is not None
    assert losses["temperature"] < losses["softmax"]
    # a shift, which no temperature takes back: far too many positives
    shifted = scores(1 / (1 + np.exp(-logit - 1.5)))
    wrong = fitted(masks, shifted)
    assert wrong["method"] == "isotonic"
    assert wrong["temperature"] is None
    after = np.stack([calibration.calibrate(chip, wrong) for chip in shifted])
    np.testing.assert_allclose(after.sum(1), 1, rtol=1e-5)
    assert shifted[:, 1].mean() - masks.mean() > 0.15
    assert after[:, 1].mean() == pytest.approx(masks.mean(), abs=0.01)


def test_two_parents_are_too_few_to_prove_isotonic() -> None:
    masks = labels((4, 20, 20), 2)
    found = fitted(masks, probabilities(masks, 2))
    assert (found["method"], found["parents"], found["cross_fitted_nll"]) == ("temperature", 2, None)


def test_head_without_labels_has_no_calibration_and_keeps_its_scores() -> None:
    masks = np.full((2, 8, 8), IGNORE, np.uint8)
    scores = probabilities(masks, 2)
    found = fitted(masks, scores)
    assert (found["method"], found["temperature"], found["threshold"], found["pixels"]) == (None, None, None, 0)
    np.testing.assert_array_equal(calibration.calibrate(scores[0], found), scores[0])


def test_fit_looks_at_some_of_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = labels((4, 40, 40), 2)
    scores = probabilities(masks, 2)
    full = fitted(masks, scores)
    monkeypatch.setattr(calibration, "_MOST_PIXELS", 1500)
    some = fitted(masks, scores)
    assert 700 < some["pixels"] <= 1500 < full["pixels"]
    assert some["temperature"] == pytest.approx(full["temperature"], rel=0.15)


# --- the positive class -----------------------------------------------------------------------------------------------


def positives(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(20_000) < 0.2
    score = np.clip(rng.beta(2, 5, 20_000) + 0.25 * positive, 0, 1)
    return score, positive


def test_average_precision_agrees_with_sklearn_to_the_step_and_with_torchmetrics_at_the_steps() -> None:
    import torch
    from torchmetrics.functional.classification import binary_average_precision

    score, positive = positives()
    found = ranking.average_precision(ranking.histogram(score, positive))
    assert found == pytest.approx(sk.average_precision_score(positive, score), abs=2e-3)
    level = np.floor(score * ranking.LEVELS) / ranking.LEVELS
    assert found == pytest.approx(sk.average_precision_score(positive, level))
    steps = torch.linspace(0, 1, ranking.LEVELS + 1, dtype=torch.float64)
    # torchmetrics counts by comparing everything with everything where a training has asked for determinism
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        oracle = binary_average_precision(torch.tensor(level), torch.tensor(positive.astype(int)), thresholds=steps)
    finally:
        torch.use_deterministic_algorithms(before)
    assert found == pytest.approx(float(oracle), abs=2e-3)


def test_curve_and_counts_are_those_of_each_threshold() -> None:
    score, positive = positives()
    score = np.round(score, 3)
    counts = ranking.histogram(score, positive)
    thresholds, precisions, recalls = ranking.thin_curve(counts, 11)
    for threshold, precision, recall in zip(thresholds, precisions, recalls, strict=True):
        called = score >= threshold - 1e-9
        hits, alarms, misses = ranking.threshold_counts(counts, float(threshold))
        assert (hits, alarms, misses) == (
            (called & positive).sum(), (called & ~positive).sum(), (~called & positive).sum(),
        )  # fmt: skip
        assert recall == pytest.approx(sk.recall_score(positive, called))
        if called.any():
            assert precision == pytest.approx(sk.precision_score(positive, called))
        else:
            assert math.isnan(precision)


def test_threshold_has_the_highest_f1() -> None:
    score, positive = positives(3)
    score = np.round(score, 3)
    found = ranking.best_threshold(ranking.histogram(score, positive))
    assert found is not None
    best = sk.f1_score(positive, score >= found - 1e-9)
    assert best == pytest.approx(max(sk.f1_score(positive, score >= t - 1e-9) for t in np.unique(score)))
    counts = ranking.threshold_counts(ranking.histogram(score, positive), found)
    assert ranking.f1_at(counts) == pytest.approx(best)
    called = score >= found - 1e-9
    assert ranking.iou_at(counts) == pytest.approx(sk.jaccard_score(positive, called))
    assert ranking.precision_at(counts) == pytest.approx(sk.precision_score(positive, called))
    assert ranking.recall_at(counts) == pytest.approx(sk.recall_score(positive, called))


def test_without_a_positive_nothing_is_defined() -> None:
    counts = ranking.histogram(np.array([0.2, 0.9]), np.array([False, False]))
    assert math.isnan(ranking.average_precision(counts))
    assert ranking.best_threshold(counts) is None
    cut = ranking.threshold_counts(counts, 0.5)
    for score in (ranking.precision_at, ranking.recall_at, ranking.f1_at, ranking.iou_at):
        assert math.isnan(score(cut))
