"""The verb ``compare``: evaluations of runs and controls in, ``gate.json`` and its page out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.config import Config, HeadConfig
from cityheads.core.artifacts.gate import (
    GATE,
    FoldComparison,
    Gate,
    HeadComparison,
    ModelComparison,
    SeedComparison,
    Variation,
)
from cityheads.core.artifacts.metrics import METRICS, HeadScores, Metrics
from cityheads.core.confusion import HeadMetric, or_none
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes
from cityheads.core.layout import EvaluationFolder, Layout
from cityheads.evaluation import floor
from cityheads.evaluation.budgets import budgets, checkpoint_note, unequal
from cityheads.evaluation.crossed import LEAST_EFFECTIVE, Effect, effective_parents
from cityheads.evaluation.floor import Scored
from cityheads.evaluation.paired import (
    PP_DIGITS,
    SCORE_DIGITS,
    Comparison,
    compare_paired,
    rounded_interval,
    score_interval,
    sum_of,
)
from cityheads.evaluation.permutation import sign_flip
from cityheads.evaluation.power import power_of
from cityheads.evaluation.verdict import HEADLINE, Margins, decide, simultaneous
from cityheads.evaluation.verdict_page import render

__all__ = ["compare"]

_INTERVAL = (
    "Intervals are about test parents and trainings at once (crossed random effects): the influence of each parent on "
    "the pooled score, and how the score of each fold's models moves from seed to seed, each with Student's t."
)
_MULTIPLICITY = (
    "Strong claims every head at once and needs no correction (intersection-union test); every other verdict is read "
    "from intervals that hold for all heads and their sum together (Bonferroni)."
)


def compare(config: Config, *, evaluation: Path, page: Path, out: Path, results: Path | None = None) -> None:
    """Compare the multi-head run with each head's baseline and write the verdict, as JSON and as a page.

    Args:
        config: Its sections ``heads``, ``runs``, ``model``, ``seeds``, ``splits``, ``controls`` and ``noninferiority``.
        evaluation: Folder of the evaluations on the test split, ``{run}/{fold}/{seed}/metrics.json`` below it.
        page: Markdown page to write.
        out: gate.json to write.
        results: Results folder with the trainings; where they were not given the same, a caveat says so. None leaves
            that out.

    Raises:
        CityHeadsError: An evaluation is missing or damaged; the runs were evaluated on different parents, sub-chips,
            classes or labels.
    """
    result = _result(config, _Reader(config, Path(evaluation)).read())
    if results is not None:
        test = config.noninferiority
        compared = dict.fromkeys((test.run, *test.baselines.values()))
        spent = budgets(Layout(results), compared, config.folds, config.seeds)
        if any(one["checkpoint"] != "last" for one in spent):
            result["caveats"].append(checkpoint_note(spent))
        result["caveats"] += unequal(spent)
    GATE.write(out, result)
    write_bytes(page, render(result).encode())
    logging.getLogger("cityheads.progress").info("verdict: %s. %s", result["verdict"], result["reason"])


@dataclass(frozen=True)
class _Head:
    """What the evaluations say of one head."""

    metric: HeadMetric
    baseline: str
    models: dict[str, Scored]
    controls: dict[str, Scored] = field(default_factory=dict)
    trained: dict[str, Scored] = field(default_factory=dict)
    occluded: dict[str, Scored] = field(default_factory=dict)
    ceiling: Scored | None = None

    def labelled(self, run: str) -> np.ndarray:
        """Give the labelled pixels of each parent and class, (parents, C)."""
        found: np.ndarray = self.models[run].counts[0].sum(-1)
        return found


@dataclass(frozen=True)
class _Evidence:
    """What all evaluations say; parents in the order of the folds."""

    run: str
    parents: list[str]
    folds: list[int]
    seeds: list[int]
    simulated: bool
    heads: dict[str, _Head]

    def absent(self) -> dict[str, list[str]]:
        """Name, per head, the classes without a labelled pixel in any test parent; only heads that have some."""
        absent = {}
        for name, head in self.heads.items():
            pixels = head.labelled(self.run).sum(0)
            classes = [one for one, count in zip(head.metric.classes, pixels, strict=True) if count == 0]
            if classes:
                absent[name] = classes
        return absent

    def copies(self) -> list[str]:
        """Name the heads for which the run and its baseline have the same counts throughout."""
        return [
            name
            for name, head in self.heads.items()
            if head.labelled(self.run).any()
            and np.array_equal(head.models[self.run].counts, head.models[head.baseline].counts)
        ]

    def caveats(self) -> list[str]:
        """Say what a reader must know beside the verdict."""
        caveats = []
        if self.simulated:
            caveats.append(
                "The archive is simulated: this says that the method runs, not how well it maps a real city."
            )
        if len(self.seeds) == 1:
            caveats.append(
                "One seed: the intervals of single scores hold the chance in which parents were tested, not the chance "
                "in the training, which more seeds would show."
            )
        if len(set(self.folds)) == 1:
            caveats.append(
                "One fold: all of it is about one choice of training parents. With splits.method: folds every parent "
                "is tested."
            )
        trained = [pair for head in self.heads.values() for pair in head.trained.items()]
        once = sorted({name for name, one in trained if len(one.counts) == 1})
        if once and len(self.seeds) > 1:
            caveats.append(
                f"Trained with one seed: {', '.join(once)}. What they say of the encoder is about one training of each "
                "(config key controls.seeds)."
            )
        for name, head in self.heads.items():
            labelled = head.labelled(self.run)
            effective = effective_parents(labelled)
            for one, held, equal in zip(head.metric.classes, (labelled > 0).sum(0), effective, strict=True):
                if len(self.parents) > 1 and held and equal < LEAST_EFFECTIVE:
                    where = "one test parent only" if held == 1 else f"one of {held} test parents almost wholly"
                    caveats.append(f"{one.capitalize()} ({name}) lies in {where}: how it varies is unknown.")
        return caveats


class _Reader:
    """Reads the evaluations and holds them to each other: the same parents, sub-chips, classes and labels."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.run = config.noninferiority.run
        self.seeds = tuple(config.seeds)
        #: First evaluation of each fold, to which all others are held.
        self.first: dict[int, tuple[Path, Metrics]] = {}
        #: Labelled pixels of each fold and head, (parents, C).
        self.labels: dict[tuple[int, str], np.ndarray] = {}

    def read(self) -> _Evidence:
        config, run = self.config, self.run
        heads = list(config.runs[run].heads)
        tested = self._run(run, self.seeds, heads)
        occluded = self._occluded(heads)
        models = {run: tested}
        for head in heads:
            baseline = config.noninferiority.baselines[head]
            models.setdefault(baseline, {}).update(self._run(baseline, self.seeds, [head]))
        controls = {name: self._run(name, None, heads, optional=True) for name in config.untrained_controls}
        trained = {name: self._run(name, config.control_seeds, heads) for name in config.trained_controls}
        ceiling = self._run(floor.CEILING, None, heads, optional=True) if self._has_ceiling() else {}
        parents = [name for _, one in self.first.values() for name in one["parents"]]
        for name in parents:
            if parents.count(name) > 1:
                path = list(self.first.values())[-1][0]
                raise CityHeadsError(
                    f"{path}: parent {name} was tested in another fold already; a parent is tested once, so assemble "
                    "the datasets of all folds anew: snakemake --forcerun assemble_dataset"
                )
        told = {}
        for head in heads:
            baseline = config.noninferiority.baselines[head]
            told[head] = _Head(
                metric=self._metric(head, config.heads[head]),
                baseline=baseline,
                models={run: tested[head], baseline: models[baseline][head]},
                controls={name: found[head] for name, found in controls.items() if head in found},
                trained={name: found[head] for name, found in trained.items()},
                occluded={name: found[head] for name, found in occluded.items() if head in found},
                ceiling=ceiling.get(head),
            )
        return _Evidence(
            run=run,
            parents=parents,
            folds=[fold for fold, (_, one) in self.first.items() for _ in one["parents"]],
            seeds=list(self.seeds),
            simulated=any(one["simulated"] for _, one in self.first.values()),
            heads=told,
        )

    def _path(self, name: str, fold: int, seed: int) -> Path:
        return EvaluationFolder(self.folder / name / str(fold) / str(seed)).metrics

    def _has_ceiling(self) -> bool:
        # asked for, and made: only a simulated archive has one
        made = (self._path(floor.CEILING, fold, 0).is_file() for fold in self.config.folds)
        return floor.CEILING in self.config.controls.made and all(made)

    def _metrics(self, name: str, fold: int, seed: int) -> tuple[Path, Metrics]:
        path = self._path(name, fold, seed)
        found = METRICS.read(path)
        first_path, first = self.first.setdefault(fold, (path, found))
        for one, two, what in (
            (first["parents"], found["parents"], "test parents"),
            (first["chips"], found["chips"], "number of test sub-chips"),
            (first["chips_sha256"], found["chips_sha256"], "list of test sub-chips"),
            (first["simulated"], found["simulated"], "kind of archive"),
        ):
            if one != two:
                raise CityHeadsError(
                    f"{path}: the {what} differ from those of {first_path}; evaluate both runs on one dataset"
                )
        return path, found

    def _run(
        self, name: str, seeds: Sequence[int] | None, heads: Sequence[str], *, optional: bool = False
    ) -> dict[str, Scored]:
        """Read a run, or a control without seeds; one with ``optional`` heads may lack some."""
        counts: dict[str, list[np.ndarray]] = {}
        for seed in (0,) if seeds is None else seeds:
            of_seed: dict[str, list[np.ndarray]] = {}
            for fold in self.config.folds:
                path, found = self._metrics(name, fold, seed)
                for head in heads:
                    if optional and head not in found["heads"]:
                        continue
                    part = self._head(path, found, head)
                    of_seed.setdefault(head, []).append(self._counts(path, head, part["per_parent"], fold))
            for head, parts in of_seed.items():
                counts.setdefault(head, []).append(np.concatenate(parts))
        of_seeds = None if seeds is None else tuple(seeds)
        return {head: Scored(np.stack(found), of_seeds) for head, found in counts.items()}

    def _occluded(self, heads: Sequence[str]) -> dict[str, dict[str, Scored]]:
        """Read what the tested run predicts without its encoder's maps; empty where that was not measured."""
        tables: dict[str, dict[str, list[list[np.ndarray]]]] = {}
        for index, seed in enumerate(self.seeds):
            for fold in self.config.folds:
                path, found = self._metrics(self.run, fold, seed)
                for name, by_head in (found["encoder_occlusion"] or {}).items():
                    for head in heads:
                        if head in by_head:
                            rows = tables.setdefault(name, {}).setdefault(head, [[] for _ in self.seeds])
                            where = f"encoder_occlusion.{name}.{head}"
                            rows[index].append(self._counts(path, where, by_head[head]["per_parent"], fold, head))
        folds = len(self.config.folds)
        return {
            name: {
                head: Scored(np.stack([np.concatenate(one) for one in rows]), self.seeds)
                for head, rows in by_head.items()
                if all(len(one) == folds for one in rows)
            }
            for name, by_head in tables.items()
        }

    def _head(self, path: Path, found: Metrics, head: str) -> HeadScores:
        if head not in found["heads"]:
            raise CityHeadsError(f"{path}: has no head {head}; evaluate the run again with this config")
        first_path, first = self.first[next(iter(self.first))]
        part = found["heads"][head]
        classes = first["heads"][head]["classes"] if head in first["heads"] else part["classes"]
        if part["classes"] != classes:
            raise CityHeadsError(
                f"{path}: head {head} has the classes {', '.join(part['classes'])}, but {first_path} has "
                f"{', '.join(classes)}; evaluate both runs on one dataset"
            )
        return part

    def _counts(self, path: Path, where: str, per_parent: Mapping[str, Any], fold: int, head: str = "") -> np.ndarray:
        """Give the counts of a fold's parents, (parents, C, C) int64."""
        head = head or where
        first_path, first = self.first[fold]
        number = len(first["heads"][head]["classes"])
        rows = []
        for parent in first["parents"]:
            if parent not in per_parent:
                raise CityHeadsError(
                    f"{path}: head {where} has no counts of parent {parent}; make it anew: "
                    "snakemake --forcerun evaluate"
                )
            confusion = per_parent[parent]["confusion"]
            if [len(row) for row in confusion] != [number] * number or min(map(min, confusion)) < 0:
                raise CityHeadsError(
                    f"{path}: head {where}: the confusion of parent {parent} is not {number} x {number} counts; "
                    "make it anew: snakemake --forcerun evaluate"
                )
            rows.append(np.array(confusion, np.int64))
        counts = np.stack(rows) if rows else np.zeros((0, number, number), np.int64)
        labels = self.labels.setdefault((fold, head), counts.sum(-1))
        if not np.array_equal(labels, counts.sum(-1)):
            raise CityHeadsError(
                f"{path}: head {where} was scored on other labels than in {first_path}; "
                "evaluate both runs on one dataset"
            )
        return counts

    def _metric(self, head: str, rule: HeadConfig) -> HeadMetric:
        path, first = next(iter(self.first.values()))
        classes = first["heads"][head]["classes"]
        if rule.metric == "iou" and rule.positive_class not in classes:
            raise CityHeadsError(
                f"{path}: head {head} has no class '{rule.positive_class}', which config key "
                f"'heads.{head}.positive_class' names; there are {', '.join(classes)}"
            )
        return HeadMetric.of(rule.metric, classes, rule.positive_class)


def _result(config: Config, evidence: _Evidence) -> Gate:
    test, run = config.noninferiority, evidence.run
    confidence, folds = test.confidence, evidence.folds
    margins = Margins(test.strong_margin_pp, test.acceptable_margin_pp)
    compared = {
        name: compare_paired(head.models[run].counts, head.models[head.baseline].counts, head.metric, folds)
        for name, head in evidence.heads.items()
    }
    balance = sum_of(list(compared.values()))
    wide = simultaneous(confidence, len(compared))
    heads = {name: _told(config, evidence, name, one, margins, wide) for name, one in compared.items()}
    before = floor.floor(
        run,
        {name: head["controls"] for name, head in heads.items()},
        {name: head["encoder"] for name, head in heads.items()},
        evidence.copies(),
    )
    decision = decide(
        compared,
        balance,
        margins,
        confidence,
        floor=before,
        absent=evidence.absent(),
        positive={name: head.metric.positive_class for name, head in evidence.heads.items()},
    )
    return {
        "verdict": decision.verdict,
        "headline": HEADLINE[decision.verdict],
        "point_verdict": decision.point_verdict,
        "between": None if decision.between is None else list(decision.between),
        "reason": decision.reason,
        "advice": decision.advice,
        "run": run,
        "floor": before,
        "heads": heads,
        "balance_pp": None if balance is None else balance.point,
        "balance_interval_pp": None if balance is None else rounded_interval(balance, wide),
        "test_parents": evidence.parents,
        "fold_of": dict(zip(evidence.parents, folds, strict=True)),
        "seeds": evidence.seeds,
        "folds": sorted(set(folds)),
        "margins": {"strong_pp": margins.strong_pp, "acceptable_pp": margins.acceptable_pp},
        "confidence": confidence,
        "method": {
            "interval": _INTERVAL,
            "one_sided_level": (1 - confidence) / 2,
            "multiplicity": _MULTIPLICITY,
            "simultaneous_confidence": wide,
        },
        "simulated": evidence.simulated,
        "caveats": evidence.caveats(),
    }


def _told(
    config: Config, evidence: _Evidence, name: str, one: Comparison, margins: Margins, wide: float
) -> HeadComparison:
    test, head, run, folds = config.noninferiority, evidence.heads[name], evidence.run, evidence.folds
    metric, confidence = head.metric, test.confidence
    shared, single = head.models[run].counts, head.models[head.baseline].counts
    fold_of = np.array(folds, np.int64)
    per_fold: list[FoldComparison] = []
    per_model: list[ModelComparison] = []
    for fold in sorted(set(folds)):
        mine = fold_of == fold
        found = compare_paired(shared[:, mine], single[:, mine], metric)
        per_fold.append(
            {
                "fold": fold,
                "parents": int(mine.sum()),
                "multihead": or_none(found.scores[0]),
                "single_task": or_none(found.scores[1]),
                "delta_pp": or_none(found.delta_pp),
            }
        )
        per_model += [{"fold": fold, **row} for row in _by_seed(found, evidence.seeds)]
    labelled = head.labelled(run)
    return {
        "baseline": head.baseline,
        "metric": metric.name,
        "positive_class": metric.positive_class,
        "multihead": or_none(one.scores[0]),
        "multihead_interval": score_interval(shared, metric, confidence, folds),
        "single_task": or_none(one.scores[1]),
        "single_task_interval": score_interval(single, metric, confidence, folds),
        "delta_pp": or_none(one.delta_pp),
        "interval_pp": one.interval(confidence),
        "simultaneous_pp": one.interval(wide),
        "variation": None if one.effect is None else _variation(one.effect),
        "permutation": sign_flip(shared, single, metric, test.resamples, test.seed),
        "power": power_of(one.effect, confidence, (margins.strong_pp, margins.acceptable_pp)),
        "parents_of_class": {
            label: int(held) for label, held in zip(metric.classes, (labelled > 0).sum(0), strict=True)
        },
        "per_seed": _by_seed(one, evidence.seeds),
        "per_fold": per_fold,
        "per_model": per_model,
        "controls": {
            control: floor.against(head.models, found, metric, folds, confidence)
            for control, found in head.controls.items()
        },
        "ceiling": None
        if head.ceiling is None
        else floor.against(head.models, head.ceiling, metric, folds, confidence),
        "encoder": floor.encoder(run, head.models[run], head.occluded, head.trained, metric, folds, confidence),
    }


def _by_seed(one: Comparison, seeds: Sequence[int]) -> list[SeedComparison]:
    return [
        {
            "seed": seed,
            "multihead": or_none(one.per_seed[0, index], SCORE_DIGITS),
            "single_task": or_none(one.per_seed[1, index], SCORE_DIGITS),
            "delta_pp": or_none(one.per_seed_pp[index], PP_DIGITS),
        }
        for index, seed in enumerate(seeds)
    ]


def _variation(effect: Effect) -> Variation:
    def error(variance: float) -> float | None:
        found: float | None = or_none(np.sqrt(variance), 4)
        return found

    known = effect.seeds > 1
    return {
        "parents_pp": error(effect.parents_variance),
        "parents_df": round(effect.parents_df, 1),
        "training_pp": error(effect.training_variance) if known else None,
        "training_df": round(effect.training_df, 1) if known else None,
        "includes_training": effect.includes_training,
    }
