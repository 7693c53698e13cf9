"""Confusion counts and scores against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as oracle

from cityheads.core import confusion as scores
from cityheads.core.confusion import HeadMetric, metric_title, or_none

NAMES = ("water", "developed", "forest", "other")
MIOU = HeadMetric.of("miou", NAMES)


def labels(classes: int, size: int = 60) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    values = st.integers(0, classes - 1)
    return st.tuples(
        hnp.arrays(np.uint8, size, elements=st.one_of(values, st.just(255))),
        hnp.arrays(np.uint8, size, elements=values),
    )


@given(labels(4))
def test_scores_agree_with_sklearn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    true, predicted = pair
    confusion = scores.confusion_matrix(true, predicted, 4)
    counted = true != 255
    if not counted.any():
        assert confusion.sum() == 0
        assert math.isnan(scores.accuracy(confusion))
        assert np.isnan(scores.class_iou(confusion)).all()
        return
    t, p = true[counted], predicted[counted]
    np.testing.assert_array_equal(confusion, oracle.confusion_matrix(t, p, labels=range(4)))
    present = np.isin(range(4), t)
    kwargs = {"labels": range(4), "average": None, "zero_division": 0}
    for ours, theirs in (
        (scores.class_iou(confusion), oracle.jaccard_score(t, p, **kwargs)),
        (scores.f1(confusion), oracle.f1_score(t, p, **kwargs)),
        (scores.recall(confusion), oracle.recall_score(t, p, **kwargs)),
    ):
        np.testing.assert_allclose(ours[present], theirs[present])
        assert np.isnan(ours[~present]).all()
    found = scores.precision(confusion)
    defined = present & np.isin(range(4), p)
    np.testing.assert_allclose(found[defined], oracle.precision_score(t, p, **kwargs)[defined])
    assert np.isnan(found[~defined]).all()
    np.testing.assert_allclose(scores.accuracy(confusion), oracle.accuracy_score(t, p))
    np.testing.assert_allclose(MIOU(confusion), oracle.jaccard_score(t, p, labels=np.unique(t), average="macro"))


def test_absent_class_is_undefined_even_when_predicted() -> None:
    # class 2 has no labelled pixel; three pixels of class 0 are called 2
    confusion = np.array([[7, 0, 3], [0, 10, 0], [0, 0, 0]])
    assert or_none(scores.class_iou(confusion), 6) == [0.7, 1.0, None]
    assert or_none(scores.f1(confusion))[2] is None
    assert or_none(scores.precision(confusion))[2] is None
    assert MIOU(confusion) == pytest.approx(0.85)
    assert math.isnan(HeadMetric.of("iou", NAMES[:3], "forest")(confusion))
    assert HeadMetric.of("iou", NAMES[:3], "water")(confusion) == pytest.approx(0.7)


def test_pooled_iou_is_not_the_mean_of_parts() -> None:
    parts = np.array([[[98, 0], [0, 2]], [[0, 0], [100, 0]]])
    iou = HeadMetric.of("iou", ["not building", "building"], "building")
    assert iou(parts.sum(0)) == pytest.approx(2 / 102)
    assert iou(parts).mean() == pytest.approx(0.5)


@given(labels(3), labels(3))
def test_merged_confusions_are_the_pooled_one(
    one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]
) -> None:
    apart = scores.confusion_matrix(*one, 3) + scores.confusion_matrix(*two, 3)
    pooled = scores.confusion_matrix(np.concatenate([one[0], two[0]]), np.concatenate([one[1], two[1]]), 3)
    np.testing.assert_array_equal(apart, pooled)


@given(labels(4), st.permutations(range(4)))
def test_renaming_classes_permutes_the_scores(pair: tuple[np.ndarray, np.ndarray], order: list[int]) -> None:
    confusion = scores.confusion_matrix(*pair, 4)
    table = np.full(256, 255, np.uint8)
    table[:4] = order
    renamed = scores.confusion_matrix(table[pair[0]], table[pair[1]], 4)
    np.testing.assert_array_equal(scores.class_iou(renamed)[order], scores.class_iou(confusion))
    np.testing.assert_allclose(MIOU(renamed), MIOU(confusion))


@given(hnp.arrays(np.int64, (3, 2, 4, 4), elements=st.integers(0, 50)))
def test_leading_axes_are_kept(stack: np.ndarray) -> None:
    for score in (scores.class_iou, scores.f1, scores.precision, scores.recall, scores.accuracy):
        np.testing.assert_array_equal(score(stack)[1, 0], score(stack[1, 0]))
    np.testing.assert_array_equal(MIOU(stack)[2, 1], MIOU(stack[2, 1]))


@pytest.mark.parametrize(
    ("true", "predicted"), [([0, 3], [0, 0]), ([0, 1], [0, 3]), ([0, 1], [0, 255]), ([0, 1], [0, 1, 1])]
)
def test_values_that_are_no_class_are_refused(true: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match=r"shape|of 3 classes"):
        scores.confusion_matrix(np.array(true), np.array(predicted), 3)


def test_prediction_under_an_ignored_label_may_be_anything() -> None:
    confusion = scores.confusion_matrix(np.array([255, 1]), np.array([200, 1]), 2)
    np.testing.assert_array_equal(confusion, [[0, 0], [0, 1]])


def test_positive_class_is_taken_by_name_wherever_it_stands() -> None:
    confusion = np.random.default_rng(0).integers(1, 50, (5, 4, 4))
    for position, name in enumerate(NAMES):
        metric = HeadMetric.of("iou", NAMES, name)
        np.testing.assert_array_equal(metric(confusion), scores.class_iou(confusion)[:, position])
        assert (metric.positive, metric.title) == (position, f"IoU of {name}")
    assert (MIOU.positive, MIOU.title) == (None, "mIoU")
    assert HeadMetric.of("miou", NAMES, "water") == MIOU, "the mean has no positive class"
    assert metric_title("iou", "building") == "IoU of building"


@pytest.mark.parametrize(
    ("name", "positive", "words"),
    [("mean_iou", None, "neither miou nor iou"), ("iou", None, "class None"), ("iou", "road", "road is none of water")],
)
def test_unknown_metric_or_class_is_refused(name: str, positive: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HeadMetric.of(name, NAMES, positive)


def test_pairs_of_two_label_layers_are_counted() -> None:
    one, two = np.array([[0, 1, 1], [0, 1, 0]], np.uint8), np.array([[2, 0, 0], [1, 2, 2]], np.uint8)
    np.testing.assert_array_equal(scores.pair_counts(one, two, 2, 3), [[0, 1, 2], [2, 0, 1]])
    with pytest.raises(ValueError, match="second id 2 of 2 classes"):
        scores.pair_counts(one, two, 2, 2)
