"""STAC items, collections and root of the simulated archive, in the shape that Planetary Computer gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import shapely

from cityheads.config import DemConfig, OpticalConfig, RadarConfig
from cityheads.core.modalities import MODALITIES
from cityheads.simulate.fields import hash_uniform, name_key
from cityheads.simulate.pixels import Layer
from cityheads.simulate.plan import Place, Radar, Scene, sun_position
from cityheads.simulate.spectra import WORLDCOVER_LEGEND

__all__ = ["collection", "cover_item", "dem_item", "mgrs_tile", "radar_item", "root", "scene_item"]

#: The mark that every root, collection and item of a simulated archive carries.
MARK = "cityheads:simulated"
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_EXTENSION = "https://stac-extensions.github.io/{}/schema.json"

#: Names, central wavelength and width in micrometres: the items' own ``eo:bands`` on Planetary Computer.
_BANDS = {
    "B01": ("Band 1 - Coastal aerosol", "coastal", 0.443, 0.027),
    "B02": ("Band 2 - Blue", "blue", 0.49, 0.098),
    "B03": ("Band 3 - Green", "green", 0.56, 0.045),
    "B04": ("Band 4 - Red", "red", 0.665, 0.038),
    "B05": ("Band 5 - Vegetation red edge 1", "rededge", 0.704, 0.019),
    "B06": ("Band 6 - Vegetation red edge 2", "rededge", 0.74, 0.018),
    "B07": ("Band 7 - Vegetation red edge 3", "rededge", 0.783, 0.028),
    "B08": ("Band 8 - NIR", "nir", 0.842, 0.145),
    "B8A": ("Band 8A - Vegetation red edge 4", "rededge", 0.865, 0.033),
    "B09": ("Band 9 - Water vapor", None, 0.945, 0.026),
    "B11": ("Band 11 - SWIR (1.6)", "swir16", 1.61, 0.143),
    "B12": ("Band 12 - SWIR (2.2)", "swir22", 2.19, 0.242),
}
_GSD = dict(zip(MODALITIES["S2L2A"].bands, MODALITIES["S2L2A"].native_gsd_m, strict=True)) | {"SCL": 20}

_EASTINGS = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")
_NORTHINGS = "ABCDEFGHJKLMNPQRSTUV"
_LATITUDES = "CDEFGHJKLMNPQRSTUVWX"

_COLLECTIONS = {
    "S2L2A": ("Sentinel-2 Level-2A", "Surface reflectance in 12 bands and the scene classification"),
    "S1RTC": ("Sentinel-1 Radiometrically Terrain Corrected (RTC)", "Gamma naught backscatter, VV and VH"),
    "DEM": ("Copernicus DEM GLO-30", "Surface elevation in metres"),
    "COVER": ("ESA WorldCover", "Land cover at 10 m"),
}


def mgrs_tile(epsg: int, easting: float, northing: float, lat: float) -> str:
    """Name the MGRS 100 km square of a point in a UTM zone, such as ``18TWL`` (NGA.STND.0037, 2014)."""
    zone = epsg % 100
    column = _EASTINGS[zone % 3][min(max(int(easting // 100_000) - 1, 0), 7)]
    row = _NORTHINGS[(int(northing // 100_000) + (5 if zone % 2 == 0 else 0)) % 20]
    return f"{zone}{_LATITUDES[min(max(int((lat + 80) // 8), 0), 19)]}{column}{row}"


def _lonlat(geometry: shapely.Geometry, crs: str) -> shapely.Geometry:
    """Bring a footprint to longitude and latitude, with a corner at least every kilometre."""
    if crs == "EPSG:4326":
        return geometry
    from pyproj import Transformer

    to_lonlat = Transformer.from_crs(crs, 4326, always_xy=True)
    dense = shapely.segmentize(geometry, 1000)
    return shapely.transform(dense, lambda xy: np.column_stack(to_lonlat.transform(xy[:, 0], xy[:, 1])))


def _item(
    identifier: str,
    collection_id: str,
    geometry: shapely.Geometry,
    properties: dict[str, Any],
    assets: dict[str, Any],
    extensions: Sequence[str],
) -> dict[str, Any]:
    ring = [[round(lon, 7), round(lat, 7)] for lon, lat in shapely.get_coordinates(geometry.exterior).tolist()]
    lons, lats = zip(*ring, strict=True)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [_EXTENSION.format(name) for name in extensions],
        "id": identifier,
        "collection": collection_id,
        "bbox": [min(lons), min(lats), max(lons), max(lats)],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties | {MARK: True},
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
        ],
        "assets": assets,
    }


def _projection(layer: Layer) -> dict[str, Any]:
    t = layer.transform
    height, width = layer.array.shape
    (left, top), (right, bottom) = t * (0, 0), t * (width, height)
    return {
        "proj:bbox": [left, bottom, right, top],
        "proj:shape": [height, width],
        "proj:transform": [t.a, 0.0, t.c, 0.0, t.e, t.f],
    }


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%S")


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.024000Z")


def _sun_distance_factor(moment: datetime) -> float:
    """Give the inverse square of the distance to the sun in astronomical units, to the first harmonic."""
    return round(1 + 0.0334 * math.cos(2 * math.pi * (moment.timetuple().tm_yday - 3) / 365.25), 6)


def scene_item(
    place: Place, scene: Scene, layers: Mapping[str, Layer], rule: OpticalConfig, part: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Describe one Sentinel-2 item.

    Args:
        place: The place.
        scene: The acquisition.
        layers: Band name to layer.
        rule: ``archive.imagery.S2L2A``.
        part: Number of the tile, where the scene has two.

    Returns:
        The item, and the file name of each layer that it has; it has no ``SCL`` where the config wants none.
    """
    frame, lat = place.frame, place.lonlat[1]
    first = next(iter(layers.values()))
    x, y = place.centre
    step = 100_000 if x // 100_000 < 8 else -100_000
    if part and scene.tile_edge == "x":
        x += step
    elif part:
        y -= 100_000
    tile = mgrs_tile(frame.epsg, x, y, lat)
    days = (scene.when - datetime(2015, 6, 23, tzinfo=scene.when.tzinfo)).days
    craft = "AB"[days // 5 % 2]
    # relative orbits are numbered 1 to 143; this gives New York's zone its R011
    relative = (frame.epsg % 100 * 37 + 59) % 143 + 1
    absolute = 20_000 + int(days * 14.3)
    made = scene.when + timedelta(hours=5, minutes=48, seconds=7 * place.index + 3 * part)
    baseline = scene.baseline
    short = f"N{baseline.replace('.', '')}"
    start, end = _stamp(scene.when), _stamp(made)
    identifier = f"S2{craft}_MSIL2A_{start}_R{relative:03d}_T{tile}_{end}"
    scl = layers["SCL"].array
    valid = max(int(np.count_nonzero(scl)), 1)

    def percent(*codes: int) -> float:
        return round(100 * float(np.isin(scl, codes).sum()) / valid, 6)

    azimuth, zenith = sun_position(scene.when.date(), lat)
    properties: dict[str, Any] = {
        "datetime": _iso(scene.when),
        "title": f"Simulated Sentinel-2 scene over {place.name}",
        "description": "Simulated; no satellite took it. Cloud cover is that of a whole tile, of which this is a cut.",
        "platform": f"Sentinel-2{craft}",
        "proj:epsg": frame.epsg,
        "instruments": ["msi"],
        "s2:mgrs_tile": tile,
        "constellation": "Sentinel 2",
        "s2:granule_id": f"S2{craft}_OPER_MSI_L2A_TL_MSFT_{end}_A{absolute:06d}_T{tile}_N{baseline}",
        "eo:cloud_cover": scene.cloud_percent,
        "s2:datatake_id": f"GS2{craft}_{start}_{absolute:06d}_N{baseline}",
        "s2:product_uri": f"S2{craft}_MSIL2A_{start}_{short}_R{relative:03d}_T{tile}_{end}.SAFE",
        "s2:datastrip_id": f"S2{craft}_OPER_MSI_L2A_DS_MSFT_{end}_S{start}_N{baseline}",
        "s2:product_type": "S2MSI2A",
        "sat:orbit_state": "descending",
        "s2:datatake_type": "INS-NOBS",
        "s2:generation_time": _iso(made),
        "sat:relative_orbit": relative,
        "s2:water_percentage": percent(6),
        "s2:mean_solar_zenith": round(math.degrees(zenith), 6),
        "s2:mean_solar_azimuth": round(math.degrees(azimuth), 6),
        "s2:processing_baseline": baseline,
        "s2:snow_ice_percentage": percent(11),
        "s2:vegetation_percentage": percent(4),
        "s2:thin_cirrus_percentage": percent(10),
        "s2:cloud_shadow_percentage": percent(3),
        "s2:nodata_pixel_percentage": round(100 * float((scl == 0).mean()), 6),
        "s2:unclassified_percentage": percent(7),
        "s2:dark_features_percentage": percent(2),
        "s2:not_vegetated_percentage": percent(5),
        "s2:degraded_msi_data_percentage": 0.0,
        "s2:high_proba_clouds_percentage": percent(9),
        "s2:reflectance_conversion_factor": _sun_distance_factor(scene.when),
        "s2:medium_proba_clouds_percentage": percent(8),
        "s2:saturated_defective_pixel_percentage": 0.0,
    }  # fmt: skip
    if scene.boa_offset_applied is not None:
        properties["earthsearch:boa_offset_applied"] = scene.boa_offset_applied
    assets: dict[str, Any] = {}
    files = {}
    for name, layer in layers.items():
        gsd = _GSD[name]
        if name == "SCL":
            if rule.scl_asset is None:
                continue
            key, title = rule.scl_asset, "Scene classfication map (SCL)"
        else:
            key, title = rule.assets.get(name, name), f"{_BANDS[name][0]} - {gsd}m"
        files[name] = f"T{tile}_{start}_{name}_{gsd}m.tif"
        assets[key] = {
            "href": f"./{files[name]}", "type": _COG, "roles": ["data"], "title": title, "gsd": float(gsd),
            **_projection(layer),
        }  # fmt: skip
        if name in _BANDS:
            description, common, centre, width = _BANDS[name]
            band = {"name": name, "common_name": common, "description": description,
                    "center_wavelength": centre, "full_width_half_max": width}  # fmt: skip
            assets[key]["eo:bands"] = [{field: value for field, value in band.items() if value is not None}]
            if rule.offset == "asset":
                scaling = {"scale": 0.0001, "offset": -scene.offset_dn / 10000}
                assets[key]["raster:bands"] = [{"nodata": 0, "data_type": "uint16", **scaling}]
    return (
        _item(identifier, rule.collection, _lonlat(first.footprint, first.crs), properties, assets,
              ("eo/v1.0.0", "sat/v1.0.0", "projection/v1.1.0")),
        files,
    )  # fmt: skip


def radar_item(
    place: Place, radar: Radar, layers: Mapping[str, Layer], rule: RadarConfig, looks: float
) -> tuple[dict[str, Any], dict[str, str]]:
    """Describe one Sentinel-1 RTC item; see `scene_item` for the arguments."""
    assert rule.collection is not None, "the config of a simulated archive names it"
    first = layers["VV"]
    days = (radar.when.date() - datetime(2024, 4, 19).date()).days
    # Sentinel-1A flies 175 orbits in 12 days; orbit 53498 was flown on 2024-04-19
    absolute = 53_498 + math.floor(days * 175 / 12) + (10 if radar.orbit == "ascending" else 0)
    relative = (absolute - 73) % 175 + 1
    take = f"{int(hash_uniform(name_key(absolute, 'datatake'), 0) * 16**6):06X}"
    end = radar.when + timedelta(seconds=25)
    identifier = f"S1A_IW_GRDH_1SDV_{_stamp(radar.when)}_{_stamp(end)}_{absolute:06d}_{take}_rtc"
    t = first.transform
    projection = _projection(first)
    properties: dict[str, Any] = {
        "datetime": _iso(radar.when + timedelta(seconds=12)),
        "title": f"Simulated Sentinel-1 scene over {place.name}",
        "description": "Simulated; no satellite took it.",
        "platform": "SENTINEL-1A",
        "s1:shape": projection["proj:shape"][::-1],
        "proj:bbox": projection["proj:bbox"],
        "proj:epsg": place.frame.epsg,
        "proj:shape": projection["proj:shape"],
        "end_datetime": end.strftime("%Y-%m-%d %H:%M:%S+00:00"),
        "constellation": "Sentinel-1",
        "s1:resolution": "high",
        "proj:transform": [t.a, 0.0, t.c, 0.0, t.e, t.f, 0.0, 0.0, 1.0],
        "s1:datatake_id": str(int(take, 16)),
        "start_datetime": radar.when.strftime("%Y-%m-%d %H:%M:%S+00:00"),
        "s1:orbit_source": "RESORB",
        "s1:slice_number": str(place.index + 1),
        "s1:total_slices": str(place.index + 1),
        "sar:looks_range": 5,
        "sat:orbit_state": radar.orbit,
        "sar:product_type": "GRD",
        "sar:looks_azimuth": 1,
        "sar:polarizations": ["VV", "VH"],
        "sar:frequency_band": "C",
        "sat:absolute_orbit": absolute,
        "sat:relative_orbit": relative,
        "s1:processing_level": "1",
        "sar:instrument_mode": "IW",
        "sar:center_frequency": 5.405,
        "sar:resolution_range": 20,
        "s1:product_timeliness": "Fast-24h",
        "sar:resolution_azimuth": 22,
        "sar:pixel_spacing_range": 10,
        "sar:observation_direction": "right",
        "sar:pixel_spacing_azimuth": 10,
        "sar:looks_equivalent_number": looks,
        "s1:instrument_configuration_ID": "7",
        "sat:platform_international_designator": "2014-016A",
    }
    words = {"V": "vertical", "H": "horizontal"}
    assets, files = {}, {}
    for name in layers:
        send, receive = words[name[0]], words[name[1]]
        files[name] = f"iw-{name.lower()}.rtc.tiff"
        assets[rule.assets.get(name, name)] = {
            "href": f"./{files[name]}",
            "type": _COG,
            "roles": ["data"],
            "title": f"{name}: {send} transmit, {receive} receive",
            "description": f"Simulated gamma naught of the {send} transmitted, {receive} received signal "
            + ("as linear power." if rule.units == "linear_power" else "in dB."),
            "raster:bands": [{"nodata": -32768, "data_type": "float32", "spatial_resolution": 10.0}],
        }
    return (
        _item(identifier, rule.collection, _lonlat(first.footprint, first.crs), properties, assets,
              ("sar/v1.0.0", "sat/v1.0.0", "projection/v1.1.0", "raster/v1.1.0")),
        files,
    )  # fmt: skip


def _degrees(place: Place, step: int, lat_digits: int, lon_digits: int) -> tuple[str, str]:
    lon, lat = (math.floor(value / step) * step for value in place.lonlat)
    return (
        f"{'N' if lat >= 0 else 'S'}{abs(lat):0{lat_digits}d}",
        f"{'E' if lon >= 0 else 'W'}{abs(lon):0{lon_digits}d}",
    )


def dem_item(place: Place, layer: Layer, rule: DemConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """Describe one elevation item: the cut of a one-degree tile; see `scene_item` for the arguments."""
    north, east = _degrees(place, 1, 2, 3)
    identifier = f"Copernicus_DSM_COG_10_{north}_00_{east}_00_DEM_{place.name}"
    projection = _projection(layer)
    properties = {
        "gsd": 30,
        "datetime": "2021-04-22T00:00:00Z",
        "title": f"Simulated elevation of {place.name}",
        "description": f"Simulated; a cut in the lattice of the tile {north}_00_{east}_00.",
        "platform": "TanDEM-X",
        "proj:epsg": 4326,
        "proj:shape": projection["proj:shape"],
        "proj:transform": projection["proj:transform"],
    }
    files = {"DEM": f"{identifier}.tif"}
    asset = {"href": f"./{files['DEM']}", "title": f"{north}_00_{east}_00", "type": _COG, "roles": ["data"]}
    return (
        _item(identifier, rule.collection, layer.footprint, properties,
              {rule.assets.get("DEM", "DEM"): asset}, ("projection/v1.0.0",)),
        files,
    )  # fmt: skip


def cover_item(place: Place, layer: Layer, year: int, collection_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Describe one land-cover item: the cut of a three-degree tile; see `scene_item` for the arguments."""
    tile = "".join(_degrees(place, 3, 2, 3))
    version = "v200" if year == 2021 else "v100"
    identifier = f"ESA_WorldCover_10m_{year}_{version}_{tile}_{place.name}"
    properties = {
        "created": f"{year + 1}-10-28T00:00:00Z",
        "title": f"Simulated land cover of {place.name}, {year}",
        "mission": "sentinel-1, sentinel-2",
        "datetime": None,
        "platform": "sentinel-1a, sentinel-1b, sentinel-2a, sentinel-2b",
        "grid:code": f"ESAWORLDCOVER-{tile}",
        "proj:epsg": 4326,
        "description": f"Simulated land cover in the classes of ESA WorldCover, a cut in the lattice of tile {tile}",
        "instruments": ["c-sar", "msi"],
        "end_datetime": f"{year}-12-31T23:59:59Z",
        "start_datetime": f"{year}-01-01T00:00:00Z",
        "esa_worldcover:product_tile": tile,
        "esa_worldcover:product_version": "2.0.0" if year == 2021 else "1.0.0",
    }
    files = {"map": f"{identifier}_Map.tif"}
    projection = _projection(layer)
    asset = {
        "href": f"./{files['map']}",
        "type": _COG,
        "roles": ["data"],
        "title": "Land Cover Classes",
        "description": "Simulated classes with the codes of ESA WorldCover",
        "created": properties["created"],
        "proj:shape": projection["proj:shape"],
        "proj:transform": projection["proj:transform"],
        "raster:bands": [{"name": "Band1", "description": "Classification values", "nodata": 0, "sampling": "area",
                          "data_type": "uint8", "spatial_resolution": 10}],
        "classification:classes": [
            {"value": value, "description": name, "color-hint": color} for value, name, color in WORLDCOVER_LEGEND
        ],
    }  # fmt: skip
    return (
        _item(identifier, collection_id, layer.footprint, properties, {"map": asset},
              ("projection/v1.1.0", "grid/v1.1.0", "raster/v1.1.0", "classification/v1.0.0")),
        files,
    )  # fmt: skip


def collection(kind: str, identifier: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Describe one collection with links to its items.

    Args:
        kind: ``S2L2A``, ``S1RTC``, ``DEM`` or ``COVER``.
        identifier: Collection id.
        items: Its items.
    """
    title, description = _COLLECTIONS[kind]
    boxes = np.array([item["bbox"] for item in items])
    starts = [item["properties"]["datetime"] or item["properties"]["start_datetime"] for item in items]
    ends = [item["properties"]["datetime"] or item["properties"]["end_datetime"] for item in items]
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": identifier,
        "title": f"Simulated {title}",
        "description": f"{description}. Simulated in the shape of the product of this name; not a satellite's data.",
        "license": "Apache-2.0",
        MARK: True,
        "extent": {
            "spatial": {"bbox": [[*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]]},
            "temporal": {"interval": [[min(starts), max(ends)]]},
        },
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
            *(
                {"rel": "item", "href": f"./{item['id']}/{item['id']}.json", "type": "application/geo+json"}
                for item in items
            ),
        ],
    }


def root(collections: Sequence[str], seed: int) -> dict[str, Any]:
    """Describe the root of the archive."""
    return {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "cityheads-simulated",
        "title": "Simulated archive",
        "description": "A simulated city in the shape of the real archives: Sentinel-2 L2A, Sentinel-1 RTC, Copernicus "
        "DEM, ESA WorldCover, building footprints (footprints.geojson) and the surveyed area (boundary.geojson). "
        f"Made by cityheads simulate_archive with seed {seed}; no satellite took any of it.",
        MARK: True,
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            *(
                {"rel": "child", "href": f"./{name}/collection.json", "type": "application/json"}
                for name in collections
            ),
        ],
    }
