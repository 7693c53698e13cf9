"""``gate.json``: the verdict of the non-inferiority test, and everything that it was decided on."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["GATE", "Gate", "HeadComparison", "MarginsPp", "SeedComparison"]


class SeedComparison(TypedDict):
    """One seed of one head; None where a score is undefined."""

    seed: int
    multihead: float | None
    single_task: float | None
    delta_pp: float | None


class HeadComparison(TypedDict):
    """One head: the multi-head model against the single-task model, averaged over the seeds.

    Attributes:
        baseline: Run of the single-task model.
        metric: ``miou`` or ``iou``.
        positive_class: Class whose IoU ``iou`` is; None for ``miou``.
        delta_pp: Multi-head minus single-task, in percentage points.
    """

    baseline: str
    metric: str
    positive_class: str | None
    multihead: float | None
    single_task: float | None
    delta_pp: float | None
    interval_pp: list[float] | None
    per_seed: list[SeedComparison]


class MarginsPp(TypedDict):
    """The margins of the rule, in percentage points of loss."""

    strong_pp: float
    acceptable_pp: float


class Gate(TypedDict):
    """The verdict.

    Attributes:
        verdict: ``strong``, ``acceptable``, ``mixed``, ``negative`` or ``inconclusive``.
        point_verdict: What the deltas would earn, taken as exact; None where one is undefined.
        between: Worst and best verdict that the intervals allow; None where an interval is undefined.
        reason: One line.
        advice: What would make an inconclusive verdict a verdict, one line; empty otherwise.
        run: The multi-head run.
        balance_pp: Sum of the deltas.
        confidence: Of all intervals.
        resamples: Number of resamples of the test parents.
        simulated: Whether any of the data is.
        caveats: What a reader must know beside the verdict, one line each.
    """

    verdict: str
    point_verdict: str | None
    between: list[str] | None
    reason: str
    advice: str
    run: str
    heads: dict[str, HeadComparison]
    balance_pp: float | None
    balance_interval_pp: list[float] | None
    test_parents: list[str]
    seeds: list[int]
    margins: MarginsPp
    confidence: float
    resamples: int
    simulated: bool
    caveats: list[str]


GATE = Artifact("verdict", "compare", 1, Gate)
