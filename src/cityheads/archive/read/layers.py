"""Read bands of the items of a scene choice onto the parent's grid, several at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from cityheads.archive.hrefs import base_of
from cityheads.archive.raster import Raster, named, open_once
from cityheads.archive.scaling import IDENTITY, is_identity
from cityheads.archive.warp import Plan, Target, plan, read_onto
from cityheads.config import ArchiveConfig
from cityheads.core.artifacts.reading import Source
from cityheads.core.artifacts.scenes import ChosenLayer, Scaling, SceneChoice
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, Parent

__all__ = ["Layer", "Wanted", "item_ids", "mosaic", "read_layers", "sources"]

progress = logging.getLogger("cityheads.progress")


@dataclass(frozen=True)
class Wanted:
    """What is to be read of one layer of a scene choice.

    Attributes:
        layer: Key in the choice's ``layers``.
        bands: Our band names (keys of the items' ``assets``).
        resampling: For rasters that do not lie on the grid.
        fill: Value where there is no data.
        default_nodata: Nodata of rasters that declare none; None for a product that has none.
        resampling_of: Resampling of single bands that differ.
        scaled: Whether the scale and offset that the asset declares are applied here; the fill must be NaN then.
    """

    layer: str
    bands: Sequence[str]
    resampling: str
    fill: float
    default_nodata: float | None
    resampling_of: Mapping[str, str] = field(default_factory=dict)
    scaled: bool = False

    def way(self, band: str) -> str:
        """Give the resampling of one band."""
        return self.resampling_of.get(band, self.resampling)


@dataclass(frozen=True)
class Layer:
    """The pixels of one layer of a scene choice, on the parent's grid.

    Attributes:
        pixels: Per band, one (H, W) array per item, in the items' order (first has priority in a mosaic).
        resampling: Per band, how the rasters came onto the grid; ``none`` where they lie on it.
        dtypes: Per band, the type of each item's raster in the archive.
        scaling: Scale and offset that were applied, by id of the item and band; those that change nothing left out.
    """

    pixels: dict[str, list[np.ndarray]]
    resampling: dict[str, str]
    dtypes: dict[str, list[str]] = field(default_factory=dict)
    scaling: dict[str, dict[str, Scaling]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Read:
    """One raster to read."""

    name: str
    band: str
    href: str
    where: str
    wanted: Wanted
    item: str
    scaling: Scaling


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


def read_layers(
    scenes: SceneChoice, wanted: Mapping[str, Wanted], parent: Parent, grid: Grid, archive: ArchiveConfig
) -> dict[str, Layer]:
    """Read bands of all items of some layers of a scene choice onto the parent's grid, several at once.

    All rasters are opened first, so that the bytes to come are known before they are fetched.

    Args:
        scenes: Frozen scene choice.
        wanted: What to read, by any name.
        parent: Where.
        grid: How large.
        archive: Where relative hrefs start, and how the network is used.

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
                scaling = item.get("scaling", {}).get(band, IDENTITY) if want.scaled else IDENTITY
                tasks.append(_Read(name, band, item["assets"][band], where, want, item["id"], scaling))
    target = Target.of_parent(parent, grid)
    base = base_of(scenes["catalog"], archive.asset_base)
    opened: list[Raster | None] = [None] * len(tasks)
    dtypes = [""] * len(tasks)

    def prepare(index: int) -> Plan:
        task = tasks[index]
        raster = opened[index] = open_once(task.href, base, archive=archive, where=task.where)
        with named(task.where, task.href):
            dtypes[index] = raster.dtypes[0]
            if np.dtype(raster.dtypes[0]).kind not in "uif":
                raise CityHeadsError(f"pixels of type {raster.dtypes[0]} are not numbers")
            return plan(raster, target)

    def read(index: int, planned: Plan) -> np.ndarray:
        task, raster = tasks[index], opened[index]
        assert raster is not None
        cost = raster.cost(planned.window, planned.read_shape)
        want = task.wanted
        with named(task.where, task.href):
            pixels = read_onto(
                raster,
                target,
                resampling=want.way(task.band),
                fill=want.fill,
                default_nodata=want.default_nodata,
                planned=planned,
            )
        raster.close()
        meter.add(cost)
        if not is_identity(task.scaling):
            pixels = (pixels * task.scaling["scale"] + task.scaling["offset"]).astype(np.float32)
        return pixels

    meter = _Meter(parent.parent_id)
    try:
        with ThreadPoolExecutor(min(archive.workers, len(tasks))) as pool:
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
    for task, array, planned, dtype in zip(tasks, arrays, plans, dtypes, strict=True):
        layers[task.name].pixels[task.band].append(array)
        layers[task.name].dtypes.setdefault(task.band, []).append(dtype)
        if not is_identity(task.scaling):
            layers[task.name].scaling.setdefault(task.item, {})[task.band] = task.scaling
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


def item_ids(chosen: ChosenLayer) -> list[str]:
    """Give the ids of a layer's items, in their order."""
    return [item["id"] for item in chosen["items"]]


def sources(chosen: ChosenLayer) -> dict[str, Source]:
    """Give, per item, what tells where its pixels come from."""
    return {
        item["id"]: {
            "datetime": item["datetime"],
            "baseline": item["properties"].get("s2:processing_baseline"),
            "hrefs": item["assets"],
        }
        for item in chosen["items"]
    }
