"""``settings.json``: what a search on the validation split chose for a run."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["SETTINGS", "Candidate", "ChosenSettings"]


class Candidate(TypedDict):
    """Settings that were tried.

    Attributes:
        settings: Values by dotted key of the config.
        score: Validation score, the mean of the heads' metrics; None where it is undefined.
    """

    settings: dict[str, Any]
    score: float | None


class ChosenSettings(TypedDict):
    """The choice.

    Attributes:
        run: Name of the run.
        fold: Fold whose validation parents chose.
        seed: Seed with which the candidates were trained.
        chosen: Settings of the candidate with the best score, of equals the first.
        candidates: All candidates, in the order of the config's grid.
    """

    run: str
    fold: int
    seed: int
    chosen: dict[str, Any]
    candidates: list[Candidate]


SETTINGS = Artifact("choice of settings", "choose_settings", 1, ChosenSettings)
