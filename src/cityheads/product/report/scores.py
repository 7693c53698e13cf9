"""The scores: per class, per parent, per seed and fold, confusion, other runs, and the modality ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cityheads.config import Config
from cityheads.core.confusion import HeadMetric, accuracy, class_iou, f1, mean_defined, metric_title, or_none, precision
from cityheads.core.confusion import recall as recall_of
from cityheads.core.modalities import DERIVED
from cityheads.core.text import number, share, signed
from cityheads.evaluation.ablation import Ablation, averaged, head_metric, how_to_read
from cityheads.product.report.tables import Cell, Column, Table, count, points, score, words
from cityheads.product.results import Results

__all__ = ["AblationTable", "HeadTables", "Heat", "ablation", "head_scores", "other_scores", "pooled"]


def pooled(results: Results, run: str, head: str) -> np.ndarray:
    """Give the confusion counts of a head on all test parents, each fold's by its own model, (seeds, C, C)."""
    return np.stack(
        [
            np.sum([results.metrics(run, seed, fold)["heads"][head]["confusion"] for fold in results.folds], axis=0)
            for seed in results.seeds
        ]
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """Average over the seeds, the first axis; NaN as soon as one is, since the labels are the same for all."""
    found: np.ndarray = values.mean(axis=0)
    return found


def _three(group: str) -> list[Column]:
    return [Column("shared", group=group), Column("single", group=group), Column("delta", group=group)]


def _pair(shared: float | None, single: float | None) -> list[Cell]:
    """Give two scores and their difference as cells."""
    delta = None if shared is None or single is None else 100 * (shared - single)
    return [score(shared), score(single), points(delta, 1, told=False)]


@dataclass(frozen=True)
class HeatCell:
    """A cell of a confusion matrix: its share of the row, as text and in steps from 0 to 10 for its colour."""

    text: str
    step: int
    hit: bool


@dataclass(frozen=True)
class Heat:
    """A confusion matrix with its rows normalized: name and colour of the classes, pixels of the rows, cells."""

    title: str
    names: Sequence[tuple[str, str]]
    pixels: Sequence[int]
    rows: Sequence[Sequence[HeatCell]]


@dataclass(frozen=True)
class HeadTables:
    """All tables of one head."""

    head: str
    title: str
    classes: Table
    means: Table
    parents: Table
    trainings: Table | None
    heats: Sequence[Heat]
    pixels: int
    ignored: int


def head_scores(config: Config, results: Results, head: str) -> HeadTables:
    """Set shared and single-task model of a head beside each other, over all folds, averaged over the seeds."""
    test = config.noninferiority
    runs = (test.run, test.baselines[head])
    label = config.labels[config.heads[head].label]
    first = results.metrics(test.run, results.seeds[0])["heads"][head]
    names, metric = first["classes"], head_metric(first)
    counts = [pooled(results, run, head) for run in runs]
    pixels = counts[0][0].sum(axis=1)
    kinds = {"IoU": class_iou, "F1": f1, "Precision": precision, "Recall": recall_of}
    per_class = {title: [or_none(_mean(function(of_run))) for of_run in counts] for title, function in kinds.items()}
    ids = {name: index for index, name in enumerate(names)}
    parts = [results.metrics(test.run, results.seeds[0], fold)["heads"][head] for fold in results.folds]
    where = f"{head}: {{}} on {int(pixels.sum()):,} labelled test pixels; percent, differences in percentage points."
    return HeadTables(
        head=head,
        title=metric.title,
        classes=Table(
            f"{head}-classes",
            where.format("scores per class"),
            [Column("class", number=False), Column("pixels"), *(c for title in kinds for c in _three(title))],
            [
                [
                    words(name, color=label.colors[ids[name]]),
                    count(int(pixels[ids[name]])),
                    *(cell for title in kinds for cell in _pair(*(of_run[ids[name]] for of_run in per_class[title]))),
                ]
                for name in names
            ],
        ),
        means=Table(
            f"{head}-means",
            where.format("all classes together"),
            [Column("score", number=False), *_three("")],
            [
                [words(title), *_pair(*(or_none(_mean(function(of_run))) for of_run in counts))]
                for title, function in (
                    (metric.title, metric),
                    ("mean IoU", lambda c: mean_defined(class_iou(c))),
                    ("mean F1", lambda c: mean_defined(f1(c))),
                    ("accuracy", accuracy),
                    ("Cohen's kappa", _kappa),
                )
                if title != "mean IoU" or metric.name != "miou"
            ],
        ),
        parents=_parents(results, runs, head, metric),
        trainings=_trainings(results, runs, head),
        heats=[
            _heat(f"{kind} ({run})", names, list(label.colors.values()), of_run.sum(axis=0), len(results.seeds))
            for kind, run, of_run in zip(("shared model", "single-task model"), runs, counts, strict=True)
        ],
        pixels=int(pixels.sum()),
        ignored=sum(part["ignored"] for part in parts),
    )


def _kappa(confusion: np.ndarray) -> np.ndarray:
    """Agreement beyond chance (Cohen 1960), (...); NaN without a labelled pixel, or where chance agrees always."""
    counts = np.asarray(confusion, float)
    total = counts.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        agreed = np.trace(counts, axis1=-2, axis2=-1) / total
        chance = (counts.sum(-1) * counts.sum(-2)).sum(-1) / total**2
        found: np.ndarray = np.where(chance < 1, (agreed - chance) / (1 - chance), np.nan)
    return found


def _parents(results: Results, runs: Sequence[str], head: str, metric: HeadMetric) -> Table:
    """Score every test parent, in the fold in which it was tested."""
    rows = []
    for fold in results.folds:
        of = [[results.metrics(run, seed, fold)["heads"][head]["per_parent"] for seed in results.seeds] for run in runs]
        for parent in of[0][0]:
            counts = [np.stack([seed[parent]["confusion"] for seed in of_run]) for of_run in of]
            wrong = 1 - accuracy(counts[0]).mean() if counts[0].sum() else None
            several = [count(fold)] if len(results.folds) > 1 else []
            rows.append(
                [
                    words(parent), *several, count(int(counts[0][0].sum())), score(wrong),
                    *_pair(*(or_none(metric(of_run).mean()) for of_run in counts)),
                ]
            )  # fmt: skip
    fold_column = [Column("fold")] if len(results.folds) > 1 else []
    columns = [Column("parent", number=False), *fold_column, Column("pixels"), Column("wrong pixels"), *_three("")]
    return Table(f"{head}-parents", f"{head}: {metric.title} of every test parent, in percent.", columns, rows)


def _trainings(results: Results, runs: Sequence[str], head: str) -> Table | None:
    """Score every training; None where there is one of each run, which the other tables hold."""
    if len(results.seeds) * len(results.folds) == 1:
        return None
    rows = []
    for fold in results.folds:
        for seed in results.seeds:
            values = [results.metrics(run, seed, fold)["heads"][head]["metric"]["value"] for run in runs]
            rows.append([words(f"fold {fold}, seed {seed}"), count(fold), count(seed), *_pair(*values)])
    columns = [Column("trainings", number=False), Column("fold"), Column("seed"), *_three("")]
    return Table(
        f"{head}-trainings", f"{head}: every fold and seed on its own test parents, in percent.", columns, rows
    )


def _heat(title: str, names: Sequence[str], colors: Sequence[str], counts: np.ndarray, seeds: int) -> Heat:
    pixels = counts.sum(axis=1)
    shares = np.divide(counts, pixels[:, None], out=np.full(counts.shape, np.nan), where=pixels[:, None] > 0)
    return Heat(
        title,
        list(zip(names, colors, strict=True)),
        # every seed saw the same pixels: they count once
        [int(value) // seeds for value in pixels],
        [
            [
                HeatCell("n/a" if np.isnan(value) else number(100 * value), int(np.nan_to_num(10 * value)), row == col)
                for col, value in enumerate(of_row)
            ]
            for row, of_row in enumerate(shares)
        ],
    )


def other_scores(config: Config, results: Results) -> Table | None:
    """Score the runs that the comparison does not look at; None where there is none."""
    rows = []
    known = {config.noninferiority.run, *config.noninferiority.baselines.values()}
    for run, heads in results.runs.items():
        if run in known:
            continue
        for head in heads:
            first = results.metrics(run, results.seeds[0])["heads"][head]
            metric = head_metric(first)
            value = or_none(_mean(metric(pooled(results, run, head))))
            rows.append([words(run), words(head), words(metric.title), score(value)])
    columns = [Column("run", number=False), Column("head", number=False), Column("metric", number=False),
               Column("score, %")]  # fmt: skip
    caption = "Runs that the verdict does not look at, on the same test parents."
    return Table("other-runs", caption, columns, rows) if rows else None


@dataclass(frozen=True)
class AblationTable:
    """The modality ablation.

    Attributes:
        table: Columns are shared and single-task model of each head; None where nothing could be left out.
        kept: Modalities that were not left out, and why.
        derived: Inputs that go with S2L2A, since they are computed from it.
        how_to_read: What a loss means for these models.
    """

    table: Table | None
    kept: Mapping[str, str]
    derived: Sequence[str]
    how_to_read: str


def ablation(config: Config, results: Results) -> AblationTable | None:
    """Set the scores without each modality beside the full ones (first fold); None where that was not measured."""
    test = config.noninferiority
    shared = averaged([results.metrics(test.run, seed) for seed in results.seeds])
    if shared is None:
        return None
    first = results.metrics(test.run, results.seeds[0])
    columns, tables = [Column("without", number=False)], []
    for head in results.runs[test.run]:
        single = averaged([results.metrics(test.baselines[head], seed) for seed in results.seeds])
        title = f"{head}, {metric_title(first['heads'][head]['metric']['name'], config.heads[head].positive_class)}"
        columns += [Column("shared", group=title), Column("single", group=title)]
        tables += [(head, shared), (head, single)]
    names = list(shared)
    rows = [
        [words("nothing"), *(score(None if not t else t[names[0]][head]["full"], 2) for head, t in tables)]
    ] if names else []  # fmt: skip
    rows += [[words(name), *(_ablated(t, name, head) for head, t in tables)] for name in names]
    table = Table(
        "modality-ablation",
        "Scores in percent without one input modality; below each its difference from the full model in percentage "
        f"points and the {share(first['confidence'])} interval over test parents.",
        columns,
        rows,
    )
    return AblationTable(
        table if rows else None,
        first["not_ablated"],
        [name for name in config.model.modalities if name in DERIVED],
        how_to_read(config.model.modality_dropout),
    )


def _ablated(table: Mapping[str, Mapping[str, Ablation]] | None, modality: str, head: str) -> Cell:
    found = None if not table else table[modality][head]
    if found is None or found["delta_pp"] is None or found["value"] is None:
        return score(None)
    ends = found["interval_pp"]
    interval = "no interval" if ends is None else f"[{signed(ends[0], 2)}, {signed(ends[1], 2)}]"
    sign = 0 if ends is None or ends[0] <= 0 <= ends[1] else 1 if ends[0] > 0 else -1
    return score(found["value"], 2, notes=(f"{signed(found['delta_pp'], 2)} pp", interval), sign=sign)
