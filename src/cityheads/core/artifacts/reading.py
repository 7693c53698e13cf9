"""What was read of a parent's scenes: where each layer's pixels come from, what was done to them, what they measure."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact
from cityheads.core.artifacts.scenes import Scaling

__all__ = ["READING", "LayerReading", "LayerRecord", "OffsetCheck", "Reading", "Source"]


class Source(TypedDict):
    """Where the pixels of an item come from; ``baseline`` is Sentinel-2's processing baseline."""

    datetime: str | None
    baseline: str | float | None
    hrefs: dict[str, str]


class OffsetCheck(TypedDict):
    """Whether an item's pixels agree with what is subtracted from them, and what that rests on.

    ``floor_dn`` is the second percentile of the darkest band before anything is subtracted, None where nothing was
    looked at. ``set`` is a value that the config gives (``offset_of``), whatever pixels and catalogue say.
    """

    verdict: Literal["agrees", "disagrees", "undecided", "set"]
    because: str
    floor_dn: float | None


class LayerRecord(TypedDict):
    """What was done to one layer and what it measures.

    Fractions are of the parent's pixels; ``resampling`` is by band, and ``none`` where the grids agree.
    """

    items: list[str]
    #: By id of the item.
    sources: dict[str, Source]
    resampling: dict[str, str]
    unit_conversion: str
    valid_fraction: float
    #: Of the valid pixels, by the scene classification; None where there is none.
    clear_fraction: float | None
    #: S2L2A: what was subtracted, by id of the item.
    offset_dn: NotRequired[dict[str, int]]
    #: S2L2A: whether the pixels agree with that, by id of the item.
    offset_check: NotRequired[dict[str, OffsetCheck]]
    #: Scale and offset that the assets declare and that were applied, by id of the item and band.
    scaling: NotRequired[dict[str, dict[str, Scaling]]]
    #: S2L2A: share of the values that are physically possible.
    in_range_fraction: NotRequired[float]
    #: S2L2A: by band, in digital numbers.
    median: NotRequired[dict[str, float]]
    #: Radar: by polarisation; None where a generated one has no valid pixel.
    median_db: NotRequired[dict[str, float | None]]
    #: DEM: lowest and highest, in metres.
    range_m: NotRequired[list[float]]
    #: A generated layer: by what, from what, with which settings.
    synthesized: NotRequired[dict[str, Any]]


class LayerReading(LayerRecord):
    """One layer with the hashes of its GeoTIFFs; only S2L2A can have scene classification and cloud probability."""

    sha256: str
    sha256_SCL: NotRequired[str]
    sha256_CLD: NotRequired[str]


class Reading(TypedDict):
    """Everything that was read of one parent."""

    parent_id: str
    simulated: bool
    #: By modality.
    layers: dict[str, LayerReading]
    #: Of the packages that made the pixels.
    versions: dict[str, str]


READING = Artifact("reading", "read_parent", 2, Reading)
