"""What was trained: the budget of each training, where budgets differ, and what the shared model saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cityheads.config import NoninferiorityConfig
from cityheads.core.artifacts.training import Budget
from cityheads.core.text import duration
from cityheads.evaluation.budgets import budgets, checkpoint_note, unequal
from cityheads.product.report.tables import Cell, Column, Table, count, score, words
from cityheads.product.results import Results

__all__ = ["Economy", "Effort", "economy", "effort", "trainings"]


def trainings(results: Results) -> Table:
    """Give what every training was given and what it took."""
    rows = []
    for one in budgets(results.layout, results.runs, results.folds, results.seeds):
        schedule = one["schedule"]
        told = [f"{key} {value}" for key, value in one["settings"].items()]
        found = results.training(one["run"], one["seed"], one["fold"])["score"]
        rows.append(
            [
                words(one["run"], notes=(", ".join(one["heads"]), *told)), count(one["fold"]), count(one["seed"]),
                count(one["steps"]), count(one["chips_seen"]), Cell(f"{schedule['lr']:g}", schedule["lr"]),
                count(one["candidates"]), count(one["kept_epoch"] + 1), words(one["checkpoint"]), score(found),
                _millions(one["parameters"]), _millions(one["trainable"]),
                Cell(duration(one["wall_s"]), one["wall_s"]), _maybe(one["peak_memory_mb"], 1.0, 0),
                _maybe(one["cpu_energy_j"], 1e-3, 1), _maybe(one["inference_chips_per_s"], 1.0, 0),
            ]
        )  # fmt: skip
    columns = [
        Column("run", number=False), Column("fold"), Column("seed"), Column("steps"), Column("sub-chips seen"),
        Column("peak learning rate"), Column("settings tried"), Column("kept epoch"), Column("rule", number=False),
        Column("validation, %"), Column("parameters, M"), Column("trained, M"), Column("time"), Column("memory, MB"),
        Column("CPU energy, kJ"), Column("sub-chips a second"),
    ]  # fmt: skip
    caption = (
        "Every training: what it was given (steps, sub-chips, search) and what it took (size, time, memory, energy)."
    )
    return Table("trainings", caption, columns, rows)


def _millions(value: int) -> Cell:
    return Cell(f"{value / 1e6:.2f}", value / 1e6)


def _maybe(value: float | None, factor: float, digits: int) -> Cell:
    if value is None:
        return Cell("n/a", defined=False)
    return Cell(f"{factor * value:,.{digits}f}", factor * value)


@dataclass(frozen=True)
class Effort:
    """Whether the compared trainings were given the same: sentences on what differs, and on the choice of epochs."""

    differences: Sequence[str]
    checkpoint: str


def effort(test: NoninferiorityConfig, results: Results) -> Effort:
    """Compare the budgets of the shared model and its baselines."""
    runs = list(dict.fromkeys([test.run, *test.baselines.values()]))
    compared: list[Budget] = budgets(results.layout, runs, results.folds, results.seeds)
    return Effort(unequal(compared), checkpoint_note(compared))


@dataclass(frozen=True)
class Economy:
    """Numbers of parameters: of the shared model, and of the single-task models that it would replace together."""

    shared: int
    apart: int
    models: int

    @property
    def ratio(self) -> float:
        """How many times as many the single-task models have."""
        return self.apart / self.shared


def economy(test: NoninferiorityConfig, results: Results) -> Economy | None:
    """Compare the size of the shared model with that of its baselines; None where it is its own baseline."""
    seed = results.seeds[0]
    baselines = list(dict.fromkeys(test.baselines[head] for head in results.runs[test.run]))
    if test.run in baselines:
        return None
    apart = sum(results.training(run, seed)["parameters"]["total"] for run in baselines)
    return Economy(results.training(test.run, seed)["parameters"]["total"], apart, len(baselines))
