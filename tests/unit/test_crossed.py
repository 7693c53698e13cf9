"""The crossed analysis: degrees of freedom, variances and their invariances, against other ways to the same numbers."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cityheads.core.confusion import HeadMetric
from cityheads.evaluation.crossed import LEAST_EFFECTIVE, crossed, effective_parents, total
from cityheads.evaluation.paired import compare_paired, score_interval, sum_of
from cityheads.evaluation.permutation import sign_flip
from cityheads.evaluation.power import Outlook, power_of

MIOU = HeadMetric.of("miou", ("a", "b", "c"))
IOU = HeadMetric.of("iou", ("no", "yes"), "yes")


def draw(rng: np.random.Generator, metric: HeadMetric, seeds: int, parents: int, apart: float = 0.3) -> Any:
    """Give counts (seeds, parents, C, C) of two models on the same labels."""
    classes = len(metric.classes)
    pixels = rng.integers(500, 5000, (parents, classes))
    models = []
    for _ in range(2):
        found = 1 / (1 + np.exp(-(1.5 + apart * rng.normal(size=(seeds, parents, classes)))))
        hits = np.rint(found * pixels).astype(np.int64)
        counts = np.zeros((seeds, parents, classes, classes), np.int64)
        index = np.arange(classes)
        counts[..., index, index] = hits
        counts[..., index, (index + 1) % classes] = pixels - hits
        models.append(counts)
    return models


def binary(hits: np.ndarray, pixels: int = 1000) -> np.ndarray:
    """Give counts whose IoU of ``yes`` is linear in the hits: no false positives, as many pixels in every parent."""
    counts = np.zeros((*hits.shape, 2, 2), np.int64)
    counts[..., 1, 1] = hits
    counts[..., 1, 0] = pixels - hits
    counts[..., 0, 0] = 1
    return counts


# --- against other ways to the same number -------------------------------------------------------------------------


def test_one_seed_of_equal_parents_is_the_paired_t_interval() -> None:
    rng = np.random.default_rng(0)
    hits = rng.integers(400, 900, (2, 1, 9))
    found = crossed(binary(hits[0]), binary(hits[1]), IOU)
    expected = stats.ttest_rel(hits[0, 0] / 10, hits[1, 0] / 10).confidence_interval(0.95)
    assert found.interval(0.95) == pytest.approx((expected.low, expected.high))
    assert found.parents_df == pytest.approx(8)
    assert not found.includes_training


def test_one_seed_on_several_folds_is_the_t_interval_of_the_folds_means() -> None:
    rng = np.random.default_rng(1)
    hits = rng.integers(400, 900, (2, 1, 12))
    folds = [0, 1, 2, 3] * 3
    found = crossed(binary(hits[0]), binary(hits[1]), IOU, folds)
    means = ((hits[0] - hits[1])[0] / 10).reshape(3, 4).mean(0)
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert found.interval(0.95) == pytest.approx((expected.low, expected.high))
    assert found.by_folds
    assert found.includes_training


def test_variances_are_those_of_the_two_way_analysis_of_variance() -> None:
    """Of equal parents, with a linear score: MS of parents, seeds and residual as a textbook has them."""
    rng = np.random.default_rng(2)
    seeds, parents = 4, 7
    hits = (
        600
        + rng.integers(-100, 100, (1, parents))
        + rng.integers(-40, 40, (seeds, 1))
        + rng.integers(-20, 20, (seeds, parents))
    )
    other = np.full_like(hits, 550)
    found = crossed(binary(hits), binary(other), IOU)
    y = (hits - other) / 10
    of_parents, of_seeds = y.mean(0), y.mean(1)
    residual = y - of_parents - of_seeds[:, None] + y.mean()
    ms_parents = seeds * of_parents.var(ddof=1)
    ms_seeds = parents * of_seeds.var(ddof=1)
    ms_residual = (residual**2).sum() / ((seeds - 1) * (parents - 1))
    assert found.parents_variance == pytest.approx((ms_parents - ms_residual) / (seeds * parents))
    assert found.training_variance == pytest.approx(ms_seeds / (seeds * parents))
    assert (found.parents_df, found.training_df) == (pytest.approx(parents - 1), pytest.approx(seeds - 1))
    expected = math.hypot(
        stats.t.ppf(0.975, parents - 1) * math.sqrt(found.parents_variance),
        stats.t.ppf(0.975, seeds - 1) * math.sqrt(found.training_variance),
    )
    assert found.half_width(0.95) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [MIOU, IOU])
def test_influence_is_the_derivative_by_the_weight_of_a_parent(metric: HeadMetric) -> None:
    first, second = draw(np.random.default_rng(3), metric, 1, 6)
    found = crossed(first, second, metric)

    def value(weights: np.ndarray) -> float:
        one, two = (np.einsum("p,pij->ij", weights, counts[0]) for counts in (first, second))
        return float(100 * (metric(one) - metric(two)))

    slopes = []
    for parent in range(6):
        step = np.zeros(6)
        step[parent] = 1e-4
        slopes.append((value(1 + step) - value(1 - step)) / 2e-4)
    assert found.point == pytest.approx(value(np.ones(6)))
    # the correction for the parents' shares differs between classes, but is near 6 / 5 throughout
    ratio = (found.influence[0] ** 2).sum() / np.square(slopes).sum()
    assert 1.15 < ratio < 1.6
    assert np.corrcoef(found.influence[0], slopes)[0, 1] > 0.99


def test_degrees_of_freedom_come_from_the_parents_that_hold_the_class() -> None:
    counts = np.zeros((1, 10, 2, 2), np.int64)
    counts[:, :, 0, 0] = 1000
    counts[:, :3, 1, 1] = [[300, 350, 250]]
    counts[:, :3, 1, 0] = 100
    other = counts.copy()
    other[:, :3, 1, 1] += 20
    other[:, :3, 1, 0] -= 20
    assert crossed(counts, other, IOU).parents_df == pytest.approx(2, abs=0.1)


def test_a_class_in_one_parent_leaves_its_variation_unknown_and_not_zero() -> None:
    first, second = draw(np.random.default_rng(4), MIOU, 3, 8)
    for counts in (first, second):
        counts[:, 1:, 2] = 0
    found = crossed(first, second, MIOU)
    assert not math.isnan(found.point)
    assert found.interval(0.95) is None
    assert score_interval(first, MIOU, 0.95) is None
    assert power_of(found, 0.95, (1, 3)) == {"power": 0.8, "detectable_pp": None, "needed": []}


def test_a_class_almost_wholly_in_one_parent_is_as_unknown() -> None:
    first, second = draw(np.random.default_rng(5), IOU, 3, 8)
    for counts in (first, second):
        counts[:, 1:, 1] //= 300
    second[:, 1:] = first[:, 1:]
    assert effective_parents(first[0].sum(-1))[1] < LEAST_EFFECTIVE
    assert crossed(first, second, IOU).interval(0.95) is None


def test_two_parents_of_a_class_widen_the_interval() -> None:
    first, second = draw(np.random.default_rng(6), IOU, 3, 8)
    whole = crossed(first, second, IOU).half_width(0.95)
    for counts in (first, second):
        counts[:, 2:, 1] = 0
    found = crossed(first, second, IOU)
    assert found.parents_df == pytest.approx(1, abs=0.05)
    assert found.half_width(0.95) > 2 * whole


@pytest.mark.parametrize("parents", [0, 1])
def test_too_few_parents_have_no_interval(parents: int) -> None:
    first, second = draw(np.random.default_rng(7), IOU, 2, 1)
    found = compare_paired(first[:, :parents], second[:, :parents], IOU)
    assert found.interval(0.95) is None


def test_the_same_counts_differ_by_nothing_for_sure() -> None:
    first, _ = draw(np.random.default_rng(8), MIOU, 3, 8)
    assert crossed(first, first, MIOU, [0, 1] * 4).interval(0.95) == (0.0, 0.0)


def test_sum_of_heads_knows_that_they_vary_together() -> None:
    first, second = draw(np.random.default_rng(9), IOU, 3, 8)
    one = compare_paired(first, second, IOU)
    both, none = sum_of([one, one]), sum_of([one, compare_paired(second, first, IOU)])
    assert one.effect is not None
    assert both is not None
    assert none is not None
    assert both.standard_error == pytest.approx(2 * one.effect.standard_error)
    assert none.standard_error == pytest.approx(0)
    assert total([one.effect, one.effect]).point == pytest.approx(2 * one.effect.point)


def test_score_interval_stays_within_0_and_1() -> None:
    counts = binary(np.array([[999, 1000, 950, 1000]]))
    found = score_interval(counts, IOU, 0.95)
    assert found is not None
    assert found[1] == 1.0
    assert found[0] < 0.98


# --- invariances ---------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 9), st.integers(1, 3), st.sampled_from([MIOU, IOU]))
def test_order_of_parents_seeds_and_names_of_folds_do_not_matter(
    seed: int, seeds: int, parents: int, folds: int, metric: HeadMetric
) -> None:
    rng = np.random.default_rng(seed)
    first, second = draw(rng, metric, seeds, parents)
    fold_of = np.arange(parents) % folds
    order, turns = rng.permutation(parents), rng.permutation(seeds)
    one = crossed(first, second, metric, fold_of)
    two = crossed(first[turns][:, order], second[turns][:, order], metric, (7 - fold_of)[order])
    assert two.point == pytest.approx(one.point)
    assert two.half_width(0.95) == pytest.approx(one.half_width(0.95), nan_ok=True)
    assert (two.parents_df, two.training_df) == (pytest.approx(one.parents_df), pytest.approx(one.training_df))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 9), st.integers(1, 3), st.sampled_from([MIOU, IOU]))
def test_swapping_the_models_turns_the_sign(
    seed: int, seeds: int, parents: int, folds: int, metric: HeadMetric
) -> None:
    first, second = draw(np.random.default_rng(seed), metric, seeds, parents)
    fold_of = np.arange(parents) % folds
    one, two = (compare_paired(*pair, metric, fold_of) for pair in ((first, second), (second, first)))
    assert one.delta_pp == -two.delta_pp
    there, back = one.interval(0.95), two.interval(0.95)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert there == pytest.approx([-back[1], -back[0]], abs=0.011)
    assert sign_flip(first, second, metric, 600, 0) == sign_flip(second, first, metric, 600, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 50))
def test_pixels_counted_in_another_unit_change_nothing(seed: int, factor: int) -> None:
    first, second = draw(np.random.default_rng(seed), MIOU, 2, 6)
    one, two = crossed(first, second, MIOU), crossed(first * factor, second * factor, MIOU)
    assert two.half_width(0.95) == pytest.approx(one.half_width(0.95))


def test_benchmark_of_the_verdict_runs_and_finds_no_fault(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    bench = importlib.import_module("bench_verdict")
    assert bench.main(["--quick"]) == 0
    told = capsys.readouterr().out
    assert "python benchmarks/bench_verdict.py --quick" in told
    assert "nan" not in told


# --- sign flips ----------------------------------------------------------------------------------------------------


def test_sign_flip_agrees_with_scipy() -> None:
    """Equal parents and a linear score: the paired permutation test of means."""
    rng = np.random.default_rng(10)
    hits = rng.integers(400, 700, (2, 1, 8))
    hits[1] -= 60
    found = sign_flip(binary(hits[0]), binary(hits[1]), IOU, 10000, 0)
    expected = stats.permutation_test(
        (hits[0, 0] / 10, hits[1, 0] / 10), lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples", vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    assert found == {"p": pytest.approx(expected.pvalue), "flips": 256, "exact": True}


def test_drawn_sign_flips_are_near_all_of_them_and_the_same_every_time() -> None:
    first, second = draw(np.random.default_rng(11), MIOU, 2, 10, 0.15)
    exact = sign_flip(first, second, MIOU, 1024, 0)
    drawn = sign_flip(first, second, MIOU, 1000, 3)
    assert exact is not None
    assert drawn is not None
    assert exact["exact"]
    assert not drawn["exact"]
    assert drawn["p"] == pytest.approx(exact["p"], abs=0.05)
    assert drawn == sign_flip(first, second, MIOU, 1000, 3)


def test_sign_flip_of_an_undefined_difference_is_none() -> None:
    counts = np.zeros((1, 3, 2, 2), np.int64)
    counts[..., 0, 0] = 5
    assert sign_flip(counts, counts, IOU, 100, 0) is None


# --- power ---------------------------------------------------------------------------------------------------------


def test_needed_numbers_are_the_smallest_that_are_enough() -> None:
    first, second = draw(np.random.default_rng(12), MIOU, 3, 12)
    effect = crossed(first, second, MIOU)
    outlook, power = Outlook.of(effect), power_of(effect, 0.95, (3.0, 1.0))
    assert [one["margin_pp"] for one in power["needed"]] == [1.0, 3.0]
    assert power["detectable_pp"] == pytest.approx(outlook.detectable(12, 3, 0.95), abs=0.01)
    assert outlook.half_width(12, 3, 0.95) == pytest.approx(effect.half_width(0.95))
    seen = 0
    for one in power["needed"]:
        margin = one["margin_pp"]
        if one["parents"] is not None:
            assert outlook.detectable(one["parents"], 3, 0.95) <= margin
            assert one["parents"] == 2 or outlook.detectable(one["parents"] - 1, 3, 0.95) > margin
            seen += 1
        if one["seeds"] is not None:
            assert outlook.detectable(12, one["seeds"], 0.95) <= margin
            assert one["seeds"] == 2 or outlook.detectable(12, one["seeds"] - 1, 0.95) > margin
            seen += 1
        if one["both"] is not None:
            assert outlook.detectable(one["both"][0], one["both"][1], 0.95) <= margin
            seen += 1
    assert seen >= 3


def test_one_seed_does_not_say_what_more_would_bring() -> None:
    first, second = draw(np.random.default_rng(13), MIOU, 1, 12)
    power = power_of(crossed(first, second, MIOU), 0.95, (1.0,))
    assert power["detectable_pp"] is not None
    assert power["needed"] == []
