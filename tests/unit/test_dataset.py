"""Slicing, splitting and assembling, on small parents made here."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_fixtures import chosen_item, chosen_layer, scene_choice

from cityheads.core.artifacts.scenes import SCENES
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, sha256_file, write_json
from cityheads.core.grid import SPLITS, Grid, Parent, parent_geobox, parent_polygon, read_parents, subchips
from cityheads.core.modalities import MODALITIES
from cityheads.core.raster import write_raster
from cityheads.dataset.assemble import assemble_dataset
from cityheads.dataset.chips import clear_fraction, in_range_fraction, slice_parent, valid_mask
from cityheads.dataset.splits import assign_splits, check_lock, lock_of, missing_classes, near_held_out, split_sizes

GRID = Grid(resolution_m=10, parent_px=64, chips_per_side=4)
FRACTIONS = {"train": 0.6, "val": 0.15, "test": 0.25}
SPLITTING: dict[str, Any] = {
    "method": "search",
    "fractions": FRACTIONS,
    "seed": 5,
    "folds": 5,
    "fold": 0,
    "region": None,
    "buffer_m": 0,
    "test_lock": None,
    "require_every_class": True,
}
SETTINGS: dict[str, Any] = {
    "grid": {"resolution_m": 10, "parent_px": 64, "chips_per_side": 4},
    "archive.imagery": {"S2L2A": {"scl_asset": "SCL"}, "S1RTC": {}, "DEM": {}},
    "quality": {"min_valid_fraction": 0.95, "min_in_range_fraction": 0.95, "min_clear_fraction": 0.8},
    "labels": {
        "LULC": {"classes": [{"name": n, "color": "#000000"} for n in ("water", "developed", "forest")]},
        "BUILDINGS": {"classes": [{"name": n, "color": "#000000"} for n in ("not building", "building")]},
    },
    "heads": {"lulc": {"label": "LULC"}, "buildings": {"label": "BUILDINGS"}},
    "runs": {"multihead": {"heads": ["lulc", "buildings"]}},
    "splits": SPLITTING | {"seed": 1},
}


def make_parent(root: Path, parent: Parent, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Write the rasters of one parent: a cloud over r0c0, a swath edge over column 3, the sea over row 3."""
    box = parent_geobox(parent, GRID)
    layers = {
        "S2L2A": rng.integers(1, 5000, (12, 64, 64), dtype="uint16"),
        "S1RTC": rng.normal(-11, 3, (2, 64, 64)).astype("float32"),
        "DEM": rng.normal(20, 5, (1, 64, 64)).astype("float32"),
        "SCL": np.full((1, 64, 64), 5, "uint8"),
    }
    layers["SCL"][0, :16, :8] = 9
    layers["S1RTC"][:, :, 56:] = np.nan
    # a glint over a tenth of r1c0: twice as bright as a white sheet
    layers["S2L2A"][:, 16:32, :2] = 30000
    masks = {
        "LULC": rng.integers(0, 3, (64, 64), dtype="uint8"),
        "BUILDINGS": rng.integers(0, 2, (64, 64), dtype="uint8"),
    }
    masks["BUILDINGS"][48:] = 255
    for name, array in layers.items():
        nodata = MODALITIES[name].nodata if name in MODALITIES else 0
        write_raster(root / "parents" / parent.parent_id / f"{name}.tif", array, box, nodata=nodata)
    for piece in subchips(parent, GRID):
        for label, mask in masks.items():
            cut = mask[piece.row_slice, piece.col_slice]
            write_raster(root / "chips" / f"MASK_{label}" / f"{piece.chip_id}.tif", cut, piece.geobox, nodata=255)
    chosen = {
        name: chosen_layer([chosen_item(f"{name}-1"), chosen_item(f"{name}-2")]) for name in ("S2L2A", "S1RTC", "DEM")
    }
    SCENES.write(root / "scenes" / f"{parent.parent_id}.json", scene_choice(parent, chosen, simulated=True))
    return layers | {f"MASK_{label}": mask[None] for label, mask in masks.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, np.ndarray]]]:
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    (root / "parents.tsv").write_text(
        "parent_id\tepsg\tleft\ttop\n" + "".join(f"A{i}\t32618\t{500000 + 700 * i}\t4500000\n" for i in range(6))
    )
    truth = {}
    for parent in read_parents(root / "parents.tsv", GRID):
        truth[parent.parent_id] = make_parent(root, parent, rng)
        slice_parent(
            SETTINGS,
            parents=root / "parents.tsv",
            parent=parent.parent_id,
            parent_dir=root / "parents" / parent.parent_id,
            chips=root / "chips",
            out=root / "quality" / f"{parent.parent_id}.json",
        )
    assemble(root, SETTINGS, root / "dataset")
    return root, truth


def assemble(root: Path, config: dict[str, Any], out: Path) -> None:
    assemble_dataset(
        config,
        parents=root / "parents.tsv",
        scenes=root / "scenes",
        quality=root / "quality",
        chips=root / "chips",
        out=out,
    )


def test_sub_chips_are_exact_cuts_on_their_own_grid(made: tuple[Path, dict[str, dict[str, np.ndarray]]]) -> None:
    root, truth = made
    for parent in read_parents(root / "parents.tsv", GRID)[:2]:
        for name in ("S2L2A", "S1RTC", "DEM"):
            back = np.zeros_like(truth[parent.parent_id][name])
            for piece in subchips(parent, GRID):
                with rasterio.open(root / "chips" / name / f"{piece.chip_id}.tif") as source:
                    assert source.dtypes[0] == MODALITIES[name].dtype
                    assert source.transform.almost_equals(piece.geobox.transform, precision=1e-6)
                    back[:, piece.row_slice, piece.col_slice] = source.read()
            np.testing.assert_array_equal(back, truth[parent.parent_id][name])


def test_every_sub_chip_is_accounted_for_and_dropped_ones_have_a_reason(
    made: tuple[Path, dict[str, dict[str, np.ndarray]]],
) -> None:
    root, _ = made
    table = gpd.read_parquet(root / "dataset" / "chips.parquet")
    assert len(table) == 6 * 16
    assert (table.groupby("parent_id").size() == 16).all()
    assert table.chip_id.is_unique
    assert table.crs.to_epsg() == 4326
    assert ((table.reason == "") == table.kept).all()
    dropped = table[~table.kept].groupby("reason").size().to_dict()
    assert dropped == {
        "too cloudy": 6,
        "S1RTC has too many missing pixels": 24,
        "S2L2A has too many impossible values": 6,
    }
    glint = table[(table.row == 1) & (table.col == 0)]
    assert (glint.in_range_fraction_S2L2A == 1 - 2 / 16).all()
    assert (table[table.kept].in_range_fraction_S2L2A == 1).all()
    assert (table[table.col == 3].valid_fraction_S1RTC == 0.5).all()
    assert (table[(table.row == 0) & (table.col == 0)].clear_fraction == 0.5).all()
    assert (table[table.row == 3].ignored_fraction_BUILDINGS == 1).all()
    assert table[table.row == 3].fraction_BUILDINGS_1.isna().all()
    assert read_json(root / "dataset" / "statistics.json")["dropped"] == dropped
    row = table.iloc[5]
    assert row.sha256_MASK_LULC == sha256_file(root / "chips" / "MASK_LULC" / f"{row.chip_id}.tif")
    assert row.scenes_S1RTC == "S1RTC-1;S1RTC-2"


def test_splits_are_whole_parents_without_shared_area(made: tuple[Path, dict[str, dict[str, np.ndarray]]]) -> None:
    root, _ = made
    table = gpd.read_parquet(root / "dataset" / "chips.parquet")
    assert (table.groupby("parent_id").split.nunique() == 1).all()
    assert set(table.split) == set(SPLITS)
    metric = table.to_crs(32618)
    areas = {split: shapely.union_all(metric[metric.split == split].geometry.values) for split in SPLITS}
    for one in SPLITS:
        for two in SPLITS:
            if one < two:
                assert areas[one].intersection(areas[two]).area < 1


def test_the_store_holds_the_kept_sub_chips_in_order_and_its_hashes_are_true(
    made: tuple[Path, dict[str, dict[str, np.ndarray]]],
) -> None:
    root, truth = made
    table = gpd.read_parquet(root / "dataset" / "chips.parquet")
    index = read_json(root / "dataset" / "store" / "index.json")
    kept = table[table.kept]
    assert index["chips"] == kept.chip_id.tolist()
    assert kept.store_index.tolist() == list(range(len(kept)))
    assert (table[~table.kept].store_index == -1).all()
    for name, entry in index["arrays"].items():
        path = root / "dataset" / "store" / f"{name}.npy"
        assert entry["sha256"] == sha256_file(path)
        array = np.load(path, mmap_mode="r")
        assert [list(array.shape), array.dtype.name] == [entry["shape"], entry["dtype"]]
        for row in kept.itertuples():
            whole = truth[row.parent_id][name]
            cut = whole[:, row.row * 16 : row.row * 16 + 16, row.col * 16 : row.col * 16 + 16]
            np.testing.assert_array_equal(array[row.store_index], cut if name in MODALITIES else cut[0])


def test_statistics_are_of_the_training_split_alone(made: tuple[Path, dict[str, dict[str, np.ndarray]]]) -> None:
    root, _ = made
    table = gpd.read_parquet(root / "dataset" / "chips.parquet")
    train = table[table.kept & (table.split == "train")].store_index.to_numpy()
    found = read_json(root / "dataset" / "statistics.json")
    for name, entry in found["modalities"].items():
        values = np.load(root / "dataset" / "store" / f"{name}.npy")[train].astype(float)
        values = values.transpose(1, 0, 2, 3).reshape(len(entry["bands"]), -1)
        np.testing.assert_allclose(entry["mean"], np.nanmean(values, axis=1), rtol=1e-9)
        np.testing.assert_allclose(entry["std"], np.nanstd(values, axis=1), rtol=1e-9)
    masks = np.load(root / "dataset" / "store" / "MASK_LULC.npy")[train]
    assert found["class_pixels"]["train"]["LULC"] == [*np.bincount(masks.ravel(), minlength=3).tolist(), 0]


def test_the_same_input_gives_the_same_bytes(
    made: tuple[Path, dict[str, dict[str, np.ndarray]]], tmp_path: Path
) -> None:
    root, _ = made
    assemble(root, SETTINGS, tmp_path)
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (root / "dataset" / path.relative_to(tmp_path)).read_bytes(), path.name


def test_a_label_that_nothing_trains_on_changes_no_byte(
    made: tuple[Path, dict[str, dict[str, np.ndarray]]], tmp_path: Path
) -> None:
    """Neither does its mask need to be there, nor can a split lack its classes; nor does a colour count."""
    root, _ = made
    classes = [{"name": name, "color": "#00ff00"} for name in ("dry", "wet")]
    unused = SETTINGS | {"labels": {"FLOOD": {"classes": classes}, **SETTINGS["labels"]}}
    unused["heads"] = SETTINGS["heads"] | {"flood": {"label": "FLOOD"}}
    colored = copy.deepcopy(SETTINGS)
    colored["labels"]["LULC"]["classes"][0]["color"] = "#ff0000"
    for name, config in (("unused", unused), ("colored", colored)):
        assemble(root, config, tmp_path / name)
        written = sorted(path for path in (root / "dataset").rglob("*") if path.is_file())
        assert len(written) == 10
        assert len([path for path in (tmp_path / name).rglob("*") if path.is_file()]) == 10
        for path in written:
            assert path.read_bytes() == (tmp_path / name / path.relative_to(root / "dataset")).read_bytes(), path.name


def test_a_split_without_a_class_is_refused_unless_allowed(
    made: tuple[Path, dict[str, dict[str, np.ndarray]]], tmp_path: Path
) -> None:
    root, _ = made
    config = copy.deepcopy(SETTINGS)
    config["labels"]["LULC"]["classes"].append({"name": "lava", "color": "#ff0000"})
    with pytest.raises(CityHeadsError, match="train has no LULC 'lava'"):
        assemble(root, config, tmp_path)
    assert not (tmp_path / "chips.parquet").exists()
    config["splits"]["require_every_class"] = False
    assemble(root, config, tmp_path)
    assert {gap["split"] for gap in read_json(tmp_path / "splits.json")["missing"]} == set(SPLITS)


def test_a_dataset_without_one_good_sub_chip_is_refused(
    made: tuple[Path, dict[str, dict[str, np.ndarray]]], tmp_path: Path
) -> None:
    root, _ = made
    for path in (root / "quality").glob("*.json"):
        quality = read_json(path)
        for chip in quality["chips"]:
            chip["reasons"] = ["too cloudy"]
        write_json(tmp_path / "quality" / path.name, quality)
    with pytest.raises(CityHeadsError, match="all 96 sub-chips were dropped"):
        assemble_dataset(
            SETTINGS,
            parents=root / "parents.tsv",
            scenes=root / "scenes",
            quality=tmp_path / "quality",
            chips=root / "chips",
            out=tmp_path,
        )


def test_a_parent_on_another_grid_is_refused(
    made: tuple[Path, dict[str, dict[str, np.ndarray]]], tmp_path: Path
) -> None:
    root, _ = made
    with pytest.raises(CityHeadsError, match="not on the parent's grid"):
        slice_parent(
            SETTINGS,
            parents=root / "parents.tsv",
            parent="A1",
            parent_dir=root / "parents" / "A0",
            chips=tmp_path,
            out=tmp_path / "q.json",
        )


def test_clear_and_valid_count_what_their_names_say() -> None:
    assert clear_fraction(np.array([0, 0, 4, 9])) == 0.5
    assert clear_fraction(np.zeros(4, int)) == 0.0
    array = np.array([[[1, 0]], [[1, 1]]], "uint16")
    assert valid_mask(array, MODALITIES["S2L2A"]).tolist() == [[True, False]]
    assert in_range_fraction(array, MODALITIES["S2L2A"]) == 1.0
    assert in_range_fraction(np.array([[[-80, -10, np.nan]]]), MODALITIES["S1RTC"]) == 0.5
    assert in_range_fraction(np.zeros((1, 2, 2)), MODALITIES["S2L2A"]) is None


@given(parents=st.integers(3, 60), train=st.integers(40, 80), val=st.integers(5, 19))
def test_sizes_sum_to_the_parents_and_leave_no_split_empty(parents: int, train: int, val: int) -> None:
    sizes = split_sizes(parents, {"train": train / 100, "val": val / 100, "test": 1 - (train + val) / 100})
    assert sum(sizes.values()) == parents
    assert min(sizes.values()) >= 1
    if parents >= 20:
        assert abs(sizes["train"] - train / 100 * parents) <= 1


def sheet_of(number: int, splits: list[str] | None = None) -> list[Parent]:
    return [Parent(f"P{i}", 32618, i * 1e4, 0, splits[i] if splits else None) for i in range(number)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_rare_classes_reach_every_split_wherever_that_is_possible(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 1000, (22, 3))
    rare = np.zeros((22, 1), int)
    rare[rng.choice(22, 3, replace=False)] = 50
    assigned, method = assign_splits(sheet_of(22), {"A": np.hstack([counts, rare])}, SPLITTING | {"seed": seed})
    assert method == "search"
    held = {assigned[f"P{i}"] for i in np.flatnonzero(rare[:, 0])}
    assert held == set(SPLITS)


def test_the_search_is_balanced_and_repeatable() -> None:
    counts = np.random.default_rng(3).integers(1, 1000, (22, 5))
    config = SPLITTING
    one, _ = assign_splits(sheet_of(22), {"A": counts}, config)
    two, _ = assign_splits(sheet_of(22), {"A": counts}, config)
    assert one == two
    total = counts.sum(axis=0)
    for split, share in (("train", 13 / 22), ("val", 3 / 22), ("test", 6 / 22)):
        held = counts[[one[f"P{i}"] == split for i in range(22)]].sum(axis=0) / total
        assert np.abs(held / share - 1).max() < 0.25, (split, held)


def test_the_sheets_splits_win_and_must_fill_every_split() -> None:
    config = SPLITTING
    given_splits = ["test", "train", "val"]
    assert assign_splits(sheet_of(3, given_splits), {"A": np.ones((3, 2))}, config) == (
        {"P0": "test", "P1": "train", "P2": "val"},
        "sheet",
    )
    with pytest.raises(CityHeadsError, match="leaves val empty"):
        assign_splits(sheet_of(3, ["test", "train", "test"]), {"A": np.ones((3, 2))}, config)
    with pytest.raises(CityHeadsError, match="2 parents cannot fill"):
        assign_splits(sheet_of(2), {"A": np.ones((2, 2))}, config)


def test_missing_classes_are_listed() -> None:
    pixels = {split: {"A": [1, 0 if split == "val" else 2]} for split in SPLITS}
    assert missing_classes(pixels, {"A": ["x", "y"]}) == [{"split": "val", "label": "A", "class": "y"}]


def test_every_parent_is_tested_in_exactly_one_fold_and_folds_are_balanced() -> None:
    counts = np.random.default_rng(3).integers(1, 1000, (22, 5))
    tested: list[str] = []
    for fold in range(5):
        assigned, method = assign_splits(sheet_of(22), {"A": counts}, SPLITTING | {"method": "folds", "fold": fold})
        assert method == f"fold {fold} of 5"
        assert set(assigned.values()) == set(SPLITS)
        mine = [parent for parent, split in assigned.items() if split == "test"]
        held = counts[[assigned[f"P{i}"] == "test" for i in range(22)]].sum(axis=0) / counts.sum(axis=0)
        assert np.abs(held / (len(mine) / 22) - 1).max() < 0.35
        tested += mine
    assert sorted(tested) == sorted(f"P{i}" for i in range(22))
    with pytest.raises(CityHeadsError, match="4 parents cannot fill 5 folds"):
        assign_splits(sheet_of(4), {"A": np.ones((4, 2))}, SPLITTING | {"method": "folds"})


def test_one_region_can_be_left_out() -> None:
    sheet = [Parent(f"P{i}", 32618, i * 1e4, 0, None, "bronx" if i % 4 == 0 else "queens") for i in range(12)]
    counts = {"A": np.ones((12, 2))}
    assigned, method = assign_splits(sheet, counts, SPLITTING | {"method": "region", "region": "bronx"})
    assert method == "region bronx left out"
    assert {parent for parent, split in assigned.items() if split == "test"} == {"P0", "P4", "P8"}
    assert sorted(assigned.values()).count("val") == 2
    with pytest.raises(CityHeadsError, match="no region 'brooklyn'; there are bronx, queens"):
        assign_splits(sheet, counts, SPLITTING | {"method": "region", "region": "brooklyn"})
    with pytest.raises(CityHeadsError, match="has no region column"):
        assign_splits(sheet_of(12), counts, SPLITTING | {"method": "region", "region": "bronx"})


def test_a_locked_test_set_cannot_change_unnoticed(
    made: tuple[Path, dict[str, dict[str, np.ndarray]]], tmp_path: Path
) -> None:
    sheet = sheet_of(4)
    assigned = {"P0": "train", "P1": "val", "P2": "test", "P3": "test"}
    lock = lock_of(sheet, assigned)
    assert lock == lock_of(sheet[::-1], assigned | {"P0": "val", "P1": "train"}), "only the test parents count"
    assert lock != lock_of(sheet, assigned | {"P3": "train"})
    moved = [*sheet[:3], Parent("P3", 32618, 30010, 0)]
    assert lock != lock_of(moved, assigned), "a test parent that moved is another one"
    check_lock(lock, None)
    check_lock(lock, lock)
    root, _ = made
    right = read_json(root / "dataset" / "splits.json")["test_lock"]
    assemble(root, SETTINGS | {"splits": SETTINGS["splits"] | {"test_lock": right}}, tmp_path)
    with pytest.raises(CityHeadsError, match=f"the test set is {right}, not the locked 0123"):
        assemble(root, SETTINGS | {"splits": SETTINGS["splits"] | {"test_lock": "0123"}}, tmp_path)


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


def test_sub_chips_within_the_buffer_are_dropped_and_counted(
    made: tuple[Path, dict[str, dict[str, np.ndarray]]], tmp_path: Path
) -> None:
    root, _ = made
    # parents lie 60 m apart, so a buffer of 100 m takes one column of sub-chips beside each held-out neighbour
    config = SETTINGS | {"splits": SETTINGS["splits"] | {"buffer_m": 100}}
    assemble(root, config, tmp_path)
    before = gpd.read_parquet(root / "dataset" / "chips.parquet")
    after = gpd.read_parquet(tmp_path / "chips.parquet")
    lost = after[before.kept & ~after.kept]
    assert len(lost)
    assert lost.reason.str.fullmatch(r"within 100 m of a (val|test) parent").all()
    assert set(lost.col) <= {0, 3}
    assert (after.split == before.split).all()
    assert after[after.split == "test"].kept.sum() == before[before.split == "test"].kept.sum()
    assert len(read_json(tmp_path / "store" / "index.json")["chips"]) == after.kept.sum()


def test_synthesized_layers_are_marked_and_counted(
    made: tuple[Path, dict[str, dict[str, np.ndarray]]], tmp_path: Path
) -> None:
    root, _ = made
    assert read_json(root / "dataset" / "statistics.json")["synthesized"] == {"S1RTC": dict.fromkeys(SPLITS, 0)}
    place = tmp_path / "other"
    shutil.copytree(root, place, ignore=shutil.ignore_patterns("dataset"))
    for name in ("A1", "A4"):
        scenes = read_json(place / "scenes" / f"{name}.json")
        scenes["layers"]["S1RTC"] |= {"items": [], "synthesized": True}
        write_json(place / "scenes" / f"{name}.json", scenes)
    assemble(place, SETTINGS, place / "dataset")
    table = gpd.read_parquet(place / "dataset" / "chips.parquet")
    assert table.synthesized_S1RTC.dtype == bool
    assert (table.synthesized_S1RTC == table.parent_id.isin(["A1", "A4"])).all()
    assert set(table[table.synthesized_S1RTC].scenes_S1RTC) == {""}
    kept = table[table.kept & table.synthesized_S1RTC]
    counted = read_json(place / "dataset" / "statistics.json")["synthesized"]["S1RTC"]
    assert counted == {split: int((kept.split == split).sum()) for split in SPLITS}
    assert sum(counted.values()) > 0
