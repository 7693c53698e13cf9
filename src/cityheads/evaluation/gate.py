"""The gate: did sharing one encoder cost anything? A verdict with its reason, or a plain "cannot tell".

The rule, why it reads as it does, and worked examples are in docs/verdict.md. In short: the rule gives every set of
deltas one of four verdicts, from negative to strong, and never a worse one when a delta grows. It is applied to the
deltas, to the lower ends of all intervals, and to the upper ends. Where the two ends agree, that is the verdict;
where they do not, the data cannot tell and the verdict is inconclusive.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, write_bytes, write_json
from cityheads.evaluation import metrics

__all__ = ["VERDICTS", "Estimate", "Paired", "Thresholds", "advise", "compare", "judge", "pair", "settle"]

log = logging.getLogger(__name__)

#: From worst to best.
VERDICTS = ("negative", "mixed", "acceptable", "strong")

#: Scores are rounded to this many digits (0.01 pp) before they are subtracted, and the rule is applied to the rounded
#: numbers: what the page prints is what was decided on, and its columns subtract exactly.
_DIGITS = 4

#: More test parents than this are not an advice but a way to say that the difference is too near to a threshold.
_MOST_PARENTS = 1000
_MOST_SEEDS = 50


@dataclass(frozen=True)
class Thresholds:
    """The two thresholds of the rule, in percentage points of loss."""

    strong_pp: float
    acceptable_pp: float


def judge(deltas: Sequence[float], balance: float, thresholds: Thresholds) -> str:
    """Give the verdict that a set of deltas earns, taken as exact.

    Args:
        deltas: Multi-head minus single-task per head, in percentage points; the order does not matter.
        balance: Sum of the deltas; a separate argument since the end of its interval is not the sum of the ends.
        thresholds: In percentage points.
    """
    if min(deltas) >= -thresholds.strong_pp:
        return "strong"
    if min(deltas) >= -thresholds.acceptable_pp and balance >= 0:
        return "acceptable"
    if max(deltas) <= -thresholds.acceptable_pp:
        return "negative"
    return "mixed"


@dataclass(frozen=True)
class Estimate:
    """A difference in percentage points with the two variances that make it uncertain.

    Attributes:
        point: The difference on the whole test split, averaged over seeds.
        by_parents: Its variance over the choice of test parents, which falls as 1 / parents.
        by_seeds: Its variance over the seeds, which falls as 1 / seeds; 0 with one seed, which cannot show it.
        parents: Number of test parents, n.
        seeds: Number of seeds, S.
    """

    point: float
    by_parents: float
    by_seeds: float
    parents: int
    seeds: int

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Give the confidence interval, or None where it is undefined.

        The degrees of freedom of the two variances together follow Satterthwaite (1946).
        """
        variance = self.by_parents + self.by_seeds
        df = math.inf
        if variance > 0:
            share = self.by_parents / variance
            df = 1 / (share**2 / (self.parents - 1) + ((1 - share) ** 2 / (self.seeds - 1) if self.seeds > 1 else 0))
        found = metrics.interval(self.point, variance, df, confidence, (-math.inf, math.inf))
        return None if found is None else (_round_pp(found[0]), _round_pp(found[1]))

    def with_more(self, parents: int, seeds: int) -> Estimate:
        """Give what this estimate would be with other numbers of parents and seeds, were the point to stay."""
        return replace(
            self,
            by_parents=self.by_parents * self.parents / parents,
            by_seeds=self.by_seeds * self.seeds / seeds,
            parents=parents,
            seeds=seeds,
        )


@dataclass(frozen=True)
class Paired:
    """Two ways to predict, scored on the same parents with the same seeds.

    Attributes:
        scores: Their scores on the whole split, averaged over seeds and rounded; NaN where undefined.
        delta_pp: The first minus the second in percentage points; NaN where undefined.
        per_seed: (2, seeds) scores, rounded.
        per_seed_pp: (seeds,) differences in percentage points.
        samples: (resamples,) differences in percentage points; None where ``delta_pp`` is undefined.
        estimate: The difference with its variances; None where ``delta_pp`` is undefined.
    """

    scores: tuple[float, float]
    delta_pp: float
    per_seed: np.ndarray
    per_seed_pp: np.ndarray
    samples: np.ndarray | None
    estimate: Estimate | None

    def interval(self, confidence: float) -> list[float] | None:
        """Give the confidence interval of the difference, or None where it is undefined."""
        found = None if self.estimate is None else self.estimate.interval(confidence)
        return None if found is None else list(found)


def pair(first: np.ndarray, second: np.ndarray, name: str, draws: np.ndarray | None) -> Paired:
    """Compare two ways to predict on the same resampled parents: what both find hard cancels out.

    Args:
        first: (seeds, parents, C, C) counts, rows true.
        second: The same, of the other.
        name: ``miou`` or ``iou``.
        draws: (resamples, parents), `metrics.resample_counts`; None without parents.
    """
    # (seeds,) each: the metric of the confusion pooled over parents
    pooled = [np.round(metrics.head_metric(one.sum(1), name), _DIGITS) for one in (first, second)]
    means = [round(float(one.mean()), _DIGITS) for one in pooled]
    point = _round_pp(100 * (means[0] - means[1]))
    per_seed = np.round(100 * (pooled[0] - pooled[1]), _DIGITS - 2) + 0.0
    samples = estimate = None
    if draws is not None and not math.isnan(point):
        samples = 100 * (_resampled(first, draws, name) - _resampled(second, draws, name))
        estimate = _estimate(point, samples, per_seed, first.shape[1])
    return Paired((means[0], means[1]), point, np.stack(pooled), per_seed, samples, estimate)


def settle(
    deltas: Sequence[Estimate], balance: Estimate, thresholds: Thresholds, confidence: float
) -> tuple[str, str] | None:
    """Give the worst and the best verdict that the intervals allow; None where an interval is undefined."""
    intervals = [delta.interval(confidence) for delta in deltas]
    total = balance.interval(confidence)
    if total is None or any(found is None for found in intervals):
        return None
    ends = [found for found in intervals if found is not None]
    return (
        judge([low for low, _ in ends], total[0], thresholds),
        judge([high for _, high in ends], total[1], thresholds),
    )


def advise(deltas: Sequence[Estimate], balance: Estimate, thresholds: Thresholds, confidence: float) -> str:
    """Say how many more test parents, or seeds, would settle an inconclusive verdict, were the deltas to stay."""
    parents, seeds = balance.parents, balance.seeds

    def settled(many_parents: int, many_seeds: int) -> bool:
        more = [delta.with_more(many_parents, many_seeds) for delta in deltas]
        ends = settle(more, balance.with_more(many_parents, many_seeds), thresholds, confidence)
        return ends is not None and ends[0] == ends[1]

    options = []
    enough = next((n for n in range(parents + 1, _MOST_PARENTS + 1) if settled(n, seeds)), None)
    if enough:
        options.append(f"{_count(enough - parents, 'more test parent')} ({enough} in all)")
    if seeds > 1:
        enough_seeds = next((n for n in range(seeds + 1, _MOST_SEEDS + 1) if settled(parents, n)), None)
        if enough_seeds:
            options.append(f"{_count(enough_seeds - seeds, 'more seed')} ({enough_seeds} in all)")
    if options:
        return f"If the deltas stay as they are, {' or '.join(options)} would settle it."
    return (
        f"No reasonable number of test parents (up to {_MOST_PARENTS}) would settle it: "
        f"a delta lies too near to a threshold for how much it varies."
    )


def compare(settings: dict[str, Any], *, evaluation: Path, page: Path, out: Path) -> None:
    """Compare the multi-head run with each head's baseline and write the verdict, as JSON and as a page.

    Args:
        settings: Sections ``heads``, ``runs``, ``seeds`` and ``gate`` of the config.
        evaluation: Folder of the evaluations, ``{run}/{seed}/metrics.json`` below it.
        page: Markdown page to write.
        out: gate.json to write.

    Raises:
        CityHeadsError: An evaluation is missing; the runs were evaluated on different parents, sub-chips, classes or
            labels; or the thresholds contradict each other.
    """
    gate = settings["gate"]
    thresholds = Thresholds(gate["strong_pp"], gate["acceptable_pp"])
    if thresholds.strong_pp > thresholds.acceptable_pp:
        raise CityHeadsError(
            f"config key 'gate.strong_pp': {thresholds.strong_pp:g} is above gate.acceptable_pp "
            f"({thresholds.acceptable_pp:g}); a strong verdict must ask for more than an acceptable one"
        )
    result = _result(settings, thresholds, _read(settings, Path(evaluation)))
    write_json(out, result)
    write_bytes(page, _page(result).encode())
    logging.getLogger("cityheads.progress").info("verdict: %s. %s", result["verdict"], result["reason"])


def _round_pp(value: float) -> float:
    # adding 0.0 turns -0.0 into 0.0, which would read as a loss
    return round(value, _DIGITS - 2) + 0.0


# --- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Evidence:
    """What the evaluations say: per head the per-parent confusions (seeds, parents, C, C) of both models."""

    parents: list[str]
    seeds: list[int]
    simulated: bool
    classes: dict[str, list[str]]
    multihead: dict[str, np.ndarray]
    single_task: dict[str, np.ndarray]


def _read(settings: dict[str, Any], evaluation: Path) -> _Evidence:
    gate, seeds = settings["gate"], settings["seeds"]
    run, heads = gate["run"], settings["runs"][gate["run"]]["heads"]
    first_path = evaluation / run / str(seeds[0]) / "metrics.json"
    first = _load(first_path)
    parents, classes = first["parents"], {}
    multihead: dict[str, list[np.ndarray]] = {head: [] for head in heads}
    single_task: dict[str, list[np.ndarray]] = {head: [] for head in heads}
    for seed in seeds:
        path = evaluation / run / str(seed) / "metrics.json"
        tested = _load(path)
        _same(first_path, first, path, tested)
        for head in heads:
            baseline_path = evaluation / gate["baselines"].get(head, head) / str(seed) / "metrics.json"
            baseline = _load(baseline_path)
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
        classes=classes,
        multihead={head: np.stack(parts) for head, parts in multihead.items()},
        single_task={head: np.stack(parts) for head, parts in single_task.items()},
    )


def _load(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CityHeadsError(f"{path}: no such evaluation; run the workflow so that every run and seed is evaluated")
    loaded: dict[str, Any] = read_json(path)
    return loaded


def _head(path: Path, one: dict[str, Any], head: str) -> dict[str, Any]:
    if head not in one["heads"]:
        raise CityHeadsError(f"{path}: has no head {head}; evaluate the run again with this config")
    part: dict[str, Any] = one["heads"][head]
    return part


def _same(first_path: Path, first: dict[str, Any], path: Path, other: dict[str, Any]) -> None:
    for key, what in (
        ("parents", "test parents"),
        ("chips", "number of test sub-chips"),
        ("chips_sha256", "list of test sub-chips"),
        ("simulated", "kind of archive"),
    ):
        if first.get(key) != other.get(key):
            raise CityHeadsError(
                f"{path}: the {what} differ from those of {first_path}; evaluate both runs on one dataset"
            )


# --- deciding ------------------------------------------------------------------------------------------------------


def _result(settings: dict[str, Any], thresholds: Thresholds, evidence: _Evidence) -> dict[str, Any]:
    gate = settings["gate"]
    parents = len(evidence.parents)
    heads: dict[str, dict[str, Any]] = {}
    estimates: dict[str, Estimate] = {}
    samples: list[np.ndarray] = []
    draws = metrics.resample_counts(parents, gate["resamples"], gate["seed"]) if parents else None
    for head in evidence.multihead:
        name = settings["heads"][head]["metric"]
        paired = pair(evidence.multihead[head], evidence.single_task[head], name, draws)
        heads[head] = {
            "baseline": gate["baselines"].get(head, head),
            "metric": name,
            "multihead": metrics.or_none(paired.scores[0]),
            "single_task": metrics.or_none(paired.scores[1]),
            "delta_pp": metrics.or_none(paired.delta_pp),
            "interval_pp": paired.interval(gate["confidence"]),
            "per_seed": [
                {
                    "seed": seed,
                    "multihead": metrics.or_none(paired.per_seed[0, index], _DIGITS),
                    "single_task": metrics.or_none(paired.per_seed[1, index], _DIGITS),
                    "delta_pp": metrics.or_none(paired.per_seed_pp[index], _DIGITS - 2),
                }
                for index, seed in enumerate(evidence.seeds)
            ],
        }
        if paired.samples is not None and paired.estimate is not None:
            samples.append(paired.samples)
            estimates[head] = paired.estimate
    result: dict[str, Any] = {
        "format": 1,
        "verdict": "inconclusive",
        "point_verdict": None,
        "between": None,
        "reason": "",
        "advice": "",
        "run": gate["run"],
        "heads": heads,
        "balance_pp": None,
        "balance_interval_pp": None,
        "test_parents": evidence.parents,
        "seeds": evidence.seeds,
        "thresholds": {"strong_pp": thresholds.strong_pp, "acceptable_pp": thresholds.acceptable_pp},
        "confidence": gate["confidence"],
        "resamples": gate["resamples"],
        "simulated": evidence.simulated,
        "caveats": _caveats(evidence),
    }
    absent = _absent(evidence)
    ends = None
    if all(part["delta_pp"] is not None for part in heads.values()) and draws is not None:
        deltas = list(estimates.values())
        balance = _estimate(
            _round_pp(sum(delta.point for delta in deltas)),
            np.sum(samples, axis=0),
            np.sum([[item["delta_pp"] for item in part["per_seed"]] for part in heads.values()], axis=0),
            parents,
        )
        found = balance.interval(gate["confidence"])
        result["balance_pp"] = balance.point
        result["balance_interval_pp"] = None if found is None else list(found)
        result["point_verdict"] = judge([delta.point for delta in deltas], balance.point, thresholds)
        ends = settle(deltas, balance, thresholds, gate["confidence"])
        if ends is not None:
            result["between"] = list(ends)
            if ends[0] != ends[1] and not absent:
                result["reason"] = _why_inconclusive(result, ends, thresholds)
                result["advice"] = advise(deltas, balance, thresholds, gate["confidence"])
    if absent:
        missing = "; ".join(f"{_list(names)} of head {head}" for head, names in absent.items())
        result["reason"] = f"The test split holds no labelled pixel of {missing}, so nothing is known about it."
        result["advice"] = "Deal the splits so that the test split holds every class of every head, or add parents."
    elif parents < 2:
        result["reason"] = f"{_count(parents, 'test parent')} cannot show how much the deltas vary from place to place."
        result["advice"] = f"At least {_count(2 - parents, 'more test parent')} would give an interval at all."
    elif ends is None:
        head = next((head for head in heads if heads[head]["interval_pp"] is None), next(iter(heads)))
        result["reason"] = f"The labels of head {head} lie in too few test parents to tell how much its delta varies."
        result["advice"] = f"More test parents that hold the class {evidence.classes[head][-1]} ({head}) are needed."
    elif ends[0] == ends[1]:
        result["verdict"] = ends[0]
        result["reason"] = _why(result, thresholds)
    return result


def _resampled(confusions: np.ndarray, draws: np.ndarray, name: str) -> np.ndarray:
    """Give the metric of every resample, averaged over seeds, (resamples,), from (seeds, parents, C, C) counts."""
    # float64 holds every count below 2**53 exactly, and multiplies faster than integers
    weights = draws.astype(np.float64)
    values = [
        metrics.head_metric(np.tensordot(weights, one.astype(np.float64), axes=(1, 0)), name) for one in confusions
    ]
    return np.mean(values, axis=0)


def _estimate(point: float, samples: np.ndarray, per_seed: np.ndarray, parents: int) -> Estimate:
    seeds = len(per_seed)
    by_seeds = float(np.var(per_seed, ddof=1)) / seeds if seeds > 1 else 0.0
    return Estimate(point, metrics.parent_variance(samples, parents), by_seeds, parents, seeds)


def _absent(evidence: _Evidence) -> dict[str, list[str]]:
    """Name, per head, the classes without a labelled pixel in the test split."""
    absent = {}
    for head, confusions in evidence.multihead.items():
        pixels = confusions[0].sum((0, 2))
        names = [name for name, count in zip(evidence.classes[head], pixels, strict=True) if count == 0]
        if names:
            absent[head] = names
    return absent


def _caveats(evidence: _Evidence) -> list[str]:
    caveats = []
    if evidence.simulated:
        caveats.append("The archive is simulated: this says that the method runs, not how well it maps a real city.")
    if len(evidence.seeds) == 1:
        caveats.append(
            "One seed: the intervals hold the chance in which parents were tested, not the chance in the training, "
            "which more seeds would show."
        )
    for head, confusions in evidence.multihead.items():
        holding = (confusions[0].sum(-1) > 0).sum(0)
        names = [name for name, count in zip(evidence.classes[head], holding, strict=True) if count == 1]
        if names and len(evidence.parents) > 1:
            caveats.append(
                f"{_list(names).capitalize()} ({head}) lies in one test parent only: how it varies is unknown."
            )
    return caveats


# --- words ---------------------------------------------------------------------------------------------------------


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _delta(part: dict[str, Any]) -> str:
    low, high = part["interval_pp"]
    return f"{part['delta_pp']:+.2f} pp [{low:+.2f}, {high:+.2f}]"


def _all_deltas(result: dict[str, Any]) -> str:
    return ", ".join(f"{head} {_delta(part)}" for head, part in result["heads"].items())


def _why(result: dict[str, Any], thresholds: Thresholds) -> str:
    strong, acceptable = f"{thresholds.strong_pp:g} pp", f"{thresholds.acceptable_pp:g} pp"
    claim = {
        "strong": f"No head loses more than {strong} by sharing the encoder",
        "acceptable": f"No head loses more than {acceptable}, and what is lost is gained elsewhere",
        "mixed": "Sharing the encoder is neither cheap enough for every head nor bad for all of them",
        "negative": f"Every head loses {acceptable} or more by sharing the encoder",
    }[result["verdict"]]
    return f"{claim}: {_all_deltas(result)}."


def _why_inconclusive(result: dict[str, Any], ends: tuple[str, str], thresholds: Thresholds) -> str:
    worst, best = VERDICTS.index(ends[0]), VERDICTS.index(ends[1])
    lines = []
    if best == VERDICTS.index("strong"):
        lines.append(-thresholds.strong_pp)
    if worst <= VERDICTS.index("mixed") and -thresholds.acceptable_pp not in lines:
        lines.append(-thresholds.acceptable_pp)
    crossed = []
    for head, part in result["heads"].items():
        low, high = part["interval_pp"]
        over = [f"{line:+g}" for line in lines if low <= line <= high]
        if over:
            crossed.append(f"{head} {_delta(part)} spans {' and '.join(over)} pp")
    low, high = result["balance_interval_pp"]
    trade = worst <= VERDICTS.index("mixed") and best >= VERDICTS.index("acceptable") and len(result["heads"]) > 1
    if trade and low < 0 <= high:
        crossed.append(f"the sum of the deltas {result['balance_pp']:+.2f} pp [{low:+.2f}, {high:+.2f}] spans 0")
    point = result["point_verdict"]
    return f"The deltas alone say {point}, but the intervals allow {ends[0]} to {ends[1]}: {'; '.join(crossed)}."


_MEANING = {
    "strong": "One model can take the place of the single-task models.",
    "acceptable": "One model can take the place of the single-task models, at a price that another head pays back.",
    "mixed": "Whether one model is worth it depends on which head matters most; see the deltas.",
    "negative": "This is a negative result: one shared model is worse than the single-task models at every task, "
    "and those are the ones to use.",
    "inconclusive": "These data do not settle what sharing the encoder costs.",
}


def _page(result: dict[str, Any]) -> str:
    confidence = f"{100 * result['confidence']:g} %"
    lines = [f"# Verdict: {result['verdict']}", ""]
    if result["simulated"]:
        lines += ["> **Simulated archive.** The pixels and labels behind these numbers were made up.", ""]
    lines += [f"{_MEANING[result['verdict']]} {result['reason']}", ""]
    if result["advice"]:
        lines += [result["advice"], ""]
    lines += [
        f"| head | metric | `{result['run']}` | baseline | | delta (pp) | {confidence} interval (pp) |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    for head, part in result["heads"].items():
        lines.append(_row(head, part["metric"], part["baseline"], part, part["interval_pp"]))
    lines.append("")
    if len(result["heads"]) > 1 and result["balance_pp"] is not None:
        low_high = result["balance_interval_pp"]
        lines += [
            f"Sum of the deltas: {result['balance_pp']:+.2f} pp"
            + (f" [{low_high[0]:+.2f}, {low_high[1]:+.2f}]." if low_high else "."),
            "",
        ]
    if len(result["seeds"]) > 1:
        lines += ["## Per seed", "", f"| head | seed | `{result['run']}` | baseline | delta (pp) |"]
        lines.append("|---|---:|---:|---:|---:|")
        for head, part in result["heads"].items():
            for item in part["per_seed"]:
                lines.append(
                    f"| {head} | {item['seed']} | {_score(item['multihead'])} | {_score(item['single_task'])} "
                    f"| {_signed(item['delta_pp'])} |"
                )
        lines.append("")
    strong, acceptable = (f"{result['thresholds'][key]:g} pp" for key in ("strong_pp", "acceptable_pp"))
    lines += [
        "## How it was decided",
        "",
        f"- *Strong*: every delta is at least -{strong}.",
        f"- *Acceptable*: every delta is at least -{acceptable}, and their sum is not negative.",
        f"- *Negative*: every delta is -{acceptable} or less.",
        "- *Mixed*: anything else.",
        "- *Inconclusive*: the lower and the upper ends of the intervals earn different verdicts, a class has no "
        "labelled pixel in the test split, or there are fewer than two test parents.",
        "",
        f"{_count(len(result['test_parents']), 'test parent')} ({', '.join(result['test_parents'])}), "
        f"{_count(len(result['seeds']), 'seed')}. The intervals come from {result['resamples']} resamples of the test "
        "parents, the same for both models.",
        "",
    ]
    if result["point_verdict"] and result["verdict"] == "inconclusive":
        lines += [f"The deltas alone, taken as exact, would read *{result['point_verdict']}*.", ""]
    if result["caveats"]:
        lines += ["## Caveats", "", *[f"- {caveat}" for caveat in result["caveats"]], ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(head: str, metric: str, baseline: str, part: dict[str, Any], interval: list[float] | None) -> str:
    between = "undefined" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}"
    return (
        f"| {head} | {metric} | {_score(part['multihead'])} | `{baseline}` | {_score(part['single_task'])} "
        f"| {_signed(part['delta_pp'])} | {between} |"
    )


def _score(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.2f}"
