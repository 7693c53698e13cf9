"""What the figures are drawn from: results and settings, looked for as a whole before the first is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cityheads.core.classes import mask_layer
from cityheads.core.confusion import HeadMetric
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, read_parents
from cityheads.product.figures import style
from cityheads.product.results import Results

__all__ = ["Evidence", "LineStyle"]

#: A line style of matplotlib: a name, or offset and lengths of dashes.
LineStyle = Literal["-"] | tuple[float, tuple[float, ...]]


class Evidence:
    """Results and settings behind the figures.

    Args:
        settings: Sections ``grid``, ``labels``, ``heads``, ``runs``, ``seeds``, ``gate`` and ``report``.
        parents: Parent sheet.
        results: Results folder.

    Raises:
        CityHeadsError: An artifact is missing, or the parents of sheet and results differ.
    """

    def __init__(self, settings: Mapping[str, Any], parents: Path, results: Path) -> None:
        self.settings = settings
        self.grid = Grid.from_settings(settings["grid"])
        self.parents = read_parents(parents, self.grid)
        self.results = Results(results, settings["runs"], settings["seeds"])
        self.shared_run: str = settings["gate"]["run"]
        self.baselines: dict[str, str] = settings["gate"]["baselines"]
        self.heads = self.results.runs[self.shared_run]
        self._require()
        self.split = self.results.splits["parents"]
        for parent in self.parents:
            if parent.parent_id not in self.split:
                raise CityHeadsError(
                    f"{self.results.root / 'dataset' / 'splits.json'}: has no parent {parent.parent_id} of {parents}; "
                    "run the workflow again"
                )
        self.simulated = self.results.simulated

    def _require(self) -> None:
        """Look for every artifact.

        Raises:
            CityHeadsError: One is missing.
        """
        found = self.results
        for name in ("chips.parquet", "classes.json"):
            found.path("dataset", name)
        for name in ("S2L2A", *(mask_layer(self.label(head)) for head in self.heads)):
            found.path("dataset", "store", f"{name}.npy")
        compared = {self.shared_run, *(self.baselines[head] for head in self.heads)}
        for run, heads in found.runs.items():
            for seed in found.seeds:
                found.path("runs", run, seed, "history.csv")
                found.path("runs", run, seed, "training.json")
                if run in compared:
                    found.path("evaluation", run, seed, "metrics.json")
            if run in compared:
                # the pictures show the first seed
                where = ("evaluation", run, found.seeds[0])
                found.path(*where, "confusion.parquet")
                found.path(*where, "predictions", "index.json")
                for head in heads:
                    found.path(*where, "predictions", f"{head}.npy")

    def label(self, head: str) -> str:
        """Give the label that a head learns."""
        label: str = self.settings["heads"][head]["label"]
        return label

    def classes(self, label: str) -> list[tuple[str, str]]:
        """Give name and colour of a label's classes, in the order of their ids."""
        return [(item["name"], item["color"]) for item in self.settings["labels"][label]["classes"]]

    def class_names(self, head: str) -> list[str]:
        """Give the class names of a head, in the order of their ids."""
        return [name for name, _ in self.classes(self.label(head))]

    def metric(self, head: str) -> HeadMetric:
        """Give the metric that a head is judged by."""
        rule, names = self.settings["heads"][head], self.class_names(head)
        return HeadMetric.of(rule["metric"], names, rule.get("positive_class") or names[-1])

    def run_style(self, run: str) -> tuple[str, LineStyle]:
        """Give a run's colour and line style."""
        if run == self.shared_run:
            return style.SHARED, "-"
        if run in self.baselines.values():
            return style.SINGLE, (0, (5, 2))
        others = [name for name in self.results.runs if name != self.shared_run and name not in self.baselines.values()]
        return style.OTHER_RUNS[others.index(run) % len(style.OTHER_RUNS)], (0, (1.5, 1.5))
