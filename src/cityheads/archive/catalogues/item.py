"""STAC items as the plain JSON that they are, their times and footprints.

One process per parent reads the catalogue anew, and object models would cost more than the choice itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import shapely

from cityheads.core.errors import CityHeadsError
from cityheads.core.redaction import scrub
from cityheads.core.times import Interval, parse_time

__all__ = ["Item", "checked", "time_of", "within"]

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
                return time_of(str(self.properties[key]), f"item {self.id}: property '{key}'")
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


def time_of(text: str, where: str) -> datetime:
    """Read a time of an item, as `parse_time` does; ``where`` names it in the message.

    Raises:
        CityHeadsError: It is none.
    """
    try:
        return parse_time(text)
    except ValueError as error:
        raise CityHeadsError(f"{where}: {error}") from None


def within(item: Item, interval: Interval) -> bool:
    """Tell whether the item's time, or any part of its period, lies in an interval."""
    start, end = interval
    last = item.when
    if item.properties.get("end_datetime") and not item.properties.get("datetime"):
        last = time_of(str(item.properties["end_datetime"]), f"item {item.id}: property 'end_datetime'")
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
