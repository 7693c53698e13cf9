"""The scores: per class, per parent, per seed, of the runs outside the comparison, and of the modality ablation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cityheads.config import Config
from cityheads.core.artifacts.metrics import HeadScores
from cityheads.core.confusion import metric_title
from cityheads.core.modalities import DERIVED
from cityheads.core.text import number, share, signed
from cityheads.evaluation.ablation import Ablation, averaged, how_to_read
from cityheads.product.results import Results

__all__ = ["ABSENT", "AblationTable", "HeadTables", "OtherScore", "ablation", "head_scores", "other_scores"]

#: What stands in place of a score that is undefined since the test labels hold no pixel of the class.
ABSENT = "n/a (class absent)"
_NEVER = "n/a (never predicted)"


@dataclass(frozen=True)
class Pair:
    """Two scores beside each other, as text in percent, with their difference in percentage points.

    Attributes:
        title: Name of the score, class or parent.
        shared: Of the shared model.
        single: Of the single-task model.
        delta: Shared minus single-task.
        sign: -1, 0 or 1; 0 where the difference rounds to nothing.
    """

    title: str
    shared: str
    single: str
    delta: str
    sign: int

    @classmethod
    def of(cls, title: str, shared: float | None, single: float | None) -> Pair:
        """Set two scores (0 to 1, None where undefined) beside each other."""
        delta = None if shared is None or single is None else 100 * (shared - single)
        return cls(
            title,
            "n/a" if shared is None else number(100 * shared),
            "n/a" if single is None else number(100 * single),
            "n/a" if delta is None else signed(delta),
            0 if delta is None or abs(delta) < 0.05 else 1 if delta > 0 else -1,
        )

    @property
    def defined(self) -> bool:
        """Whether both scores are."""
        return self.delta != "n/a"

    @property
    def why(self) -> str:
        """Why a score of a class that is there can be undefined; empty where both are defined."""
        return "" if self.defined else _NEVER


@dataclass(frozen=True)
class ClassRow:
    """One class: its colour, its pixels in the test labels, and its scores."""

    name: str
    color: str
    pixels: int
    cells: Sequence[Pair]


@dataclass(frozen=True)
class SeedRow:
    """The score of one training with its interval over test parents."""

    run: str
    seed: int
    scores: HeadScores


@dataclass(frozen=True)
class HeadTables:
    """All tables of one head."""

    head: str
    title: str
    baseline: str
    confidence: str
    classes: Sequence[ClassRow]
    means: Sequence[Pair]
    pixels: int
    ignored: int
    seeds: Sequence[SeedRow]
    parents: Sequence[Pair]


def head_scores(config: Config, results: Results, head: str) -> HeadTables:
    """Set shared and single-task model of a head beside each other, averaged over the seeds."""
    test = config.noninferiority
    baseline, label = test.baselines[head], config.labels[config.heads[head].label]
    runs = {run: [results.metrics(run, seed)["heads"][head] for seed in results.seeds] for run in (test.run, baseline)}
    shared, single = runs[test.run], runs[baseline]
    first = shared[0]
    pixels = np.asarray(first["confusion"]).sum(axis=1)

    def of_class(title: str, values: Sequence[Sequence[Sequence[float | None]]], index: int) -> Pair:
        return Pair.of(title, *(_mean(part[index] for part in of_run) for of_run in values))

    per_class = {
        "IoU": [[part["iou"] for part in parts] for parts in (shared, single)],
        "F1": [[part["f1"] for part in parts] for parts in (shared, single)],
        "Precision": [[part["precision"] for part in parts] for parts in (shared, single)],
        "Recall": [[part["recall"] for part in parts] for parts in (shared, single)],
    }
    return HeadTables(
        head=head,
        title=metric_title(first["metric"]["name"], first["metric"]["positive_class"]),
        baseline=baseline,
        confidence=share(results.metrics(baseline, results.seeds[0])["confidence"]),
        classes=[
            ClassRow(
                name,
                label.colors[index],
                int(pixels[index]),
                [of_class(title, values, index) for title, values in per_class.items()],
            )
            for index, name in enumerate(first["classes"])
        ],
        means=[
            Pair.of("mIoU", *(_mean(part["miou"] for part in parts) for parts in (shared, single))),
            Pair.of("mean F1", *(_mean(part["mf1"] for part in parts) for parts in (shared, single))),
            Pair.of("accuracy", *(_mean(part["accuracy"] for part in parts) for parts in (shared, single))),
        ],
        pixels=first["pixels"],
        ignored=first["ignored"],
        seeds=[
            SeedRow(run, seed, part)
            for run, parts in runs.items()
            for seed, part in zip(results.seeds, parts, strict=True)
        ],
        parents=[
            Pair.of(
                parent, *(_mean(part["per_parent"][parent]["value"] for part in parts) for parts in (shared, single))
            )
            for parent in first["per_parent"]
        ],
    )


@dataclass(frozen=True)
class OtherScore:
    """A head of a run that the comparison does not look at; ``value`` from 0 to 1, None where undefined."""

    run: str
    head: str
    title: str
    value: float | None


def other_scores(config: Config, results: Results) -> list[OtherScore]:
    """Score the runs that the comparison does not look at."""
    rows = []
    known = {config.noninferiority.run, *config.noninferiority.baselines.values()}
    for run, heads in results.runs.items():
        if run in known:
            continue
        for head in heads:
            found = [results.metrics(run, seed)["heads"][head]["metric"] for seed in results.seeds]
            title = metric_title(found[0]["name"], found[0]["positive_class"])
            rows.append(OtherScore(run, head, title, _mean(one["value"] for one in found)))
    return rows


@dataclass(frozen=True)
class AblationCell:
    """A score without a modality as text, below it difference and interval; ``sign`` 0 where that holds 0."""

    value: str
    delta: str = ""
    interval: str = ""
    sign: int = 0


@dataclass(frozen=True)
class AblationTable:
    """The modality ablation: columns are shared and single-task model of each head.

    Attributes:
        full: Scores of the whole models.
        rows: Cells by modality.
        kept: Modalities that were not left out, and why.
        derived: Inputs that go with S2L2A, since they are computed from it.
        confidence: Of the intervals.
        how_to_read: What a loss means for these models.
    """

    full: Sequence[str]
    rows: Mapping[str, Sequence[AblationCell]]
    kept: Mapping[str, str]
    derived: Sequence[str]
    confidence: str
    how_to_read: str


_Table = Mapping[str, Mapping[str, Ablation]]


def ablation(config: Config, results: Results) -> AblationTable | None:
    """Set the scores without each modality beside the full ones; None where that was not measured."""
    test = config.noninferiority
    shared = averaged([results.metrics(test.run, seed) for seed in results.seeds])
    if shared is None:
        return None
    columns: list[tuple[str, _Table | None]] = []
    for head in results.runs[test.run]:
        single = averaged([results.metrics(test.baselines[head], seed) for seed in results.seeds])
        columns += [(head, shared), (head, single)]
    names = list(shared)
    first = results.metrics(test.run, results.seeds[0])
    return AblationTable(
        full=[_full(table, names, head) for head, table in columns],
        rows={name: [_cell(table, name, head) for head, table in columns] for name in names},
        kept=first["not_ablated"],
        derived=[name for name in config.model.modalities if name in DERIVED],
        confidence=share(first["confidence"]),
        how_to_read=how_to_read(config.model.modality_dropout),
    )


def _full(table: _Table | None, names: Sequence[str], head: str) -> str:
    """Give the score of the full model as text, in percent."""
    value = None if not table or not names else table[names[0]][head]["full"]
    return "n/a" if value is None else number(100 * value, 2)


def _cell(table: _Table | None, modality: str, head: str) -> AblationCell:
    found = None if table is None else table[modality][head]
    if found is None or found["delta_pp"] is None or found["value"] is None:
        return AblationCell("n/a")
    ends = found["interval_pp"]
    return AblationCell(
        number(100 * found["value"], 2),
        signed(found["delta_pp"], 2),
        "no interval" if ends is None else f"[{signed(ends[0], 2)}, {signed(ends[1], 2)}]",
        0 if ends is None or ends[0] <= 0 <= ends[1] else 1 if ends[0] > 0 else -1,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """Average over seeds; None as soon as one is undefined, since the labels are the same for all."""
    found = list(values)
    defined = [value for value in found if value is not None]
    return float(np.mean(defined)) if len(defined) == len(found) else None
