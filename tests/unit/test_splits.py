"""Spatial block split: whole parents, every class in every split, and a distance between splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from config_fixtures import make_config
from dataset_fixtures import CITY, GRID
from hypothesis import given, settings
from hypothesis import strategies as st

from cityheads.config import FractionsConfig, SplitsConfig
from cityheads.config.inputs import asked_of
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import SPLITS, Grid, Parent, Split, parent_polygon, subchips
from cityheads.dataset.splits import (
    Splits,
    check_lock,
    gap_to_training,
    lock_of,
    missing_classes,
    near_held_out,
    seek_assignment,
    split_sizes,
    splits_of,
)


def splitting(**keys: Any) -> SplitsConfig:
    return make_config(CITY, splits={"seed": 5} | keys).splits


def assign(sheet: list[Parent], counts: dict[str, Any], config: SplitsConfig, fold: int = 0) -> Splits:
    return splits_of(seek_assignment(sheet, counts, config), sheet, fold)


@given(parents=st.integers(3, 60), train=st.integers(40, 80), val=st.integers(5, 19))
def test_sizes_sum_to_the_parents_and_leave_no_split_empty(parents: int, train: int, val: int) -> None:
    sizes = split_sizes(parents, FractionsConfig(train=train / 100, val=val / 100, test=1 - (train + val) / 100))
    assert sum(sizes.values()) == parents
    assert min(sizes.values()) >= 1
    if parents >= 20:
        assert abs(sizes["train"] - train / 100 * parents) <= 1


def sheet_of(number: int, splits: list[Split] | None = None) -> list[Parent]:
    return [Parent(f"P{i}", 32618, i * 1e4, 0, splits[i] if splits else None) for i in range(number)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_rare_classes_reach_every_split_wherever_that_is_possible(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 1000, (22, 3))
    rare = np.zeros((22, 1), int)
    rare[rng.choice(22, 3, replace=False)] = 50
    found = assign(sheet_of(22), {"A": np.hstack([counts, rare])}, splitting(seed=seed))
    assert found.method == "search"
    held = {found.parents[f"P{i}"] for i in np.flatnonzero(rare[:, 0])}
    assert held == set(SPLITS)


def test_the_search_is_balanced_and_repeatable() -> None:
    counts = np.random.default_rng(3).integers(1, 1000, (22, 5))
    found = assign(sheet_of(22), {"A": counts}, splitting())
    assert found == assign(sheet_of(22), {"A": counts}, splitting())
    one = found.parents
    total = counts.sum(axis=0)
    for split, share in (("train", 13 / 22), ("val", 3 / 22), ("test", 6 / 22)):
        held = counts[[one[f"P{i}"] == split for i in range(22)]].sum(axis=0) / total
        assert np.abs(held / share - 1).max() < 0.25, (split, held)


def test_the_sheets_splits_win_and_must_fill_every_split() -> None:
    given_splits: list[Split] = ["test", "train", "val"]
    found = assign(sheet_of(3, given_splits), {"A": np.ones((3, 2))}, splitting())
    assert (found.method, found.parents) == ("sheet", {"P0": "test", "P1": "train", "P2": "val"})
    assert found.tested_in == {"P0": 0, "P1": None, "P2": None}
    with pytest.raises(CityHeadsError, match="leaves val empty"):
        assign(sheet_of(3, ["test", "train", "test"]), {"A": np.ones((3, 2))}, splitting())
    with pytest.raises(CityHeadsError, match="2 parents cannot fill"):
        assign(sheet_of(2), {"A": np.ones((2, 2))}, splitting())


def test_missing_classes_are_listed() -> None:
    pixels: dict[str, dict[str, list[int]]] = {split: {"A": [1, 0 if split == "val" else 2]} for split in SPLITS}
    assert missing_classes(pixels, {"A": ["x", "y"]}) == [{"split": "val", "label": "A", "class": "y"}]


def test_folds_are_balanced() -> None:
    counts = np.random.default_rng(3).integers(1, 1000, (22, 5))
    for fold in range(5):
        found = assign(sheet_of(22), {"A": counts}, splitting(method="folds"), fold)
        assert found.method == f"fold {fold} of 5"
        tested = [found.parents[f"P{i}"] == "test" for i in range(22)]
        held = counts[tested].sum(axis=0) / counts.sum(axis=0)
        assert np.abs(held / (sum(tested) / 22) - 1).max() < 0.35
    with pytest.raises(CityHeadsError, match="4 parents cannot fill 5 folds"):
        assign(sheet_of(4), {"A": np.ones((4, 2))}, splitting(method="folds"))


@settings(max_examples=10, deadline=None)
@given(parents=st.integers(3, 26), folds=st.integers(3, 7), seed=st.integers(0, 1000), rare=st.booleans())
def test_every_parent_is_tested_in_exactly_one_fold(parents: int, folds: int, seed: int, rare: bool) -> None:
    """By a model that has not seen it; and every split of every fold holds every class wherever that is possible."""
    folds = min(folds, parents)
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 1000, (parents, 3))
    if rare:
        # as few parents as there are folds hold the class
        counts[:, 2] = 0
        counts[rng.choice(parents, folds, replace=False), 2] = 50
    sheet, config = sheet_of(parents), splitting(method="folds", folds=folds, seed=seed)
    found = [assign(sheet, {"A": counts}, config, fold) for fold in range(folds)]
    (tested_in,) = {tuple(one.tested_in.items()) for one in found}
    assert [name for name, _ in tested_in] == [parent.parent_id for parent in sheet]
    for fold, one in enumerate(found):
        for name, group in tested_in:
            assert (one.parents[name] == "test") == (group == fold)
            assert (one.parents[name] == "val") == (group == (fold + 1) % folds)
        for split in SPLITS:
            mine = [one.parents[parent.parent_id] == split for parent in sheet]
            assert (counts[mine].sum(axis=0) > 0).all(), (fold, split)
    sizes = np.bincount([group for _, group in tested_in if group is not None], minlength=folds)
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("keys", [{}, {"method": "folds"}, {"method": "region", "region": "r1"}])
def test_the_order_of_the_rows_does_not_matter(keys: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    sheet = [Parent(f"P{i}", 32618, i * 1e4, 0, None, f"r{i % 3}") for i in range(11)]
    counts = rng.integers(1, 1000, (11, 4))
    order = rng.permutation(11)
    mixed = seek_assignment([sheet[i] for i in order], {"A": counts[order]}, splitting(**keys))
    assert mixed == seek_assignment(sheet, {"A": counts}, splitting(**keys))
    assert list(splits_of(mixed, sheet, 0).parents) == [parent.parent_id for parent in sheet]


def test_an_assignment_of_other_parents_or_without_the_fold_is_refused() -> None:
    found = seek_assignment(sheet_of(6), {"A": np.ones((6, 1))}, splitting(method="folds", folds=3))
    with pytest.raises(CityHeadsError, match="no fold 3: method folds has the folds 0 to 2"):
        splits_of(found, sheet_of(6), 3)
    with pytest.raises(CityHeadsError, match="--forcerun assign_splits"):
        splits_of(found, sheet_of(7), 0)


def test_one_region_can_be_left_out() -> None:
    sheet = [Parent(f"P{i}", 32618, i * 1e4, 0, None, "bronx" if i % 4 == 0 else "queens") for i in range(12)]
    counts = {"A": np.ones((12, 2))}
    found = assign(sheet, counts, splitting(method="region", region="bronx"))
    assigned = found.parents
    assert found.method == "region bronx left out"
    assert {parent for parent, split in assigned.items() if split == "test"} == {"P0", "P4", "P8"}
    assert sorted(assigned.values()).count("val") == 2
    with pytest.raises(CityHeadsError, match="no region 'brooklyn'; there are bronx, queens"):
        assign(sheet, counts, splitting(method="region", region="brooklyn"))
    with pytest.raises(CityHeadsError, match="has no region column"):
        assign(sheet_of(12), counts, splitting(method="region", region="bronx"))


def test_the_lock_is_of_what_the_test_set_is() -> None:
    sheet, grid = sheet_of(4), Grid(10, 64, 4)
    tested: dict[str, int | None] = {"P0": None, "P1": None, "P2": 0, "P3": 0}
    chips = {parent.parent_id: {"r0c0": f"{parent.parent_id}-a", "r0c1": f"{parent.parent_id}-b"} for parent in sheet}
    lock = lock_of(sheet, grid, tested, chips)
    squares, pixels = lock.split("-")
    assert lock == lock_of(sheet[::-1], grid, tested, chips | {"P0": {}}), "only the test parents count, in any order"
    renamed = [*sheet[:3], Parent("X", 32618, 3e4, 0)]
    assert lock == lock_of(renamed, grid, {**tested, "X": 0}, chips | {"X": chips["P3"]}), "a name is no place"

    def parts(*changed: Any) -> list[bool]:
        return [old == new for old, new in zip((squares, pixels), lock_of(*changed).split("-"), strict=True)]

    moved = [*sheet[:3], Parent("P3", 32618, 30010, 0)]
    assert parts(moved, grid, tested, chips) == [False, True]
    assert parts(sheet, Grid(10, 128, 4), tested, chips) == [False, True]
    assert parts(sheet, grid, tested | {"P3": 1}, chips) == [False, True], "another fold"
    assert parts(sheet, grid, tested | {"P1": 0}, chips) == [False, False]
    assert parts(sheet, grid, tested, chips | {"P3": {"r0c0": "P3-a"}}) == [True, False], "a sub-chip less"
    assert parts(sheet, grid, tested, chips | {"P3": {"r0c0": "x", "r0c1": "P3-b"}}) == [True, False]
    check_lock(lock, None)
    check_lock(lock, lock)
    with pytest.raises(
        CityHeadsError, match=r"splits\.test_lock.*: other sub-chips or label pixels of the same squares"
    ):
        check_lock(lock, f"{squares}-00000000")
    with pytest.raises(CityHeadsError, match=r"splits\.test_lock.*: other squares"):
        check_lock(lock, "00000000-00000000")


def test_the_gap_between_test_and_training_ground() -> None:
    sheet = [
        Parent(f"P{i}", epsg, left, 4500000) for i, (epsg, left) in enumerate([(32618, 0), (32618, 640), (32618, 2000)])
    ]
    boxes = [(parent, shapely.box(parent.left, 4499360, parent.left + 640, 4500000)) for parent in sheet]
    found = gap_to_training(boxes, ["train", "test", "test"])
    assert found is not None
    assert (found.nearest_m, found.median_m, found.touching) == (0, 680, 1)
    assert gap_to_training(boxes, ["train", "val", "val"]) is None
    # a training square in the neighbouring UTM zone, one kilometre east at this latitude
    here, there = Parent("A", 32618, 750000, 4500000), Parent("B", 32619, 245020.9, 4500000)
    one = [(here, shapely.box(750000, 4499360, 750640, 4500000))]
    other = [(there, shapely.box(there.left, 4499360, there.left + 640, 4500000))]
    crossed = gap_to_training(one + other, ["test", "train"])
    assert crossed is not None
    assert 0 < crossed.median_m < 10_000


@settings(max_examples=30, deadline=None)
@given(buffer_m=st.integers(1, 900), seed=st.integers(0, 99))
def test_the_buffer_leaves_that_distance_between_splits(buffer_m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sheet = [Parent(f"P{i}", 32618, 640.0 * (i % 3), 640.0 * (i // 3)) for i in range(9)]
    assigned = {parent.parent_id: SPLITS[code] for parent, code in zip(sheet, rng.integers(0, 3, 9), strict=True)}
    boxes = [
        (parent, shapely.box(*piece.geobox.boundingbox.bbox)) for parent in sheet for piece in subchips(parent, GRID)
    ]
    splits = [assigned[parent.parent_id] for parent, _ in boxes]
    near = near_held_out(boxes, splits, sheet, assigned, GRID, buffer_m)
    for (_, box), own, found in zip(boxes, splits, near, strict=True):
        gaps = {
            other: min(
                (box.distance(parent_polygon(p, GRID)) for p in sheet if assigned[p.parent_id] == other), default=np.inf
            )
            for other in SPLITS[SPLITS.index(own) + 1 :]
        }
        assert (found is not None) == any(gap < buffer_m for gap in gaps.values())


def test_what_was_sought_is_kept_until_the_question_changes() -> None:
    sheet, counts = sheet_of(6), {"A": np.arange(12).reshape(6, 2)}
    first = seek_assignment(sheet, counts, splitting())
    assert first["asked"] == asked_of(sheet[::-1], splitting(buffer_m=5))
    for other in (asked_of(sheet[:5], splitting()), asked_of(sheet, splitting(seed=8))):
        assert first["asked"] != other
