"""What each compared training was given: side by side, and where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cityheads.core.artifacts.environment import ENVIRONMENT
from cityheads.core.artifacts.training import TRAINING, Budget
from cityheads.core.layout import Layout

__all__ = ["budgets", "checkpoint_note", "unequal"]

#: What must be the same in all compared trainings of one fold and seed, and what it is called.
_SAME = {
    "steps": "optimizer steps",
    "chips_seen": "training chips seen",
    "checkpoint": "checkpoint rule",
    "candidates": "settings tried on validation",
    "epochs": "epochs",
    "batch_size": "chips a batch",
    "accumulate": "batches a step",
    "lr": "peak learning rate",
    "warmup_fraction": "share of warm-up",
    "weight_decay": "weight decay",
}


def budgets(layout: Layout, runs: Iterable[str], folds: Sequence[int], seeds: Sequence[int]) -> list[Budget]:
    """Read what trainings were given and what they took, run by run, then fold by fold and seed by seed.

    Args:
        layout: Results folder.
        runs: Names of the runs.
        folds: Folds that were trained.
        seeds: Seeds that were trained.

    Raises:
        CityHeadsError: A record is missing or cannot be read.
    """
    found: list[Budget] = []
    for run in runs:
        for fold in folds:
            for seed in seeds:
                folder = layout.run(run, fold, seed)
                training, where = TRAINING.read(folder.training), ENVIRONMENT.read(folder.environment)
                found.append(
                    {
                        "run": run,
                        "fold": fold,
                        "seed": seed,
                        "heads": list(training["scores"]),
                        "schedule": training["schedule"],
                        "steps": training["steps"],
                        "chips_seen": training["chips_seen"],
                        "checkpoint": training["checkpoint"],
                        "kept_epoch": training["kept_epoch"],
                        "settings": training["settings"],
                        "candidates": training["candidates"],
                        "parameters": training["parameters"]["total"],
                        "trainable": training["parameters"]["trainable"],
                        "wall_s": where["wall_s"],
                        "peak_memory_mb": where["peak_memory_mb"],
                        "peak_gpu_memory_mb": where["peak_gpu_memory_mb"],
                        "cpu_energy_j": where["cpu_energy_j"],
                        "inference_chips_per_s": where["inference_chips_per_s"],
                        "device": where["device"],
                    }
                )
    return found


def unequal(compared: Iterable[Budget]) -> list[str]:
    """Say where trainings that are compared were not given the same, a sentence for each run and kind of difference.

    Compared are the trainings of one fold and seed with the first of them. What an equal search chose may differ:
    the peak learning rate, for one, where it was searched for both.
    """
    first: dict[tuple[int, int], Budget] = {}
    found: dict[tuple[str, str], str] = {}
    for budget in compared:
        other = first.setdefault((budget["fold"], budget["seed"]), budget)
        for key, words in _SAME.items():
            searched = f"train.{key}"
            if searched in budget["settings"] and searched in other["settings"]:
                continue
            one, two = _value(other, key), _value(budget, key)
            if one != two:
                told = (
                    f"The trainings were not given the same: {words} {_shown(one)} in {other['run']}, {_shown(two)} "
                    f"in {budget['run']} (fold {budget['fold']}, seed {budget['seed']})."
                )
                found.setdefault((key, budget["run"]), told)
    return list(found.values())


def checkpoint_note(compared: Iterable[Budget]) -> str:
    """Say which epoch's weights were kept, and whom that favours."""
    rules = {budget["checkpoint"] for budget in compared}
    if rules == {"last"}:
        return "Every training kept the weights of its last epoch: nothing was chosen."
    return (
        "Weights are those of the epoch with the best validation score, the mean over a run's heads. A single-task run "
        "chooses for its one head, a run of several heads keeps one epoch for all of them: the rule favours the "
        "single-task runs."
    )


def _value(budget: Budget, key: str) -> Any:
    table: dict[str, Any] = {**budget["schedule"], **budget}
    return table[key]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
