"""Read all modalities of one parent onto one grid: the scene choice in, three or four rasters out."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cityheads import __version__
from cityheads.archive import network
from cityheads.archive.stac import S1_NODATA, read_scenes
from cityheads.archive.warp import Plan, Target, plan, read_onto
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file, write_json
from cityheads.core.grid import Grid, Parent, find_parent, parent_geobox, read_parents
from cityheads.core.modalities import MODALITIES, RADAR, SCL_CLEAR, SCL_NODATA
from cityheads.core.raster import write_raster

__all__ = ["Layer", "Wanted", "mosaic", "read_layers", "read_parent", "to_db"]

log = logging.getLogger(__name__)
progress = logging.getLogger("cityheads.progress")

#: More pixels than this share beyond physics is a unit error, fewer are glints and defects.
_OUT_OF_RANGE = 0.01

#: A band whose median is below this was not scaled by 10000: 0.0005 reflectance is darker than clear deep water in
#: the near infrared.
_LEAST_MEDIAN_DN = 5

#: Blue reflectance over land and water is above zero after atmospheric correction; when subtracting the offset sends
#: more than this share of the blue band to the floor, the archive had already removed it.
_FLOORED = 0.5


@dataclass(frozen=True)
class Wanted:
    """What is to be read of one layer of a scene choice.

    Attributes:
        layer: Key in the choice's ``layers``.
        bands: Our band names (keys of the items' ``assets``).
        resampling: For rasters that do not lie on the grid.
        fill: Value where there is no data.
        undeclared: Nodata of rasters that declare none; None for a product that has none.
        resampling_of: Resampling of single bands that differ.
    """

    layer: str
    bands: Sequence[str]
    resampling: str
    fill: float
    undeclared: float | None
    resampling_of: Mapping[str, str] = field(default_factory=dict)

    def way(self, band: str) -> str:
        """Give the resampling of one band."""
        return self.resampling_of.get(band, self.resampling)


@dataclass(frozen=True)
class Layer:
    """The pixels of one layer of a scene choice, on the parent's grid.

    Attributes:
        pixels: Per band, one (H, W) array per item, in the items' order (first has priority in a mosaic).
        resampling: Per band, how the rasters came onto the grid; ``none`` where they lie on it.
    """

    pixels: dict[str, list[np.ndarray]]
    resampling: dict[str, str]


@dataclass(frozen=True)
class _Read:
    """One raster to read."""

    name: str
    band: str
    href: str
    where: str
    wanted: Wanted


def mosaic(layers: Sequence[np.ndarray], missing: float) -> np.ndarray:
    """Lay arrays under each other: the first one with data gives the pixel.

    Args:
        layers: Arrays of one shape and dtype, first priority first.
        missing: Nodata, NaN allowed.
    """
    result = layers[0].copy()
    for pixels in layers[1:]:
        gaps = np.isnan(result) if np.isnan(missing) else result == missing
        if not gaps.any():
            break
        result[gaps] = pixels[gaps]
    return result


def to_db(power: np.ndarray) -> np.ndarray:
    """Convert linear power to decibels; what is not above zero becomes NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(power > 0, 10 * np.log10(power), np.nan).astype(np.float32)


def read_layers(
    scenes: Mapping[str, Any], wanted: Mapping[str, Wanted], parent: Parent, grid: Grid, archive: Mapping[str, Any]
) -> dict[str, Layer]:
    """Read bands of all items of some layers of a scene choice onto the parent's grid, several at once.

    All rasters are opened first, so that the bytes to come are known before they are fetched.

    Args:
        scenes: Frozen scene choice.
        wanted: What to read, by any name.
        parent: Where.
        grid: How large.
        archive: The config's ``archive`` section.

    Returns:
        The layers, by the names of ``wanted``.

    Raises:
        CityHeadsError: A raster is missing or damaged; the message names item and band.
    """
    tasks: list[_Read] = []
    for name, want in wanted.items():
        if want.layer not in scenes["layers"]:
            raise CityHeadsError(
                f"the scene choice of {parent.parent_id} has no layer {want.layer}; delete it and run again"
            )
        chosen = scenes["layers"][want.layer]
        for band in want.bands:
            for item in chosen["items"]:
                where = f"collection {chosen['collection']}: item {item['id']}: band {band}"
                if band not in item["assets"]:
                    raise CityHeadsError(f"{where}: the scene choice has no such band; delete it and run again")
                tasks.append(_Read(name, band, item["assets"][band], where, want))
    target = Target.of_parent(parent, grid)
    base = network.base_of(scenes["catalog"], archive["asset_base"])
    opened: list[network.Raster | None] = [None] * len(tasks)

    def prepare(index: int) -> Plan:
        task = tasks[index]
        raster = opened[index] = network.open_once(task.href, base, archive=archive, where=task.where)
        with network.named(task.where, task.href):
            if np.dtype(raster.dtypes[0]).kind not in "uif":
                raise CityHeadsError(f"pixels of type {raster.dtypes[0]} are not numbers")
            return plan(raster, target)

    def read(index: int, planned: Plan) -> np.ndarray:
        task, raster = tasks[index], opened[index]
        assert raster is not None
        cost = raster.cost(planned.window, planned.read_shape)
        want = task.wanted
        with network.named(task.where, task.href):
            pixels = read_onto(
                raster,
                target,
                resampling=want.way(task.band),
                fill=want.fill,
                undeclared=want.undeclared,
                planned=planned,
            )
        raster.close()
        meter.add(cost)
        return pixels

    meter = _Meter(parent.parent_id)
    try:
        with ThreadPoolExecutor(min(archive["workers"], len(tasks))) as pool:
            plans = list(pool.map(prepare, range(len(tasks))))
            meter.expect(
                raster.cost(planned.window, planned.read_shape)
                for raster, planned in zip(opened, plans, strict=True)
                if raster is not None
            )
            arrays = list(pool.map(read, range(len(tasks)), plans))
    finally:
        for raster in opened:
            if raster is not None:
                raster.close()
    layers: dict[str, Layer] = {}
    for name, want in wanted.items():
        layers[name] = Layer({band: [] for band in want.bands}, dict.fromkeys(want.bands, "none"))
    for task, array, planned in zip(tasks, arrays, plans, strict=True):
        layers[task.name].pixels[task.band].append(array)
        if planned.window is not None and planned.paste is None:
            layers[task.name].resampling[task.band] = task.wanted.way(task.band)
    return layers


class _Meter:
    """Says how many bytes will be fetched before they are, and then how many are there, in quarters."""

    def __init__(self, parent_id: str) -> None:
        self._parent_id = parent_id
        self._expected = self._fetched = self._said = 0
        self._lock = threading.Lock()

    def expect(self, costs: Iterable[int]) -> None:
        """Announce the bytes to come; nothing is said of local rasters."""
        rasters = list(costs)
        self._expected = sum(rasters)
        if self._expected:
            progress.info("%s: %.1f MB to fetch from %d rasters", self._parent_id, self._expected / 1e6, len(rasters))

    def add(self, cost: int) -> None:
        """Count what one raster brought."""
        with self._lock:
            self._fetched += cost
            quarter = 4 * self._fetched // self._expected if self._expected else 0
            if quarter > self._said:
                self._said = quarter
                progress.info("%s: %d %% of %.1f MB", self._parent_id, 25 * quarter, self._expected / 1e6)


def read_parent(settings: dict[str, Any], *, parents: Path, parent: str, scenes: Path, out: Path) -> None:
    """Read all modalities of one parent onto one grid.

    Args:
        settings: The config's ``grid``, ``archive`` and ``quality`` sections.
        parents: Parent sheet.
        parent: Parent id.
        scenes: Frozen scene choice of the parent.
        out: Folder for one GeoTIFF per modality, ``SCL.tif``, and ``reading.json``, written last.

    Raises:
        CityHeadsError: A raster is missing or damaged, elevation is missing, or the values betray a unit error.
    """
    grid = Grid.from_settings(settings["grid"])
    square = find_parent(read_parents(parents, grid), parent, parents)
    choice = read_scenes(scenes, square)
    archive = settings["archive"]
    imagery = archive["imagery"]
    geobox = parent_geobox(square, grid)
    (out / "reading.json").unlink(missing_ok=True)
    layers: dict[str, Any] = {}
    stacks: dict[str, np.ndarray] = {}

    made = [name for name in RADAR if name in imagery and choice["layers"].get(name, {}).get("synthesized")]
    found = read_layers(choice, _wanted(imagery, made), square, grid, archive)
    stacks["S2L2A"], scl, layers["S2L2A"] = _take_s2(choice, square, found, imagery["S2L2A"])
    limits = settings["quality"]["s1_median_db"]
    for name in RADAR:
        if name in imagery and name not in made:
            stacks[name], layers[name] = _take_s1(choice, name, square, found, imagery[name], limits)
    if "DEM" in imagery:
        stacks["DEM"], layers["DEM"] = _take_dem(choice, square, found)
    acquired = dict(stacks)
    for name in made:
        stacks[name], layers[name] = _make_s1(acquired, name, square, grid, archive["synthesis"])

    tags = {"parent": parent, "simulated": str(bool(choice["simulated"])).lower()}
    for name, stack in stacks.items():
        modality = MODALITIES[name]
        path = out / f"{name}.tif"
        more = {"unit": modality.unit} | ({"synthesized": "true"} if name in made else {})
        write_raster(path, stack, geobox, nodata=modality.nodata, bands=modality.bands, tags=tags | more)
        layers[name]["sha256"] = sha256_file(path)
    if scl is not None:
        write_raster(out / "SCL.tif", scl, geobox, nodata=SCL_NODATA, bands=["SCL"], tags=tags)
        layers["S2L2A"]["sha256_SCL"] = sha256_file(out / "SCL.tif")
    write_json(
        out / "reading.json",
        {
            "format": 1,
            "parent_id": parent,
            "simulated": bool(choice["simulated"]),
            "layers": layers,
            "versions": _versions(),
        },
    )
    fractions = ", ".join(f"{name} {layer['valid_fraction']:.1%} valid" for name, layer in layers.items())
    log.info("%s: %s", parent, fractions)


def _wanted(imagery: Mapping[str, Any], made: Sequence[str] = ()) -> dict[str, Wanted]:
    """Say what is to be read: all that the config asks for, but for what is made of the rest."""
    rule = imagery["S2L2A"]
    wanted = {"S2L2A": Wanted("S2L2A", MODALITIES["S2L2A"].bands, rule["resampling"], 0, 0, rule["resampling_of"])}
    if rule["scl_asset"] is not None:
        wanted["SCL"] = Wanted("S2L2A", ["SCL"], "nearest", SCL_NODATA, SCL_NODATA)
    for name in RADAR:
        if name in imagery and name not in made:
            wanted[name] = Wanted(name, MODALITIES[name].bands, imagery[name]["resampling"], np.nan, S1_NODATA)
    if "DEM" in imagery:
        wanted["DEM"] = Wanted("DEM", MODALITIES["DEM"].bands, imagery["DEM"]["resampling"], np.nan, None)
    return wanted


def _versions() -> dict[str, str]:
    import rasterio

    return {
        "cityheads": __version__,
        "gdal": rasterio.__gdal_version__,
        "numpy": np.__version__,
        "rasterio": rasterio.__version__,
    }


def _ids(choice: Mapping[str, Any], layer: str) -> list[str]:
    return [item["id"] for item in choice["layers"][layer]["items"]]


def _sources(choice: Mapping[str, Any], layer: str) -> dict[str, dict[str, Any]]:
    """Give, per item, what tells where its pixels come from."""
    return {
        item["id"]: {
            "datetime": item["datetime"],
            "baseline": item["properties"].get("s2:processing_baseline"),
            "hrefs": item["assets"],
        }
        for item in choice["layers"][layer]["items"]
    }


def _take_s2(
    choice: Mapping[str, Any], parent: Parent, found: Mapping[str, Layer], rule: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    modality = MODALITIES["S2L2A"]
    items = choice["layers"]["S2L2A"]["items"]
    offsets = [int(item["offset_dn"]) for item in items]
    where = f"{parent.parent_id}: S2L2A: item {', '.join(_ids(choice, 'S2L2A'))}"
    bands = []
    floored = 0.0
    for band in modality.bands:
        layers = []
        for pixels, offset, item in zip(found["S2L2A"].pixels[band], offsets, items, strict=True):
            if pixels.dtype.kind == "f":
                raise CityHeadsError(
                    f"collection {choice['layers']['S2L2A']['collection']}: item {item['id']}: band {band}: values are "
                    f"{pixels.dtype}, not digital numbers; CityHeads reads reflectance x 10000"
                )
            wide = pixels.astype(np.int32)
            data = wide != 0
            if band == "B02" and offset and data.any():
                floored = max(floored, float((wide[data] <= offset).mean()))
            layers.append(np.where(data, np.clip(wide - offset, 1, 65535), 0).astype(np.uint16))
        bands.append(mosaic(layers, 0))
    stack = np.stack(bands)
    if floored > _FLOORED:
        raise CityHeadsError(
            f"{where}: subtracting the offset of {max(offsets)} leaves nothing in {floored:.0%} of the blue band, so "
            "the archive has already removed it; set the config key 'archive.imagery.S2L2A.offset'"
        )
    valid = (stack != 0).all(axis=0)
    if not valid.any():
        raise CityHeadsError(f"{where}: not one pixel of the parent has data; delete the scene choice and run again")
    data = stack[:, valid]
    in_range = float((data <= modality.valid_max).mean())
    if in_range < 1 - _OUT_OF_RANGE:
        raise CityHeadsError(
            f"{where}: unit error: {1 - in_range:.1%} of the values are above reflectance "
            f"{modality.valid_max / 10000:g}; CityHeads reads reflectance x 10000"
        )
    medians = np.median(data, axis=1)
    # water is black in the infrared, so one dark band is no proof; all of them are
    if medians.max() < _LEAST_MEDIAN_DN:
        raise CityHeadsError(
            f"{where}: unit error: the brightest band's median is {medians.max():g}; "
            "CityHeads reads reflectance x 10000"
        )
    scl = None
    clear: float | None = None
    if rule["scl_asset"] is not None:
        scl = mosaic(found["SCL"].pixels["SCL"], SCL_NODATA).astype(np.uint8)
        clear = float(np.isin(scl[valid], sorted(SCL_CLEAR)).mean())
    return stack, scl, {
        "items": _ids(choice, "S2L2A"),
        "sources": _sources(choice, "S2L2A"),
        "offset_dn": dict(zip(_ids(choice, "S2L2A"), offsets, strict=True)),
        "resampling": found["S2L2A"].resampling,
        "unit_conversion": "digital numbers minus offset_dn, not below 1; 0 stays nodata",
        "valid_fraction": round(float(valid.mean()), 6),
        "clear_fraction": None if clear is None else round(clear, 6),
        "in_range_fraction": round(in_range, 6),
        "median": {band: float(value) for band, value in zip(modality.bands, medians, strict=True)},
    }  # fmt: skip


def _take_s1(
    choice: Mapping[str, Any],
    name: str,
    parent: Parent,
    found: Mapping[str, Layer],
    rule: Mapping[str, Any],
    limits: Sequence[float],
) -> tuple[np.ndarray, dict[str, Any]]:
    modality = MODALITIES[name]
    linear = rule["units"] == "linear_power"
    bands = []
    for band in modality.bands:
        layers = [to_db(pixels) if linear else pixels.astype(np.float32) for pixels in found[name].pixels[band]]
        bands.append(mosaic(layers, np.nan))
    stack = np.stack(bands)
    stack[~np.isfinite(stack)] = np.nan
    where = f"{parent.parent_id}: {name}: item {', '.join(_ids(choice, name))}"
    medians: dict[str, float] = {}
    for band, pixels in zip(modality.bands, stack, strict=True):
        data = pixels[np.isfinite(pixels)]
        if not data.size:
            raise CityHeadsError(f"{where}: band {band}: not one pixel of the parent has data; choose another scene")
        if not linear and data.min() > 0:
            raise CityHeadsError(
                f"{where}: band {band}: unit error: no value is below 0 dB, so this is linear power; see the config "
                f"key 'archive.imagery.{name}.units'"
            )
        medians[band] = round(float(np.median(data)), 4)
        if not limits[0] <= medians[band] <= limits[1]:
            raise CityHeadsError(
                f"{where}: band {band}: unit error: the median is {medians[band]:.1f} dB, outside "
                f"[{limits[0]:g}, {limits[1]:g}]; see the config key 'archive.imagery.{name}.units'"
            )
    return stack, {
        "items": _ids(choice, name),
        "sources": _sources(choice, name),
        "resampling": found[name].resampling,
        "unit_conversion": "10 log10 of linear power; not above 0 is nodata"
        if linear
        else "none, the archive is in dB",
        "valid_fraction": round(float(np.isfinite(stack).all(axis=0).mean()), 6),
        "clear_fraction": None,
        "median_db": medians,
    }


def _make_s1(
    acquired: Mapping[str, np.ndarray], name: str, parent: Parent, grid: Grid, options: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Have a layer made of the ones that were acquired."""
    # by name: the model's code weighs a gigabyte when it is loaded, and what never runs it does not depend on it
    synthesize = importlib.import_module("cityheads.model.synthesis").synthesize
    stack, made = synthesize(acquired, name, options, window_px=grid.chip_px, name=parent.parent_id)
    valid = np.isfinite(stack).all(axis=0)
    medians = [float(np.median(pixels[valid])) if valid.any() else None for pixels in stack]
    return stack, {
        "items": [],
        "sources": {},
        "resampling": {},
        "unit_conversion": "none, made in dB",
        "valid_fraction": round(float(valid.mean()), 6),
        "clear_fraction": None,
        "median_db": {
            band: None if value is None else round(value, 4)
            for band, value in zip(MODALITIES[name].bands, medians, strict=True)
        },
        "synthesized": made,
    }


def _take_dem(
    choice: Mapping[str, Any], parent: Parent, found: Mapping[str, Layer]
) -> tuple[np.ndarray, dict[str, Any]]:
    modality = MODALITIES["DEM"]
    where = f"{parent.parent_id}: DEM: item {', '.join(_ids(choice, 'DEM'))}"
    elevation = mosaic([pixels.astype(np.float32) for pixels in found["DEM"].pixels["DEM"]], np.nan)
    missing = float((~np.isfinite(elevation)).mean())
    if missing:
        raise CityHeadsError(
            f"{where}: {missing:.2%} of the parent has no elevation; a missing DEM is not taken for sea level, so add "
            "the tiles to the catalogue or move the parent"
        )
    low, high = float(elevation.min()), float(elevation.max())
    if low < modality.valid_min or high > modality.valid_max:
        raise CityHeadsError(f"{where}: unit error: elevations from {low:.0f} to {high:.0f} m are not of this world")
    return elevation[None], {
        "items": _ids(choice, "DEM"),
        "sources": _sources(choice, "DEM"),
        "resampling": found["DEM"].resampling,
        "unit_conversion": "none, metres",
        "valid_fraction": 1.0,
        "clear_fraction": None,
        "range_m": [round(low, 3), round(high, 3)],
    }
