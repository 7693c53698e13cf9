"""What was trained: the budget of each training, and what the shared model saves."""

from __future__ import annotations

from dataclasses import dataclass

from cityheads.config import NoninferiorityConfig
from cityheads.core.text import duration
from cityheads.product.report.tables import Cell, Column, Table, count, score, words
from cityheads.product.results import Results

__all__ = ["Economy", "economy", "equal_budgets", "trainings"]


def trainings(results: Results) -> Table:
    """Give what every training cost: the budgets are to be equal, and here that is seen."""
    rows = []
    for run, heads in results.runs.items():
        for fold in results.folds:
            for seed in results.seeds:
                training, environment = results.training(run, seed, fold), results.environment(run, seed, fold)
                size = training["parameters"]
                rows.append(
                    [
                        words(run, notes=(", ".join(heads),)), count(fold), count(seed), count(training["steps"]),
                        count(training["chips_seen"]), _millions(size["total"]), _millions(size["trainable"]),
                        count(training["kept_epoch"] + 1), words(training["checkpoint"]), score(training["score"]),
                        words(environment["device"]), Cell(duration(environment["wall_s"]), environment["wall_s"]),
                    ]
                )  # fmt: skip
    columns = [
        Column("run", number=False), Column("fold"), Column("seed"), Column("steps"), Column("sub-chips seen"),
        Column("parameters, M"), Column("trained, M"), Column("kept epoch"), Column("rule", number=False),
        Column("validation, %"), Column("device", number=False), Column("time"),
    ]  # fmt: skip
    caption = (
        "Every training and its budget: optimizer steps, training sub-chips that went through the model, size, time."
    )
    return Table("trainings", caption, columns, rows)


def _millions(value: int) -> Cell:
    return Cell(f"{value / 1e6:.2f}", value / 1e6)


def equal_budgets(results: Results, test: NoninferiorityConfig) -> bool:
    """Say whether the shared model and its baselines took the same number of steps on as many sub-chips."""
    runs = {test.run, *test.baselines.values()}
    for fold in results.folds:
        found = [results.training(run, seed, fold) for run in runs for seed in results.seeds]
        if len({(one["steps"], one["chips_seen"]) for one in found}) > 1:
            return False
    return True


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
