"""``gate.json``: the verdict of the non-inferiority test, and everything that it was decided on.

Scores are 0 to 1, differences are in percentage points (pp). None is what cannot be told: a score of labels that the
test parents do not hold, or an interval of something whose variation nothing shows.
"""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = [
    "GATE",
    "Encoder",
    "Floor",
    "FoldComparison",
    "Gate",
    "HeadComparison",
    "Lead",
    "MarginsPp",
    "Method",
    "ModelComparison",
    "Needed",
    "PermutationTest",
    "Power",
    "Reference",
    "SeedComparison",
    "Variation",
]


class SeedComparison(TypedDict):
    """One seed of one head, over all folds."""

    seed: int
    multihead: float | None
    single_task: float | None
    delta_pp: float | None


class FoldComparison(TypedDict):
    """One fold of one head: its test parents alone, averaged over the seeds."""

    fold: int
    parents: int
    multihead: float | None
    single_task: float | None
    delta_pp: float | None


class ModelComparison(TypedDict):
    """One fold and seed of one head: one trained model of each run, on the fold's test parents."""

    fold: int
    seed: int
    multihead: float | None
    single_task: float | None
    delta_pp: float | None


class Variation(TypedDict):
    """What the difference varies with, and so what its interval is made of.

    Attributes:
        parents_pp: Standard error from the choice of test parents; None where nothing shows it.
        parents_df: Its degrees of freedom: less than the number of parents less one where few of them hold a class.
        training_pp: Standard error from the chance in the trainings; None with one seed, which cannot show it.
        training_df: Its degrees of freedom.
        includes_training: Whether the interval holds the chance in the trainings; if not, it is about these trained
            models only.
    """

    parents_pp: float | None
    parents_df: float | None
    training_pp: float | None
    training_df: float | None
    includes_training: bool


class PermutationTest(TypedDict):
    """Sign-flip test: were both models alike, swapping them in any of the parents would change nothing.

    Attributes:
        p: Two-sided p value of a difference of zero, for these trained models.
        flips: Number of ways to swap that were tried.
        exact: Whether these are all ways; if not, they were drawn with the config's seed.
    """

    p: float
    flips: int
    exact: bool


class Needed(TypedDict):
    """What would show, with 80 % power, that two models which are truly alike differ by less than a margin.

    Attributes:
        parents: Test parents, with the seeds as they are; None where no number up to a thousand is enough.
        seeds: Seeds, with the parents as they are; None where no number up to fifty is enough.
        both: ``[parents, seeds]`` with the fewest trainings to evaluate among those that are enough, or None.
    """

    margin_pp: float
    parents: int | None
    seeds: int | None
    both: list[int] | None


class Power(TypedDict):
    """What this design could have seen.

    Attributes:
        power: 0.8.
        detectable_pp: Smallest true difference whose interval excludes zero with that power; so also the smallest
            margin within which models that are truly alike would be shown to be.
        needed: For the margins of the rule, smallest first. Empty with one seed, which does not show what more would
            bring.
    """

    power: float
    detectable_pp: float | None
    needed: list[Needed]


class Lead(TypedDict):
    """A compared model minus what it is held against.

    Attributes:
        score: Of the compared model.
        beaten: Whether the whole interval is above zero.
    """

    score: float | None
    delta_pp: float | None
    interval_pp: list[float] | None
    beaten: bool


class Reference(TypedDict):
    """What models are held against: a control, the ceiling, or the shared model without its encoder.

    Attributes:
        score: Its own score.
        interval: Confidence interval of it.
        models: Lead of each compared run over it.
    """

    score: float | None
    interval: list[float] | None
    models: dict[str, Lead]


class Encoder(TypedDict):
    """Whether the shared encoder, the very thing that is shared, does anything for a head; only the shared run.

    Attributes:
        zeroed: The shared run with its encoder's output set to zero; None where it was not measured, as below.
        permuted: With the encoder's output of another chip.
        image_skip: With the decoder's own view of the image set to zero.
        trained: Per control with another encoder (``no_encoder``, ``frozen_encoder``, ``random_encoder``) that was
            trained.
        matters: Whether the shared run beats ``zeroed``, ``permuted`` and ``no_encoder``; None where one of them was
            not measured.
    """

    zeroed: Reference | None
    permuted: Reference | None
    image_skip: Reference | None
    trained: dict[str, Reference]
    matters: bool | None


class HeadComparison(TypedDict):
    """One head: the multi-head model against the single-task model, averaged over the seeds.

    Attributes:
        baseline: Run of the single-task model.
        metric: ``miou`` or ``iou``.
        positive_class: Class whose IoU ``iou`` is; None for ``miou``.
        multihead: Score of the multi-head run on all test parents, ``multihead_interval`` its confidence interval;
            ``single_task`` likewise.
        delta_pp: Multi-head minus single-task.
        interval_pp: Confidence interval of it, by which a verdict is called strong.
        simultaneous_pp: The same, widened so that those of all heads and of their sum hold together; by these every
            other verdict is decided.
        variation: What the interval is made of.
        permutation: Sign-flip test; None where the difference is undefined.
        power: What this design could have seen.
        parents_of_class: Number of test parents that hold each class.
        per_seed: Each seed over all folds.
        per_fold: Each fold's parents alone.
        per_model: Each fold and seed.
        controls: What needs no training of a network, by name: the floor.
        ceiling: The planted upper bound, for simulated archives.
        encoder: What the encoder is worth.
    """

    baseline: str
    metric: str
    positive_class: str | None
    multihead: float | None
    multihead_interval: list[float] | None
    single_task: float | None
    single_task_interval: list[float] | None
    delta_pp: float | None
    interval_pp: list[float] | None
    simultaneous_pp: list[float] | None
    variation: Variation | None
    permutation: PermutationTest | None
    power: Power
    parents_of_class: dict[str, int]
    per_seed: list[SeedComparison]
    per_fold: list[FoldComparison]
    per_model: list[ModelComparison]
    controls: dict[str, Reference]
    ceiling: Reference | None
    encoder: Encoder


class Floor(TypedDict):
    """What every compared model must pass before there is a verdict.

    Attributes:
        held: Whether all of it was measured and passed.
        measured: Controls that were evaluated.
        missing: What was not measured, one line each.
        failures: What was not passed, one line each in plain words, the heads in order.
    """

    held: bool
    measured: list[str]
    missing: list[str]
    failures: list[str]


class MarginsPp(TypedDict):
    """The margins of the rule, in percentage points of loss."""

    strong_pp: float
    acceptable_pp: float


class Method(TypedDict):
    """How it was decided, for the methods section.

    Attributes:
        interval: How the intervals are made, one sentence.
        one_sided_level: Of the non-inferiority test: half of what the confidence leaves.
        multiplicity: How several heads and verdicts are corrected for, one sentence.
        simultaneous_confidence: Of each interval of ``simultaneous_pp``.
    """

    interval: str
    one_sided_level: float
    multiplicity: str
    simultaneous_confidence: float


class Gate(TypedDict):
    """The verdict.

    Attributes:
        verdict: ``no evidence``, ``strong``, ``acceptable``, ``mixed``, ``negative`` or ``inconclusive``.
        headline: The verdict as an answer in plain words, one line.
        point_verdict: What the deltas would earn, taken as exact; None where one is undefined.
        between: Worst and best verdict that the intervals allow; None where an interval is undefined.
        reason: One line.
        advice: What would make ``inconclusive`` or ``no evidence`` a verdict, one line; empty otherwise.
        run: The multi-head run.
        floor: What comes before any verdict.
        balance_pp: Sum of the deltas.
        test_parents: All that were tested, over all folds.
        fold_of: Fold in which each of them was tested.
        confidence: Of all intervals.
        simulated: Whether any of the data is.
        caveats: What a reader must know beside the verdict, one line each.
    """

    verdict: str
    headline: str
    point_verdict: str | None
    between: list[str] | None
    reason: str
    advice: str
    run: str
    floor: Floor
    heads: dict[str, HeadComparison]
    balance_pp: float | None
    balance_interval_pp: list[float] | None
    test_parents: list[str]
    fold_of: dict[str, int]
    seeds: list[int]
    folds: list[int]
    margins: MarginsPp
    confidence: float
    method: Method
    simulated: bool
    caveats: list[str]


GATE = Artifact("verdict", "compare", 2, Gate)
