"""The non-inferiority test with margins: did sharing one encoder cost anything? All the verdict's words are here.

The rule, why it reads as it does, and worked examples are in docs/verdict.md. In short: the rule gives every set of
deltas one of four verdicts, from negative to strong, and never a worse one when a delta grows. It is applied to the
deltas, to the lower ends of all intervals, and to the upper ends. Where the two ends agree, that is the verdict;
where they do not, the data cannot tell and the verdict is inconclusive. Before all that comes the floor (`floor`):
models that do not beat trivial rules, or whose encoder is idle, are no evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cityheads.core.artifacts.gate import Floor
from cityheads.core.text import counted
from cityheads.evaluation.crossed import Effect
from cityheads.evaluation.paired import Comparison, round_pp, rounded_interval
from cityheads.evaluation.power import MOST_PARENTS, MOST_SEEDS, Outlook

__all__ = [
    "HEADLINE",
    "INCONCLUSIVE",
    "MEANING",
    "NO_EVIDENCE",
    "VERDICTS",
    "Decision",
    "Margins",
    "decide",
    "judged",
    "listed",
    "more_data",
    "rule",
    "simultaneous",
    "verdict_of",
    "verdict_range",
]

#: From worst to best.
VERDICTS = ("negative", "mixed", "acceptable", "strong")

#: What stands in their place where the data cannot tell.
INCONCLUSIVE = "inconclusive"

#: What stands in their place where the models fail what comes before any comparison.
NO_EVIDENCE = "no evidence"

#: The verdict as an answer to the one question that was asked; no word of it is about how good the maps are.
HEADLINE = {
    "strong": "Sharing one encoder costs next to nothing.",
    "acceptable": "Sharing one encoder costs one map a little, and another gains as much.",
    "mixed": "Whether sharing one encoder is worth it depends on the map.",
    "negative": "Sharing one encoder makes every map worse.",
    INCONCLUSIVE: "These data cannot tell what sharing one encoder costs.",
    NO_EVIDENCE: "This comparison is no evidence about sharing an encoder.",
}

#: What each verdict means for somebody who has to choose a model.
MEANING = {
    "strong": "One model can take the place of the single-task models. Whether any of them is good enough is another "
    "question, which the scores beside the floor and the ceiling answer.",
    "acceptable": "One model can take the place of the single-task models, at a price that another head pays back. "
    "Whether any of them is good enough is another question.",
    "mixed": "Whether one model is worth it depends on which head matters most; see the deltas.",
    "negative": "This is a negative result: one shared model is worse than the single-task models at every task, "
    "and those are the ones to use.",
    INCONCLUSIVE: "It is shown neither that one model can take the place of the single-task models nor that it cannot.",
    NO_EVIDENCE: "A model that a trivial rule beats, or whose encoder does nothing, cannot show what sharing the "
    "encoder costs: the deltas below are differences between models that do not use what is shared.",
}

#: What one seed on several folds can show: sharing is called harmless only when trainings were repeated.
_OF_ONE_SEED = ("mixed", "negative")
_SEEDS_ADVICE = "Train with three seeds or more (config key seeds); two are the fewest that show how trainings differ."


@dataclass(frozen=True)
class Margins:
    """The two margins of the rule, in percentage points of loss.

    Attributes:
        strong_pp: The largest loss of a head that is still called strong.
        acceptable_pp: The largest loss of a head that is still called acceptable; not below ``strong_pp``.
    """

    strong_pp: float
    acceptable_pp: float


def rule(margins: Margins) -> dict[str, str]:
    """Say when each verdict is given, from the best to the one that cannot tell."""
    strong, acceptable = f"{margins.strong_pp:g} pp", f"{margins.acceptable_pp:g} pp"
    return {
        NO_EVIDENCE: "before all else: a compared model does not beat each control, or the encoder does not matter, by "
        "the whole interval of the difference; or that was not measured",
        "strong": f"every delta is at least -{strong}",
        "acceptable": f"every delta is at least -{acceptable}, and their sum is not negative",
        "negative": f"every delta is -{acceptable} or less",
        "mixed": "anything else",
        INCONCLUSIVE: "the lower and the upper ends of the intervals earn different verdicts; there is one seed; a "
        "class has no labelled pixel in the test split, or lies in too few test parents to show how it varies",
    }


def verdict_of(deltas: Sequence[float], balance: float, margins: Margins) -> str:
    """Give the verdict that a set of deltas earns, taken as exact.

    Args:
        deltas: Multi-head minus single-task per head, in percentage points; the order does not matter.
        balance: Sum of the deltas; a separate argument since the end of its interval is not the sum of the ends.
        margins: In percentage points.
    """
    if min(deltas) >= -margins.strong_pp:
        return "strong"
    if min(deltas) >= -margins.acceptable_pp and balance >= 0:
        return "acceptable"
    if max(deltas) <= -margins.acceptable_pp:
        return "negative"
    return "mixed"


def simultaneous(confidence: float, heads: int) -> float:
    """Give the confidence of single intervals with which those of all heads, and of their sum, hold together.

    Bonferroni's correction; the sum of one head is the head.
    """
    return 1 - (1 - confidence) / (heads + (heads > 1))


def verdict_range(
    deltas: Sequence[Effect], balance: Effect, margins: Margins, confidence: float
) -> tuple[str, str] | None:
    """Give the worst and the best verdict that the intervals allow; None where an interval is undefined.

    Strong is one claim of every head together, and asks for plain intervals. All else is told by simultaneous ones.
    """
    wide = simultaneous(confidence, len(deltas))
    plain = [rounded_interval(delta, confidence) for delta in deltas]
    joint = [rounded_interval(delta, wide) for delta in [*deltas, balance]]
    found = [one for one in [*plain, *joint] if one is not None]
    if len(found) < len(plain) + len(joint):
        return None
    return _range(found[: len(deltas)], found[len(deltas) : -1], found[-1], margins)


def judged(deltas: Sequence[Effect], ends: tuple[str, str] | None) -> str:
    """Give the verdict of what the intervals allow: inconclusive where they do not agree, or of too few trainings.

    Args:
        deltas: Multi-head minus single-task, per head.
        ends: What `verdict_range` gives.
    """
    if ends is None or ends[0] != ends[1]:
        return INCONCLUSIVE
    if deltas[0].seeds > 1 or (deltas[0].includes_training and ends[0] in _OF_ONE_SEED):
        return ends[0]
    return INCONCLUSIVE


def _range(
    plain: Sequence[Sequence[float]], joint: Sequence[Sequence[float]], total: Sequence[float], margins: Margins
) -> tuple[str, str]:
    """Give the worst and the best verdict from ``[low, high]`` of each head, plain and simultaneous, and of the sum."""
    if verdict_of([low for low, _ in plain], total[0], margins) == "strong":
        return "strong", "strong"
    return (
        verdict_of([low for low, _ in joint], total[0], margins),
        verdict_of([high for _, high in joint], total[1], margins),
    )


def more_data(deltas: Sequence[Effect], balance: Effect, margins: Margins, confidence: float) -> str:
    """Say how many more test parents, or seeds, would decide an inconclusive verdict, were the deltas to stay."""
    parents, seeds = balance.influence.shape[1], balance.seeds
    wide = simultaneous(confidence, len(deltas))
    outlooks = [Outlook.of(delta) for delta in [*deltas, balance]]

    def ends(outlook: Outlook, many_parents: int, many_seeds: int, level: float) -> tuple[float, float]:
        half = outlook.half_width(many_parents, many_seeds, level)
        return round_pp(outlook.point - half), round_pp(outlook.point + half)

    def decided(many_parents: int, many_seeds: int) -> bool:
        plain = [ends(one, many_parents, many_seeds, confidence) for one in outlooks[:-1]]
        *joint, total = [ends(one, many_parents, many_seeds, wide) for one in outlooks]
        worst, best = _range(plain, joint, total, margins)
        return worst == best

    options = []
    enough = next((n for n in range(parents + 1, MOST_PARENTS + 1) if decided(n, seeds)), None)
    if enough:
        options.append(f"{counted(enough - parents, 'more test parent')} ({enough} in all)")
    enough_seeds = next((n for n in range(seeds + 1, MOST_SEEDS + 1) if decided(parents, n)), None)
    if enough_seeds:
        options.append(f"{counted(enough_seeds - seeds, 'more seed')} ({enough_seeds} in all)")
    if options:
        return f"If the deltas stay as they are, {' or '.join(options)} would decide it."
    pairs = ((n * 2 * parents, n * parents, many) for n in (2, 4, 8) for many in (2 * seeds, 4 * seeds))
    both = next(((many, each) for _, many, each in sorted(pairs) if decided(many, each)), None)
    if both:
        return f"If the deltas stay as they are, {both[0]} test parents and {both[1]} seeds would decide it."
    return (
        f"No reasonable number of test parents (up to {MOST_PARENTS}) would decide it: "
        f"a delta lies too near to a margin for how much it varies."
    )


@dataclass(frozen=True)
class Decision:
    """A verdict and why it was given.

    Attributes:
        verdict: One of `VERDICTS`, `INCONCLUSIVE` or `NO_EVIDENCE`.
        point_verdict: What the deltas would earn, taken as exact; None where one of them is undefined.
        between: Worst and best verdict that the intervals allow; None where one of them is undefined.
        reason: One line.
        advice: What would make a verdict of it, one line; empty otherwise.
    """

    verdict: str
    point_verdict: str | None
    between: tuple[str, str] | None
    reason: str
    advice: str


def decide(
    heads: Mapping[str, Comparison],
    balance: Effect | None,
    margins: Margins,
    confidence: float,
    *,
    floor: Floor,
    absent: Mapping[str, Sequence[str]],
    positive: Mapping[str, str | None],
) -> Decision:
    """Apply the rule to the deltas and to both ends of their intervals, and say why.

    Args:
        heads: Multi-head against single-task, per head.
        balance: Sum of the deltas; None where one of them is undefined.
        margins: In percentage points.
        confidence: Of the intervals.
        floor: What comes before.
        absent: Per head, the classes without a labelled pixel in the test split; only heads that have some.
        positive: Per head, the class whose IoU is compared; None for the mean over the classes.
    """
    deltas = [one.effect for one in heads.values() if one.effect is not None]
    point = ends = None
    if balance is not None:
        point = verdict_of([delta.point for delta in deltas], balance.point, margins)
        ends = verdict_range(deltas, balance, margins, confidence)
    if floor["failures"] or floor["missing"]:
        failed = bool(floor["failures"])
        reason = " ".join(floor["failures"] if failed else floor["missing"])
        advice = (
            "Find out why before comparing anything: more training, another decoder or other inputs."
            if failed
            else "Make the controls that are missing (config keys controls.made and evaluation.encoder_occlusion)."
        )
        return Decision(NO_EVIDENCE, point, ends, reason, advice)
    if absent:
        missing = "; ".join(f"{listed(names)} of head {head}" for head, names in absent.items())
        reason = f"The test split holds no labelled pixel of {missing}, so nothing is known about it."
        advice = "Assign the splits so that the test split holds every class of every head, or add parents."
        return Decision(INCONCLUSIVE, point, ends, reason, advice)
    parents = next(iter(deltas)).influence.shape[1] if deltas else 0
    if parents < 2:
        reason = f"{counted(parents, 'test parent')} cannot show how much the deltas vary from place to place."
        advice = f"At least {counted(2 - parents, 'more test parent')} would give an interval at all."
        return Decision(INCONCLUSIVE, point, ends, reason, advice)
    if balance is None or point is None or ends is None:
        head = next((head for head, one in heads.items() if one.interval(confidence) is None), next(iter(heads)))
        reason = f"The labels of head {head} lie in too few test parents to tell how much its delta varies."
        holding = f"hold the class {positive[head]} ({head})" if positive[head] else f"hold every class of head {head}"
        return Decision(INCONCLUSIVE, point, ends, reason, f"More test parents that {holding} are needed.")
    verdict = judged(deltas, ends)
    if balance.seeds == 1 and verdict == INCONCLUSIVE:
        told = f"these trained models alone would read {ends[0] if ends[0] == ends[1] else ' to '.join(ends)}"
        reason = f"One seed: every model was trained once, and another training may give another answer; {told}."
        return Decision(INCONCLUSIVE, point, ends, reason, _SEEDS_ADVICE)
    told_of = {head: _Told.of(one.effect, confidence) for head, one in heads.items()}
    if verdict != INCONCLUSIVE:
        return Decision(verdict, point, ends, _why(verdict, told_of, margins), "")
    wide = simultaneous(confidence, len(deltas))
    joint = {head: _Told.of(one.effect, wide) for head, one in heads.items()}
    reason = _why_inconclusive(joint, _Told.of(balance, wide), point, ends, margins)
    return Decision(INCONCLUSIVE, point, ends, reason, more_data(deltas, balance, margins, confidence))


@dataclass(frozen=True)
class _Told:
    """A difference and the ends of its interval, in percentage points, as a sentence gives them."""

    point: float
    low: float
    high: float

    @classmethod
    def of(cls, delta: Effect | None, confidence: float) -> _Told:
        interval = None if delta is None else rounded_interval(delta, confidence)
        assert delta is not None
        assert interval is not None
        return cls(delta.point, interval[0], interval[1])

    def __str__(self) -> str:
        return f"{self.point:+.2f} pp [{self.low:+.2f}, {self.high:+.2f}]"


def _why(verdict: str, deltas: Mapping[str, _Told], margins: Margins) -> str:
    strong, acceptable = f"{margins.strong_pp:g} pp", f"{margins.acceptable_pp:g} pp"
    claim = {
        "strong": f"No head loses more than {strong} by sharing the encoder",
        "acceptable": f"No head loses more than {acceptable}, and what is lost is gained elsewhere",
        "mixed": "Sharing the encoder is neither cheap enough for every head nor bad for all of them",
        "negative": f"Every head loses {acceptable} or more by sharing the encoder",
    }[verdict]
    return f"{claim}: {', '.join(f'{head} {delta}' for head, delta in deltas.items())}."


def _why_inconclusive(
    deltas: Mapping[str, _Told], balance: _Told, point: str, ends: tuple[str, str], margins: Margins
) -> str:
    """Name the margins that lie inside an interval and decide."""
    worst, best = VERDICTS.index(ends[0]), VERDICTS.index(ends[1])
    lines = []
    if best == VERDICTS.index("strong"):
        lines.append(-margins.strong_pp)
    if worst <= VERDICTS.index("mixed") and -margins.acceptable_pp not in lines:
        lines.append(-margins.acceptable_pp)
    crossed = []
    for head, delta in deltas.items():
        over = [f"{line:+g}" for line in lines if delta.low <= line <= delta.high]
        if over:
            crossed.append(f"{head} {delta} spans {' and '.join(over)} pp")
    trade = worst <= VERDICTS.index("mixed") and best >= VERDICTS.index("acceptable") and len(deltas) > 1
    # a balance of 0 is not negative, so an interval that begins there does not span it
    if trade and balance.low < 0 <= balance.high:
        crossed.append(f"the sum of the deltas {balance} spans 0")
    return f"The deltas alone say {point}, but the intervals allow {ends[0]} to {ends[1]}: {'; '.join(crossed)}."


def listed(names: Sequence[str]) -> str:
    """List names as in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
