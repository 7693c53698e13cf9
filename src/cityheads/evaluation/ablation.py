"""Ablation: what a model loses when a part of it sees nothing at test time.

The model stays as it is, so this measures how much it depends on the part. What the part is worth is another question,
which only a model trained without it can answer: for the encoder, the control ``no_encoder``.

* Modality ablation: one of the input modalities is not given to the model at all, as if it had not been acquired.
* Encoder occlusion: the decoders get zeros, or another chip's maps, in place of the encoder's maps; or zeros in place
  of the image that they see past the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from typing_extensions import TypedDict

from cityheads.core.artifacts.metrics import AblatedHead, AblatedParent, HeadScores, Metrics, ParentScore
from cityheads.core.confusion import HeadMetric, class_iou, or_none
from cityheads.evaluation import bootstrap
from cityheads.evaluation.paired import compare_paired

__all__ = ["Ablation", "AblationTable", "averaged", "head_metric", "how_to_read", "measure"]


#: The tables of ``metrics.json`` that hold an ablation.
AblationTable = Literal["modality_ablation", "encoder_occlusion"]


class Ablation(TypedDict):
    """One head without one part, averaged over seeds; undefined values are None.

    Attributes:
        full: Score of the whole model.
        value: Score without the part.
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
    """Score one head of one model without a part of it, against itself with everything there.

    Args:
        full: (parents, C, C) counts of the whole model, rows true.
        ablated: The same without the part.
        metric: The head's score.
        parents: Ids of the test parents.

    Returns:
        The scores without the part; ``delta_pp`` is without minus with it, from scores that are rounded as in the
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


def averaged(
    evaluations: Sequence[Metrics], table: AblationTable = "modality_ablation"
) -> dict[str, dict[str, Ablation]] | None:
    """Average an ablation of one run over its seeds, the parents of all folds together.

    Args:
        evaluations: ``metrics.json`` of every fold and seed of a run; all seeds of the same folds.
        table: Which ablation.

    Returns:
        Per part and head; the interval holds the chance in the choice of parents and, with several seeds, that in
        the training. None where one of the evaluations did not measure it.
    """
    by_seed: dict[int, list[tuple[Metrics, dict[str, dict[str, AblatedHead]]]]] = {}
    for one in sorted(evaluations, key=lambda one: one["fold"]):
        measured = one[table]
        if measured is None:
            return None
        by_seed.setdefault(one["seed"], []).append((one, measured))
    groups = list(by_seed.values())
    first, parts = groups[0][0]
    found: dict[str, dict[str, Ablation]] = {part: {} for part in parts}
    for part, heads in parts.items():
        for head in heads:
            full = [
                np.concatenate([_per_parent(one["heads"][head]["per_parent"], one["parents"]) for one, _ in folds])
                for folds in groups
            ]
            ablated = [
                np.concatenate(
                    [_per_parent(without[part][head]["per_parent"], one["parents"]) for one, without in folds]
                )
                for folds in groups
            ]
            metric = head_metric(first["heads"][head])
            found[part][head] = _difference(np.stack(full), np.stack(ablated), metric, first["confidence"])
    return found


def _per_parent(parts: Mapping[str, ParentScore] | Mapping[str, AblatedParent], parents: Sequence[str]) -> np.ndarray:
    """Stack the counts of the parents, (parents, C, C) int64."""
    return np.array([parts[name]["confusion"] for name in parents], np.int64)


def _difference(full: np.ndarray, ablated: np.ndarray, metric: HeadMetric, confidence: float) -> Ablation:
    """Compare (seeds, parents, C, C) counts on the same parents."""
    found = compare_paired(ablated, full, metric)
    return {
        "full": or_none(found.scores[1]),
        "value": or_none(found.scores[0]),
        "delta_pp": or_none(found.delta_pp),
        "interval_pp": found.interval(confidence),
    }
