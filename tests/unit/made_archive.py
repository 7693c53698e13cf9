"""Small static catalogues of made rasters, whose every pixel a test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import array_bounds, from_origin
from rasterio.warp import transform_geom

from cityheads.archive.choose.scenes import select_scenes
from cityheads.config import Config, resolve
from cityheads.core.modalities import MODALITIES
from cityheads.verbs import VERBS

EPSG = 32618
LEFT, TOP, PX = 590000.0, 4510000.0, 64
BANDS = MODALITIES["S2L2A"].bands
GSD = dict(zip(BANDS, MODALITIES["S2L2A"].native_gsd_m, strict=True))


@dataclass
class Raster:
    """Pixels and where they lie."""

    pixels: np.ndarray
    left: float = LEFT
    top: float = TOP
    step: float = 10.0
    epsg: int = EPSG
    nodata: float | None = None

    @property
    def transform(self) -> Any:
        return from_origin(self.left, self.top, self.step, self.step)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            path, "w", driver="GTiff", count=1, height=self.pixels.shape[0], width=self.pixels.shape[1],
            dtype=self.pixels.dtype.name, crs=f"EPSG:{self.epsg}", transform=self.transform, nodata=self.nodata,
            tiled=True, blockxsize=64, blockysize=64, compress="deflate",
        ) as target:  # fmt: skip
            target.write(self.pixels, 1)

    @property
    def footprint(self) -> dict[str, Any]:
        west, south, east, north = array_bounds(*self.pixels.shape, self.transform)
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        polygon = {"type": "Polygon", "coordinates": [ring]}
        found: dict[str, Any] = transform_geom(f"EPSG:{self.epsg}", "EPSG:4326", polygon)
        return found


@dataclass
class MadeArchive:
    """A static catalogue; `write` puts it on disk."""

    folder: Path
    items: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    root: dict[str, Any] = field(default_factory=dict)

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog.json"

    def add(self, collection: str, name: str, rasters: Mapping[str, Raster], **properties: Any) -> dict[str, Any]:
        for key, raster in rasters.items():
            raster.write(self.folder / "assets" / name / f"{key}.tif")
        item = {
            "type": "Feature", "stac_version": "1.1.0", "id": name, "collection": collection,
            "geometry": next(iter(rasters.values())).footprint,
            "properties": properties, "links": [],
            "assets": {key: {"href": f"../../assets/{name}/{key}.tif"} for key in rasters},
        }  # fmt: skip
        self.items.setdefault(collection, []).append(item)
        return item

    def write(self) -> Path:
        links = [{"rel": "child", "href": f"./{name}/collection.json"} for name in self.items]
        self._dump(
            self.catalog, {"type": "Catalog", "id": "made", "stac_version": "1.1.0", "links": links, **self.root}
        )
        for name, items in self.items.items():
            links = [{"rel": "item", "href": f"./items/{number}.json"} for number in range(len(items))]
            document = {"type": "Collection", "id": name, "stac_version": "1.1.0", "links": links}
            self._dump(self.folder / name / "collection.json", document)
            for number, item in enumerate(items):
                self._dump(self.folder / name / "items" / f"{number}.json", item)
        return self.catalog

    def _dump(self, path: Path, document: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))


def s2_rasters(
    rng: np.random.Generator, *, left: float = LEFT, top: float = TOP, px: int = 120, scl: int | np.ndarray = 4
) -> dict[str, Raster]:
    """Make twelve bands at their own resolutions and a scene classification, from (left, top), px x 10 m wide."""
    rasters = {}
    for band in BANDS:
        size = px * 10 // GSD[band]
        rasters[band] = Raster(rng.integers(1200, 4000, (size, size)).astype(np.uint16), left, top, GSD[band], nodata=0)
    codes = np.full((px // 2, px // 2), scl, np.uint8) if isinstance(scl, int) else scl
    rasters["SCL"] = Raster(codes, left, top, 20, nodata=0)
    return rasters


def s1_rasters(rng: np.random.Generator, *, px: int = 120) -> dict[str, Raster]:
    """Make two polarisations of linear power."""
    return {
        key: Raster(rng.gamma(4.4, mean / 4.4, (px, px)).astype(np.float32), nodata=-32768)
        for key, mean in (("vv", 0.1), ("vh", 0.02))
    }


def dem_raster(rng: np.random.Generator, *, degrees: float = 0.06, west: float | None = None) -> Raster:
    """Make a smooth elevation model in degrees that covers the parent."""
    size = round(degrees * 3600)
    rows, columns = np.mgrid[0:size, 0:size]
    hills = (40 + 10 * np.sin(rows / 5) + 8 * np.cos(columns / 7)).astype(np.float32)
    return Raster(hills, -73.96 if west is None else west, 40.75, 1 / 3600, 4326)


def complete(folder: Path, *, baseline: str = "05.10") -> MadeArchive:
    """Make an archive with everything that one parent needs."""
    rng = np.random.default_rng(3)
    archive = MadeArchive(folder)
    archive.add("sentinel-2-l2a", "S2_A", s2_rasters(rng), datetime="2024-07-10T15:50:00Z",
                **{"eo:cloud_cover": 3.0, "s2:processing_baseline": baseline, "platform": "Sentinel-2A"})  # fmt: skip
    archive.add("sentinel-1-rtc", "S1_A", s1_rasters(rng), datetime="2024-07-08T22:50:00Z",
                **{"sat:orbit_state": "ascending", "platform": "SENTINEL-1A", "sat:absolute_orbit": 1})  # fmt: skip
    archive.add("cop-dem-glo-30", "DEM_A", {"data": dem_raster(rng)}, datetime="2021-04-22T00:00:00Z")
    cover = rng.choice(np.array([10, 30, 50, 80], np.uint8), (600, 600))
    archive.add("esa-worldcover", "WC_A", {"map": Raster(cover, -73.96, 40.75, 1 / 12000, 4326, 0)}, datetime=None,
                start_datetime="2021-01-01T00:00:00Z", end_datetime="2021-12-31T23:59:59Z")  # fmt: skip
    return archive


def sheet(folder: Path, left: float = LEFT, top: float = TOP, epsg: int = EPSG) -> Path:
    """Write a parent sheet of one parent, P1."""
    path = folder / "parents.tsv"
    path.write_text(f"parent_id\tepsg\tleft\ttop\nP1\t{epsg}\t{left}\t{top}\n")
    return path


def config(*, lulc: Mapping[str, Any] | None = None, **archive: Any) -> Config:
    """Make a config for the made archive.

    Args:
        lulc: Keys of the label LULC.
        **archive: Keys of ``archive``; ``S2L2A`` and the like go to ``archive.imagery``.
    """
    imagery = {name: archive.pop(name, {}) for name in ("S2L2A", "S1RTC", "DEM")}
    if "S1GRD" in archive:
        imagery["S1GRD"] = archive.pop("S1GRD")
    classes = [
        {"name": "water", "color": "#000000", "codes": [80]},
        {"name": "land", "color": "#ffffff", "codes": [10, 20, 30, 40, 50, 60, 70, 90, 95, 100]},
    ]
    return resolve(
        {
            "grid": {"parent_px": PX, "chips_per_side": 2, "aligned": False},
            "archive": {"provider": "stac", "catalog": "catalog.json", "imagery": imagery, **archive},
            "labels": {"LULC": {"kind": "landcover", "classes": classes, **(lulc or {})}},
            "heads": {"lulc": {"label": "LULC"}},
            "runs": {"multihead": {"heads": ["lulc"]}, "lulc": {"heads": ["lulc"]}},
        }
    )


def select_config(**archive: Any) -> Config:
    """Make the config as ``select_scenes`` is handed it."""
    return config(**archive).restricted_to(VERBS["select_scenes"].sections)


def read_config(**archive: Any) -> Config:
    """Make the config as ``read_parent`` is handed it."""
    return config(**archive).restricted_to(VERBS["read_parent"].sections)


def choose(archive: MadeArchive, folder: Path, **settings: Any) -> dict[str, Any]:
    """Choose the scenes of P1 and give the choice."""
    catalog = archive.write()
    out = folder / "scenes" / "P1.json"
    select_scenes(select_config(**settings), parents=sheet(folder), parent="P1", catalog=str(catalog), out=out)
    scenes: dict[str, Any] = json.loads(out.read_text())
    return scenes
