"""The DAG as Snakemake sees it, without running a job."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cityheads.core.layout import STAGES as ORDER

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

STAGES = {
    "simulate_archive": 1,
    "prepare_footprints": 1,
    "select_scenes": 22,
    "read_parent": 22,
    "slice_parent": 22,
    "rasterize_landcover": 22,
    "rasterize_buildings": 22,
    "pack_store": 1,
    "assign_splits": 1,
    "assemble_dataset": 1,
    "train": 5,  # the three runs, and the tested one without encoder and with a frozen one
    "evaluate": 10,  # on val and on test
    "evaluate_control": 5,
    "compare": 1,
    "draw_figures": 1,
    "report": 1,
    "publish": 1,
}


def jobs(text: str) -> dict[str, int]:
    table = text.split("Job stats:")[1].split("total")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a working directory with the repository's config folder."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def overlay(place: Path, **changes: object) -> Path:
    path = place / "overlay.yaml"
    path.write_text(yaml.safe_dump(changes))
    return path


def test_the_default_dag_is_one_job_a_parent_and_stage(snakemake: Run, place: Path) -> None:
    told = snakemake(place, "-n").stdout
    found = jobs(told)
    found.pop("all")
    assert found == STAGES
    assert max(map(len, told.splitlines())) < 300, "no lists of two thousand files on the screen"
    assert not (place / "results").exists(), "a dry run writes nothing"


@pytest.mark.parametrize(
    ("target", "last"),
    [
        ("train_multihead", "train"),
        ("controls", "evaluate_control"),
        ("report", "report"),
        ("dataset", "assemble_dataset"),
    ],
)
def test_named_targets_stop_where_their_name_says(snakemake: Run, place: Path, target: str, last: str) -> None:
    found = jobs(snakemake(place, "-n", target).stdout)
    found.pop(target) if target not in STAGES else None
    expected = dict(list(STAGES.items())[: list(STAGES).index(last) + 1])
    if target == "train_multihead":
        expected["train"] = 1
    if target == "controls":
        expected |= {"train": 2, "evaluate": 4}
    assert found == expected


def test_a_run_and_a_seed_more_are_a_matter_of_the_config(snakemake: Run, place: Path) -> None:
    config = yaml.safe_load((place / "config/config.yaml").read_text())
    config["heads"]["footprint"] = {"label": "BUILDINGS"}
    config["runs"]["wide"] = {"heads": ["lulc", "buildings", "footprint"]}
    config["seeds"] = [0, 1]
    (place / "more.yaml").write_text(yaml.safe_dump(config))
    found = jobs(snakemake(place, "-n", "--configfile", place / "more.yaml").stdout)
    # four runs and two controls: these with the first seed only
    assert (found["train"], found["evaluate"]) == (10, 20)


def test_controls_are_as_the_config_says(snakemake: Run, place: Path) -> None:
    changes = overlay(place, controls={"made": ["majority", "pixels", "no_encoder"], "seeds": [3, 4]})
    told = snakemake(place, "-n", "controls", "--configfile", changes).stdout
    found = jobs(told)
    assert (found["evaluate_control"], found["train"], found["evaluate"]) == (2, 2, 4)
    assert "results/evaluation/test/no_encoder/0/4/metrics.json" in told
    none = jobs(snakemake(place, "-n", "--configfile", overlay(place, controls={"made": []})).stdout)
    assert none.get("evaluate_control") is None
    assert none["train"] == 3


def test_the_default_run_can_be_a_cross_validation(snakemake: Run, place: Path) -> None:
    found = jobs(snakemake(place, "-n", "--configfile", place / "config/folds.yaml").stdout)
    found.pop("all")
    # three runs with three seeds, and two trained controls with the first
    trained = 5 * (3 * 3 + 2)
    assert found == STAGES | {
        "assemble_dataset": 5, "train": trained, "evaluate": 2 * trained, "evaluate_control": 5 * 5,
    }  # fmt: skip


def test_folds_are_a_matter_of_the_config_and_share_the_store(snakemake: Run, place: Path) -> None:
    splits = {"method": "folds", "folds": 3}
    found = jobs(snakemake(place, "-n", "--configfile", overlay(place, splits=splits, seeds=[0, 1])).stdout)
    found.pop("all")
    # the trained controls with the first seed only
    assert found == STAGES | {"assemble_dataset": 3, "train": 24, "evaluate": 48, "evaluate_control": 15}
    some = overlay(place, splits=splits | {"only_folds": [2]}, seeds=[0, 1])
    told = snakemake(place, "-n", "-p", "--configfile", some).stdout
    assert jobs(told) == STAGES | {"train": 8, "evaluate": 16, "all": 1}
    assert set(re.findall(r"--fold (\d)", told)) == {"2"}


def test_an_overlay_is_laid_over_the_default(snakemake: Run, place: Path) -> None:
    changes = overlay(place, results="elsewhere", train={"epochs": 2})
    done = snakemake(place, "-n", "--configfile", changes)
    assert "elsewhere/report.html" in done.stdout
    assert jobs(done.stdout)["train"] == 5


def test_a_full_config_stands_alone(snakemake: Run, place: Path) -> None:
    # without a grid section of its own it would take the default config's 256 px, were that laid below it
    config = yaml.safe_load((place / "config/config.yaml").read_text())
    del config["grid"]
    (place / "full.yaml").write_text(yaml.safe_dump(config))
    snakemake(place, "results/archive/catalog.json", "-n", "--configfile", place / "full.yaml")
    config["parents"] = "config/small.tsv"
    (place / "config/small.tsv").write_text("parent_id\tepsg\tleft\ttop\nA\t32618\t0\t0\nB\t32618\t3000\t0\n")
    (place / "full.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(place, "-n", "--configfile", place / "full.yaml", check=False)
    assert "move them apart by 8960 m" in done.stdout + done.stderr, "896 px is the schema's default"


@pytest.mark.parametrize(
    ("changes", "sheet", "says"),
    [
        ({"trian": {"epochs": 3}}, None, "config key 'trian' is unknown; did you mean 'train'?"),
        ({"train": {"epochs": "many"}}, None, "config key 'train.epochs'"),
        ({"parents": "nowhere.tsv"}, None, "nowhere.tsv: no such parent sheet"),
        ({}, "parent_id\tepsg\tleft\nA\t32618\t0\n", "missing column top"),
        ({}, "parent_id\tepsg\tleft\ttop\nA\t32618\t0\t0\nA\t32618\t9000\t0\n", "'A' stands twice"),
        ({}, "parent_id\tepsg\tleft\ttop\nA\t32618\t0\t0\nB\t32618\t9\t0\n", "A and B overlap"),
        ({}, "parent_id\tepsg\tleft\ttop\nA\t1\t0\t0\n", "EPSG:1 (A) is unknown"),
    ],
)
def test_bad_input_stops_before_any_job_with_one_clear_line(
    snakemake: Run, place: Path, changes: dict[str, object], sheet: str | None, says: str
) -> None:
    if sheet is not None:
        (place / "config/parents.tsv").write_text(sheet)
    done = snakemake(place, "--cores", "1", "--configfile", overlay(place, **changes), check=False)
    assert done.returncode != 0
    assert says in done.stderr
    assert sum(says in line for line in done.stderr.splitlines()) == 1
    assert not (place / "results").exists()


def test_a_broken_default_config_is_told_with_line_and_column(snakemake: Run, place: Path) -> None:
    (place / "config/config.yaml").write_text("project:\n  title: [a\n")
    done = snakemake(place, "-n", check=False)
    assert done.returncode != 0
    assert "config/config.yaml: not valid YAML: line 3, column 1" in done.stdout + done.stderr


def test_values_of_the_command_line_are_what_they_look_like(snakemake: Run, place: Path) -> None:
    found = jobs(snakemake(place, "-n", "train_multihead", "--config", "seeds=[0, 1]", "train={epochs: 2}").stdout)
    assert found["train"] == 2


def test_the_real_run_is_a_dag_from_nothing(snakemake: Run, place: Path) -> None:
    found = jobs(snakemake(place, "-n", "report", "--configfile", place / "config/nyc.yaml").stdout)
    assert (found["fetch_footprints"], found["prepare_footprints"], found["read_parent"]) == (2, 1, 22)
    # a file that lies there already, from wherever, is taken as it is
    (place / "data").mkdir()
    (place / "data/nyc_borough_boundaries.geojson").write_text("{}")
    found = jobs(snakemake(place, "-n", "results/nyc/labels/BUILDINGS/boundary.parquet",
                           "--configfile", place / "config/nyc.yaml").stdout)  # fmt: skip
    assert found["fetch_footprints"] == 1


def test_a_catalogue_that_is_not_there_is_named(snakemake: Run, place: Path) -> None:
    config = yaml.safe_load((place / "config/config.yaml").read_text())
    config["archive"] = {"provider": "stac", "catalog": "nowhere/catalog.json"}
    config["labels"]["BUILDINGS"] |= {"source": "config/parents.tsv", "boundary": "config/parents.tsv"}
    (place / "c.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(place, "results/scenes/P01.json", "--configfile", place / "c.yaml", check=False)
    assert done.returncode != 0
    assert "nowhere/catalog.json" in done.stderr
    assert not (place / "results/scenes/P01.json").exists()


def test_lint_is_clean(snakemake: Run) -> None:
    done = snakemake(ROOT, "--lint", check=False)
    assert done.returncode == 0, done.stderr


def test_every_rule_has_what_a_rule_must_have() -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    blocks = re.split(r"^ *rule (\w+):$", text, flags=re.MULTILINE)[1:]
    rules = dict(zip(blocks[::2], blocks[1::2], strict=True))
    assert set(rules) == set(ORDER), "core.layout lists the rules in the order of the data"
    for name, body in rules.items():
        for directive in ("log", "benchmark", "conda", "threads", "resources", "params", "message", "shell"):
            assert re.search(rf"^ +{directive}:", body, re.MULTILINE), f"rule {name} has no {directive}"
        assert "mem_mb=" in body, f"rule {name} states no memory"
        assert f"exec cityheads {name} " in body
        # a candidate is a training: what else is in the grid is none of its business
        source = re.sub(r"\(\s+", "(", text if name == "fetch_footprints" else body)
        assert f'settings("{"train" if name == "tune" else name}"' in source
        taken = "config=config_of_run" if name in ("train", "evaluate") else "config=untracked(CONFIG)"
        assert taken in body, f"rule {name}: the config's date is no reason to run again"
        # choices of scenes and splits are frozen: an upgrade does not search again
        assert (f'version("{name}")' in body) == (name not in ("select_scenes", "agree_scenes", "assign_splits")), name
        if name in ("select_scenes", "read_parent", "rasterize_landcover", "fetch_footprints"):
            assert "network=1" in body, f"rule {name} is not throttled"
        assert not re.search(r"message:\n.*{(?!wildcards|input|output)", body), f"rule {name}: names of this file only"


def test_a_second_run_on_the_same_results_is_refused(snakemake: Run, place: Path) -> None:
    import fcntl

    (place / "results").mkdir()
    with (place / "results/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = snakemake(place, "--cores", "1", "results/archive/catalog.json", check=False)
    assert done.returncode != 0
    assert "another run of the workflow is writing there" in done.stderr
    assert not (place / "results/archive").exists()
