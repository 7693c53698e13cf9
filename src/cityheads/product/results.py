"""A finished results folder, read back: everything that figures and report show comes through here."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cityheads.config import Config
from cityheads.core.artifacts.base import Artifact
from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.artifacts.classes import CLASSES, ClassEntry
from cityheads.core.artifacts.environment import ENVIRONMENT, Environment
from cityheads.core.artifacts.gate import GATE, Gate
from cityheads.core.artifacts.history import read_history
from cityheads.core.artifacts.metrics import METRICS, Metrics
from cityheads.core.artifacts.predictions import PREDICTIONS, read_confusions
from cityheads.core.artifacts.reading import READING, Reading
from cityheads.core.artifacts.scenes import SCENES, SceneChoice
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT, SplitAssignment
from cityheads.core.artifacts.statistics import STATISTICS, DatasetStatistics
from cityheads.core.artifacts.training import TRAINING, Training
from cityheads.core.errors import CityHeadsError
from cityheads.core.layout import STAGES, DatasetFolder, Layout

__all__ = ["Results", "Timing", "require"]

T = TypeVar("T")

_CHIP_COLUMNS = (
    "chip_id", "parent_id", "row", "col", "split", "kept", "reason", "epsg", "left", "top", "chip_px", "resolution_m",
    "store_index",
)  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """What the jobs of one rule took, from Snakemake's benchmark files.

    Attributes:
        rule: Name of the rule.
        jobs: Number of jobs.
        seconds: Wall time of all jobs together.
        longest: Wall time of the slowest job, in seconds.
        peak_mb: Largest resident memory of a job in MB; None where a job was too short to be sampled.
    """

    rule: str
    jobs: int
    seconds: float
    longest: float
    peak_mb: float | None


def require(path: Path) -> Path:
    """Give back the path of a file that must be there.

    Raises:
        CityHeadsError: There is no such file.
    """
    if not path.is_file():
        raise CityHeadsError(f"{path}: no such file; run the workflow again to make it")
    return path


class Results:
    """A finished results folder; every file is read and checked once.

    Args:
        root: The results folder.
        config: Sections ``heads``, ``runs``, ``seeds`` and ``splits``.

    Where a method takes a fold, None is the first one, which the pictures show.
    """

    def __init__(self, root: Path, config: Config) -> None:
        self.layout = Layout(root)
        self.runs = {name: list(run.heads) for name, run in config.runs.items()}
        self.seeds = list(config.seeds)
        self.folds = list(config.folds)
        self._metric = {name: head.metric for name, head in config.heads.items()}
        self._found: dict[Path, Any] = {}

    def _read(self, kind: Artifact[T], path: Path) -> T:
        if path not in self._found:
            self._found[path] = kind.read(path)
        found: T = self._found[path]
        return found

    def fold(self, fold: int | None = None) -> int:
        """Give the fold that is meant: the first one where none is named."""
        return self.folds[0] if fold is None else fold

    @property
    def dataset(self) -> DatasetFolder:
        """The dataset as the first fold splits it."""
        return self.layout.dataset(self.fold())

    @property
    def gate(self) -> Gate:
        """The verdict."""
        return self._read(GATE, self.layout.gate)

    @property
    def splits(self) -> SplitAssignment:
        """Split per parent, and the classes that a split lacks."""
        return self._read(SPLIT_ASSIGNMENT, self.dataset.splits)

    @property
    def classes(self) -> Mapping[str, list[ClassEntry]]:
        """Class table per label that trains."""
        return self._read(CLASSES, self.dataset.classes)["labels"]

    @property
    def statistics(self) -> DatasetStatistics:
        """Pixels per class and split, sub-chips per split, what was dropped."""
        return self._read(STATISTICS, self.dataset.statistics)

    @property
    def simulated(self) -> bool:
        """Whether any of the data is simulated."""
        return self.statistics["simulated"] or self.gate["simulated"]

    @functools.cached_property
    def chips(self) -> list[dict[str, Any]]:
        """The rows of the chip table, in order, without geometry and hashes."""
        return CHIPS.read(self.dataset.chips, _CHIP_COLUMNS)

    def scenes(self, parent: str) -> SceneChoice:
        """Read the scene choice of a parent."""
        return self._read(SCENES, self.layout.scene_choice(parent))

    def reading(self, parent: str) -> Reading:
        """Read what was measured when a parent was read."""
        return self._read(READING, self.layout.parent(parent).reading)

    def has_array(self, layer: str) -> bool:
        """Say whether the packed store has a layer."""
        return self.dataset.store.array(layer).exists()

    def array(self, layer: str) -> np.ndarray:
        """Map one layer of the packed store, (N, ...)."""
        found: np.ndarray = np.load(require(self.dataset.store.array(layer)), mmap_mode="r")
        return found

    def training(self, run: str, seed: int, fold: int | None = None) -> Training:
        """Read what the training did: steps, epoch that was kept, parameters."""
        return self._read(TRAINING, self.layout.run(run, self.fold(fold), seed).training)

    def environment(self, run: str, seed: int, fold: int | None = None) -> Environment:
        """Read where the training ran."""
        return self._read(ENVIRONMENT, self.layout.run(run, self.fold(fold), seed).environment)

    def history(self, run: str, seed: int, fold: int | None = None) -> dict[str, np.ndarray]:
        """Read the training history: a float array per column, NaN where a cell is empty."""
        metrics = {head: self._metric[head] for head in self.runs[run]}
        columns = read_history(self.layout.run(run, self.fold(fold), seed).history, metrics)
        return {name: np.array(values) for name, values in columns.items()}

    def metrics(self, run: str, seed: int, fold: int | None = None) -> Metrics:
        """Read the scores of one run and seed."""
        return self._read(METRICS, self.layout.evaluation(run, self.fold(fold), seed).metrics)

    def predictions(self, run: str, seed: int, head: str, fold: int | None = None) -> tuple[list[str], np.ndarray]:
        """Give the test sub-chips and the predicted classes, (N, h, w) uint8."""
        folder = self.layout.evaluation(run, self.fold(fold), seed)
        chips = self._read(PREDICTIONS, folder.predictions)["chips"]
        return chips, np.load(require(folder.prediction(head)), mmap_mode="r")

    def chip_confusion(
        self, run: str, seed: int, head: str, classes: int, fold: int | None = None
    ) -> dict[str, np.ndarray]:
        """Give the confusion matrix of every test sub-chip, (classes, classes), rows true."""
        folder = self.layout.evaluation(run, self.fold(fold), seed)
        return read_confusions(folder.confusion, head, self._read(PREDICTIONS, folder.predictions)["chips"], classes)

    def timings(self) -> list[Timing]:
        """Sum up the benchmark files per rule, in the order of the workflow; empty where none were written."""
        folder = self.layout.benchmarks
        order = {name: index for index, name in enumerate(STAGES)}
        rules: dict[str, list[dict[str, str]]] = {}
        for path in sorted(folder.rglob("*.tsv")):
            rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
            with path.open(newline="") as stream:
                rows = list(csv.DictReader(stream, delimiter="\t"))
            if not rows or "s" not in rows[0]:
                raise CityHeadsError(f"{path}: not a Snakemake benchmark; delete it and run again")
            rules.setdefault(rule, []).extend(rows)
        found = []
        for rule in sorted(rules, key=lambda name: (order.get(name, len(order)), name)):
            seconds = [_number(row["s"]) or 0.0 for row in rules[rule]]
            peaks = [peak for row in rules[rule] if (peak := _number(row.get("max_rss"))) is not None]
            found.append(Timing(rule, len(seconds), sum(seconds), max(seconds), max(peaks, default=None)))
        return found


def _number(text: str | None) -> float | None:
    """Read a cell of a benchmark; Snakemake writes NA or - where it took no sample."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
