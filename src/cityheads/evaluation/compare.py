"""The verb ``compare``: evaluations of the multi-head run and of its baselines in, ``gate.json`` and its page out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cityheads.config import Config, HeadConfig, NoninferiorityConfig
from cityheads.core.artifacts.gate import GATE, Gate, HeadComparison
from cityheads.core.artifacts.metrics import METRICS, HeadScores, Metrics
from cityheads.core.confusion import HeadMetric, or_none
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes
from cityheads.core.layout import EvaluationFolder
from cityheads.evaluation import bootstrap
from cityheads.evaluation.paired import PP_DIGITS, SCORE_DIGITS, Comparison, compare_paired, sum_of
from cityheads.evaluation.verdict import HEADLINE, Margins, decide, listed
from cityheads.evaluation.verdict_page import render

__all__ = ["compare"]


def compare(config: Config, *, evaluation: Path, page: Path, out: Path) -> None:
    """Compare the multi-head run with each head's baseline and write the verdict, as JSON and as a page.

    Args:
        config: Its sections ``heads``, ``runs``, ``seeds``, ``splits`` and ``noninferiority``.
        evaluation: Folder of the evaluations, ``{run}/{fold}/{seed}/metrics.json`` below it.
        page: Markdown page to write.
        out: gate.json to write.

    Raises:
        CityHeadsError: An evaluation is missing; the runs were evaluated on different parents, sub-chips, classes or
            labels.
    """
    test = config.noninferiority
    margins = Margins(test.strong_margin_pp, test.acceptable_margin_pp)
    result = _result(test, margins, _read(config, Path(evaluation)))
    GATE.write(out, result)
    write_bytes(page, render(result).encode())
    logging.getLogger("cityheads.progress").info("verdict: %s. %s", result["verdict"], result["reason"])


@dataclass(frozen=True)
class _Evidence:
    """What the evaluations say: per head the per-parent confusions (seeds, parents, C, C) of both models."""

    parents: list[str]
    seeds: list[int]
    simulated: bool
    metrics: dict[str, HeadMetric]
    multihead: dict[str, np.ndarray]
    single_task: dict[str, np.ndarray]

    def absent(self) -> dict[str, list[str]]:
        """Name, per head, the classes without a labelled pixel in the test split; only heads that have some."""
        absent = {}
        for head, confusions in self.multihead.items():
            pixels = confusions[0].sum((0, 2))
            names = [name for name, count in zip(self.metrics[head].classes, pixels, strict=True) if count == 0]
            if names:
                absent[head] = names
        return absent

    def caveats(self) -> list[str]:
        """Say what a reader must know beside the verdict."""
        caveats = []
        if self.simulated:
            caveats.append(
                "The archive is simulated: this says that the method runs, not how well it maps a real city."
            )
        if len(self.seeds) == 1:
            caveats.append(
                "One seed: the intervals hold the chance in which parents were tested, not the chance in the training, "
                "which more seeds would show."
            )
        for head, confusions in self.multihead.items():
            holding = (confusions[0].sum(-1) > 0).sum(0)
            names = [name for name, count in zip(self.metrics[head].classes, holding, strict=True) if count == 1]
            if names and len(self.parents) > 1:
                caveats.append(
                    f"{listed(names).capitalize()} ({head}) lies in one test parent only: how it varies is unknown."
                )
        return caveats


def _read(config: Config, evaluation: Path) -> _Evidence:
    test, seeds = config.noninferiority, config.seeds
    run, heads = test.run, config.runs[test.run].heads

    def read(name: str, seed: int) -> tuple[Path, Metrics]:
        path = EvaluationFolder(evaluation / name / str(config.folds[0]) / str(seed)).metrics
        return path, METRICS.read(path)

    first_path, first = read(run, seeds[0])
    parents, classes = first["parents"], {}
    multihead: dict[str, list[np.ndarray]] = {head: [] for head in heads}
    single_task: dict[str, list[np.ndarray]] = {head: [] for head in heads}
    for seed in seeds:
        path, tested = read(run, seed)
        _same(first_path, first, path, tested)
        for head in heads:
            baseline_path, baseline = read(test.baselines[head], seed)
            _same(first_path, first, baseline_path, baseline)
            classes[head] = _head(first_path, first, head)["classes"]
            for where, one, into in ((path, tested, multihead), (baseline_path, baseline, single_task)):
                part = _head(where, one, head)
                if part["classes"] != classes[head]:
                    raise CityHeadsError(
                        f"{where}: head {head} has the classes {', '.join(part['classes'])}, but {first_path} has "
                        f"{', '.join(classes[head])}; evaluate both runs on one dataset"
                    )
                into[head].append(np.array([part["per_parent"][name]["confusion"] for name in parents], np.int64))
                if not np.array_equal(into[head][-1].sum(-1), multihead[head][0].sum(-1)):
                    raise CityHeadsError(
                        f"{where}: head {head} was scored on other labels than in {first_path}; "
                        "evaluate both runs on one dataset"
                    )
    return _Evidence(
        parents=parents,
        seeds=list(seeds),
        simulated=first["simulated"],
        metrics={head: _metric(first_path, head, config.heads[head], classes[head]) for head in heads},
        multihead={head: np.stack(parts) for head, parts in multihead.items()},
        single_task={head: np.stack(parts) for head, parts in single_task.items()},
    )


def _metric(path: Path, head: str, rule: HeadConfig, classes: list[str]) -> HeadMetric:
    if rule.metric == "iou" and rule.positive_class not in classes:
        raise CityHeadsError(
            f"{path}: head {head} has no class '{rule.positive_class}', which config key 'heads.{head}.positive_class' "
            f"names; there are {', '.join(classes)}"
        )
    return HeadMetric.of(rule.metric, classes, rule.positive_class)


def _head(path: Path, one: Metrics, head: str) -> HeadScores:
    if head not in one["heads"]:
        raise CityHeadsError(f"{path}: has no head {head}; evaluate the run again with this config")
    return one["heads"][head]


def _same(first_path: Path, first: Metrics, path: Path, other: Metrics) -> None:
    for one, two, what in (
        (first["parents"], other["parents"], "test parents"),
        (first["chips"], other["chips"], "number of test sub-chips"),
        (first["chips_sha256"], other["chips_sha256"], "list of test sub-chips"),
        (first["simulated"], other["simulated"], "kind of archive"),
    ):
        if one != two:
            raise CityHeadsError(
                f"{path}: the {what} differ from those of {first_path}; evaluate both runs on one dataset"
            )


def _result(test: NoninferiorityConfig, margins: Margins, evidence: _Evidence) -> Gate:
    confidence, parents = test.confidence, len(evidence.parents)
    draws = bootstrap.resample_counts(parents, test.resamples, test.seed) if parents else None
    compared = {
        head: compare_paired(evidence.multihead[head], evidence.single_task[head], metric, draws)
        for head, metric in evidence.metrics.items()
    }
    balance = sum_of(list(compared.values()))
    decision = decide(
        compared,
        balance,
        margins,
        confidence,
        parents=parents,
        absent=evidence.absent(),
        positive={head: metric.positive_class for head, metric in evidence.metrics.items()},
    )
    between = None if balance is None else balance.interval(confidence)
    return {
        "verdict": decision.verdict,
        "headline": HEADLINE[decision.verdict],
        "point_verdict": decision.point_verdict,
        "between": None if decision.between is None else list(decision.between),
        "reason": decision.reason,
        "advice": decision.advice,
        "run": test.run,
        "floor": {"held": False, "measured": [], "missing": ["No control was evaluated."], "failures": []},
        "heads": {
            head: _told(one, evidence.metrics[head], test.baselines[head], evidence.seeds, confidence)
            for head, one in compared.items()
        },
        "balance_pp": None if balance is None else balance.point,
        "balance_interval_pp": None if between is None else list(between),
        "test_parents": evidence.parents,
        "fold_of": dict.fromkeys(evidence.parents, 0),
        "seeds": evidence.seeds,
        "folds": [0],
        "margins": {"strong_pp": margins.strong_pp, "acceptable_pp": margins.acceptable_pp},
        "confidence": confidence,
        "method": {
            "interval": "Bootstrap over test parents and variance over seeds, with Student's t.",
            "one_sided_level": (1 - confidence) / 2,
            "multiplicity": "Each verdict asks that all of its inequalities hold (intersection-union test).",
            "simultaneous_confidence": confidence,
        },
        "simulated": evidence.simulated,
        "caveats": evidence.caveats(),
    }


def _told(one: Comparison, metric: HeadMetric, baseline: str, seeds: list[int], confidence: float) -> HeadComparison:
    return {
        "baseline": baseline,
        "metric": metric.name,
        "positive_class": metric.positive_class,
        "multihead": or_none(one.scores[0]),
        "multihead_interval": None,
        "single_task": or_none(one.scores[1]),
        "single_task_interval": None,
        "delta_pp": or_none(one.delta_pp),
        "interval_pp": one.interval(confidence),
        "simultaneous_pp": one.interval(confidence),
        "variation": None,
        "permutation": None,
        "power": {"power": 0.8, "detectable_pp": None, "needed": []},
        "parents_of_class": {},
        "per_seed": [
            {
                "seed": seed,
                "multihead": or_none(one.per_seed[0, index], SCORE_DIGITS),
                "single_task": or_none(one.per_seed[1, index], SCORE_DIGITS),
                "delta_pp": or_none(one.per_seed_pp[index], PP_DIGITS),
            }
            for index, seed in enumerate(seeds)
        ],
        "per_fold": [],
        "per_model": [],
        "controls": {},
        "ceiling": None,
        "encoder": {"zeroed": None, "permuted": None, "image_skip": None, "trained": {}, "matters": None},
    }
