"""The scene choice of a parent: which items of the catalogue each layer is made of, and why these.

It is frozen: everything after it reads the items that it names, and the catalogue is not searched again. Hrefs are
URLs without secrets, or relative to the catalogue's folder (or to ``archive.asset_base``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Parent

__all__ = [
    "SCENES",
    "ChoiceCost",
    "ChosenItem",
    "ChosenLayer",
    "Place",
    "Rejection",
    "Scaling",
    "SceneChoice",
    "item_time",
    "read_scenes",
    "years_of",
]


class Place(TypedDict):
    """Where the parent lay when the choice was made; see `cityheads.core.grid.Parent`."""

    parent_id: str
    epsg: int
    left: float
    top: float


class Rejection(TypedDict):
    """An item over the parent that was not taken, and why."""

    id: str
    reason: str


class Scaling(TypedDict):
    """How an asset's numbers become values: number x scale + offset."""

    scale: float
    offset: float


class ChosenItem(TypedDict):
    """One STAC item; ``assets`` maps our band names to hrefs, ``properties`` are those that explain the choice."""

    id: str
    collection: str | None
    #: Where its document is; a shipped choice may not say.
    self: NotRequired[str]
    #: None where the item stands for a period; its ``start_datetime`` is among the properties then.
    datetime: str | None
    properties: dict[str, Any]
    #: Sentinel-2 only: what is subtracted from the digital numbers.
    offset_dn: NotRequired[int]
    #: Where assets declare it, by our band names.
    scaling: NotRequired[dict[str, Scaling]]
    assets: dict[str, str]


class ChoiceCost(TypedDict):
    """What the chosen overflight costs: three shares and distances, the points of each, and their sum.

    Percents are of the parent, measured at low resolution; the weights are those of the config
    (``archive.imagery.S2L2A.cost``) when the choice was made.
    """

    points: float
    #: None where nothing tells of clouds; that costs nothing.
    cloud_percent: float | None
    missing_percent: float
    days: float
    cloud_points: float
    missing_points: float
    day_points: float


class ChosenLayer(TypedDict):
    """What one modality or land-cover label is made of; the first item has priority where they overlap.

    ``considered`` counts the items over the parent; the fractions are of the parent, measured at low resolution, and
    None where nothing was measured.
    """

    collection: str | None
    why: str
    considered: int
    rejected: list[Rejection]
    valid_fraction: float | None
    clear_fraction: float | None
    #: Sentinel-2 only; a choice that was made before there was a cost has none.
    cost: NotRequired[ChoiceCost]
    #: There and true where no scene was found, and the layer is to be generated from the others.
    synthesized: NotRequired[bool]
    items: list[ChosenItem]


class SceneChoice(TypedDict):
    """The choice for one parent; ``layers`` are by modality, and by label for land cover."""

    parent: Place
    #: Whether the catalogue or an item says that its pixels are simulated.
    simulated: bool
    #: URL or path of the catalogue.
    catalog: str
    layers: dict[str, ChosenLayer]


SCENES = Artifact("scene choice", "select_scenes", 1, SceneChoice)


def read_scenes(path: Path, parent: Parent) -> SceneChoice:
    """Read a scene choice and check that it was made for this parent, at this place.

    Raises:
        CityHeadsError: The file is missing or no scene choice, or it is of another place.
    """
    choice = SCENES.read(path)
    place = choice["parent"]
    same = place["parent_id"] == parent.parent_id and place["epsg"] == parent.epsg
    if not (same and abs(place["left"] - parent.left) < 1e-6 and abs(place["top"] - parent.top) < 1e-6):
        raise CityHeadsError(
            f"{path}: chosen for {place['parent_id']} at {place['left']}, {place['top']} (EPSG:{place['epsg']}), which "
            f"is not where {parent.parent_id} lies now; delete it and run again"
        )
    return choice


def years_of(choice: SceneChoice, layer: str) -> list[int]:
    """Give the years of a layer's items, sorted; none where the layer is not there or its items have no time."""
    items = choice["layers"][layer]["items"] if layer in choice["layers"] else []
    times = [item["datetime"] or item["properties"].get("start_datetime") for item in items]
    return sorted({int(time[:4]) for time in times if time})


def item_time(item: ChosenItem) -> str:
    """Give the time of an item, or the start of the period that it stands for."""
    return str(item["datetime"] or item["properties"]["start_datetime"])
