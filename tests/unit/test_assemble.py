"""Store and dataset: every sub-chip accounted for, whole parents per split, and a store that is what it says."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from config_fixtures import make_config
from dataset_fixtures import CITY, CONFIG, Made, assemble_elsewhere, make_dataset, pack

from cityheads.core.artifacts.quality import QUALITY
from cityheads.core.artifacts.scenes import SCENES
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.artifacts.store import STORE_INDEX
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file
from cityheads.core.grid import SPLITS
from cityheads.core.modalities import MODALITIES
from cityheads.dataset.assemble import assemble_dataset
from cityheads.dataset.store import ChipStore
from cityheads.verbs import VERBS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


def test_every_sub_chip_is_accounted_for_and_dropped_ones_have_a_reason(
    made: Made,
) -> None:
    root, _ = made
    table = gpd.read_parquet(root / "dataset" / "0" / "chips.parquet")
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
    assert STATISTICS.read(root / "dataset" / "0" / "statistics.json")["dropped"] == dropped
    row = table.iloc[5]
    assert row.sha256_MASK_LULC == sha256_file(root / "chips" / "MASK_LULC" / f"{row.chip_id}.tif")
    assert row.scenes_S1RTC == "S1RTC-1;S1RTC-2"


def test_splits_are_whole_parents_without_shared_area(made: Made) -> None:
    root, _ = made
    table = gpd.read_parquet(root / "dataset" / "0" / "chips.parquet")
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
    table = gpd.read_parquet(root / "dataset" / "0" / "chips.parquet")
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
            if name not in MODALITIES:
                cut = cut[0].copy()
                if (row.row, row.col) == (1, 1):
                    # the small cloud and its shadow
                    cut[4:7, 4:8] = cut[8:10, 4:8] = 255
            np.testing.assert_array_equal(array[row.store_index], cut)


def test_no_label_counts_where_a_cloud_or_its_shadow_hides_the_ground(made: Made) -> None:
    """The packed masks ignore it, the table counts it; the label files and the images stay what they are."""
    root, truth = made
    table = gpd.read_parquet(root / "dataset" / "0" / "chips.parquet")
    cloudy = table[(table.row == 1) & (table.col == 1)]
    assert (cloudy.hidden_fraction == 20 / 256).all()
    assert (cloudy.ignored_fraction_LULC == 20 / 256).all()
    assert (table[(table.row == 2) & (table.col == 1)].hidden_fraction == 0).all()
    assert (table[(table.row == 0) & (table.col == 0)].hidden_fraction == 0.5).all()
    name = cloudy.iloc[0].chip_id
    assert cloudy.iloc[0].sha256_CLOUDMASK == sha256_file(root / "chips" / "CLOUDMASK" / f"{name}.tif")
    with rasterio.open(root / "chips" / "MASK_LULC" / f"{name}.tif") as label:
        own = truth[cloudy.iloc[0].parent_id]["MASK_LULC"][:, 16:32, 16:32]
        np.testing.assert_array_equal(label.read(), own)
    told = QUALITY.read(root / "quality" / "A0.json")["chips"][5]["hidden_fraction"]
    assert {reason: round(share * 256) for reason, share in told.items() if share} == {"cloud": 12, "shadow": 8}


def test_statistics_are_of_the_training_split_alone(made: Made) -> None:
    root, _ = made
    table = gpd.read_parquet(root / "dataset" / "0" / "chips.parquet")
    train = table[table.kept & (table.split == "train")].store_index.to_numpy()
    found = STATISTICS.read(root / "dataset" / "0" / "statistics.json")
    for name, entry in found["modalities"].items():
        values = np.load(root / "dataset" / "store" / f"{name}.npy")[train].astype(float)
        values = values.transpose(1, 0, 2, 3).reshape(len(entry["bands"]), -1)
        np.testing.assert_allclose(entry["mean"], np.nanmean(values, axis=1), rtol=1e-9)
        np.testing.assert_allclose(entry["std"], np.nanstd(values, axis=1), rtol=1e-9)
    masks = np.load(root / "dataset" / "store" / "MASK_LULC.npy")[train]
    assert found["class_pixels"]["train"]["LULC"] == np.bincount(masks.ravel(), minlength=256)[[0, 1, 2, 255]].tolist()


def test_the_same_input_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    root, _ = made
    assemble_elsewhere(root, CONFIG, tmp_path, repack=True)
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert len(files) == 12
    for path in files:
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
    written_out = CITY | {"splits": {"seed": 1, "buffer_m": 0, "method": "search"}}
    for name, raw in (("unused", unused), ("colored", colored), ("defaults", written_out)):
        assemble_elsewhere(root, make_config(raw), tmp_path / name, repack=True)
        assert len([path for path in (tmp_path / name).rglob("*") if path.is_file()]) == len(written) == 12
        for path in written:
            assert path.read_bytes() == (tmp_path / name / path.relative_to(root / "dataset")).read_bytes(), path.name


def test_the_sheets_splits_change_the_splits_only(made: Made, tmp_path: Path) -> None:
    root, _ = made
    lines = (root / "parents.tsv").read_text().splitlines()
    splits = ["test", "val", "train", "train", "val", "test"]
    filled = [f"{line}\t{split}" for line, split in zip(lines, ["split", *splits], strict=True)]
    (tmp_path / "parents.tsv").write_text("\n".join(filled) + "\n")
    folder = assemble_elsewhere(root, CONFIG, tmp_path / "dataset", parents=tmp_path / "parents.tsv")
    found = SPLIT_ASSIGNMENT.read(folder.splits)
    assert (found["method"], found["seed"], list(found["parents"].values())) == ("sheet", None, splits)
    assert found["tested_in"] == {f"A{i}": 0 if split == "test" else None for i, split in enumerate(splits)}
    assert folder.classes.read_bytes() == (root / "dataset" / "0" / "classes.json").read_bytes()
    before, after = (gpd.read_parquet(path) for path in (root / "dataset" / "0" / "chips.parquet", folder.chips))
    pd.testing.assert_frame_equal(before.drop(columns="split"), after.drop(columns="split"))


def test_folds_share_the_store_and_each_parent_is_tested_in_one(made: Made, tmp_path: Path) -> None:
    root, _ = made
    config = make_config(CITY, splits={"method": "folds", "folds": 3, "buffer_m": 100})
    before = {path: path.stat().st_mtime_ns for path in (root / "dataset" / "store").iterdir()}
    base = gpd.read_parquet(root / "dataset" / "store" / "subchips.parquet")
    tested: list[str] = []
    tables, assignments = [], []
    for fold in range(3):
        folder = assemble_elsewhere(root, config, tmp_path / str(fold), fold=fold)
        table, found = gpd.read_parquet(folder.chips), SPLIT_ASSIGNMENT.read(folder.splits)
        assert (found["method"], found["fold"], found["folds"]) == (f"fold {fold} of 3", fold, 3)
        assert dict(zip(table.parent_id, table.split, strict=True)) == found["parents"]
        mine = [parent for parent, split in found["parents"].items() if split == "test"]
        assert mine == [parent for parent, number in found["tested_in"].items() if number == fold]
        tested += mine
        kept = table[table.kept]
        assert len(kept) < base.kept.sum(), "the buffer takes some away"
        same = base.loc[kept.index]
        assert (kept.store_index == same.store_index).all(), "what is kept stays where it lies in the store"
        indices = ChipStore(folder.root).split_indices()
        assert sorted(index for of in indices.values() for index in of) == kept.store_index.tolist()
        assert {split: len(of) for split, of in indices.items()} == STATISTICS.read(folder.statistics)["chips"]
        tables.append(table)
        assignments.append(found)
    assert sorted(tested) == sorted(base.parent_id.unique())
    assert all(found["tested_in"] == assignments[0]["tested_in"] for found in assignments)
    assert {found["test_lock"] for found in assignments} == {assignments[0]["test_lock"]}, "of the whole partition"
    for this, following in zip(assignments, [*assignments[1:], assignments[0]], strict=True):
        val = {parent for parent, split in this["parents"].items() if split == "val"}
        assert val == {parent for parent, split in following["parents"].items() if split == "test"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(CityHeadsError, match="no fold 3: method folds has the folds 0 to 2"):
        assemble_elsewhere(root, config, tmp_path / "3", fold=3)
    with pytest.raises(CityHeadsError, match="no fold 1: method search has fold 0"):
        assemble_elsewhere(root, CONFIG, tmp_path / "4", fold=1)


def test_which_folds_are_run_changes_no_fold(made: Made, tmp_path: Path) -> None:
    root, _ = made
    splits = {"method": "folds", "folds": 3}
    one = assemble_elsewhere(root, make_config(CITY, splits=splits), tmp_path / "all", fold=1)
    two = assemble_elsewhere(root, make_config(CITY, splits=splits | {"only_folds": [1]}), tmp_path / "one", fold=1)
    for path in one.root.iterdir():
        assert path.read_bytes() == (two.root / path.name).read_bytes(), path.name


def test_a_store_of_another_sheet_is_refused(made: Made, tmp_path: Path) -> None:
    root, _ = made
    (tmp_path / "parents.tsv").write_text((root / "parents.tsv").read_text().strip().rsplit("\n", 1)[0] + "\n")
    with pytest.raises(CityHeadsError, match=r"subchips.parquet: is of other parents than the sheet; run"):
        assemble_elsewhere(root, CONFIG, tmp_path / "dataset", parents=tmp_path / "parents.tsv")


def test_a_split_without_a_class_is_refused_unless_allowed(made: Made, tmp_path: Path) -> None:
    root, _ = made
    volcano = copy.deepcopy(CITY)
    volcano["labels"]["LULC"]["classes"].append({"name": "lava", "color": "#ff0000", "codes": [9]})
    with pytest.raises(CityHeadsError, match="search: train has no LULC 'lava'"):
        assemble_elsewhere(root, make_config(volcano), tmp_path / "refused", repack=True)
    assert not (tmp_path / "refused" / "0" / "chips.parquet").exists()
    allowed = make_config(volcano, splits={"require_every_class": False})
    found = SPLIT_ASSIGNMENT.read(assemble_elsewhere(root, allowed, tmp_path / "allowed", repack=True).splits)
    assert {gap["split"] for gap in found["missing"]} == set(SPLITS)


def test_a_dataset_without_one_good_sub_chip_is_refused(made: Made, tmp_path: Path) -> None:
    root, _ = made
    for path in (root / "quality").glob("*.json"):
        quality = QUALITY.read(path)
        for chip in quality["chips"]:
            chip["reasons"] = ["too cloudy"]
        QUALITY.write(tmp_path / "quality" / path.name, quality)
    with pytest.raises(CityHeadsError, match="all 96 sub-chips were dropped"):
        pack(root, CONFIG, tmp_path / "store", quality=tmp_path / "quality")


def test_sub_chips_within_the_buffer_are_dropped_and_counted(made: Made, tmp_path: Path) -> None:
    root, _ = made
    # parents lie 60 m apart, so a buffer of 100 m takes one column of sub-chips beside each held-out neighbour
    folder = assemble_elsewhere(root, make_config(CITY, splits={"buffer_m": 100}), tmp_path)
    before = gpd.read_parquet(root / "dataset" / "0" / "chips.parquet")
    after = gpd.read_parquet(folder.chips)
    lost = after[before.kept & ~after.kept]
    assert len(lost)
    assert lost.reason.str.fullmatch(r"within 100 m of a (val|test) parent").all()
    assert set(lost.col) <= {0, 3}
    assert (after.split == before.split).all()
    assert after[after.split == "test"].kept.sum() == before[before.split == "test"].kept.sum()
    assert (lost.store_index == -1).all()
    assert (after[after.kept].store_index == before[after.kept].store_index).all()


def test_synthesized_layers_are_marked_and_counted(made: Made, tmp_path: Path) -> None:
    root, _ = made
    assert STATISTICS.read(root / "dataset" / "0" / "statistics.json")["synthesized"] == {
        "S1RTC": dict.fromkeys(SPLITS, 0)
    }
    place = tmp_path / "other"
    shutil.copytree(root, place, ignore=shutil.ignore_patterns("dataset"))
    for name in ("A1", "A4"):
        scenes = SCENES.read(place / "scenes" / f"{name}.json")
        scenes["layers"]["S1RTC"] |= {"items": [], "synthesized": True}
        SCENES.write(place / "scenes" / f"{name}.json", scenes)
    folder = assemble_elsewhere(place, CONFIG, place / "dataset", repack=True)
    table = gpd.read_parquet(folder.chips)
    assert table.synthesized_S1RTC.dtype == bool
    assert (table.synthesized_S1RTC == table.parent_id.isin(["A1", "A4"])).all()
    assert set(table[table.synthesized_S1RTC].scenes_S1RTC) == {""}
    kept = table[table.kept & table.synthesized_S1RTC]
    counted = STATISTICS.read(folder.statistics)["synthesized"]["S1RTC"]
    assert counted == {split: int((kept.split == split).sum()) for split in SPLITS}
    assert sum(counted.values()) > 0


def test_a_locked_test_set_cannot_change_unnoticed(made: Made, tmp_path: Path) -> None:
    root, _ = made
    right = SPLIT_ASSIGNMENT.read(root / "dataset" / "0" / "splits.json")["test_lock"]
    assemble_elsewhere(root, make_config(CITY, splits={"test_lock": right}), tmp_path / "right")
    with pytest.raises(CityHeadsError, match=f"the test set is {right}, not the locked 01234567-"):
        assemble_elsewhere(root, make_config(CITY, splits={"test_lock": "01234567-89abcdef"}), tmp_path / "wrong")


def test_an_assignment_stays_when_the_labels_change(made: Made, tmp_path: Path) -> None:
    """Who is held out does not move; the lock tells the other pixels."""
    root, _ = made
    folder = assemble_elsewhere(root, CONFIG, tmp_path / "before")
    fewer = copy.deepcopy(CITY)
    fewer["heads"] = {"lulc": CITY["heads"]["lulc"]}
    fewer["runs"] = {"multihead": {"heads": ["lulc"]}}
    fewer["noninferiority"] = {"baselines": {"lulc": "multihead"}}
    config = make_config(fewer)
    pack(root, config, tmp_path / "after" / "store")
    assemble_dataset(
        config.restricted_to(VERBS["assemble_dataset"].sections),
        fold=0,
        parents=root / "parents.tsv",
        assignment=tmp_path / "before" / "assignment.json",
        out=tmp_path / "after" / "0",
    )
    before, after = (
        SPLIT_ASSIGNMENT.read(place) for place in (folder.splits, tmp_path / "after" / "0" / "splits.json")
    )
    assert before["parents"] == after["parents"]
    squares, pixels = (
        parts for parts in zip(before["test_lock"].split("-"), after["test_lock"].split("-"), strict=True)
    )
    assert squares[0] == squares[1]
    assert pixels[0] != pixels[1]
    assert before["gap_to_training"] == {"nearest_m": 220, "median_m": pytest.approx(246.015, abs=1e-3), "touching": 0}
