"""The simulated city's open data: building footprints and the boundary of the surveyed area, as GeoJSON.

The footprints have the schema of New York's current "Building Footprints" export (NYC Open Data 5zhs-2jue): attributes
as strings, lower-case names, feet, and the faults of real tables - an exact duplicate now and then, an invalid ring, a
missing geometry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cityheads.config import SimulateConfig
from cityheads.simulate.buildings import Buildings, neighbourhoods
from cityheads.simulate.fields import hash_uniform, name_key
from cityheads.simulate.plan import Place, Plan
from cityheads.simulate.world import World

__all__ = ["boundary_geojson", "footprints_geojson", "listed", "surveyed"]

_FEET = 1 / 0.3048
#: Buildings this near to a parent are in the table; those further out matter to no pixel.
_NEAR_M = 60.0
_CRS84 = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}


def surveyed(plan: Plan, place: Place, buildings: Buildings) -> NDArray[np.bool_]:
    """Tell which buildings the city's table holds: those at the parent and within the surveyed area."""
    west, south, east, north = place.window
    near = shapely.box(west - _NEAR_M, south - _NEAR_M, east + _NEAR_M, north + _NEAR_M)
    area = shapely.intersection(plan.boundaries[place.frame.epsg], shapely.buffer(near, 500))
    shapely.prepare(area)
    shapely.prepare(near)
    return np.asarray(shapely.contains(area, buildings.geometry) & shapely.intersects(near, buildings.geometry))


def listed(plan: Plan, place: Place, world: World, simulate: SimulateConfig) -> Buildings:
    """Give the buildings as the city's table has them: shifted, without the newest, and with some that are gone.

    The shift is the same for all buildings of a neighbourhood, as that of one photogrammetric block is.

    Args:
        plan: The plan.
        place: The place.
        world: Its world.
        simulate: How large the shift is, and how many buildings are missing.
    """
    table = world.listed
    fresh = hash_uniform(name_key(plan.seed, "unlisted"), table.uid.astype(np.int64))
    table = table.take(fresh >= simulate.footprint_missing_fraction)
    cells = [one.cell for one in neighbourhoods(plan, place.frame)]
    key = name_key(plan.seed, "misregistration", str(place.frame.epsg))
    turn, size = (hash_uniform(key, *np.array(cells, np.int64).T, k) for k in range(2))
    # directions are uniform and the distance has the mean that is asked for
    distance = 2 * simulate.footprint_shift_m * size
    shift = np.stack([distance * np.cos(2 * np.pi * turn), distance * np.sin(2 * np.pi * turn)], axis=1)
    points, owner = shapely.get_coordinates(table.geometry, return_index=True)
    moved = shapely.set_coordinates(table.geometry.copy(), points + shift[table.neighbourhood[owner]])
    return replace(table, geometry=np.asarray(moved, dtype=object))


def footprints_geojson(
    plan: Plan, parts: Sequence[tuple[int, Buildings, NDArray[np.float64]]], *, faults: bool = True
) -> bytes:
    """Write the footprints of all places; a building that two places hold is written once.

    Args:
        plan: The plan.
        parts: Per place: UTM zone, its buildings inside the surveyed area, the ground's elevation at each in metres.
        faults: Add the faults of real tables: duplicates, invalid rings, a missing geometry.
    """
    seen: set[tuple[int, int]] = set()
    rows: list[str] = []
    for epsg, buildings, elevation_m in parts:
        fresh = []
        for index, uid in enumerate(buildings.uid.tolist()):
            if (epsg, uid) not in seen:
                seen.add((epsg, uid))
                fresh.append(index)
        chosen = np.array(fresh, np.int64)
        rows += _features(plan, epsg, buildings.take(chosen), elevation_m[chosen], len(rows))
    if faults:
        rows = _with_faults(plan, rows)
    head = json.dumps({"type": "FeatureCollection", "name": "building_footprints", "crs": _CRS84})[:-1]
    return (head + ', "features": [\n' + ",\n".join(rows) + "\n]}\n").encode()


def _features(plan: Plan, epsg: int, buildings: Buildings, elevation_m: NDArray[np.float64], first: int) -> list[str]:
    from pyproj import Transformer

    if not len(buildings.uid):
        return []
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    # the exterior runs counter-clockwise, as RFC 7946 wants it
    shapes = shapely.orient_polygons(buildings.geometry)
    shapes = shapely.transform(shapes, lambda xy: np.round(np.column_stack(to_lonlat.transform(xy[:, 0], xy[:, 1])), 7))
    area, length = shapely.area(buildings.geometry), shapely.length(buildings.geometry)
    key, uid = name_key(plan.seed, "attributes"), buildings.uid.astype(np.int64)
    draws = [hash_uniform(key, uid, k).tolist() for k in range(6)]
    garages, heights, ground = buildings.garage.tolist(), buildings.height_m.tolist(), elevation_m.tolist()
    rows = []
    for k, shape in enumerate(shapes.tolist()):
        number = first + k + 1
        year_draw, code_draw, source_draw, edit_draw, status_draw, height_draw = (draw[k] for draw in draws)
        year: str | None = str(1890 + int(130 * year_draw**1.6)) if year_draw > 0.02 else "0"
        if year_draw > 0.985:
            year = None
        code = "5110" if garages[k] else "2100"
        if not garages[k] and code_draw < 0.006:
            code = ("1000", "1004", "2110", "5100")[int(code_draw / 0.006 * 4)]
        lot = f"{1 + number % 5}{10000 + number // 40 % 89999:05d}{number % 40 + 1:04d}"
        properties = {
            "bin": f"{1 + number % 5}{number:06d}",
            "doitt_id": str(100_000 + number),
            "shape_area": f"{area[k] * _FEET**2:.4f}",
            "base_bbl": lot,
            "objectid": str(number),
            "construction_year": year,
            "feature_code": code,
            "geom_source": "Photogrammetric" if source_draw < 0.87 else "Other (Manual)",
            "ground_elevation": str(round(ground[k] * _FEET)),
            "height_roof": "0" if height_draw < 0.006 else f"{heights[k] * _FEET:.2f}".rstrip("0").rstrip("."),
            "last_edited_date": f"20{9 + int(edit_draw * 9):02d}-08-22T{int(edit_draw * 997) % 24:02d}:00:00.000Z",
            "last_status_type": "Constructed" if status_draw < 0.99 else "Alteration",
            "mappluto_bbl": lot,
            "shape_length": f"{length[k] * _FEET:.4f}",
            "name": None,
        }
        polygons = shape.geoms if shape.geom_type == "MultiPolygon" else [shape]
        coordinates = [
            [shapely.get_coordinates(ring).tolist() for ring in (polygon.exterior, *polygon.interiors)]
            for polygon in polygons
        ]
        rows.append(_feature(properties, {"type": "MultiPolygon", "coordinates": coordinates}))
    return rows


def _feature(properties: Mapping[str, Any], geometry: Mapping[str, Any] | None) -> str:
    return json.dumps(
        {"type": "Feature", "properties": properties, "geometry": geometry}, separators=(",", ":"), allow_nan=False
    )


def _with_faults(plan: Plan, rows: list[str]) -> list[str]:
    """Add what real tables hold: exact duplicates, rings that cross themselves, a row without geometry."""
    if not rows:
        return rows
    picks = hash_uniform(name_key(plan.seed, "faults"), np.arange(16)) * len(rows)
    rows = list(rows)
    chosen = [rows[int(pick)] for pick in picks]
    faults = chosen[:3]
    for text in chosen[3:5]:
        feature = json.loads(text)
        ring = feature["geometry"]["coordinates"][0][0]
        # swapping two corners turns a rectangle into a bow-tie that stays within the building
        ring[1], ring[2] = ring[2], ring[1]
        feature["geometry"]["coordinates"] = [[[*ring[:4], ring[0]]]]
        faults.append(_feature(_renamed(feature["properties"], "1"), feature["geometry"]))
    faults.append(_feature(_renamed(json.loads(chosen[5])["properties"], "2"), None))
    for position, fault in zip(picks[6:].astype(int).tolist(), faults, strict=False):
        rows.insert(position, fault)
    return rows


def _renamed(properties: dict[str, Any], prefix: str) -> dict[str, Any]:
    return properties | {name: prefix + properties[name] for name in ("doitt_id", "objectid")}


def boundary_geojson(plan: Plan) -> bytes:
    """Write the surveyed area, one feature per UTM zone, in longitude and latitude."""
    from pyproj import Transformer

    features = []
    for number, (epsg, area) in enumerate(sorted(plan.boundaries.items()), start=1):
        to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
        outline = shapely.transform(
            shapely.orient_polygons(shapely.segmentize(area, 500)),
            lambda xy, to=to_lonlat: np.round(np.column_stack(to.transform(xy[:, 0], xy[:, 1])), 7),
        )
        polygons = outline.geoms if outline.geom_type == "MultiPolygon" else [outline]
        coordinates = [
            [shapely.get_coordinates(ring).tolist() for ring in (polygon.exterior, *polygon.interiors)]
            for polygon in polygons
        ]
        properties = {
            "boro_code": str(number),
            "boro_name": f"Simulated City {number}",
            "shape_leng": f"{area.length * _FEET:.3f}",
            "shape_area": f"{area.area * _FEET**2:.3f}",
        }
        features.append(_feature(properties, {"type": "MultiPolygon", "coordinates": coordinates}))
    head = json.dumps({"type": "FeatureCollection", "name": "boundary", "crs": _CRS84})[:-1]
    return (head + ', "features": [\n' + ",\n".join(features) + "\n]}\n").encode()
