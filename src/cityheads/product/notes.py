"""Names and sentences that several pages share."""

from __future__ import annotations

from cityheads.config import SynthesisConfig
from cityheads.core.artifacts.gate import HeadComparison, Reference
from cityheads.core.artifacts.statistics import DatasetStatistics

__all__ = ["CONTROLS", "control_name", "floor_of", "synthesized_notes"]

#: What each control is, in words that need no other.
CONTROLS = {
    "majority": "always the most frequent class",
    "proxy": "the class of another reference map",
    "pixels": "boosted trees that see one pixel",
    "pixels_context": "boosted trees that see a pixel and means around it",
    "no_encoder": "the same decoder without an encoder",
    "frozen_encoder": "the encoder left at its starting weights",
    "random_encoder": "the same training from random weights",
    "ceiling": "the true cover held against the same imperfect labels",
}


def control_name(name: str) -> str:
    """Say what a control is; its own name where nothing is known of it."""
    return CONTROLS.get(name, name.replace("_", " "))


def floor_of(part: HeadComparison) -> tuple[str, Reference] | None:
    """Give the best control of a head with its name; None where none has a score."""
    scored = {name: one for name, one in part["controls"].items() if one["score"] is not None}
    if not scored:
        return None
    best = max(scored, key=lambda name: (scored[name]["score"] or 0.0, name))
    return best, scored[best]


def synthesized_notes(statistics: DatasetStatistics, synthesis: SynthesisConfig) -> list[str]:
    """Say which modalities of the dataset were not acquired but generated, and by what.

    Args:
        statistics: Statistics of the dataset.
        synthesis: How modalities are generated.

    Returns:
        A sentence for each modality of which there is something to say.
    """
    trained = synthesis.pretrained or synthesis.weights
    maker = synthesis.backbone if trained else "an untrained generator, so that they are noise in the right units"
    notes = []
    for name, counts in statistics["synthesized"].items():
        made = {split: count for split, count in counts.items() if count}
        if made:
            total = sum(statistics["chips"].values())
            where = ", ".join(f"{count} of {statistics['chips'][split]} in {split}" for split, count in made.items())
            notes.append(
                f"{name} of {sum(made.values())} of {total} sub-chips ({where}) was not acquired: it was generated "
                f"from the other modalities by {maker}."
            )
    return notes
