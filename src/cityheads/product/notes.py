"""Sentences that several pages share."""

from __future__ import annotations

from cityheads.config import SynthesisConfig
from cityheads.core.artifacts.statistics import DatasetStatistics

__all__ = ["synthesized_notes"]


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
