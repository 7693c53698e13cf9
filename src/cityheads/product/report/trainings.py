"""What was trained: a row for each training, and what the shared model saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cityheads.config import NoninferiorityConfig
from cityheads.core.artifacts.environment import Environment
from cityheads.core.artifacts.training import Training
from cityheads.product.results import Results

__all__ = ["Economy", "TrainingRow", "economy", "trainings"]


@dataclass(frozen=True)
class TrainingRow:
    """One training: a run with a seed."""

    run: str
    seed: int
    heads: Sequence[str]
    training: Training
    environment: Environment

    @property
    def kept_epoch(self) -> int:
        """The epoch that was kept, counted from 1 as people do."""
        return self.training["kept_epoch"] + 1


def trainings(results: Results) -> list[TrainingRow]:
    """Give all trainings, run by run."""
    return [
        TrainingRow(run, seed, heads, results.training(run, seed), results.environment(run, seed))
        for run, heads in results.runs.items()
        for seed in results.seeds
    ]


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
