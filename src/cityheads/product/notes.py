"""Names and sentences that several pages share."""

from __future__ import annotations

from collections.abc import Iterable

from cityheads.config import SynthesisConfig
from cityheads.core.artifacts.gate import HeadComparison, Reference
from cityheads.core.artifacts.scenes import SceneChoice, years_of
from cityheads.core.artifacts.statistics import DatasetStatistics

__all__ = ["CONTROLS", "control_name", "floor_of", "synthesized_notes", "year_notes"]

#: What each control is, in words that need no other.
CONTROLS = {
    "majority": "always the most frequent class",
    "proxy": "the class of another reference map",
    "pixels": "boosted trees that see one pixel",
    "pixels_context": "boosted trees that see a pixel and means around it",
    "no_encoder": "the same model without an encoder",
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


def year_notes(choices: Iterable[SceneChoice], labels: Iterable[str]) -> list[str]:
    """Say which labels from the archive are of other years than the images.

    Args:
        choices: The scenes of all parents.
        labels: Names of the label layers.

    Returns:
        A sentence for each label of which some parent's map and images share no year.
    """
    choices = list(choices)
    notes = []
    for label in labels:
        apart = []
        for choice in choices:
            mapped, seen = years_of(choice, label), years_of(choice, "S2L2A")
            if mapped and seen and not set(mapped) & set(seen):
                apart.append((mapped, seen))
        if apart:
            maps, images = ({year for pair in apart for year in pair[side]} for side in (0, 1))
            notes.append(
                f"The labels of {label} are of {_years(maps)}, the images of {_years(images)} (in {len(apart)} of "
                f"{len(choices)} parents): where the ground changed in between, the labels are wrong, and a model that "
                "sees the change is counted as wrong."
            )
    return notes


def _years(years: set[int]) -> str:
    return ", ".join(map(str, sorted(years)))
