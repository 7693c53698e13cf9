"""Asking the published model: a point's answer, and the map of a whole parent."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from cityheads.core.classes import IGNORE
from cityheads.core.raster import write_raster
from cityheads.product.city_map import Answer, CityMap

__all__ = ["fetch", "predict_parent", "print_fetch"]

log = logging.getLogger(__name__)


def fetch(lat: float, lon: float, *, bundle: Path, results: Path, radius_m: float = 100.0) -> Answer:
    """Tell what lies around a point: building density and class fractions from one forward pass.

    Opens the model for this one answer; for many points open a `CityMap` and call `CityMap.at`, which describes the
    arguments, the answer and the errors.
    """
    return CityMap(bundle, results).at(lat, lon, radius_m)


def print_fetch(*, lat: float, lon: float, bundle: Path, results: Path, radius_m: float) -> None:
    """Print the answer of `fetch` as JSON."""
    print(json.dumps(fetch(lat, lon, bundle=bundle, results=results, radius_m=radius_m), indent=1, ensure_ascii=False))


def predict_parent(*, parent: str, bundle: Path, results: Path, out: Path, overlap_px: int | None = None) -> None:
    """Write a map of a whole parent, one GeoTIFF per head with the colours and names of its classes.

    Args:
        parent: Id of the parent.
        bundle: Folder of the published model; its class table has the colours.
        results: Results folder with the imagery.
        out: Folder for ``{head}.tif``: uint8, class ids, 255 where a modality has no data.
        overlap_px: See `CityMap.map_parent`.
    """
    city = CityMap(bundle, results)
    maps = city.map_parent(parent, overlap_px)
    place = city.places[parent]
    for head, classes in maps.items():
        table = city.classes[city.spec["heads"][head]["label"]]
        tags = {f"class_{item['id']}": item["name"] for item in table}
        tags |= {"head": head, "run": city.spec["run"], "seed": str(city.spec["seed"])}
        tags |= {"simulated": str(city.simulated(place))}
        colors = {item["id"]: item["color"] for item in table}
        path = Path(out) / f"{head}.tif"
        write_raster(path, classes, place.geobox, nodata=IGNORE, bands=[head], tags=tags, colors=colors)
        log.info("%s: %s", path, ", ".join(item["name"] for item in table))
