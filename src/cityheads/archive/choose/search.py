"""What every layer's choice has at hand: catalogue, parent, and how an item is looked at and written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from cityheads.archive.catalogues.item import Item
from cityheads.archive.catalogues.open import Catalog
from cityheads.archive.hrefs import base_of, stored_document, stored_href
from cityheads.archive.raster import open_raster
from cityheads.archive.scaling import declared
from cityheads.archive.warp import Target, read_onto
from cityheads.config import ArchiveConfig
from cityheads.core.artifacts.scenes import ChosenItem, Rejection, Scaling
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, Parent, parent_polygon
from cityheads.core.times import Interval

__all__ = ["NO_DATA", "SPARE", "Search", "by_cover", "lack", "nothing", "reasons"]

#: Why an item was not taken, in words that the choices of all sensors share.
NO_DATA = "no pixel over the parent has data"
SPARE = "another tile or frame of the chosen pass already covers its part of the parent"

#: The parent is measured at this many times its pixel size: 40 m, an overview of the 20 m scene classification.
_COARSE = 4

#: What of an item's properties is kept in the frozen choice, to explain it.
_KEPT = (
    "eo:cloud_cover", "s2:processing_baseline", "s2:mgrs_tile", "grid:code", "s2:datatake_id", "platform",
    "sat:orbit_state", "sat:relative_orbit", "sat:absolute_orbit", "start_datetime", "end_datetime",
    "earthsearch:boa_offset_applied", "gsd", "cityheads:simulated",
)  # fmt: skip


@dataclass(frozen=True)
class Search:
    """A catalogue that is searched for one parent.

    Attributes:
        archive: How the catalogue and its rasters are read.
        parent: The parent.
        coarse: Its grid at low resolution, on which candidates are measured.
        fine: Its grid.
        polygon: Its square in longitude and latitude.
        catalog: The catalogue.
    """

    archive: ArchiveConfig
    parent: Parent
    coarse: Target
    fine: Target
    polygon: shapely.Geometry
    catalog: Catalog

    @classmethod
    def of(cls, archive: ArchiveConfig, parent: Parent, grid: Grid, catalog: Catalog) -> Search:
        """Search a catalogue for a parent."""
        factor = next(step for step in range(_COARSE, 0, -1) if grid.parent_px % step == 0)
        coarse, fine = Target.of_parent(parent, grid, factor), Target.of_parent(parent, grid)
        return cls(archive, parent, coarse, fine, parent_polygon(parent, grid, 4326), catalog)

    def find(self, collection: str, interval: Interval | None) -> tuple[list[Item], list[Item], list[tuple[Item, str]]]:
        """Search a collection for what lies over the parent.

        Returns:
            All items; those that the config does not exclude; and the others, with that as the reason.
        """
        items = self.catalog.search(collection, self.polygon, interval)
        excluded = [item for item in items if item.id in self.archive.exclude]
        kept = [item for item in items if item.id not in self.archive.exclude]
        return items, kept, [(item, "excluded by the config (archive.exclude)") for item in excluded]

    def asset(self, item: Item, key: str, band: str) -> str:
        """Give the stored href of an item's asset."""
        where = f"collection {item.raw.get('collection')}: item {item.id}: band {band}"
        asset = item.raw["assets"].get(key)
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
            raise CityHeadsError(
                f"{where}: the item has no asset '{key}'; it has {', '.join(sorted(item.raw['assets'])) or 'none'}"
            )
        return stored_href(
            item.document,
            asset["href"],
            root=self.catalog.root,
            asset_base=self.archive.asset_base,
            signed=self.archive.sign != "none",
            where=where,
        )

    def coarse_pixels(self, item: Item, key: str, band: str, nodata: float) -> np.ndarray:
        """Read an asset over the parent at low resolution; ``nodata`` holds also where the raster declares none."""
        where = f"collection {item.raw.get('collection')}: item {item.id}: band {band}"
        base = base_of(self.catalog.location, self.archive.asset_base)
        with open_raster(self.asset(item, key, band), base, archive=self.archive, where=where) as source:
            return read_onto(source, self.coarse, resampling="nearest", fill=nodata, default_nodata=nodata)

    def scaling(self, item: Item, assets: Mapping[str, str]) -> dict[str, Scaling]:
        """Give what the assets declare about their numbers; ``assets`` maps our band names to the item's keys."""
        found = {}
        for band, key in assets.items():
            try:
                scaling = declared(item.raw["assets"].get(key) or {})
            except ValueError as error:
                raise CityHeadsError(f"item {item.id}: asset '{key}': {error}, no usable number") from None
            if scaling is not None:
                found[band] = scaling
        return found

    def frozen(self, item: Item, assets: Mapping[str, str]) -> ChosenItem:
        """Give the item as scene choices keep it; ``assets`` maps our band names to the item's keys."""
        chosen: ChosenItem = {
            "id": item.id,
            "collection": item.raw.get("collection"),
            "self": stored_document(item.document, self.catalog.root),
            "datetime": item.properties.get("datetime"),
            "properties": {key: item.properties[key] for key in _KEPT if key in item.properties},
            "assets": {band: self.asset(item, key, band) for band, key in assets.items()},
        }
        scaling = self.scaling(item, assets)
        if scaling:
            chosen["scaling"] = scaling
        return chosen


def by_cover(search: Search, items: Iterable[Item]) -> list[Item]:
    """Order items by how much of the parent they cover, those in the parent's own CRS first."""

    def key(item: Item) -> tuple[bool, float, str]:
        epsg = item.properties.get("proj:epsg", str(item.properties.get("proj:code", "")).rpartition(":")[2])
        area = float(item.footprint.intersection(search.polygon).area)
        return str(epsg) != str(search.parent.epsg), -round(area, 12), item.id

    return sorted(items, key=key)


def reasons(rejected: Iterable[tuple[Item, str]]) -> list[Rejection]:
    """Give what was not chosen and why, by id."""
    return [{"id": item.id, "reason": reason} for item, reason in sorted(rejected, key=lambda pair: pair[0].id)]


def nothing(
    search: Search, layer: str, collection: str | None, items: Sequence[Item], rejected: Sequence[tuple[Item, str]]
) -> CityHeadsError:
    """Give the error that says why no item is left."""
    where = f"{search.parent.parent_id}: {layer}: collection '{collection}'"
    advice = "" if items else "; check the period and the parent's place"
    return CityHeadsError(f"{where}: {lack(items, rejected)}{advice}")


def lack(items: Sequence[Item], rejected: Sequence[tuple[Item, str]]) -> str:
    """Say why none of the items over the parent was chosen."""
    if not items:
        return "no item covers the parent"
    first = sorted(rejected, key=lambda pair: pair[0].id)[0] if rejected else None
    detail = f"; {first[0].id}: {first[1]}" if first else ""
    return f"none of {len(items)} item(s) over the parent is usable{detail}"
