"""Experiments in the DAG: rows of the sheet through the same rules, on request only, and never on the test split."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

SHEET = "name\tseeds\tset\ncat\t0,1\tmodel.merge=concat\nmax\t\tmodel.merge=max\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "config/experiments.tsv").write_text(SHEET)
    return tmp_path


def test_rows_are_runs_on_request_only(snakemake: Run, place: Path) -> None:
    told = snakemake(place, "-n", "leaderboard").stdout
    trained = re.findall(r"Train run (\w+) on fold (\d) with seed (\d)", told)
    folds = sorted({fold for _, fold, _ in trained})
    runs = [("buildings", "0"), ("cat", "0"), ("cat", "1"), ("lulc", "0"), ("max", "0"), ("multihead", "0")]
    assert sorted(trained) == sorted((run, fold, seed) for run, seed in runs for fold in folds)
    scored = re.findall(r"Evaluate run (\w+) on the (\w+) parents", told)
    assert {split for _, split in scored} == {"val"}
    assert len(scored) == len(trained)
    assert "leaderboard.md" in told
    assert not re.findall("run (cat|max) ", snakemake(place, "-n").stdout), "not part of the default"


def test_experiments_start_from_what_was_chosen_for_the_run_under_test(snakemake: Run, place: Path) -> None:
    (place / "grid.yaml").write_text(yaml.safe_dump({"tuning": {"grid": {"train.lr": [0.001, 0.003]}}}))
    told = snakemake(place, "-n", "-p", "leaderboard", "--configfile", place / "grid.yaml").stdout
    (command,) = set(re.findall(r"cityheads train .*--run cat --fold 0 --seed 1 .*", told))
    assert "--settings results/runs/multihead/0/settings.json" in command
    assert "--config results/experiments.yaml" in command
    (command,) = set(re.findall(r"cityheads train .*--run multihead --fold 0 .*", told))
    assert "--config results/config.yaml" in command
    assert not re.findall("Train candidate . of run cat", told)


def test_a_wrong_row_stops_before_any_job(snakemake: Run, place: Path) -> None:
    (place / "config/experiments.tsv").write_text(SHEET + "bad\t\tmodel.merge=sum\n")
    done = snakemake(place, "-n", check=False)
    assert done.returncode != 0
    line = next(line for line in (done.stdout + done.stderr).splitlines() if "experiments.tsv" in line)
    says = "column set: 'model.merge': 'sum' is none of mean, max, concat, dict, none"
    assert line == f"config/experiments.tsv: line 4 (bad): {says}"
