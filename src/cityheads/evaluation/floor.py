"""What comes before any verdict: models that beat trivial rules, and an encoder that does something.

A comparison of two models that a rule of thumb beats says nothing about sharing an encoder, and neither does one of
models whose encoder is idle: it then costs nothing to share by construction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cityheads.core.artifacts.gate import Encoder, Floor, Lead, Reference
from cityheads.core.confusion import HeadMetric, or_none
from cityheads.evaluation.paired import compare_paired, score_interval

__all__ = ["CEILING", "CONTROLS", "REQUIRED", "TRAINED", "Scored", "against", "encoder", "floor"]

#: What needs no network, in words that follow "a model does not beat". The proxy exists for some heads only.
CONTROLS = {
    "majority": "calling everything the most common class",
    "proxy": "taking a class of another map for it",
    "pixels": "pixel-wise boosting",
    "pixels_context": "pixel-wise boosting with context",
}

#: Those without which there is no floor.
REQUIRED = ("majority", "pixels", "pixels_context")

#: The tested run with another encoder, trained as it was.
TRAINED = {
    "no_encoder": "the same model without an encoder",
    "frozen_encoder": "the same model with its encoder as it was before training",
    "random_encoder": "the same model from random weights",
}

#: The planted upper bound of a simulated archive.
CEILING = "ceiling"

#: The tested run with something taken away at test time.
_OCCLUDED = {"zeroed": "with its encoder's output set to zero", "permuted": "with its encoder's output of another chip"}


@dataclass(frozen=True)
class Scored:
    """What something predicted for one head.

    Attributes:
        counts: (seeds, parents, C, C) counts, rows true.
        seeds: Its seeds, in the order of ``counts``; None for what has no chance in it.
    """

    counts: np.ndarray
    seeds: tuple[int, ...] | None

    def beside(self, other: Scored) -> tuple[np.ndarray, np.ndarray]:
        """Give both counts with the seeds that both have, so that neither hides the chance in its trainings."""
        if other.seeds is None or self.seeds is None or other.seeds == self.seeds:
            return self.counts, other.counts
        common = [seed for seed in self.seeds if seed in other.seeds]
        if not common:
            return self.counts[:1], other.counts[:1]
        return (
            self.counts[[self.seeds.index(seed) for seed in common]],
            other.counts[[other.seeds.index(seed) for seed in common]],
        )


def against(
    models: Mapping[str, Scored],
    other: Scored,
    metric: HeadMetric,
    folds: Sequence[int],
    confidence: float,
) -> Reference:
    """Hold models against something else on the same parents.

    Args:
        models: Compared runs by name.
        other: What they are held against.
        metric: The head's score.
        folds: (parents,) fold in which each parent was tested.
        confidence: Of the intervals.
    """
    leads: dict[str, Lead] = {}
    score = None
    for name, model in models.items():
        found = compare_paired(*model.beside(other), metric, folds)
        between = found.interval(confidence)
        score = or_none(found.scores[1])
        leads[name] = {
            "score": or_none(found.scores[0]),
            "delta_pp": or_none(found.delta_pp),
            "interval_pp": between,
            "beaten": between is not None and between[0] > 0,
        }
    return {"score": score, "interval": score_interval(other.counts, metric, confidence, folds), "models": leads}


def encoder(
    run: str,
    model: Scored,
    occluded: Mapping[str, Scored],
    trained: Mapping[str, Scored],
    metric: HeadMetric,
    folds: Sequence[int],
    confidence: float,
) -> Encoder:
    """Say what the encoder is worth for one head.

    Args:
        run: The tested run.
        model: What it predicted.
        occluded: What it predicts with something taken away: ``zeroed``, ``permuted``, ``image_skip``.
        trained: Controls with another encoder, by name.
        metric: The head's score.
        folds: (parents,) fold in which each parent was tested.
        confidence: Of the intervals.
    """
    hidden = {name: against({run: model}, one, metric, folds, confidence) for name, one in occluded.items()}
    other = {name: against({run: model}, one, metric, folds, confidence) for name, one in trained.items()}
    asked = [hidden.get("zeroed"), hidden.get("permuted"), other.get("no_encoder")]
    measured = [one["models"][run]["beaten"] for one in asked if one is not None]
    return {
        "zeroed": hidden.get("zeroed"),
        "permuted": hidden.get("permuted"),
        "image_skip": hidden.get("image_skip"),
        "trained": other,
        "matters": all(measured) if len(measured) == len(asked) else None,
    }


def floor(
    run: str,
    controls: Mapping[str, Mapping[str, Reference]],
    encoders: Mapping[str, Encoder],
    copies: Sequence[str],
) -> Floor:
    """Judge all heads.

    Args:
        run: The tested run.
        controls: Per head and control, the models held against it.
        encoders: Per head, what the encoder is worth.
        copies: Heads for which the tested run and its baseline have the same counts throughout.
    """
    failures = [f"{head}: the run and its baseline predict the same to the pixel; one is a copy." for head in copies]
    missing = []
    for head, references in controls.items():
        missing += [
            f"{head}: the control {name} was not made, so there is no floor."
            for name in REQUIRED
            if name not in references
        ]
        for model in next(iter(references.values()))["models"] if references else []:
            failures += _not_beaten(head, model, run, references)
        failures += _idle(head, encoders[head], run)
        what = {
            "zeroed": "zeroing the encoder's output",
            "permuted": "permuting the encoder's output",
            "no_encoder": "no_encoder",
        }
        found = {**encoders[head]["trained"], **{name: encoders[head][name] for name in ("zeroed", "permuted")}}
        missing += [
            f"{head}: {words} was not measured, so nobody knows whether the encoder matters."
            for name, words in what.items()
            if found.get(name) is None
        ]
    held = (
        not failures
        and not missing
        and all(one["matters"] for one in encoders.values())
        and all(
            lead["beaten"] for all_of in controls.values() for one in all_of.values() for lead in one["models"].values()
        )
    )
    measured = {name for references in controls.values() for name in references}
    return {
        "held": held,
        "measured": [name for name in CONTROLS if name in measured],
        "missing": missing,
        "failures": failures,
    }


def _not_beaten(head: str, model: str, run: str, references: Mapping[str, Reference]) -> list[str]:
    """Name the best control that a model does not beat."""
    lost = {name: one for name, one in references.items() if _lost(one["models"][model])}
    if not lost:
        return []
    name, best = max(lost.items(), key=lambda item: item[1]["score"] or 0.0)
    return [_sentence(head, CONTROLS[name], best, _called(model, run), model)]


def _idle(head: str, found: Encoder, run: str) -> list[str]:
    lines = []
    for name, words in _OCCLUDED.items():
        one = found["zeroed"] if name == "zeroed" else found["permuted"]
        if one is not None and _lost(one["models"][run]):
            lead = one["models"][run]
            scores = f"the shared model scores {lead['score']:.3f}, and {one['score']:.3f} {words}"
            if (lead["delta_pp"] or 0) > 0 and lead["interval_pp"] is not None:
                # a loss that the test parents cannot tell from none is not yet an idle encoder
                low, high = lead["interval_pp"]
                lines.append(
                    f"{head}: the encoder is not shown to matter: {scores} "
                    f"(lead {lead['delta_pp']:+.2f} pp [{low:+.2f}, {high:+.2f}])."
                )
            else:
                lines.append(f"{head}: the encoder is idle: {scores}.")
    one = found["trained"].get("no_encoder")
    if one is not None and _lost(one["models"][run]):
        lines.append(_sentence(head, TRAINED["no_encoder"], one, "the shared model", run))
    return lines


def _lost(lead: Lead) -> bool:
    """Say whether a model does not beat something, in so far as that can be told."""
    if lead["delta_pp"] is None or (lead["interval_pp"] is None and lead["delta_pp"] > 0):
        return False
    return not lead["beaten"]


def _sentence(head: str, words: str, one: Reference, called: str, model: str) -> str:
    lead = one["models"][model]
    if lead["delta_pp"] is not None and lead["delta_pp"] > 0 and lead["interval_pp"] is not None:
        low, high = lead["interval_pp"]
        return (
            f"{head}: {called} scores {lead['score']:.3f}, not clearly more than {words} with {one['score']:.3f} "
            f"(lead {lead['delta_pp']:+.2f} pp [{low:+.2f}, {high:+.2f}])."
        )
    return f"{head}: {words} scores {one['score']:.3f}, {called} {lead['score']:.3f}."


def _called(model: str, run: str) -> str:
    return "the shared model" if model == run else f"the single-task model {model}"
