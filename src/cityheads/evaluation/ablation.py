"""Modality ablation: what a model loses when one of its input modalities is left out at test time.

An ablated modality is not given to the model at all, as if it had not been acquired. The model stays as it is, so this
measures how much it depends on the modality. What a sensor is worth is another question, which only a model trained
without it can answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from typing_extensions import TypedDict

from cityheads.core.artifacts.metrics import AblatedHead, AblatedParent, HeadScores, Metrics, ParentScore
from cityheads.core.confusion import HeadMetric, class_iou, or_none
from cityheads.evaluation import bootstrap
from cityheads.evaluation.paired import compare_paired

__all__ = ["Ablation", "averaged", "head_metric", "how_to_read", "measure"]


class Ablation(TypedDict):
    """One head without one modality, averaged over seeds; undefined values are None.

    Attributes:
        full: Score of the whole model.
        value: Score without the modality.
        delta_pp: ``value`` minus ``full``, in percentage points.
        interval_pp: Its confidence interval.
    """

    full: float | None
    value: float | None
    delta_pp: float | None
    interval_pp: list[float] | None


def head_metric(part: HeadScores) -> HeadMetric:
    """Give the score by which a head of an evaluation is compared."""
    return HeadMetric.of(part["metric"]["name"], part["classes"], part["metric"]["positive_class"])


def how_to_read(modality_dropout: float) -> str:
    """Say what a loss means for a model that was trained with, or without, modality dropout."""
    if modality_dropout == 0:
        return (
            "Training was without model.modality_dropout, so a missing input had never been seen: a loss here measures "
            "dependence on the input, not what the sensor is worth. A model trained without the sensor from the start "
            "may lose less, or nothing."
        )
    return (
        f"Training left each input out of {100 * modality_dropout:g} % of the batches, so a missing input had been "
        "seen: a loss here is nearer to what the input adds, yet still not what a model trained without the sensor "
        "from the start would lose."
    )


def measure(full: np.ndarray, ablated: np.ndarray, metric: HeadMetric, parents: Sequence[str]) -> AblatedHead:
    """Score one head of one model without a modality, against itself with everything there.

    Args:
        full: (parents, C, C) counts of the whole model, rows true.
        ablated: The same without the modality.
        metric: The head's score.
        parents: Ids of the test parents.

    Returns:
        The scores without the modality; ``delta_pp`` is without minus with it, from scores that are rounded as in the
        comparison of runs.
    """
    pooled = ablated.sum(0)
    found = _difference(full[None], ablated[None], metric, bootstrap.CONFIDENCE)
    return {
        "value": or_none(metric(pooled)),
        "delta_pp": found["delta_pp"],
        "interval_pp": found["interval_pp"],
        "iou": or_none(class_iou(pooled)),
        "confusion": pooled.tolist(),
        "per_parent": {
            parent: {
                "confusion": ablated[index].tolist(),
                "value": or_none(metric(ablated[index])),
                "delta_pp": or_none(compare_paired(ablated[None, [index]], full[None, [index]], metric).delta_pp),
            }
            for index, parent in enumerate(parents)
        },
    }


def averaged(evaluations: Sequence[Metrics]) -> dict[str, dict[str, Ablation]] | None:
    """Average the modality ablation of one run over its seeds.

    Args:
        evaluations: ``metrics.json`` of every seed of a run.

    Returns:
        Per modality and head; the interval holds the chance in the choice of parents and, with several seeds, that in
        the training. None where one of the evaluations did not measure it.
    """
    tables = [one["modality_ablation"] for one in evaluations]
    measured = [table for table in tables if table is not None]
    if len(measured) < len(tables):
        return None
    first = evaluations[0]
    parents = first["parents"]
    return {
        modality: {
            head: _difference(
                np.stack([_per_parent(one["heads"][head]["per_parent"], parents) for one in evaluations]),
                np.stack([_per_parent(table[modality][head]["per_parent"], parents) for table in measured]),
                head_metric(first["heads"][head]),
                first["confidence"],
            )
            for head in heads
        }
        for modality, heads in measured[0].items()
    }


def _per_parent(parts: Mapping[str, ParentScore] | Mapping[str, AblatedParent], parents: Sequence[str]) -> np.ndarray:
    """Stack the counts of the parents, (parents, C, C) int64."""
    return np.array([parts[name]["confusion"] for name in parents], np.int64)


def _difference(full: np.ndarray, ablated: np.ndarray, metric: HeadMetric, confidence: float) -> Ablation:
    """Compare (seeds, parents, C, C) counts on the same resampled parents."""
    draws = bootstrap.resample_counts(full.shape[1], bootstrap.RESAMPLES, bootstrap.SEED)
    found = compare_paired(ablated, full, metric, draws)
    return {
        "full": or_none(found.scores[1]),
        "value": or_none(found.scores[0]),
        "delta_pp": or_none(found.delta_pp),
        "interval_pp": found.interval(confidence),
    }
