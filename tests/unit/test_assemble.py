"""The assembled dataset: every sub-chip accounted for, whole parents per split, and a store that is what it says."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from config_fixtures import make_config
from dataset_fixtures import CITY, CONFIG, Made, assemble, make_dataset

from cityheads.core.artifacts.quality import QUALITY
from cityheads.core.artifacts.scenes import SCENES
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.artifacts.store import STORE_INDEX
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file
from cityheads.core.grid import SPLITS
from cityheads.core.modalities import MODALITIES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


def test_every_sub_chip_is_accounted_for_and_dropped_ones_have_a_reason(
    made: Made,
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
    assert STATISTICS.read(root / "dataset" / "statistics.json")["dropped"] == dropped
    row = table.iloc[5]
    assert row.sha256_MASK_LULC == sha256_file(root / "chips" / "MASK_LULC" / f"{row.chip_id}.tif")
    assert row.scenes_S1RTC == "S1RTC-1;S1RTC-2"


def test_splits_are_whole_parents_without_shared_area(made: Made) -> None:
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
    made: Made,
) -> None:
    root, truth = made
    table = gpd.read_parquet(root / "dataset" / "chips.parquet")
    index = STORE_INDEX.read(root / "dataset" / "store" / "index.json")
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


def test_statistics_are_of_the_training_split_alone(made: Made) -> None:
    root, _ = made
    table = gpd.read_parquet(root / "dataset" / "chips.parquet")
    train = table[table.kept & (table.split == "train")].store_index.to_numpy()
    found = STATISTICS.read(root / "dataset" / "statistics.json")
    for name, entry in found["modalities"].items():
        values = np.load(root / "dataset" / "store" / f"{name}.npy")[train].astype(float)
        values = values.transpose(1, 0, 2, 3).reshape(len(entry["bands"]), -1)
        np.testing.assert_allclose(entry["mean"], np.nanmean(values, axis=1), rtol=1e-9)
        np.testing.assert_allclose(entry["std"], np.nanstd(values, axis=1), rtol=1e-9)
    masks = np.load(root / "dataset" / "store" / "MASK_LULC.npy")[train]
    assert found["class_pixels"]["train"]["LULC"] == [*np.bincount(masks.ravel(), minlength=3).tolist(), 0]


def test_the_same_input_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    root, _ = made
    assemble(root, CONFIG, tmp_path)
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (root / "dataset" / path.relative_to(tmp_path)).read_bytes(), path.name


def test_a_label_that_nothing_trains_on_changes_no_byte(made: Made, tmp_path: Path) -> None:
    """Nor does its mask need to be there, or can a split lack its classes; a colour or a written default is nothing."""
    root, _ = made
    flood = {"kind": "raster", "source": "flood", "ignore_codes": [], "classes": CITY["labels"]["BUILDINGS"]["classes"]}
    unused = copy.deepcopy(CITY)
    unused["labels"] = {"FLOOD": flood, **CITY["labels"]}
    unused["heads"] = {"flood": {"label": "FLOOD"}, **CITY["heads"]}
    colored = copy.deepcopy(CITY)
    colored["labels"]["LULC"]["classes"][0]["color"] = "#ff0000"
    written = sorted(path for path in (root / "dataset").rglob("*") if path.is_file())
    assert len(written) == 10
    written_out = CITY | {"splits": {"seed": 1, "buffer_m": 0, "method": "search"}}
    for name, raw in (("unused", unused), ("colored", colored), ("defaults", written_out)):
        assemble(root, make_config(raw), tmp_path / name)
        assert len([path for path in (tmp_path / name).rglob("*") if path.is_file()]) == 10
        for path in written:
            assert path.read_bytes() == (tmp_path / name / path.relative_to(root / "dataset")).read_bytes(), path.name


def test_the_sheets_splits_change_the_splits_only(made: Made, tmp_path: Path) -> None:
    root, _ = made
    lines = (root / "parents.tsv").read_text().splitlines()
    splits = ["test", "val", "train", "train", "val", "test"]
    filled = [f"{line}\t{split}" for line, split in zip(lines, ["split", *splits], strict=True)]
    (tmp_path / "parents.tsv").write_text("\n".join(filled) + "\n")
    assemble(root, CONFIG, tmp_path / "dataset", parents=tmp_path / "parents.tsv")
    found = SPLIT_ASSIGNMENT.read(tmp_path / "dataset" / "splits.json")
    assert (found["method"], found["seed"], list(found["parents"].values())) == ("sheet", None, splits)
    for path in [*(root / "dataset" / "store").iterdir(), root / "dataset" / "classes.json"]:
        assert path.read_bytes() == (tmp_path / "dataset" / path.relative_to(root / "dataset")).read_bytes(), path.name
    before, after = (gpd.read_parquet(place / "dataset" / "chips.parquet") for place in (root, tmp_path))
    pd.testing.assert_frame_equal(before.drop(columns="split"), after.drop(columns="split"))


def test_a_split_without_a_class_is_refused_unless_allowed(made: Made, tmp_path: Path) -> None:
    root, _ = made
    volcano = copy.deepcopy(CITY)
    volcano["labels"]["LULC"]["classes"].append({"name": "lava", "color": "#ff0000", "codes": [9]})
    with pytest.raises(CityHeadsError, match="train has no LULC 'lava'"):
        assemble(root, make_config(volcano), tmp_path)
    assert not (tmp_path / "chips.parquet").exists()
    assemble(root, make_config(volcano, splits={"require_every_class": False}), tmp_path)
    assert {gap["split"] for gap in SPLIT_ASSIGNMENT.read(tmp_path / "splits.json")["missing"]} == set(SPLITS)


def test_a_dataset_without_one_good_sub_chip_is_refused(made: Made, tmp_path: Path) -> None:
    root, _ = made
    for path in (root / "quality").glob("*.json"):
        quality = QUALITY.read(path)
        for chip in quality["chips"]:
            chip["reasons"] = ["too cloudy"]
        QUALITY.write(tmp_path / "quality" / path.name, quality)
    with pytest.raises(CityHeadsError, match="all 96 sub-chips were dropped"):
        assemble(root, CONFIG, tmp_path, quality=tmp_path / "quality")


def test_sub_chips_within_the_buffer_are_dropped_and_counted(made: Made, tmp_path: Path) -> None:
    root, _ = made
    # parents lie 60 m apart, so a buffer of 100 m takes one column of sub-chips beside each held-out neighbour
    assemble(root, make_config(CITY, splits={"buffer_m": 100}), tmp_path)
    before = gpd.read_parquet(root / "dataset" / "chips.parquet")
    after = gpd.read_parquet(tmp_path / "chips.parquet")
    lost = after[before.kept & ~after.kept]
    assert len(lost)
    assert lost.reason.str.fullmatch(r"within 100 m of a (val|test) parent").all()
    assert set(lost.col) <= {0, 3}
    assert (after.split == before.split).all()
    assert after[after.split == "test"].kept.sum() == before[before.split == "test"].kept.sum()
    assert len(STORE_INDEX.read(tmp_path / "store" / "index.json")["chips"]) == after.kept.sum()


def test_synthesized_layers_are_marked_and_counted(made: Made, tmp_path: Path) -> None:
    root, _ = made
    assert STATISTICS.read(root / "dataset" / "statistics.json")["synthesized"] == {"S1RTC": dict.fromkeys(SPLITS, 0)}
    place = tmp_path / "other"
    shutil.copytree(root, place, ignore=shutil.ignore_patterns("dataset"))
    for name in ("A1", "A4"):
        scenes = SCENES.read(place / "scenes" / f"{name}.json")
        scenes["layers"]["S1RTC"] |= {"items": [], "synthesized": True}
        SCENES.write(place / "scenes" / f"{name}.json", scenes)
    assemble(place, CONFIG, place / "dataset")
    table = gpd.read_parquet(place / "dataset" / "chips.parquet")
    assert table.synthesized_S1RTC.dtype == bool
    assert (table.synthesized_S1RTC == table.parent_id.isin(["A1", "A4"])).all()
    assert set(table[table.synthesized_S1RTC].scenes_S1RTC) == {""}
    kept = table[table.kept & table.synthesized_S1RTC]
    counted = STATISTICS.read(place / "dataset" / "statistics.json")["synthesized"]["S1RTC"]
    assert counted == {split: int((kept.split == split).sum()) for split in SPLITS}
    assert sum(counted.values()) > 0


def test_a_locked_test_set_cannot_change_unnoticed(made: Made, tmp_path: Path) -> None:
    root, _ = made
    right = SPLIT_ASSIGNMENT.read(root / "dataset" / "splits.json")["test_lock"]
    assemble(root, make_config(CITY, splits={"test_lock": right}), tmp_path)
    with pytest.raises(CityHeadsError, match=f"the test set is {right}, not the locked 0123"):
        assemble(root, make_config(CITY, splits={"test_lock": "0123"}), tmp_path)
