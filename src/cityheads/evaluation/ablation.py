"""What a model loses when one of its modalities is removed at test time: how much it leans on each.

A removed modality is not given to the model at all, as if it had not been acquired. The model stays as it is, so this
measures dependence. What a sensor is worth is another question, which only a model trained without it can answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cityheads.evaluation import metrics
from cityheads.evaluation.gate import pair

__all__ = ["averaged", "how_to_read", "measure"]


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


def measure(full: np.ndarray, removed: np.ndarray, metric: str, parents: Sequence[str]) -> dict[str, Any]:
    """Score one head of one model with a modality removed, against itself with everything there.

    Args:
        full: (parents, C, C) counts of the full model, rows true.
        removed: The same with the modality removed.
        metric: ``miou`` or ``iou``.
        parents: Ids of the test parents.

    Returns:
        JSON values, undefined ones as None: ``value``, ``delta_pp`` (removed minus full, from scores that are rounded
        as the gate rounds them), ``interval_pp``, ``iou`` per class, ``confusion`` and ``per_parent``.
    """
    pooled = removed.sum(0)
    found = _difference(full[None], removed[None], metric, len(parents), metrics.CONFIDENCE)
    return {
        "value": metrics.or_none(metrics.head_metric(pooled, metric)),
        "delta_pp": found["delta_pp"],
        "interval_pp": found["interval_pp"],
        "iou": metrics.or_none(metrics.class_iou(pooled)),
        "confusion": pooled.tolist(),
        "per_parent": {
            parent: {
                "confusion": removed[index].tolist(),
                "value": metrics.or_none(metrics.head_metric(removed[index], metric)),
                "delta_pp": metrics.or_none(pair(removed[None, [index]], full[None, [index]], metric, None).delta_pp),
            }
            for index, parent in enumerate(parents)
        },
    }


def averaged(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]] | None:
    """Average the table of one run over its seeds.

    Args:
        evaluations: ``metrics.json`` of every seed of a run.

    Returns:
        {modality: {head: {``full``, ``value``, ``delta_pp``, ``interval_pp``}}}, undefined values None; the interval
        holds the chance in the choice of parents and, with several seeds, that in the training. None where the
        evaluations did not measure it.
    """
    first = evaluations[0]
    if any(one.get("without") is None for one in evaluations):
        return None
    parents = first["parents"]

    def stack(parts: Sequence[Mapping[str, Any]]) -> np.ndarray:
        return np.array([[one["per_parent"][name]["confusion"] for name in parents] for one in parts], np.int64)

    return {
        modality: {
            head: _difference(
                stack([one["heads"][head] for one in evaluations]),
                stack([one["without"][modality][head] for one in evaluations]),
                first["heads"][head]["metric"]["name"],
                len(parents),
                first["confidence"],
            )
            for head in heads
        }
        for modality, heads in first["without"].items()
    }


def _difference(full: np.ndarray, removed: np.ndarray, metric: str, parents: int, confidence: float) -> dict[str, Any]:
    """Compare (seeds, parents, C, C) counts on the same resampled parents."""
    draws = metrics.resample_counts(parents, metrics.RESAMPLES, metrics.BOOTSTRAP_SEED)
    found = pair(removed, full, metric, draws)
    return {
        "full": metrics.or_none(found.scores[1]),
        "value": metrics.or_none(found.scores[0]),
        "delta_pp": metrics.or_none(found.delta_pp),
        "interval_pp": found.interval(confidence),
    }
