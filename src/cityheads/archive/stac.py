"""Choose the scenes of one parent from a STAC API or a static catalogue, and freeze the choice with its reasons.

Items are handled as the plain JSON that they are: one process per parent reads the catalogue anew, and object models
would cost more than the choice itself. Only a STAC API brings in ``pystac_client``.
"""

from __future__ import annotations

import json
import logging
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from cityheads.archive import network
from cityheads.archive.warp import Target, read_onto
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, write_json
from cityheads.core.grid import Grid, Parent, find_parent, parent_polygon, read_parents
from cityheads.core.modalities import MODALITIES, RADAR, SCL_CLEAR, SCL_NODATA

__all__ = ["Item", "acquired", "offset_dn", "open_catalog", "parse_interval", "read_scenes", "select_scenes"]

log = logging.getLogger(__name__)

#: From this processing baseline on, Level-2A digital numbers carry +1000 (ESA, Sentinel-2 Products Specification
#: Document 14.9, BOA_ADD_OFFSET; introduced on 25 January 2022).
_OFFSET_BASELINE = (4, 0)
_OFFSET_DN = 1000

#: What of an item's properties is kept in the frozen choice, to explain it.
_KEPT = (
    "eo:cloud_cover", "s2:processing_baseline", "s2:mgrs_tile", "grid:code", "s2:datatake_id", "platform",
    "sat:orbit_state", "sat:relative_orbit", "sat:absolute_orbit", "start_datetime", "end_datetime",
    "earthsearch:boa_offset_applied", "gsd", "cityheads:simulated",
)  # fmt: skip

#: The parent is measured at this many times its pixel size: 40 m, an overview of the 20 m scene classification.
_COARSE = 4

#: A radar pass that covers this much of the parent counts as covering it; the rest is up to the quality test.
_FULL_COVER = 0.995

#: Two processings of a product have footprints that differ by their rounding; this share may stick out.
_SUPERSEDED_REST = 0.02

#: More documents than this in one static catalogue are refused (a loop, or a catalogue that needs an API).
_MAX_DOCUMENTS = 50_000

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
                return _parse_time(str(self.properties[key]), f"item {self.id}: property '{key}'")
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


def _parse_time(text: str, where: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise CityHeadsError(f"{where}: '{text}' is not a time as STAC writes it") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def parse_interval(text: str, key: str) -> tuple[datetime | None, datetime | None]:
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
        parsed = _parse_time(part, f"config key '{key}'")
        ends.append(datetime.combine(parsed.date(), clock, UTC) if "T" not in part.upper() else parsed)
    if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
        raise CityHeadsError(f"config key '{key}': '{text}' ends before it starts")
    return ends[0], ends[1]


def _within(item: Item, interval: tuple[datetime | None, datetime | None]) -> bool:
    """Tell whether the item's time, or any part of its period, lies in an interval."""
    start, end = interval
    last = item.when
    if item.properties.get("end_datetime") and not item.properties.get("datetime"):
        last = _parse_time(str(item.properties["end_datetime"]), f"item {item.id}: property 'end_datetime'")
    return (start is None or last >= start) and (end is None or item.when <= end)


class StaticCatalog:
    """A catalogue of linked JSON documents, on disk or on a web server."""

    def __init__(self, location: str, document: dict[str, Any], archive: Mapping[str, Any]) -> None:
        self.location = location
        self.root = posixpath.dirname(location) if network.is_remote(location) else str(Path(location).parent)
        self._document = document
        self._archive = archive

    @property
    def simulated(self) -> bool:
        """Whether the catalogue says that its pixels are simulated."""
        return self._document.get("cityheads:simulated") is True

    def search(
        self,
        collection: str,
        polygon: shapely.Geometry,
        interval: tuple[datetime | None, datetime | None] | None,
    ) -> list[Item]:
        """Give the items of a collection whose footprint shares area with a polygon, whatever their time.

        Raises:
            CityHeadsError: No such collection, or a document that cannot be read.
        """
        del interval  # items outside it are few, and naming them explains an empty result
        found: dict[str, Item] = {}
        ids: set[str] = set()
        known = False
        for document, raw in self._walk(collection):
            if raw.get("type") == "Collection":
                ids.add(str(raw.get("id")))
                known = known or raw.get("id") == collection
                continue
            if raw.get("collection") != collection:
                continue
            known = True
            item = _checked(Item(raw, document, self.root))
            if item.touches(polygon):
                found[item.id] = item
        if not known:
            raise CityHeadsError(
                f"{network.scrub(self.location)}: no collection '{collection}'; "
                f"there are {', '.join(sorted(ids)) or 'none'}"
            )
        return [found[key] for key in sorted(found)]

    def _walk(self, collection: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every document below the root, without descending into other collections."""
        seen = {self.location}
        level = [(self.location, self._document)]
        while level:
            links: list[str] = []
            for document, raw in level:
                if raw.get("type") == "Collection" and raw.get("id") != collection:
                    continue
                for link in raw.get("links") or ():
                    if isinstance(link, dict) and link.get("rel") in ("child", "item"):
                        target = network.resolve_link(document, str(link.get("href")), self.root)
                        if target not in seen:
                            seen.add(target)
                            links.append(target)
            if len(seen) > _MAX_DOCUMENTS:
                raise CityHeadsError(
                    f"{network.scrub(self.location)}: more than {_MAX_DOCUMENTS} documents; use an API"
                )
            level = list(zip(links, self._load(links), strict=True))
            yield from level

    def _load(self, locations: Sequence[str]) -> list[dict[str, Any]]:
        if not any(map(network.is_remote, locations)):
            return [network.load_json(location, self._archive) for location in locations]
        with ThreadPoolExecutor(self._archive["workers"]) as pool:
            return list(pool.map(lambda location: network.load_json(location, self._archive), locations))


class ApiCatalog:
    """A STAC API."""

    def __init__(self, location: str, archive: Mapping[str, Any]) -> None:
        from pystac_client import Client

        self.location = location
        self.root = location
        self._client = Client.open(location, stac_io=_patient_io(archive))
        self.simulated = self._client.extra_fields.get("cityheads:simulated") is True

    def search(
        self,
        collection: str,
        polygon: shapely.Geometry,
        interval: tuple[datetime | None, datetime | None] | None,
    ) -> list[Item]:
        """Give the items of a collection that share area with a polygon and lie in an interval.

        Cloud cover is left to the caller: servers without an index on it compare it as text.

        Raises:
            CityHeadsError: No such collection, or a search that fails; a failure is never an empty result.
        """
        from pystac.errors import STACError

        where = f"{network.scrub(self.location)}: collection '{collection}'"
        try:
            self._client.get_collection(collection)
            search = self._client.search(
                collections=[collection],
                intersects=shapely.geometry.mapping(polygon),
                datetime=_interval_text(interval),
                limit=100,
            )
            features = list(search.items_as_dicts())
        except CityHeadsError as error:
            if getattr(error, "status", None) == 404:
                raise CityHeadsError(f"{where}: there is no such collection") from None
            raise CityHeadsError(f"{where}: the search fails: {error}") from None
        except (STACError, KeyError, TypeError, ValueError) as error:
            raise CityHeadsError(f"{where}: the search's answer is no STAC ({network.scrub(str(error))})") from None
        items = {}
        for raw in features:
            if raw.get("collection") != collection:
                continue  # not every server heeds every part of a search
            own = [link.get("href") for link in raw.get("links") or () if link.get("rel") == "self"]
            item = _checked(Item(raw, str(own[0]) if own else self.location, self.root))
            if item.touches(polygon):
                items[item.id] = item
        return [items[key] for key in sorted(items)]


def _patient_io(archive: Mapping[str, Any]) -> Any:
    """Make pystac-client speak through our HTTP client, page by page: what failed is asked for again, and only that."""
    from urllib.parse import urlencode

    from pystac_client.stac_api_io import StacApiIO

    from cityheads.archive.http import client

    http = client(archive)

    class PatientIO(StacApiIO):
        def request(
            self,
            href: str,
            method: str | None = "GET",
            headers: dict[str, str] | None = None,
            parameters: dict[str, Any] | None = None,
        ) -> str:
            sent = {"Accept": "application/json, */*", **(headers or {})}
            body = None
            if method == "POST":
                body = json.dumps(parameters or {}).encode()
                sent["Content-Type"] = "application/json"
            elif parameters:
                href += ("&" if "?" in href else "?") + urlencode(_query(parameters))
            answer = http.get(href, method=method or "GET", body=body, headers=sent, check=json.loads)
            return answer.content.decode()

    return PatientIO()


def _query(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Write search parameters as STAC's GET form has them."""
    written = {}
    for key, value in parameters.items():
        if isinstance(value, (list, tuple)):
            written[key] = ",".join(map(str, value))
        else:
            written[key] = json.dumps(value) if isinstance(value, dict) else str(value)
    return written


def _interval_text(interval: tuple[datetime | None, datetime | None] | None) -> str | None:
    if interval is None or interval == (None, None):
        return None
    return "/".join(end.strftime("%Y-%m-%dT%H:%M:%SZ") if end else ".." for end in interval)


def _checked(item: Item) -> Item:
    if not isinstance(item.raw.get("id"), str) or not _ID.fullmatch(item.id):
        raise CityHeadsError(f"{network.scrub(item.document)}: an item without a proper id")
    if not isinstance(item.raw.get("assets"), dict):
        raise CityHeadsError(f"item {item.id}: has no assets")
    return item


def open_catalog(location: str, archive: Mapping[str, Any]) -> StaticCatalog | ApiCatalog:
    """Open a STAC API or a static catalogue; what the root document says decides which it is.

    Raises:
        CityHeadsError: It is not there, or is no catalogue.
    """
    document = network.load_json(location, archive)
    if document.get("type") not in ("Catalog", "Collection") and "stac_version" not in document:
        raise CityHeadsError(f"{network.scrub(location)}: not a STAC catalogue")
    if network.is_remote(location) and "conformsTo" in document:
        return ApiCatalog(location, archive)
    return StaticCatalog(location, document, archive)


def offset_dn(item: Item, rule: str) -> int:
    """Give what must be subtracted from the item's digital numbers.

    Args:
        item: A Sentinel-2 Level-2A item.
        rule: ``baseline``, ``none`` or ``item`` (config key ``archive.imagery.S2L2A.offset``).

    Raises:
        CityHeadsError: The item lacks what the rule looks at.
    """
    key = "config key 'archive.imagery.S2L2A.offset'"
    if rule == "none":
        return 0
    if rule == "item":
        applied = item.properties.get("earthsearch:boa_offset_applied")
        if not isinstance(applied, bool):
            raise CityHeadsError(
                f"item {item.id}: no 'earthsearch:boa_offset_applied', at which {key} = item looks; "
                "use baseline or none"
            )
        if applied:
            return 0
    baseline = item.properties.get("s2:processing_baseline", item.properties.get("processing:version"))
    match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})", str(baseline))
    if match is None:
        raise CityHeadsError(
            f"item {item.id}: no usable 's2:processing_baseline' ({baseline}), so whether its values carry +1000 is "
            f"unknown; see the {key}"
        )
    return _OFFSET_DN if (int(match[1]), int(match[2])) >= _OFFSET_BASELINE else 0


# --- the choice -------------------------------------------------------------------------------------------------------


@dataclass
class _Pass:
    """The items of one overflight, best first, and how well they cover the parent."""

    items: list[Item]
    when: datetime
    valid: float = 0.0
    clear: float | None = None


@dataclass(frozen=True)
class _Choice:
    """What one layer's choice needs to know."""

    archive: Mapping[str, Any]
    parent: Parent
    coarse: Target
    polygon: shapely.Geometry
    catalog: StaticCatalog | ApiCatalog
    catalog_text: str

    def asset(self, item: Item, key: str, band: str) -> str:
        """Give the stored href of an item's asset."""
        where = f"collection {item.raw.get('collection')}: item {item.id}: band {band}"
        asset = item.raw["assets"].get(key)
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
            raise CityHeadsError(
                f"{where}: the item has no asset '{key}'; it has {', '.join(sorted(item.raw['assets'])) or 'none'}"
            )
        return network.stored_href(
            item.document,
            asset["href"],
            root=self.catalog.root,
            asset_base=self.archive["asset_base"],
            signed=self.archive["sign"] != "none",
            where=where,
        )

    def coarse_pixels(self, item: Item, key: str, band: str, undeclared: float) -> np.ndarray:
        """Read an asset over the parent at low resolution."""
        where = f"collection {item.raw.get('collection')}: item {item.id}: band {band}"
        base = network.base_of(self.catalog_text, self.archive["asset_base"])
        with network.open_raster(self.asset(item, key, band), base, archive=self.archive, where=where) as source:
            return read_onto(source, self.coarse, resampling="nearest", fill=undeclared, undeclared=undeclared)

    def frozen(self, item: Item, assets: Mapping[str, str], **more: Any) -> dict[str, Any]:
        """Give the item as scene choices keep it; ``assets`` maps our band names to the item's keys."""
        return {
            "id": item.id,
            "collection": item.raw.get("collection"),
            "self": network.stored_document(item.document, self.catalog.root),
            "datetime": item.properties.get("datetime"),
            "properties": {key: item.properties[key] for key in _KEPT if key in item.properties},
            **more,
            "assets": {band: self.asset(item, key, band) for band, key in assets.items()},
        }


def select_scenes(settings: dict[str, Any], *, parents: Path, parent: str, catalog: str, out: Path) -> None:
    """Choose the scenes of one parent and freeze the choice.

    Args:
        settings: The config's ``grid``, ``archive`` and ``labels`` sections.
        parents: Parent sheet.
        parent: Parent id.
        catalog: URL of a STAC API, or URL or path of a static ``catalog.json``.
        out: ``scenes/{parent}.json``.

    Raises:
        CityHeadsError: A collection that is not there, no usable scene, an item without a needed band.
    """
    grid = Grid.from_settings(settings["grid"])
    square = find_parent(read_parents(parents, grid), parent, parents)
    archive = settings["archive"]
    if archive["frozen_scenes"] is not None:
        write_json(out, _frozen(Path(archive["frozen_scenes"]) / f"{parent}.json", settings, square, catalog))
        return
    source = open_catalog(catalog, archive)
    factor = next(step for step in range(_COARSE, 0, -1) if grid.parent_px % step == 0)
    choice = _Choice(
        archive,
        square,
        Target.of_parent(square, grid, factor),
        parent_polygon(square, grid, 4326),
        source,
        catalog,
    )
    imagery = archive["imagery"]
    layers: dict[str, dict[str, Any]] = {"S2L2A": _choose_s2(choice, imagery["S2L2A"])}
    first = layers["S2L2A"]["items"][0]
    when = _parse_time(acquired(first), f"item {first['id']}")
    for name in RADAR:
        if name in imagery:
            layers[name] = _choose_s1(choice, name, imagery[name], when)
    if "DEM" in imagery:
        layers["DEM"] = _choose_dem(choice, imagery["DEM"])
    for name, label in settings["labels"].items():
        if label["kind"] == "landcover":
            layers[name] = _choose_landcover(choice, name, label)
    simulated = source.simulated or any(
        item["properties"].get("cityheads:simulated") is True for layer in layers.values() for item in layer["items"]
    )
    write_json(
        out,
        {
            "format": 1,
            "parent": {"parent_id": parent, "epsg": square.epsg, "left": square.left, "top": square.top},
            "simulated": simulated,
            "catalog": catalog,
            "layers": layers,
        },
    )
    log.info("%s: %s", parent, "; ".join(f"{name}: {layer['why']}" for name, layer in layers.items()))


def acquired(item: Mapping[str, Any]) -> str:
    """Give the time of an item of a frozen choice, or the start of its period."""
    return str(item["datetime"] or item["properties"]["start_datetime"])


def read_scenes(path: Path, parent: Parent) -> dict[str, Any]:
    """Read a frozen scene choice and check that it was made for this parent.

    Raises:
        CityHeadsError: The file is missing, has another format, or is of another place.
    """
    scenes = read_json(path)
    if not isinstance(scenes, dict) or scenes.get("format") != 1:
        raise CityHeadsError(f"{path}: not a scene choice of format 1; delete it and run again")
    of = scenes["parent"]
    same = of["parent_id"] == parent.parent_id and of["epsg"] == parent.epsg
    if not (same and abs(of["left"] - parent.left) < 1e-6 and abs(of["top"] - parent.top) < 1e-6):
        raise CityHeadsError(
            f"{path}: chosen for {of['parent_id']} at {of['left']}, {of['top']} (EPSG:{of['epsg']}), which is not "
            f"where {parent.parent_id} lies now; delete it and run again"
        )
    return scenes


def _frozen(path: Path, settings: Mapping[str, Any], parent: Parent, catalog: str) -> dict[str, Any]:
    """Take a shipped scene choice instead of searching, when it has all that the config asks for."""
    scenes = read_scenes(path, parent)
    rules = settings["archive"]["imagery"]
    needed = {name: list(MODALITIES[name].bands) for name in rules}
    if rules["S2L2A"]["scl_asset"] is not None:
        needed["S2L2A"].append("SCL")
    needed |= {name: ["map"] for name, label in settings["labels"].items() if label["kind"] == "landcover"}
    for layer, bands in needed.items():
        chosen = scenes["layers"].get(layer, {})
        items = chosen.get("items")
        if chosen.get("synthesized") and rules[layer]["missing"] == "synthesize":
            continue
        if not items:
            raise CityHeadsError(f"{path}: the shipped choice has no layer {layer}, which the config asks for")
        for item in items:
            lacking = [band for band in bands if band not in item["assets"]]
            if lacking:
                raise CityHeadsError(f"{path}: layer {layer}: item {item['id']}: no band {lacking[0]}")
    log.info("%s: the choice in %s is taken; nothing is searched", parent.parent_id, path)
    return scenes | {"catalog": catalog}


def _choose_s2(choice: _Choice, rule: Mapping[str, Any]) -> dict[str, Any]:
    collection = rule["collection"]
    interval = parse_interval(rule["datetime"], "archive.imagery.S2L2A.datetime")
    target = _target_date(rule, interval)
    items = choice.catalog.search(collection, choice.polygon, interval)
    kept, rejected = [], []
    for item in items:
        cloud = item.properties.get("eo:cloud_cover")
        if not _within(item, interval):
            rejected.append((item, f"acquired {item.when:%Y-%m-%d}, outside {rule['datetime']}"))
        elif cloud is not None and cloud > rule["max_cloud_percent"]:
            rejected.append((item, f"tile cloud cover {cloud:.1f} % is above {rule['max_cloud_percent']:g} %"))
        else:
            kept.append(item)
    kept = _drop_superseded(kept, choice.polygon, rejected)
    if not kept:
        raise _nothing(choice, "S2L2A", collection, items, rejected)
    passes = _passes(kept, _s2_pass)
    passes.sort(key=lambda one: (abs(one.when - target), one.when))
    best: _Pass | None = None
    for candidate in _measure(choice, passes, lambda one: _measure_s2(choice, rule, one)):
        # nearer passes come first, so only a clearer one can win; to the percent, or noise would outweigh the date
        if best is None or _score(candidate) > _score(best):
            best = candidate
        if _score(best) >= 100:
            break
    assert best is not None
    if best.valid == 0:
        raise _nothing(choice, "S2L2A", collection, items, [*rejected, *((item, "no valid pixel") for item in kept)])
    chosen = {item.id for item in best.items}
    for candidate in passes:
        for item in candidate.items:
            if item.id not in chosen:
                rejected.append((item, _why_not(candidate, best, target)))
    for item in kept:
        if item.id not in chosen and not any(item is other for other, _ in rejected):
            rejected.append((item, "another tile of the same pass already covers its part of the parent"))
    assets = {band: rule["assets"].get(band, band) for band in MODALITIES["S2L2A"].bands}
    if rule["scl_asset"] is not None:
        assets["SCL"] = rule["scl_asset"]
    cover = f"{best.valid:.1%} valid" + ("" if best.clear is None else f", {best.clear:.1%} of it clear")
    days = abs((best.when - target).total_seconds()) / 86400
    return {
        "collection": collection,
        "why": f"{cover}; {days:.0f} days from {target:%Y-%m-%d}; {len(best.items)} tile(s) of {len(passes)} pass(es)",
        "considered": len(items),
        "rejected": _reasons(rejected),
        "valid_fraction": round(best.valid, 6),
        "clear_fraction": None if best.clear is None else round(best.clear, 6),
        "items": [choice.frozen(item, assets, offset_dn=offset_dn(item, rule["offset"])) for item in best.items],
    }


def _target_date(rule: Mapping[str, Any], interval: tuple[datetime | None, datetime | None]) -> datetime:
    if rule["target_date"] is not None:
        return _parse_time(str(rule["target_date"]), "config key 'archive.imagery.S2L2A.target_date'")
    start, end = interval
    if start is None or end is None:
        raise CityHeadsError(
            "config key 'archive.imagery.S2L2A.target_date': the period of 'datetime' is open, so name the date"
        )
    return start + (end - start) / 2


def _drop_superseded(items: Iterable[Item], polygon: shapely.Geometry, rejected: list[tuple[Item, str]]) -> list[Item]:
    """Drop older processings of a tile and pass, which archives keep.

    A pass may also come in two products of one tile that lie beside each other, where a data strip ends in it: only
    what a newer product covers is superseded.
    """
    groups: dict[tuple[str, str], list[Item]] = {}

    def age(item: Item) -> tuple[str, str, str]:
        properties = item.properties
        return (
            str(properties.get("s2:processing_baseline", "")).zfill(5),
            str(properties.get("s2:generation_time", properties.get("created", ""))),
            item.id,
        )

    for item in items:
        tile = item.properties.get("s2:mgrs_tile", item.properties.get("grid:code"))
        groups.setdefault((_s2_pass(item), str(tile) if tile else item.id), []).append(item)
    kept: list[Item] = []
    for group in groups.values():
        newer: list[Item] = []
        for item in sorted(group, key=age, reverse=True):
            here = item.footprint.intersection(polygon)
            left = here.difference(shapely.union_all([other.footprint for other in newer])) if newer else here
            if newer and left.area <= _SUPERSEDED_REST * here.area:
                rejected.append((item, f"superseded by {newer[0].id}"))
            else:
                newer.append(item)
        kept += newer
    return sorted(kept, key=lambda item: item.id)


def _s2_pass(item: Item) -> str:
    """Name the overflight: the datatake without its processing baseline, else platform and day."""
    datatake = item.properties.get("s2:datatake_id")
    if datatake:
        return str(datatake).rpartition("_N")[0] or str(datatake)
    return f"{item.properties.get('platform', '')} {item.when:%Y-%m-%d}"


def _s1_pass(item: Item) -> str:
    """Name the overflight: platform and absolute orbit, else platform, direction and day."""
    properties = item.properties
    orbit = properties.get("sat:absolute_orbit", properties.get("s1:datatake_id"))
    if orbit is not None:
        return f"{properties.get('platform', '')} {orbit}"
    return f"{properties.get('platform', '')} {properties.get('sat:orbit_state', '')} {item.when:%Y-%m-%d}"


def _passes(items: Iterable[Item], name: Callable[[Item], str]) -> list[_Pass]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(name(item), []).append(item)
    return [_Pass(group, min(item.when for item in group)) for _, group in sorted(groups.items())]


def _measure(choice: _Choice, passes: Sequence[_Pass], measure: Callable[[_Pass], _Pass]) -> Iterator[_Pass]:
    """Measure passes in order, a few at once; stopping early costs at most one batch."""
    workers = choice.archive["workers"] if len(passes) > 1 else 1
    if workers == 1:
        yield from map(measure, passes)
        return
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(passes), workers):
            yield from pool.map(measure, passes[start : start + workers])


def _measure_s2(choice: _Choice, rule: Mapping[str, Any], one: _Pass) -> _Pass:
    """Measure valid and clear fractions over the parent, and order the tiles that are needed."""
    with_scl = rule["scl_asset"] is not None
    key = rule["scl_asset"] if with_scl else rule["assets"].get("B02", "B02")
    layers = [choice.coarse_pixels(item, key, "SCL" if with_scl else "B02", SCL_NODATA) for item in one.items]
    clear_codes = sorted(SCL_CLEAR)

    def worth(pixels: np.ndarray) -> int:
        return int(np.isin(pixels, clear_codes).sum()) if with_scl else int((pixels != SCL_NODATA).sum())

    order = sorted(range(len(layers)), key=lambda index: (-worth(layers[index]), one.items[index].id))
    mosaic = np.zeros(choice.coarse.shape, layers[0].dtype)
    one.items, one.valid = _fill(mosaic, [(one.items[index], layers[index]) for index in order], SCL_NODATA)
    if with_scl:
        valid = mosaic != SCL_NODATA
        one.clear = float(np.isin(mosaic[valid], clear_codes).mean()) if valid.any() else 0.0
    return one


def _fill(mosaic: np.ndarray, layers: Sequence[tuple[Item, np.ndarray]], nodata: float) -> tuple[list[Item], float]:
    """Lay tiles under each other, in place; give those that add pixels and the fraction that has data."""
    used: list[Item] = []
    for item, pixels in layers:
        gaps = (mosaic == nodata) & (pixels != nodata)
        if gaps.any() or not used:
            mosaic[gaps] = pixels[gaps]
            used.append(item)
    return used, float((mosaic != nodata).mean())


def _score(one: _Pass) -> int:
    """Percent of the parent that is valid and clear."""
    return round(100 * one.valid * (1.0 if one.clear is None else one.clear))


def _why_not(candidate: _Pass, best: _Pass, target: datetime) -> str:
    if candidate.when != best.when and abs(candidate.when - target) >= abs(best.when - target) and _score(best) >= 100:
        return f"farther from {target:%Y-%m-%d} than a scene that is clear all over"
    return f"{_score(candidate)} % of the parent valid and clear, against {_score(best)} %"


def _choose_s1(choice: _Choice, name: str, rule: Mapping[str, Any], when: datetime) -> dict[str, Any]:
    collection = rule["collection"]
    if collection is None:
        return _absent(choice, name, rule, [], [])
    reach = timedelta(days=rule["max_days"])
    interval = (when - reach, when + reach)
    items = choice.catalog.search(collection, choice.polygon, interval)
    kept, rejected = [], []
    bands = {band: rule["assets"].get(band, band.lower()) for band in MODALITIES[name].bands}
    for item in items:
        polarisations = item.properties.get("sar:polarizations")
        lacking = [band for band in bands if polarisations and band not in polarisations]
        if not _within(item, interval):
            days = abs((item.when - when).total_seconds()) / 86400
            rejected.append((item, f"{days:.1f} days from the Sentinel-2 scene, more than {rule['max_days']:g}"))
        elif lacking:
            rejected.append((item, f"acquired without {', '.join(lacking)}"))
        else:
            kept.append(item)
    if not kept:
        return _absent(choice, name, rule, items, rejected)

    def other_way(one: _Pass) -> bool:
        return rule["orbit"] != "any" and one.items[0].properties.get("sat:orbit_state") != rule["orbit"]

    def order(one: _Pass) -> tuple[bool, timedelta, datetime]:
        return other_way(one), abs(one.when - when), one.when

    passes = sorted(_passes(kept, _s1_pass), key=order)
    measured: list[_Pass] = []
    for candidate in _measure(choice, passes, lambda one: _measure_s1(choice, bands["VV"], one)):
        measured.append(candidate)
        if candidate.valid >= _FULL_COVER:
            break
    best = min(measured, key=lambda one: (-round(min(one.valid, _FULL_COVER), 2), *order(one)))
    if best.valid == 0:
        return _absent(choice, name, rule, items, [*rejected, *((item, "no valid pixel") for item in kept)])
    chosen = {item.id for item in best.items}
    for candidate in passes:
        for item in candidate.items:
            if item.id not in chosen:
                looked = candidate in measured
                rejected.append(
                    (item, f"covers {candidate.valid:.1%}" if looked else "a nearer pass covers the parent")
                )
    for item in kept:
        if item.id not in chosen and not any(item is other for other, _ in rejected):
            rejected.append((item, "another frame of the same pass already covers its part of the parent"))
    direction = best.items[0].properties.get("sat:orbit_state", "unknown direction")
    days = abs((best.when - when).total_seconds()) / 86400
    return {
        "collection": collection,
        "why": f"{best.valid:.1%} valid; {days:.1f} days from the Sentinel-2 scene; {direction}",
        "considered": len(items),
        "rejected": _reasons(rejected),
        "valid_fraction": round(best.valid, 6),
        "clear_fraction": None,
        "items": [choice.frozen(item, bands) for item in best.items],
    }


def _absent(
    choice: _Choice,
    name: str,
    rule: Mapping[str, Any],
    items: Sequence[Item],
    rejected: Sequence[tuple[Item, str]],
) -> dict[str, Any]:
    """Fail where no scene is left, or choose to have the layer made of the others, as the config says."""
    if rule["missing"] != "synthesize":
        raise _nothing(choice, name, rule["collection"], items, rejected)
    return {
        "collection": rule["collection"],
        "why": f"synthesized: {_lack(items, rejected) if rule['collection'] else 'the catalogue has no collection'}",
        "considered": len(items),
        "rejected": _reasons(rejected),
        "valid_fraction": None,
        "clear_fraction": None,
        "synthesized": True,
        "items": [],
    }


#: Nodata of Sentinel-1 RTC on Planetary Computer, for rasters that do not declare it.
S1_NODATA = -32768.0


def _measure_s1(choice: _Choice, key: str, one: _Pass) -> _Pass:
    """Measure how much of the parent the swath covers, and order the frames that are needed."""
    layers = []
    for item in one.items:
        pixels = choice.coarse_pixels(item, key, "VV", S1_NODATA)
        layers.append((item, np.where(np.isfinite(pixels), pixels, S1_NODATA)))
    layers.sort(key=lambda pair: (-int((pair[1] != S1_NODATA).sum()), pair[0].id))
    mosaic = np.full(choice.coarse.shape, S1_NODATA, layers[0][1].dtype)
    one.items, one.valid = _fill(mosaic, layers, S1_NODATA)
    return one


def _choose_dem(choice: _Choice, rule: Mapping[str, Any]) -> dict[str, Any]:
    items = choice.catalog.search(rule["collection"], choice.polygon, None)
    if not items:
        raise _nothing(choice, "DEM", rule["collection"], items, [])
    assets = {"DEM": rule["assets"].get("DEM", "data")}
    return {
        "collection": rule["collection"],
        "why": f"all {len(items)} tile(s) under the parent",
        "considered": len(items),
        "rejected": [],
        "valid_fraction": None,
        "clear_fraction": None,
        "items": [choice.frozen(item, assets) for item in _by_cover(choice, items)],
    }


def _choose_landcover(choice: _Choice, name: str, label: Mapping[str, Any]) -> dict[str, Any]:
    collection = label["collection"]
    interval = parse_interval(label["datetime"], f"labels.{name}.datetime") if label["datetime"] else None
    items = choice.catalog.search(collection, choice.polygon, interval)
    rejected = []
    years: dict[datetime, list[Item]] = {}
    for item in items:
        if interval is not None and not _within(item, interval):
            rejected.append((item, f"of {item.when:%Y-%m-%d}, outside {label['datetime']}"))
        else:
            years.setdefault(item.when, []).append(item)
    if not years:
        raise _nothing(choice, name, collection, items, rejected)

    def cover(group: Sequence[Item]) -> float:
        union = shapely.union_all([item.footprint for item in group])
        return round(float(union.intersection(choice.polygon).area / choice.polygon.area), 2)

    newest = max(years, key=lambda when: (cover(years[when]), when))
    for when, group in years.items():
        if when != newest:
            rejected += [(item, f"of {when:%Y-%m-%d}; {newest:%Y-%m-%d} is newer or covers more") for item in group]
    chosen = _by_cover(choice, years[newest])
    return {
        "collection": collection,
        "why": f"newest that covers most ({newest:%Y-%m-%d}), {len(chosen)} tile(s) under the parent",
        "considered": len(items),
        "rejected": _reasons(rejected),
        "valid_fraction": None,
        "clear_fraction": None,
        "items": [choice.frozen(item, {"map": label["asset"]}) for item in chosen],
    }


def _by_cover(choice: _Choice, items: Iterable[Item]) -> list[Item]:
    """Order items by how much of the parent they cover, those in the parent's own CRS first."""

    def key(item: Item) -> tuple[bool, float, str]:
        epsg = item.properties.get("proj:epsg", str(item.properties.get("proj:code", "")).rpartition(":")[2])
        area = float(item.footprint.intersection(choice.polygon).area)
        return str(epsg) != str(choice.parent.epsg), -round(area, 12), item.id

    return sorted(items, key=key)


def _reasons(rejected: Iterable[tuple[Item, str]]) -> list[dict[str, str]]:
    return [{"id": item.id, "reason": reason} for item, reason in sorted(rejected, key=lambda pair: pair[0].id)]


def _nothing(
    choice: _Choice, layer: str, collection: str, items: Sequence[Item], rejected: Sequence[tuple[Item, str]]
) -> CityHeadsError:
    """Say why no item is left."""
    where = f"{choice.parent.parent_id}: {layer}: collection '{collection}'"
    mend = "" if items else "; check the period and the parent's place"
    return CityHeadsError(f"{where}: {_lack(items, rejected)}{mend}")


def _lack(items: Sequence[Item], rejected: Sequence[tuple[Item, str]]) -> str:
    if not items:
        return "no item covers the parent"
    first = sorted(rejected, key=lambda pair: pair[0].id)[0] if rejected else None
    detail = f"; {first[0].id}: {first[1]}" if first else ""
    return f"none of {len(items)} item(s) over the parent is usable{detail}"
