"""The sheet of experiments: rows become runs, and what is wrong is told with file, row and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from config_fixtures import make_config

from cityheads.config import Config, load_config
from cityheads.config.experiments import read_experiments, with_experiments
from cityheads.core.errors import CityHeadsError


def sheet(tmp_path: Path, *rows: str, columns: str = "name\theads\tseeds\tset\tcomment") -> Path:
    path = tmp_path / "experiments.tsv"
    path.write_text("# a remark\n" + "\n".join([columns, *rows]) + "\n")
    return path


def laboratory(tmp_path: Path, *rows: str, config: Config | None = None) -> Config:
    return with_experiments(config or make_config(), read_experiments(sheet(tmp_path, *rows)))


def test_rows_are_runs_that_start_from_the_run_under_test(tmp_path: Path) -> None:
    start = make_config(
        runs={"multihead": {"set": {"train.lr": 0.5, "heads.lulc.loss": "ce"}}},
        tuning={"grid": {"model.dropout": [0.2]}},
    )
    found = laboratory(
        tmp_path,
        "both\t\t\tmodel.merge=concat train.weight_decay=1e-3 model.lora={rank: 8} model.modalities=[S1RTC, DEM]\thi",
        "one\tbuildings\t3, 4\ttrain.lr=0.25\t",
        "nothing\t\t\t\t",
        config=start,
    )
    assert list(found.runs) == ["multihead", "lulc", "buildings", "both", "one", "nothing"]
    both = found.for_run("both")
    assert both.runs["both"].heads == ("lulc", "buildings")
    assert (both.model.merge, both.train.weight_decay, both.train.lr) == ("concat", 0.001, 0.5)
    assert both.model.modalities == ("S1RTC", "DEM")
    assert both.model.lora is not None
    assert both.model.lora.rank == 8
    assert both.heads["lulc"].loss == "ce"
    assert found.for_run("one").train.lr == 0.25
    assert dict(found.runs["one"].set) == {"train.lr": 0.25}, "without what is of a head that it has not"
    assert found.for_run("nothing").train == start.for_run("multihead").train
    assert found.for_run("lulc") == start.for_run("lulc"), "the config's own runs are as they were"
    assert found.tuned_runs == start.tuned_runs
    rows = read_experiments(tmp_path / "experiments.tsv")
    assert [row.seeds for row in rows] == [None, (3, 4), None]
    assert rows[0].comment == "hi"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("lulc\t\t\t", r"line 3 \(lulc\): column name: there is a run 'lulc' in the config; choose another"),
        ("Big\t\t\t", r"line 3 \(Big\): column name.* lower-case letters"),
        ("a\troads\t\t", r"line 3 \(a\): column heads: no head 'roads'; there are lulc, buildings"),
        ("a\tlulc,lulc\t\t", r"line 3 \(a\): column heads: lulc stands there twice"),
        ("a\t\tx\t", r"line 3 \(a\): column seeds: 'x' is not a whole number"),
        ("a\t\t1,1\t", r"line 3 \(a\): column seeds: '1,1' names a seed twice"),
        ("a\t\t\tconcat", r"line 3 \(a\): column set: 'concat' is not of the form"),
        ("a\t\t\tjunk model.merge=max", r"line 3 \(a\): column set: 'junk model.merge=max' is not of the form"),
        ("a\t\t\tmodel.merge=", r"column set: model\.merge: '' is no value"),
        ("a\t\t\ttrain.lr=.inf", r"column set: train\.lr: '\.inf' is no value"),
        ("a\t\t\tmodel.bands={S2L2A: [B04}", r"column set: model\.bands: '\{S2L2A: \[B04\}' cannot be read"),
        ("a\t\t\ttrain.lr=1 train.lr=2", r"column set: 'train\.lr' stands twice"),
        ("a\t\t\tmodel.mrge=max", r"column set: 'model\.mrge' is unknown; did you mean 'merge'\?"),
        ("a\t\t\tmodel.merge=sum", r"column set: 'model\.merge': 'sum' is none of mean, max, concat, dict, none"),
        ("a\t\t\ttrain.lr=fast", r"column set: 'train\.lr': 'fast' is not a number"),
        ("a\t\t\tgrid.parent_px=64", r"column set: 'grid\.parent_px' cannot be set for a run"),
        ("a\tlulc\t\theads.buildings.loss=ce", r"column set: heads\.buildings\.loss: the run has no head 'buildings'"),
        ("a\t\t\t\t\tmore", r"line 3: has 6 cells where the sheet has 5 columns"),
    ],
)
def test_a_row_that_is_wrong_is_told_with_its_place(tmp_path: Path, row: str, says: str) -> None:
    with pytest.raises(CityHeadsError, match=says) as told:
        laboratory(tmp_path, row)
    assert str(told.value).startswith(str(tmp_path / "experiments.tsv: line 3"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ("name\theads", "missing column set; the sheet is tab-separated with name, set, heads, seeds, comment"),
        ("name\tset\tlr", "unknown column 'lr'; known are name, set, heads, seeds, comment"),
    ],
)
def test_a_sheet_of_other_columns_is_refused(tmp_path: Path, columns: str, says: str) -> None:
    with pytest.raises(CityHeadsError, match=says):
        read_experiments(sheet(tmp_path, columns=columns))


def test_names_are_unique_and_the_sheet_is_there(tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match=r"line 4 \(a\): column name: 'a' stands twice"):
        read_experiments(sheet(tmp_path, "a\t\t\t", "a\t\t\t"))
    with pytest.raises(CityHeadsError, match=r"nowhere\.tsv: no such sheet of experiments"):
        read_experiments(tmp_path / "nowhere.tsv")


def test_what_a_search_may_choose_is_checked_with_the_row(tmp_path: Path) -> None:
    start = make_config(tuning={"grid": {"model.merge": ["mean", "none"]}})
    with pytest.raises(CityHeadsError, match=r"line 3 \(a\): column set: 'heads\.lulc\.neck': with model\.merge none"):
        laboratory(tmp_path, "a\t\t\theads.lulc.neck=shared", config=start)
    own = laboratory(tmp_path, "a\t\t\theads.lulc.neck=shared model.merge=max", config=start)
    assert own.with_settings("a", {"model.merge": "none"}).for_run("a").model.merge == "max", "the row's own wins"


def test_a_head_whose_label_no_run_learns_is_refused(tmp_path: Path) -> None:
    roads: Any = {"kind": "vector", "source": "roads.gpkg", "boundary": "city.gpkg"}
    roads["classes"] = [{"name": name, "color": "#000000"} for name in "ab"]
    start = make_config(labels={"ROADS": roads}, heads={"roads": {"label": "ROADS"}})
    with pytest.raises(CityHeadsError, match=r"column heads: roads learns ROADS, which no run of the config learns"):
        laboratory(tmp_path, "a\troads\t\t", config=start)


def test_the_sheet_of_the_repository_fits_its_config(repository: Path) -> None:
    config = load_config(repository / "config/config.yaml")
    assert config.experiments is not None
    rows = read_experiments(repository / config.experiments)
    assert len(rows) > 8
    assert all(row.comment for row in rows)
    assert len(with_experiments(config, rows).runs) == len(config.runs) + len(rows)
