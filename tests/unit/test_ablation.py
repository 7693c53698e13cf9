"""Ablation of modalities and of the encoder, against scores and resamples worked out here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from cityheads.core.confusion import HeadMetric
from cityheads.core.modalities import MODALITIES, bands_used, removable
from cityheads.evaluation.ablation import averaged, how_to_read, measure

NAMES = ["water", "developed", "forest"]
MIOU = HeadMetric.of("miou", NAMES)
COUNTS = arrays(np.int64, (2, 4, 3, 3), elements=st.integers(0, 400))


def miou(matrix: np.ndarray) -> float:
    hits, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    ious = [h / (t + p - h) for h, t, p in zip(hits, true, predicted, strict=True) if t]
    return float(np.mean(ious)) if ious else math.nan


def evaluation(full: np.ndarray, ablated: np.ndarray, name: str = "S1RTC", fold: int = 0, seed: int = 0) -> Any:
    """Write what `evaluate` writes of one fold and seed, from (parents, C, C) counts."""
    parents = [f"P{fold}{index}" for index in range(len(full))]
    part = {
        "classes": NAMES,
        "metric": {"name": "miou", "positive_class": None, "value": None},
        "per_parent": {p: {"confusion": c.tolist()} for p, c in zip(parents, full, strict=True)},
    }
    return {
        "fold": fold,
        "seed": seed,
        "parents": parents,
        "confidence": 0.95,
        "heads": {"lulc": part},
        "modality_ablation": {name: {"lulc": measure(full, ablated, MIOU, parents)}},
    }


def noisy(rng: np.random.Generator, parents: int, right: float) -> np.ndarray:
    """Draw counts of three classes of which a share is right."""
    chance = np.full((3, 3), (1 - right) / 2)
    np.fill_diagonal(chance, right)
    return np.stack([[rng.multinomial(600, row) for row in chance] for _ in range(parents)])


def test_interval_is_students_t_over_the_same_resampled_parents() -> None:
    rng = np.random.default_rng(1)
    full, ablated = noisy(rng, 6, 0.8), noisy(rng, 6, 0.6)
    found = measure(full, ablated, MIOU, [f"P{i}" for i in range(6)])
    assert found["value"] == pytest.approx(miou(ablated.sum(0)))
    assert found["delta_pp"] == pytest.approx(100 * (round(miou(ablated.sum(0)), 4) - round(miou(full.sum(0)), 4)))
    assert found["delta_pp"] < -10
    draws = np.random.default_rng(5).integers(0, 6, (4000, 6))
    samples = [100 * (miou(ablated[draw].sum(0)) - miou(full[draw].sum(0))) for draw in draws]
    half = stats.t.ppf(0.975, 5) * np.std(samples) * math.sqrt(6 / 5)
    low, high = found["interval_pp"]
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)
    assert (high + low) / 2 == pytest.approx(found["delta_pp"], abs=0.011)
    for index, one in enumerate(found["per_parent"].values()):
        assert one["value"] == pytest.approx(miou(ablated[index]))
        difference = 100 * (round(miou(ablated[index]), 4) - round(miou(full[index]), 4))
        assert one["delta_pp"] == pytest.approx(difference, abs=1e-6)


def test_pairing_takes_out_what_both_find_hard() -> None:
    # parents differ much, the two models on one parent by the same small step: an unpaired interval would be wide
    rng = np.random.default_rng(2)
    hard = rng.uniform(0.2, 0.9, 6)
    full = np.stack([noisy(rng, 1, right)[0] for right in hard])
    ablated = np.stack([noisy(rng, 1, right - 0.1)[0] for right in hard])
    low, high = measure(full, ablated, MIOU, list("abcdef"))["interval_pp"]
    assert high < 0
    assert high - low < 12


@given(COUNTS)
def test_a_model_that_does_not_look_at_it_loses_nothing(counts: np.ndarray) -> None:
    found = measure(counts[0], counts[0], MIOU, list("abcd"))
    if found["value"] is None:
        assert (found["delta_pp"], found["interval_pp"]) == (None, None)
    else:
        assert found["delta_pp"] == 0
        assert found["interval_pp"] in (None, [0, 0])


@given(COUNTS)
def test_undefined_is_null_and_never_zero(counts: np.ndarray) -> None:
    counts[:, :, 2] = 0
    full, ablated = counts
    ablated = np.stack([full.sum(2), np.zeros((4, 3)), np.zeros((4, 3))], 2).astype(np.int64)
    found = measure(full, ablated, HeadMetric.of("iou", NAMES, "forest"), list("abcd"))
    assert (found["value"], found["delta_pp"], found["interval_pp"], found["iou"][2]) == (None, None, None, None)
    assert all(one["value"] is one["delta_pp"] is None for one in found["per_parent"].values())


def test_one_parent_gives_a_difference_and_no_interval() -> None:
    rng = np.random.default_rng(3)
    found = measure(noisy(rng, 1, 0.9), noisy(rng, 1, 0.5), MIOU, ["P1"])
    assert found["delta_pp"] < 0
    assert found["interval_pp"] is None


def test_one_seed_averaged_is_that_seed() -> None:
    rng = np.random.default_rng(4)
    one = evaluation(noisy(rng, 5, 0.8), noisy(rng, 5, 0.7))
    table = averaged([one])
    assert table is not None
    part = one["modality_ablation"]["S1RTC"]["lulc"]
    assert table["S1RTC"]["lulc"] == {
        "full": table["S1RTC"]["lulc"]["full"], "value": round(part["value"], 4), "delta_pp": part["delta_pp"],
        "interval_pp": part["interval_pp"],
    }  # fmt: skip


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(5)
    full = noisy(rng, 5, 0.8)
    seeds = [evaluation(full, noisy(rng, 5, right), seed=seed) for seed, right in enumerate((0.75, 0.6, 0.45))]
    table = averaged(seeds)
    assert table is not None
    found = table["S1RTC"]["lulc"]
    each = [one["modality_ablation"]["S1RTC"]["lulc"] for one in seeds]
    assert found["delta_pp"] == pytest.approx(np.mean([one["delta_pp"] for one in each]), abs=0.011)
    widest = max(one["interval_pp"][1] - one["interval_pp"][0] for one in each)
    assert found["interval_pp"][1] - found["interval_pp"][0] > 2 * widest


def test_folds_are_one_pool_of_parents() -> None:
    rng = np.random.default_rng(7)
    full, ablated = noisy(rng, 6, 0.8), noisy(rng, 6, 0.6)
    whole = averaged([evaluation(full, ablated, "zeroed")])
    in_folds = [
        evaluation(full[part], ablated[part], "zeroed", fold) for fold, part in enumerate(([0, 1], [2, 3, 4, 5]))
    ]
    assert averaged(in_folds[::-1]) == whole, "in whatever order they come"
    two = [evaluation(full[part], ablated[part], "zeroed", fold, seed) for seed in (4, 2)
           for fold, part in enumerate(([0, 1], [2, 3, 4, 5]))]  # fmt: skip
    assert averaged(two)["zeroed"]["lulc"]["value"] == whole["zeroed"]["lulc"]["value"]  # type: ignore[index]


def test_the_encoder_has_a_table_of_its_own() -> None:
    rng = np.random.default_rng(8)
    one = evaluation(noisy(rng, 3, 0.8), noisy(rng, 3, 0.3), "permuted")
    one = one | {"encoder_occlusion": one["modality_ablation"], "modality_ablation": None}
    assert averaged([one]) is None
    assert list(averaged([one], "encoder_occlusion") or {}) == ["permuted"]


def test_nothing_measured_gives_no_table() -> None:
    rng = np.random.default_rng(6)
    one = evaluation(noisy(rng, 3, 0.8), noisy(rng, 3, 0.7))
    assert averaged([one, one | {"modality_ablation": None}]) is None
    assert averaged([one | {"modality_ablation": {}}]) == {}


def test_how_to_read_it_depends_on_the_training() -> None:
    assert "a missing input had never been seen" in how_to_read(0.0)
    assert "dependence on the input, not what the sensor is worth" in how_to_read(0.0)
    assert "out of 25 % of the batches" in how_to_read(0.25)
    assert "never been seen" not in how_to_read(0.25)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["S2L2A", "S1RTC", "DEM"], ["S2L2A", "S1RTC", "DEM"]),
        (["S2L2A"], []),
        (["S2L2A", "RGB", "NDVI"], []),
        (["NDVI", "S1GRD"], ["S2L2A", "S1GRD"]),
        (["S2L2A", "coords"], ["coords"]),
        (["coords", "S1RTC", "DEM"], ["S1RTC", "DEM", "coords"]),
    ],
)
def test_what_can_be_ablated(names: list[str], expected: list[str]) -> None:
    assert removable(names) == expected


def test_bands_that_a_model_looks_at() -> None:
    assert bands_used({"RGB": ["B04", "B03", "B02"], "coords": ["longitude", "latitude"]}) == {
        "S2L2A": ["B02", "B03", "B04"]
    }
    assert bands_used({"S2L2A": ["B11", "B02"], "NDVI": ["NDVI"], "S1RTC": ["VH"]}) == {
        "S2L2A": ["B02", "B04", "B08", "B11"],
        "S1RTC": ["VH"],
    }
    assert bands_used({"S2L2A": MODALITIES["S2L2A"].bands}) == {"S2L2A": list(MODALITIES["S2L2A"].bands)}
