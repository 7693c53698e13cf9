"""Scores against scikit-learn, and the bootstrap against enumeration and theory."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics as oracle

from cityheads.evaluation import metrics


def labels(classes: int, size: int = 60) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    values = st.integers(0, classes - 1)
    return st.tuples(
        hnp.arrays(np.uint8, size, elements=st.one_of(values, st.just(255))),
        hnp.arrays(np.uint8, size, elements=values),
    )


@given(labels(4))
def test_scores_agree_with_sklearn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    true, predicted = pair
    confusion = metrics.confusion_matrix(true, predicted, 4)
    counted = true != 255
    if not counted.any():
        assert confusion.sum() == 0
        assert math.isnan(metrics.accuracy(confusion))
        assert np.isnan(metrics.class_iou(confusion)).all()
        return
    t, p = true[counted], predicted[counted]
    np.testing.assert_array_equal(confusion, oracle.confusion_matrix(t, p, labels=range(4)))
    present = np.isin(range(4), t)
    kwargs = {"labels": range(4), "average": None, "zero_division": 0}
    for ours, theirs in (
        (metrics.class_iou(confusion), oracle.jaccard_score(t, p, **kwargs)),
        (metrics.f1(confusion), oracle.f1_score(t, p, **kwargs)),
        (metrics.recall(confusion), oracle.recall_score(t, p, **kwargs)),
    ):
        np.testing.assert_allclose(ours[present], theirs[present])
        assert np.isnan(ours[~present]).all()
    found = metrics.precision(confusion)
    defined = present & np.isin(range(4), p)
    np.testing.assert_allclose(found[defined], oracle.precision_score(t, p, **kwargs)[defined])
    assert np.isnan(found[~defined]).all()
    np.testing.assert_allclose(metrics.accuracy(confusion), oracle.accuracy_score(t, p))
    np.testing.assert_allclose(
        metrics.head_metric(confusion, "miou"), oracle.jaccard_score(t, p, labels=np.unique(t), average="macro")
    )


def test_absent_class_is_undefined_even_when_predicted() -> None:
    # class 2 has no labelled pixel; three pixels of class 0 are called 2
    confusion = np.array([[7, 0, 3], [0, 10, 0], [0, 0, 0]])
    assert metrics.or_none(metrics.class_iou(confusion), 6) == [0.7, 1.0, None]
    assert metrics.or_none(metrics.f1(confusion))[2] is None
    assert metrics.or_none(metrics.precision(confusion))[2] is None
    assert metrics.head_metric(confusion, "miou") == pytest.approx(0.85)
    assert math.isnan(metrics.head_metric(confusion, "iou"))
    assert metrics.summary(confusion)["miou"] == pytest.approx(0.85)


def test_pooled_iou_is_not_the_mean_of_parts() -> None:
    parts = np.array([[[98, 0], [0, 2]], [[0, 0], [100, 0]]])
    assert metrics.head_metric(parts.sum(0), "iou") == pytest.approx(2 / 102)
    assert metrics.head_metric(parts, "iou").mean() == pytest.approx(0.5)


@given(labels(3), labels(3))
def test_merged_confusions_are_the_pooled_one(
    one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]
) -> None:
    apart = metrics.confusion_matrix(*one, 3) + metrics.confusion_matrix(*two, 3)
    pooled = metrics.confusion_matrix(np.concatenate([one[0], two[0]]), np.concatenate([one[1], two[1]]), 3)
    np.testing.assert_array_equal(apart, pooled)


@given(labels(4), st.permutations(range(4)))
def test_renaming_classes_permutes_the_scores(pair: tuple[np.ndarray, np.ndarray], order: list[int]) -> None:
    confusion = metrics.confusion_matrix(*pair, 4)
    table = np.full(256, 255, np.uint8)
    table[:4] = order
    renamed = metrics.confusion_matrix(table[pair[0]], table[pair[1]], 4)
    np.testing.assert_array_equal(metrics.class_iou(renamed)[order], metrics.class_iou(confusion))
    np.testing.assert_allclose(metrics.head_metric(renamed, "miou"), metrics.head_metric(confusion, "miou"))


@given(hnp.arrays(np.int64, (3, 2, 4, 4), elements=st.integers(0, 50)))
def test_leading_axes_are_kept(stack: np.ndarray) -> None:
    for score in (metrics.class_iou, metrics.f1, metrics.precision, metrics.recall, metrics.accuracy):
        np.testing.assert_array_equal(score(stack)[1, 0], score(stack[1, 0]))
    np.testing.assert_array_equal(metrics.head_metric(stack, "miou")[2, 1], metrics.head_metric(stack[2, 1], "miou"))


@pytest.mark.parametrize(
    ("true", "predicted"), [([0, 3], [0, 0]), ([0, 1], [0, 3]), ([0, 1], [0, 255]), ([0, 1], [0, 1, 1])]
)
def test_values_that_are_no_class_are_refused(true: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match=r"shape|of 3 classes"):
        metrics.confusion_matrix(np.array(true), np.array(predicted), 3)


def test_prediction_under_an_ignored_label_may_be_anything() -> None:
    confusion = metrics.confusion_matrix(np.array([255, 1]), np.array([200, 1]), 2)
    np.testing.assert_array_equal(confusion, [[0, 0], [0, 1]])


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="neither miou nor iou"):
        metrics.head_metric(np.eye(2), "mean_iou")


# --- bootstrap -----------------------------------------------------------------------------------------------------


def confusions_of_parents(rng: np.random.Generator, parents: int) -> np.ndarray:
    """Give (parents, 2, 3, 3) counts of two models on the same labels; every parent is a draw of its own."""
    out = np.zeros((parents, 2, 3, 3))
    for one in out:
        pixels = np.round(rng.lognormal(8, 0.5) * rng.dirichlet([4, 2, 2]))
        first = rng.beta(14, 4)
        for model, hit in zip(one, (first, np.clip(first + rng.normal(-0.01, 0.03), 0, 1)), strict=True):
            hits = np.round(pixels * hit)
            model += (pixels - hits)[:, None] / 2
            np.fill_diagonal(model, hits)
    return out


def delta(pooled: np.ndarray) -> np.ndarray:
    return metrics.head_metric(pooled[..., 0, :, :], "miou") - metrics.head_metric(pooled[..., 1, :, :], "miou")


def test_bootstrap_agrees_with_all_27_resamples_of_three_parents() -> None:
    data = confusions_of_parents(np.random.default_rng(5), 3)
    exact = np.array([delta(data[list(draw)].sum(0)) for draw in itertools.product(range(3), repeat=3)])
    assert len(exact) == 27
    draws = metrics.resample_counts(3, 40000, seed=1)
    assert (draws.sum(1) == 3).all()
    sampled = delta(np.tensordot(draws, data, axes=(1, 0)))
    assert sampled.mean() == pytest.approx(exact.mean(), abs=5 * exact.std() / math.sqrt(len(sampled)))
    assert metrics.parent_variance(sampled, 3) == pytest.approx(exact.var() * 3 / 2, rel=0.05)
    assert {round(float(value), 9) for value in sampled} <= {round(float(value), 9) for value in exact}


def test_variance_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(3).normal(size=6)
    means = metrics.resample_counts(6, 50000, seed=0) @ values / 6
    assert metrics.parent_variance(means, 6) == pytest.approx(values.var(ddof=1) / 6, rel=0.03)


def test_same_seed_draws_the_same_parents() -> None:
    np.testing.assert_array_equal(metrics.resample_counts(5, 200, 7), metrics.resample_counts(5, 200, 7))
    assert not np.array_equal(metrics.resample_counts(5, 200, 7), metrics.resample_counts(5, 200, 8))


def test_variance_is_unknown_with_one_parent_or_a_class_in_too_few() -> None:
    assert math.isnan(metrics.parent_variance(np.ones(100), 1))
    assert math.isnan(metrics.parent_variance(np.r_[np.full(6, np.nan), np.ones(94)], 5))
    assert metrics.parent_variance(np.r_[np.full(5, np.nan), np.ones(95)], 5) == 0


@settings(max_examples=200)
@given(st.floats(0.501, 0.9995), st.floats(1, 3e5))
def test_t_quantile_agrees_with_scipy(probability: float, df: float) -> None:
    assert metrics.t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=1e-4)
    assert metrics.t_quantile(1 - probability, df) == pytest.approx(-metrics.t_quantile(probability, df), rel=1e-6)


def test_interval_is_clipped_and_may_be_undefined() -> None:
    assert metrics.interval(0.9, 0.01, 4, 0.95, (0, 1)) == (pytest.approx(0.9 - 2.7764 * 0.1, abs=1e-4), 1)
    assert metrics.interval(0.5, 0.0, 4, 0.95, (0, 1)) == (0.5, 0.5)
    assert metrics.interval(math.nan, 0.0, 4, 0.95, (0, 1)) is None
    assert metrics.interval(0.5, math.nan, 4, 0.95, (0, 1)) is None


@pytest.mark.parametrize("parents", [3, 5, 10])
def test_intervals_of_paired_differences_hold_the_truth_as_often_as_they_say(parents: int) -> None:
    """Nominal 95 %; percentiles of the same resamples reach about 75, 83 and 89 % and would fail this."""
    rng = np.random.default_rng(11)
    truth = float(delta(confusions_of_parents(rng, 20000).sum(0)))
    draws = metrics.resample_counts(parents, 400, seed=0).astype(float)
    hits = percentile_hits = 0
    trials = 400
    for _ in range(trials):
        data = confusions_of_parents(rng, parents)
        samples = delta(np.tensordot(draws, data, axes=(1, 0)))
        ends = metrics.interval(
            float(delta(data.sum(0))), metrics.parent_variance(samples, parents), parents - 1, 0.95, (-1, 1)
        )
        assert ends is not None
        hits += ends[0] <= truth <= ends[1]
        low, high = np.quantile(samples, [0.025, 0.975])
        percentile_hits += low <= truth <= high
    assert 0.91 <= hits / trials <= 0.985
    assert percentile_hits < hits
