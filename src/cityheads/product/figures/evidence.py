"""What the figures are drawn from: results and settings, looked for as a whole before the first is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cityheads.config import Config
from cityheads.core.classes import mask_layer
from cityheads.core.confusion import HeadMetric
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import read_parents
from cityheads.product.figures import style
from cityheads.product.results import Results, require

__all__ = ["Evidence", "LineStyle"]

#: A line style of matplotlib: a name, or offset and lengths of dashes.
LineStyle = Literal["-"] | tuple[float, tuple[float, ...]]


class Evidence:
    """Results and settings behind the figures.

    Args:
        config: Sections ``grid``, ``labels``, ``heads``, ``runs``, ``seeds``, ``splits``, ``noninferiority`` and
            ``report``.
        parents: Parent sheet.
        results: Results folder.

    Raises:
        CityHeadsError: An artifact is missing, or the parents of sheet and results differ.
    """

    def __init__(self, config: Config, parents: Path, results: Path) -> None:
        self.config = config
        self.grid = config.grid.grid
        self.parents = read_parents(parents, self.grid)
        self.results = Results(results, config)
        self.shared_run = config.noninferiority.run
        self.baselines = config.noninferiority.baselines
        self.heads = self.results.runs[self.shared_run]
        self._require()
        self.split = self.results.splits["parents"]
        for parent in self.parents:
            if parent.parent_id not in self.split:
                raise CityHeadsError(
                    f"{self.results.dataset.splits}: has no parent {parent.parent_id} of {parents}; "
                    "run the workflow again"
                )
        self.simulated = self.results.simulated
        folds = self.results.splits["folds"]
        #: What tells the parents apart, with a colour each: their split, or in a cross-validation, where that changes
        #: from fold to fold, the fold in which they are tested.
        self.group_colors = style.SPLIT_COLOR if folds == 1 else style.fold_colors(folds)
        self.group = {
            parent: split if folds == 1 else style.FOLD.format(self.results.splits["tested_in"][parent])
            for parent, split in self.split.items()
        }

    def _require(self) -> None:
        """Look for every artifact.

        Raises:
            CityHeadsError: One is missing.
        """
        found, layout = self.results, self.results.layout
        require(found.dataset.chips)
        require(found.dataset.classes)
        for layer in ("S2L2A", *(mask_layer(self.config.heads[head].label) for head in self.heads)):
            require(found.dataset.store.array(layer))
        compared = {self.shared_run, *(self.baselines[head] for head in self.heads)}
        for run, heads in found.runs.items():
            for seed in found.seeds:
                require(layout.run(run, found.fold(), seed).history)
                require(layout.run(run, found.fold(), seed).training)
                if run in compared:
                    require(layout.evaluation(run, found.fold(), seed).metrics)
            if run in compared:
                # the pictures show the first seed
                pictured = layout.evaluation(run, found.fold(), found.seeds[0])
                require(pictured.confusion)
                require(pictured.predictions)
                for head in heads:
                    require(pictured.prediction(head))

    def classes(self, label: str) -> list[tuple[str, str]]:
        """Give name and colour of a label's classes, in the order of their ids: names of the dataset, our colours.

        Raises:
            CityHeadsError: The dataset has other classes than the config.
        """
        table, rule = self.results.classes[label], self.config.labels[label]
        names = [item["name"] for item in table]
        if names != list(rule.class_names):
            raise CityHeadsError(
                f"{self.results.dataset.classes}: {label} has the classes {', '.join(names)}, but the config "
                f"has {', '.join(rule.class_names)}; run the workflow again"
            )
        return [(item["name"], rule.colors[item["id"]]) for item in table]

    def class_names(self, head: str) -> list[str]:
        """Give the class names of a head, in the order of their ids."""
        return [name for name, _ in self.classes(self.config.heads[head].label)]

    def metric(self, head: str) -> HeadMetric:
        """Give the metric that a head is judged by."""
        rule = self.config.heads[head]
        return HeadMetric.of(rule.metric, self.class_names(head), rule.positive_class)

    def run_style(self, run: str) -> tuple[str, LineStyle]:
        """Give a run's colour and line style."""
        if run == self.shared_run:
            return style.SHARED, "-"
        if run in self.baselines.values():
            return style.SINGLE, (0, (5, 2))
        others = [name for name in self.results.runs if name != self.shared_run and name not in self.baselines.values()]
        return style.OTHER_RUNS[others.index(run) % len(style.OTHER_RUNS)], (0, (1.5, 1.5))
