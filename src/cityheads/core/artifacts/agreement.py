"""What the scene choices of all parents keep to, so that they go together: a window of dates, and an orbit.

It is made once, before the first choice, and kept: a parent that is added later keeps to it as well, and those
that have their scenes already are not chosen again.
"""

from __future__ import annotations

from pathlib import Path

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["AGREEMENT", "AgreedOrbit", "AgreedWindow", "Agreement", "read_agreement"]


class AgreedWindow(TypedDict):
    """The dates within which Sentinel-2 scenes are sought first; both ends belong to it (RFC 3339)."""

    start: str
    end: str
    #: Parents that find a scene in it that costs no more than the config tolerates above their best one.
    parents: int


class AgreedOrbit(TypedDict):
    """The relative orbit of one layer of Sentinel-1, and how many parents it covers near their Sentinel-2 scene."""

    relative_orbit: int
    #: ``ascending`` or ``descending``; None where the items do not say.
    orbit_state: str | None
    parents: int


class Agreement(TypedDict):
    """What all choices keep to; ``parents`` are those of the sheet when it was made."""

    parents: list[str]
    #: None where the config asks for none, and where no two parents could share one.
    window: AgreedWindow | None
    #: By layer; without those whose items name no orbit.
    orbits: dict[str, AgreedOrbit]


AGREEMENT = Artifact("scene agreement", "agree_scenes", 1, Agreement)


def read_agreement(path: Path | None) -> Agreement:
    """Read an agreement; None gives one that holds nobody to anything.

    Raises:
        CityHeadsError: The file is missing or no agreement.
    """
    return {"parents": [], "window": None, "orbits": {}} if path is None else AGREEMENT.read(path)
