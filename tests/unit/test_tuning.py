"""The search of settings: the same candidates for every compared run, chosen on validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_fixtures import small_config, write_store

from cityheads.config import Config
from cityheads.core.artifacts.settings import SETTINGS
from cityheads.core.artifacts.training import TRAINING
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_json
from cityheads.training.run import train
from cityheads.training.tuning import choose_settings, tune

GRID = {"train.lr": ["1e-4", 0.003], "model.merge": ["mean", "max"]}


def config(grid: dict[str, Any] | None = None, **changes: Any) -> Config:
    return small_config(tuning={"grid": GRID if grid is None else grid}, train={"epochs": 1}, **changes)


def test_candidates_are_all_combinations() -> None:
    assert config().tuning.candidates == (
        {"train.lr": 0.0001, "model.merge": "mean"},
        {"train.lr": 0.0001, "model.merge": "max"},
        {"train.lr": 0.003, "model.merge": "mean"},
        {"train.lr": 0.003, "model.merge": "max"},
    )
    assert config().tuned_runs == ("multihead", "lulc", "buildings")
    assert config({}).tuning.candidates == ()
    assert config({}).tuned_runs == ()


def test_settings_are_laid_over_what_the_run_sets() -> None:
    start = config(runs={"lulc": {"set": {"train.weight_decay": 0.5}}})
    found = start.with_settings("lulc", {"train.lr": 0.25})
    of_run = found.for_run("lulc").train
    assert (of_run.lr, of_run.weight_decay) == (0.25, 0.5)
    assert found.for_run("buildings").train.lr == start.train.lr
    assert start.for_run("lulc").train.lr == start.train.lr


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({"train.epochs": [1, 2]}, r"'train\.epochs' must be the same for all runs"),
        ({"train.lrate": [1]}, r"'train\.lrate' is unknown; did you mean 'lr'\?|'train\.lrate' is unknown"),
        ({"heads.lulc.loss": ["ce"]}, r"'heads\.lulc\.loss' cannot be searched; model\.KEY and train\.KEY can"),
        ({"train.lr": []}, r"tuning\.grid\.train\.lr': \[\] has 0 entries"),
        ({"train.lr": [0.1, 0.1]}, "0.1 stands there twice"),
        ({"train.lr": [0.1, -1]}, r"config key 'tuning\.grid': 'train\.lr': -1 is not above 0"),
        (
            {"model.modalities": [["S2L2A"], ["S2"]]},
            r"config key 'tuning\.grid': 'model\.modalities\.0': 'S2' is none of",
        ),
    ],
)
def test_a_grid_that_cannot_be_searched_is_refused_before_any_job(grid: dict[str, Any], says: str) -> None:
    with pytest.raises(CityHeadsError, match=says):
        config(grid)


def test_a_key_that_a_compared_run_sets_is_not_searched() -> None:
    with pytest.raises(CityHeadsError, match=r"'train\.lr' is set by run 'lulc' already"):
        config(runs={"lulc": {"set": {"train.lr": 0.1}}})


def record(path: Path, settings: dict[str, Any], score: float | None, **changes: Any) -> Path:
    schedule: Any = {
        "epochs": 1, "batch_size": 8, "accumulate": 1, "lr": 0.1, "warmup_fraction": 0.1, "weight_decay": 0.01
    }  # fmt: skip
    made: Any = {
        "run": "lulc", "fold": 2, "seed": 0, "schedule": schedule, "steps": 2, "chips_seen": 16, "checkpoint": "last",
        "kept_epoch": 0, "score": score, "scores": {"lulc": score}, "settings": settings, "candidates": 1,
        "parameters": {"total": 1, "trainable": 1, "encoder": 1, "heads": {"lulc": 0}}, "chips": {},
    }  # fmt: skip
    TRAINING.write(path, made | changes)
    return path


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.1, 0.4, 0.4, 0.2], 1), ([None, 0.1, None, 0.0], 1), ([0.0, None, None, None], 0)],
)
def test_the_best_on_validation_is_chosen_and_all_are_told(
    tmp_path: Path, scores: list[float | None], best: int
) -> None:
    here = config().restricted_to(("tuning",))
    candidates = here.tuning.candidates
    paths = [
        record(tmp_path / f"{index}.json", settings, score)
        for index, (settings, score) in enumerate(zip(candidates, scores, strict=True))
    ]
    choose_settings(here, run="lulc", fold=2, trainings=paths, out=tmp_path / "settings.json")
    found = SETTINGS.read(tmp_path / "settings.json")
    assert found["chosen"] == candidates[best]
    assert [one["score"] for one in found["candidates"]] == scores
    assert [one["settings"] for one in found["candidates"]] == list(candidates)


def test_a_choice_without_scores_or_of_other_candidates_is_refused(tmp_path: Path) -> None:
    here = config({"train.lr": [0.1, 0.2]}).restricted_to(("tuning",))
    paths = [record(tmp_path / f"{lr}.json", {"train.lr": lr}, None) for lr in (0.1, 0.2)]
    with pytest.raises(CityHeadsError, match=r"0\.1\.json: no candidate of run lulc has a defined validation score"):
        choose_settings(here, run="lulc", fold=2, trainings=paths, out=tmp_path / "settings.json")
    record(paths[1], {"train.lr": 0.3}, 0.5)
    with pytest.raises(CityHeadsError, match=r"0\.2\.json: is the training of another candidate"):
        choose_settings(here, run="lulc", fold=2, trainings=paths, out=tmp_path / "settings.json")
    assert not (tmp_path / "settings.json").exists()


def test_a_candidate_is_trained_and_the_choice_is_applied(tmp_path: Path) -> None:
    dataset = write_store(tmp_path / "dataset")
    here = config({"model.merge": ["mean", "max"]})
    tune(here, run="lulc", fold=0, candidate=1, dataset=dataset, out=tmp_path / "candidate")
    tried = TRAINING.read(tmp_path / "candidate" / "training.json")
    assert tried["settings"] == {"model.merge": "max"}
    assert json.loads((tmp_path / "candidate" / "model.json").read_text())["model"]["merge"] == "max"
    assert not (tmp_path / "candidate" / "model.safetensors").exists()
    choice = tmp_path / "settings.json"
    SETTINGS.write(
        choice,
        {
            "run": "lulc", "fold": 0, "seed": 0, "chosen": {"model.merge": "max"},
            "candidates": [{"settings": {"model.merge": name}, "score": None} for name in ("mean", "max")],
        },
    )  # fmt: skip
    train(here, run="lulc", seed=0, dataset=dataset, out=tmp_path / "run", settings=choice)
    trained = TRAINING.read(tmp_path / "run" / "training.json")
    assert (trained["settings"], trained["candidates"]) == ({"model.merge": "max"}, 2)
    assert trained["scores"] == tried["scores"], "the same settings and seed as the candidate's"
    write_json(choice, {"format_version": 0})
    with pytest.raises(CityHeadsError, match=r"settings\.json: this choice of settings has format version 0"):
        train(here, run="lulc", seed=0, dataset=dataset, out=tmp_path / "run", settings=choice)
