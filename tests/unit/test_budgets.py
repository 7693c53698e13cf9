"""What compared trainings were given: read from the records, and differences named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_fixtures import write_training

from cityheads.core.artifacts.training import Budget
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, write_json
from cityheads.core.layout import Layout
from cityheads.evaluation.budgets import budgets, checkpoint_note, unequal


def budget(run: str, seed: int = 0, **changes: Any) -> Budget:
    schedule = {
        "epochs": 12, "batch_size": 16, "accumulate": 1, "lr": 0.003, "warmup_fraction": 0.1, "weight_decay": 0.01
    }  # fmt: skip
    made: Any = {
        "run": run, "fold": 0, "seed": seed, "heads": [run], "schedule": schedule | changes.pop("schedule", {}),
        "steps": 90, "chips_seen": 1440, "checkpoint": "last", "kept_epoch": 11, "settings": {}, "candidates": 1,
        "parameters": 10, "trainable": 10, "wall_s": 1.0, "peak_memory_mb": None, "peak_gpu_memory_mb": None,
        "cpu_energy_j": None, "inference_chips_per_s": 9.0, "device": "cpu",
    }  # fmt: skip
    return made | changes


def test_budgets_are_read_run_by_run(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for seed in (0, 1):
        write_training(layout, "multihead", seed, ["lulc", "buildings"])
        write_training(layout, "lulc", seed, ["lulc"])
    found = budgets(layout, ["multihead", "lulc"], [0], [0, 1])
    assert [(one["run"], one["seed"]) for one in found] == [
        ("multihead", 0), ("multihead", 1), ("lulc", 0), ("lulc", 1)
    ]  # fmt: skip
    assert found[0]["heads"] == ["lulc", "buildings"]
    assert (found[0]["steps"], found[0]["wall_s"], found[0]["peak_memory_mb"]) == (90, 61.2, 1870.5)
    assert unequal(found) == []
    path = layout.run("lulc", 0, 1).training
    write_json(path, read_json(path) | {"steps": 84})
    (told,) = unequal(budgets(layout, ["multihead", "lulc"], [0], [0, 1]))
    assert told == (
        "The trainings were not given the same: optimizer steps 90 in multihead, 84 in lulc (fold 0, seed 1)."
    )
    path.unlink()
    with pytest.raises(CityHeadsError, match=r"runs/lulc/0/1/training\.json: no such file"):
        budgets(layout, ["multihead", "lulc"], [0], [0, 1])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"checkpoint": "best"}, "checkpoint rule last in multihead, best in lulc"),
        ({"candidates": 4}, "settings tried on validation 1 in multihead, 4 in lulc"),
        ({"schedule": {"lr": 0.001}}, "peak learning rate 0.003 in multihead, 0.001 in lulc"),
        ({"schedule": {"warmup_fraction": 0.2}}, "share of warm-up 0.1 in multihead, 0.2 in lulc"),
        ({"settings": {"train.lr": 0.001}, "schedule": {"lr": 0.001}}, "peak learning rate"),
    ],
)
def test_a_difference_is_named_once(changes: dict[str, Any], says: str) -> None:
    found = unequal(
        [budget("multihead"), budget("multihead", 1), budget("lulc", **changes), budget("lulc", 1, **changes)]
    )
    (told,) = found
    assert says in told
    assert "seed 0" in told


def test_what_was_searched_for_both_may_differ() -> None:
    one = budget("multihead", candidates=2, settings={"train.lr": 0.003})
    two = budget("lulc", candidates=2, settings={"train.lr": 0.001}, schedule={"lr": 0.001})
    assert unequal([one, two]) == []


def test_folds_may_differ_in_size() -> None:
    assert unequal([budget("multihead"), budget("multihead", fold=1, steps=80, chips_seen=1280)]) == []


def test_the_rule_says_whom_it_favours() -> None:
    assert "nothing was chosen" in checkpoint_note([budget("multihead")])
    assert "favours the single-task runs" in checkpoint_note([budget("multihead", checkpoint="best")])
