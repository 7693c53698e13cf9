"""The dataset as a static STAC catalogue: one item per kept sub-chip, linked to the scenes it was made of."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cityheads.archive import hrefs
from cityheads.config import Config, Label
from cityheads.core.artifacts import chips as column
from cityheads.core.artifacts.chips import CHIPS, SUBCHIPS
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.reading import READING, Reading
from cityheads.core.artifacts.scenes import SCENES, SceneChoice, item_time
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT
from cityheads.core.classes import CLOUD_MASK, IGNORE, mask_layer
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file, write_json
from cityheads.core.layout import DatasetFolder, ParentFolder, chip_file, parent_file
from cityheads.core.modalities import COMMON_NAMES, MODALITIES
from cityheads.core.redaction import scrub
from cityheads.dataset.cloud_mask import HIDDEN, SEEN

__all__ = ["publish_catalog"]

log = logging.getLogger(__name__)

_STAC = "1.1.0"
#: Bands are told twice: as STAC 1.1 does, and by version 1 of the extensions, which is what pystac and with it odc-stac
#: read. The schemas of version 2 refuse the latter, so that they are not declared.
_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
]
#: Terms of what the pixels and labels were made of; a label of another source has the terms of that source.
_LICENCES = {
    "sentinel": (
        "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice",
        "Legal notice on the use of Copernicus Sentinel data",
    ),
    "cop-dem": (
        "https://spacedata.copernicus.eu/documents/20123/121286/CSCDA_ESA_Mission-specific+Annex_31_Oct_22.pdf",
        "Licence of the Copernicus DEM",
    ),
    "esa-worldcover": ("https://creativecommons.org/licenses/by/4.0/", "ESA WorldCover: CC BY 4.0"),
}

_COG = "image/tiff; application=geotiff"

#: Code of SHA-256 and the length of its digest, which the file extension wants before a checksum (multihash).
_SHA256_MULTIHASH = "1220"

_COLUMNS = (
    "chip_id",
    "parent_id",
    "kept",
    "epsg",
    "left",
    "top",
    "chip_px",
    "resolution_m",
    "clear_fraction",
    "hidden_fraction",
    column.sha256(CLOUD_MASK),
    "simulated",
    "geometry",
)


def publish_catalog(config: Config, *, scenes: Path, parents_dir: Path, chips: Path, dataset: Path, out: Path) -> None:
    """Write a STAC catalogue of the kept sub-chips with all labels; ``catalog.json`` is written last.

    An item says in which split it is. In a cross-validation that changes from fold to fold: there it says in which fold
    its parent is tested, and the items are all sub-chips that are good enough, also those that some fold leaves out.

    Args:
        config: Config with sections ``project``, ``archive.imagery`` and ``labels``, from which the colours come.
        scenes: Folder of the frozen scene choices.
        parents_dir: Folder of the parents' rasters, for what was done to them (``reading.json``).
        chips: Folder of the sub-chips.
        dataset: Folder of the assembled dataset, of any of its folds.
        out: Folder of the catalogue. Links are relative, so it can move together with ``chips``.

    Raises:
        CityHeadsError: A file of the dataset is missing.
    """
    import shapely

    assembled = DatasetFolder(dataset)
    # a label that nothing trains on is in the chips, but not in the dataset
    trained = [mask_layer(label) for label in CLASSES.read(assembled.classes)["labels"]]
    modalities = config.archive.imagery.names
    columns = [column.valid_fraction(name) for name in modalities]
    columns += [column.sha256(layer) for layer in (*modalities, *trained)]
    splits = SPLIT_ASSIGNMENT.read(assembled.splits)
    if splits["folds"] == 1:
        rows = CHIPS.read(assembled.chips, (*_COLUMNS, *columns))
        held_out: dict[str, dict[str, Any]] = {
            parent: {"cityheads:split": split} for parent, split in splits["parents"].items()
        }
    else:
        rows = SUBCHIPS.read(assembled.store.subchips, (*_COLUMNS, *columns))
        held_out = {parent: {"cityheads:test_fold": fold} for parent, fold in splits["tested_in"].items()}
    kept = [row for row in rows if row["kept"]]
    choices = {name: SCENES.read(parent_file(scenes, name)) for name in sorted({row["parent_id"] for row in kept})}
    readings = {name: READING.read(ParentFolder(parents_dir / name).reading) for name in choices}
    name = f"{config.project.name}-chips"
    folder = out / name
    boxes, times = [], []
    for row in kept:
        geometry = shapely.from_wkb(row["geometry"])
        place = folder / "items" / f"{row['chip_id']}.json"
        choice = choices[row["parent_id"]]
        told = held_out[row["parent_id"]]
        item = _item(row, geometry, told, choice, readings[row["parent_id"]], config, chips, place, name)
        boxes.append(geometry.bounds)
        times.append(item["properties"]["datetime"])
        write_json(place, item)
    collection = _collection(name, config, rows, kept, held_out, boxes, times)
    collection["links"] += _licences(choices.values())
    write_json(folder / "collection.json", collection)
    root = {"rel": "root", "href": "./catalog.json", "type": "application/json"}
    catalog: dict[str, Any] = {
        "type": "Catalog",
        "stac_version": _STAC,
        "id": config.project.name,
        "title": config.project.title,
        "description": _description(rows, kept),
        "links": [root, {"rel": "child", "href": f"./{name}/collection.json", "type": "application/json"}],
    }
    if any(row["simulated"] for row in rows):
        catalog["cityheads:simulated"] = True
    write_json(out / "catalog.json", catalog)
    log.info("%s: %d items", out / "catalog.json", len(kept))


def _description(rows: list[dict[str, Any]], kept: list[dict[str, Any]]) -> str:
    text = f"{len(kept)} of {len(rows)} sub-chips; the others were dropped for their quality"
    return text + (". Simulated pixels, no real place." if any(row["simulated"] for row in rows) else ".")


def _collection(
    name: str,
    config: Config,
    rows: list[dict[str, Any]],
    kept: list[dict[str, Any]],
    held_out: Mapping[str, Mapping[str, Any]],
    boxes: list[tuple[float, ...]],
    times: list[str],
) -> dict[str, Any]:
    if boxes:
        west, south, east, north = zip(*boxes, strict=True)
        whole = [min(west), min(south), max(east), max(north)]
    else:
        whole = [-180.0, -90.0, 180.0, 90.0]
    told = [held_out[row["parent_id"]] for row in kept]
    keys = dict.fromkeys(key for one in told for key in one)
    links = [
        {"rel": "root", "href": "../catalog.json", "type": "application/json"},
        {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
        *({"rel": "item", "href": f"./items/{row['chip_id']}.json", "type": "application/geo+json"} for row in kept),
    ]
    return {
        "type": "Collection",
        "stac_version": _STAC,
        "id": name,
        "title": config.project.title,
        "description": _description(rows, kept),
        "license": "other",
        "extent": {
            "spatial": {"bbox": [whole]},
            "temporal": {"interval": [[min(times, default=None), max(times, default=None)]]},
        },
        "summaries": {key: sorted({one[key] for one in told}) for key in keys},
        "links": links,
    }


def _licences(choices: Iterable[SceneChoice]) -> list[dict[str, str]]:
    """Link to the terms of the collections that were read; simulated pixels have none."""
    read = {layer["collection"] or "" for one in choices if not one["simulated"] for layer in one["layers"].values()}
    return [
        {"rel": "license", "href": href, "title": title}
        for start, (href, title) in _LICENCES.items()
        if any(collection.startswith(start) for collection in read)
    ]


def _item(
    row: Mapping[str, Any],
    geometry: Any,
    held_out: Mapping[str, Any],
    choice: SceneChoice,
    reading: Reading,
    config: Config,
    chips: Path,
    place: Path,
    collection: str,
) -> dict[str, Any]:
    step, px = row["resolution_m"], row["chip_px"]
    properties: dict[str, Any] = {
        "datetime": item_time(choice["layers"]["S2L2A"]["items"][0]),
        "gsd": step,
        "proj:code": f"EPSG:{row['epsg']}",
        "proj:shape": [px, px],
        "proj:transform": [step, 0.0, row["left"], 0.0, -step, row["top"]],
        "cityheads:parent": row["parent_id"],
        **held_out,
        "cityheads:simulated": row["simulated"],
        "cityheads:clear_fraction": row["clear_fraction"],
        "cityheads:hidden_fraction": row["hidden_fraction"],
        "cityheads:offset_dn": reading["layers"]["S2L2A"]["offset_dn"],
        "cityheads:offset_check": {
            name: check["verdict"] for name, check in reading["layers"]["S2L2A"].get("offset_check", {}).items()
        },
        "cityheads:resampling": {name: layer["resampling"] for name, layer in reading["layers"].items()},
        "cityheads:synthesized": [name for name, layer in reading["layers"].items() if layer.get("synthesized")],
        "cityheads:versions": reading["versions"],
    }
    assets = {}
    for name in config.archive.imagery.names:
        assets[name] = _imagery_asset(name, row, chips, place)
        properties[f"cityheads:valid_fraction_{name}"] = row[column.valid_fraction(name)]
    assets[CLOUD_MASK] = _cloud_mask_asset(row, chips, place)
    for name, label in config.labels.items():
        assets[mask_layer(name)] = _mask_asset(name, label, row, chips, place)
    return {
        "type": "Feature",
        "stac_version": _STAC,
        "stac_extensions": _EXTENSIONS,
        "id": row["chip_id"],
        "collection": collection,
        "geometry": json.loads(_geojson(geometry)),
        "bbox": list(geometry.bounds),
        "properties": properties,
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
            *_sources(choice, place),
        ],
        "assets": assets,
    }


def _geojson(geometry: Any) -> str:
    import shapely

    text: str = shapely.to_geojson(geometry)
    return text


def _sources(choice: SceneChoice, place: Path) -> Iterable[dict[str, str]]:
    """Link to the scenes: at their API, on their web server, or in their folder."""
    base = hrefs.base_of(choice["catalog"], None)
    seen = set()
    for layer in choice["layers"].values():
        for item in layer["items"]:
            href = item.get("self")
            if href is None:
                continue  # a shipped choice may not say where its items are described
            href = scrub(href) if hrefs.is_remote(href) else _relative(Path(base) / href, place)
            if href not in seen:
                seen.add(href)
                yield {"rel": "derived_from", "href": href, "type": "application/geo+json", "title": item["id"]}


def _relative(target: Path, place: Path) -> str:
    return Path(os.path.relpath(target, place.parent)).as_posix()


def _file(layer: str, row: Mapping[str, Any], chips: Path, place: Path) -> dict[str, Any]:
    path = chip_file(chips, layer, row["chip_id"])
    if not path.exists():
        raise CityHeadsError(f"{path}: no such file, though the chip table lists it; run again")
    return {
        "href": _relative(path, place),
        "type": _COG,
        "file:size": path.stat().st_size,
        "file:checksum": f"{_SHA256_MULTIHASH}{row.get(column.sha256(layer)) or sha256_file(path)}",
    }


def _bands(names: Iterable[str], resolution_m: float, **values: Any) -> dict[str, Any]:
    """Describe the bands of a file, in their order, as STAC 1.1 does and as version 1 of the extensions does.

    Args:
        names: Names of the bands.
        resolution_m: Side of a pixel.
        **values: What holds for the values of each band: ``data_type``, ``nodata`` and, where they have them, ``unit``,
            ``scale`` and ``classification:classes``.
    """
    scale = values.pop("scale", None)
    newer, electro_optical, older = [], [], []
    for name in names:
        common = COMMON_NAMES.get(name)
        grid = {"spatial_resolution": resolution_m, "sampling": "area"} | ({} if scale is None else {"scale": scale})
        newer.append(
            {"name": name}
            | ({} if common is None else {"eo:common_name": common})
            | values
            | {f"raster:{key}": value for key, value in grid.items()}
        )
        electro_optical.append({"name": name} | ({} if common is None else {"common_name": common}))
        older.append(values | grid)
    return {"bands": newer, "eo:bands": electro_optical, "raster:bands": older}


def _imagery_asset(name: str, row: Mapping[str, Any], chips: Path, place: Path) -> dict[str, Any]:
    modality = MODALITIES[name]
    values: dict[str, Any] = {
        "data_type": modality.dtype,
        "nodata": "nan" if math.isnan(modality.nodata) else modality.nodata,
        "unit": modality.unit,
    }
    if name == "S2L2A":
        # stored are whole numbers; times the scale they are reflectance
        values |= {"scale": 0.0001, "unit": "surface reflectance"}
    bands = _bands(modality.bands, row["resolution_m"], **values)
    return {**_file(name, row, chips, place), "title": name, "roles": ["data"], **bands}


def _cloud_mask_asset(row: Mapping[str, Any], chips: Path, place: Path) -> dict[str, Any]:
    classes = [{"value": SEEN, "name": "ground", "description": "the image shows the ground"}]
    classes += [{"value": value, "name": reason, "description": reason.replace("_", " ")}
                for reason, value in sorted(HIDDEN.items(), key=lambda pair: pair[1])]  # fmt: skip
    return {
        **_file(CLOUD_MASK, row, chips, place),
        "title": "where the image does not show the ground; the labels of the packed dataset are ignored there",
        "roles": ["cloud", "cloud-shadow", "saturation"],
        **_bands([CLOUD_MASK], row["resolution_m"], **{"data_type": "uint8", "classification:classes": classes}),
    }


def _mask_asset(name: str, label: Label, row: Mapping[str, Any], chips: Path, place: Path) -> dict[str, Any]:
    classes = [
        {"value": value, "name": item.name.replace(" ", "_"), "description": item.name,
         "color_hint": item.color.lstrip("#").upper()}
        for value, item in enumerate(label.classes)
    ]  # fmt: skip
    ignored = {"value": IGNORE, "name": "ignore", "description": "not labelled", "nodata": True}
    values = {"data_type": "uint8", "nodata": IGNORE, "classification:classes": [*classes, ignored]}
    return {
        **_file(mask_layer(name), row, chips, place),
        "title": f"labels {name}",
        "roles": ["labels"],
        **_bands([name], row["resolution_m"], **values),
    }
