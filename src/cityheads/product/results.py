"""The results folder, read back: one place that knows where each artifact lies and what is missing."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.core.artifacts.classes import CLASSES, ClassEntry
from cityheads.core.artifacts.metrics import METRICS, Metrics
from cityheads.core.artifacts.predictions import PREDICTIONS, read_confusions
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT, SplitAssignment
from cityheads.core.artifacts.statistics import STATISTICS, DatasetStatistics
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json
from cityheads.core.layout import STAGES

__all__ = ["Results", "Timing", "read_table"]


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


class Results:
    """A finished results folder; every reader names the file that is missing.

    Args:
        root: The results folder.
        runs: The config's ``runs`` section.
        seeds: The config's ``seeds``.
    """

    def __init__(self, root: Path, runs: Mapping[str, Any], seeds: list[int]) -> None:
        self.root = Path(root)
        self.runs = {name: list(rule["heads"]) for name, rule in runs.items()}
        self.seeds = list(seeds)

    def path(self, *parts: str | int) -> Path:
        """Give the path of an artifact.

        Raises:
            CityHeadsError: There is no such file.
        """
        path = self.root.joinpath(*map(str, parts))
        if not path.is_file():
            raise CityHeadsError(f"{path}: no such file; run the workflow again to make it")
        return path

    def json(self, *parts: str | int) -> Any:
        """Read a JSON artifact."""
        return read_json(self.path(*parts))

    @functools.cached_property
    def gate(self) -> dict[str, Any]:
        """The verdict."""
        found: dict[str, Any] = self.json("gate.json")
        return found

    @functools.cached_property
    def splits(self) -> SplitAssignment:
        """Split per parent, and the classes that a split lacks."""
        return SPLIT_ASSIGNMENT.read(self.path("dataset", "splits.json"))

    @functools.cached_property
    def classes(self) -> dict[str, list[ClassEntry]]:
        """Class table per label that trains: id and name."""
        return CLASSES.read(self.path("dataset", "classes.json"))["labels"]

    @functools.cached_property
    def statistics(self) -> DatasetStatistics:
        """Pixels per class and split, sub-chips per split, what was dropped."""
        return STATISTICS.read(self.path("dataset", "statistics.json"))

    @property
    def simulated(self) -> bool:
        """Whether any of the data is simulated."""
        return bool(self.statistics["simulated"]) or bool(self.gate["simulated"])

    @functools.cached_property
    def chips(self) -> list[dict[str, Any]]:
        """The manifest's rows, in order, without geometry and hashes."""
        return read_table(
            self.path("dataset", "chips.parquet"),
            ("chip_id", "parent_id", "row", "col", "split", "kept", "reason", "epsg", "left", "top", "chip_px",
             "resolution_m", "store_index"),
        )  # fmt: skip

    def array(self, name: str) -> np.ndarray:
        """Map one layer of the packed store, (N, ...)."""
        found: np.ndarray = np.load(self.path("dataset", "store", f"{name}.npy"), mmap_mode="r")
        return found

    def has_array(self, name: str) -> bool:
        """Say whether the packed store has a layer."""
        return (self.root / "dataset" / "store" / f"{name}.npy").exists()

    def metrics(self, run: str, seed: int) -> Metrics:
        """Read the scores of one run and seed."""
        return METRICS.read(self.path("evaluation", run, seed, "metrics.json"))

    def predictions(self, run: str, seed: int, head: str) -> tuple[list[str], np.ndarray]:
        """Give the test sub-chips and the predicted classes, (N, h, w) uint8."""
        chips = PREDICTIONS.read(self.path("evaluation", run, seed, "predictions", "index.json"))["chips"]
        return chips, np.load(self.path("evaluation", run, seed, "predictions", f"{head}.npy"), mmap_mode="r")

    def chip_confusion(self, run: str, seed: int, head: str, classes: int) -> dict[str, np.ndarray]:
        """Give the confusion matrix of every test sub-chip, (classes, classes), rows true."""
        chips = PREDICTIONS.read(self.path("evaluation", run, seed, "predictions", "index.json"))["chips"]
        return read_confusions(self.path("evaluation", run, seed, "confusion.parquet"), head, chips, classes)

    def history(self, run: str, seed: int) -> dict[str, np.ndarray]:
        """Read the training history: a float array per column, NaN where a cell is empty."""
        path = self.path("runs", run, seed, "history.csv")
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        if not rows:
            raise CityHeadsError(f"{path}: holds no epoch; delete the run's folder and train again")
        try:
            return {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]}
        except (TypeError, ValueError) as error:
            raise CityHeadsError(f"{path}: not a table of numbers ({error}); delete it and train again") from None

    def training(self, run: str, seed: int) -> dict[str, Any]:
        """Read what the training did: best epoch, parameters."""
        found: dict[str, Any] = self.json("runs", run, seed, "training.json")
        return found

    def timings(self) -> list[Timing]:
        """Sum up the benchmark files per rule, in the order of the workflow; empty where none were written."""
        folder = self.root / "benchmarks"
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


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read columns of a Parquet file as one mapping a row.

    Raises:
        CityHeadsError: The file is unreadable or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise CityHeadsError(f"{path}: lacks column {missing[0]}; delete it and run again")
            found: list[dict[str, Any]] = file.read(columns=list(columns)).to_pylist()
            return found
    except (pa.ArrowInvalid, OSError) as error:
        raise CityHeadsError(f"{path}: cannot be read as Parquet ({error}); delete it and run again") from None
