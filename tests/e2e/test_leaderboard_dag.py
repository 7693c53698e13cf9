"""Experiments through the real rules: from nothing to the leaderboard, without a look at the test split."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from test_tiny_dag import set_up

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_two_rows_are_trained_and_stand_beside_the_run_under_test(snakemake: Run, tmp_path: Path) -> None:
    place = set_up(tmp_path)
    (place / "experiments.tsv").write_text(
        "name\theads\tset\tcomment\n"
        "merge_max\t\tmodel.merge=max\tmaximum\n"
        "optical\tbuildings\tmodel.modalities=[S2L2A] train.balance=uncertainty\toptical only\n"
    )
    config = yaml.safe_load((place / "tiny.yaml").read_text()) | {"experiments": "experiments.tsv"}
    (place / "laboratory.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    asked = ("leaderboard", "--configfile", place / "laboratory.yaml")
    snakemake(place, *asked)
    results = place / "results"
    board = json.loads((results / "leaderboard/leaderboard.json").read_text())
    entries = {entry["name"]: entry for entry in board["entries"]}
    assert set(entries) == {"multihead", "lulc", "buildings", "merge_max", "optical"}
    for name, set_ in (("merge_max", {"merge": "max"}), ("optical", {"modalities": ["S2L2A"]})):
        model = json.loads((results / f"runs/{name}/0/0/model.json").read_text())
        assert model["model"] | set_ == model["model"], "the row's settings were in force"
    assert list(entries["optical"]["heads"]) == ["buildings"]
    for entry in entries.values():
        assert entry["cost"]["train_s"] > 0
        assert entry["cost"]["inference_chips_per_s"] > 0
        for head, part in entry["heads"].items():
            metrics = json.loads((results / f"evaluation/val/{entry['name']}/0/0/metrics.json").read_text())
            value = metrics["heads"][head]["metric"]["value"]
            assert (part["score"] is None) == (value is None)
            assert value is None or part["score"] == pytest.approx(value)
    assert not (results / "evaluation/test").exists()
    assert not (results / "test_readings.jsonl").exists()
    assert "Nothing to be done" in (again := snakemake(place, *asked)).stdout + again.stderr
    # a row more trains itself, and nothing else
    with (place / "experiments.tsv").open("a") as sheet:
        sheet.write("pcgrad\t\ttrain.balance=pcgrad\t\n")
    told = snakemake(place, "-n", *asked).stdout
    assert "Train run pcgrad on fold 0 with seed 0" in told
    assert told.count("Train run") == 1
    assert told.count("Evaluate run") == 1
