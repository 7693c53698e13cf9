"""STAC items as the plain JSON that they are, their times and footprints.

One process per parent reads the catalogue anew, and object models would cost more than the choice itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from functools import cached_property
from typing import Any

import shapely

from cityheads.archive.hrefs import scrub
from cityheads.core.errors import CityHeadsError

__all__ = ["Interval", "Item", "checked", "parse_interval", "parse_time", "within"]

#: First and last moment; None where the interval is open.
Interval = tuple[datetime | None, datetime | None]

_ID = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


@dataclass(frozen=True)
class Item:
    """One STAC item, as its JSON.

    Attributes:
        raw: The JSON object.
        document: Path or URL from which relative hrefs start.
        root: Folder or URL of the catalogue.
    """

    raw: Mapping[str, Any]
    document: str
    root: str

    @property
    def id(self) -> str:
        """The item's id."""
        return str(self.raw["id"])

    @property
    def properties(self) -> Mapping[str, Any]:
        """The item's properties."""
        found: Mapping[str, Any] = self.raw.get("properties") or {}
        return found

    @cached_property
    def when(self) -> datetime:
        """Acquisition, or the start of the period that the item stands for."""
        for key in ("datetime", "start_datetime"):
            if self.properties.get(key):
                return parse_time(str(self.properties[key]), f"item {self.id}: property '{key}'")
        raise CityHeadsError(f"item {self.id}: has neither datetime nor start_datetime")

    @cached_property
    def footprint(self) -> shapely.Geometry:
        """The raster's own footprint in longitude and latitude; the bounding box only where there is no geometry."""
        geometry = self.raw.get("geometry")
        if geometry is None:
            if not self.raw.get("bbox"):
                return shapely.Point()
            return shapely.box(*_flat_bbox(self.raw["bbox"]))
        from shapely.geometry import shape

        try:
            found = shape(geometry)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, shapely.errors.ShapelyError):
            raise CityHeadsError(f"item {self.id}: its geometry is not valid GeoJSON") from None
        return found if found.is_valid else shapely.make_valid(found)

    def touches(self, polygon: shapely.Geometry) -> bool:
        """Tell whether the footprint shares area with a polygon (EPSG:4326)."""
        bbox = self.raw.get("bbox")
        if bbox:
            west, south, east, north = _flat_bbox(bbox)
            left, bottom, right, top = polygon.bounds
            # a box across the antimeridian has its west east of its east; the geometry decides
            if west <= east and (east < left or right < west or north < bottom or top < south):
                return False
        return bool(self.footprint.intersection(polygon).area > 0)


def _flat_bbox(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    if len(bbox) == 6:
        return bbox[0], bbox[1], bbox[3], bbox[4]
    return bbox[0], bbox[1], bbox[2], bbox[3]


def parse_time(text: str, where: str) -> datetime:
    """Read a time as STAC writes it; one without a zone is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise CityHeadsError(f"{where}: '{text}' is not a time as STAC writes it") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def parse_interval(text: str, key: str) -> Interval:
    """Read a STAC interval: ``A/B``, ``A/..``, ``../B`` or one date; a date without a time is the whole day.

    Args:
        text: The interval.
        key: Config key, for messages.

    Raises:
        CityHeadsError: No interval, or one that ends before it starts.
    """
    first, slash, last = text.partition("/")
    last = last if slash else first
    ends: list[datetime | None] = []
    for part, clock in ((first, time.min), (last, time.max)):
        if part in ("", ".."):
            ends.append(None)
            continue
        parsed = parse_time(part, f"config key '{key}'")
        ends.append(datetime.combine(parsed.date(), clock, UTC) if "T" not in part.upper() else parsed)
    if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
        raise CityHeadsError(f"config key '{key}': '{text}' ends before it starts")
    return ends[0], ends[1]


def within(item: Item, interval: Interval) -> bool:
    """Tell whether the item's time, or any part of its period, lies in an interval."""
    start, end = interval
    last = item.when
    if item.properties.get("end_datetime") and not item.properties.get("datetime"):
        last = parse_time(str(item.properties["end_datetime"]), f"item {item.id}: property 'end_datetime'")
    return (start is None or last >= start) and (end is None or item.when <= end)


def checked(item: Item) -> Item:
    """Give an item back that has what every item must have.

    Raises:
        CityHeadsError: It has no proper id or no assets.
    """
    if not isinstance(item.raw.get("id"), str) or not _ID.fullmatch(item.id):
        raise CityHeadsError(f"{scrub(item.document)}: an item without a proper id")
    if not isinstance(item.raw.get("assets"), dict):
        raise CityHeadsError(f"item {item.id}: has no assets")
    return item
