"""Make the simulated archive: each place by itself, in one process or two, then the documents that list them."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray

from cityheads.config import Config, ImageryConfig, SimulateConfig
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes, write_json
from cityheads.core.grid import read_parents
from cityheads.core.layout import ArchiveFolder
from cityheads.simulate import catalog, pixels, vectors
from cityheads.simulate.buildings import Buildings
from cityheads.simulate.plan import Place, Plan, make_plan
from cityheads.simulate.world import World, make_world

__all__ = ["simulate_archive"]

log = logging.getLogger(__name__)
progress = logging.getLogger("cityheads.progress")

#: Land cover is a label and not in ``archive.imagery``: the id that the labels' default names.
_COVER = "esa-worldcover"
_COVER_YEARS = (2020, 2021)


#: Buildings of the surveyed area, and the ground's height in metres at each.
Surveyed: TypeAlias = tuple[Buildings, NDArray[np.float64]]

#: Paths of the truth within the archive.
_TRUTH = ArchiveFolder(Path()).truth


@dataclass(frozen=True)
class _Made:
    """What one place adds to the archive.

    Attributes:
        files: Content by path.
        items: STAC items by kind of collection.
        epsg: UTM zone.
        listed: Buildings as the city's table has them.
        standing: Buildings that stand.
    """

    files: list[tuple[str, bytes]]
    items: dict[str, list[dict[str, Any]]]
    epsg: int
    listed: Surveyed
    standing: Surveyed


def simulate_archive(config: Config, *, parents: Path, out: Path) -> None:
    """Make a static STAC catalogue, footprints and boundary of a simulated city around the sheet's parents.

    ``catalog.json`` is written last: an archive without it is unfinished and is removed by the next run.

    Args:
        config: Read are the sections ``grid``, ``simulate`` and ``archive.imagery``.
        parents: Parent sheet.
        out: Folder of the archive; what lies in it from an earlier run is removed.

    Raises:
        CityHeadsError: The sheet is wrong, or ``out`` holds something that is no archive of ours.
    """
    processes = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    _simulate(config, parents, Path(out), processes)


def _simulate(config: Config, sheet: Path, out: Path, processes: int) -> None:
    folder = ArchiveFolder(out)
    imagery = config.archive.imagery
    plan = make_plan(config, read_parents(sheet, config.grid.grid))
    _clear(out)
    progress.info("simulating %d places", len(plan.places))
    items: dict[str, list[dict[str, Any]]] = {}
    built: list[tuple[int, Surveyed, Surveyed]] = []
    with _mapped(plan, config.simulate, imagery, processes) as made:
        for one in made:
            for path, content in one.files:
                write_bytes(out / path, content)
            for kind, found in one.items.items():
                items.setdefault(kind, []).extend(found)
            built.append((one.epsg, one.listed, one.standing))
    write_bytes(folder.footprints, vectors.footprints_geojson(plan, [(epsg, *listed) for epsg, listed, _ in built]))
    standing = vectors.footprints_geojson(plan, [(epsg, *stands) for epsg, _, stands in built], faults=False)
    write_bytes(folder.truth.footprints, standing)
    write_bytes(folder.boundary, vectors.boundary_geojson(plan))
    names = []
    for kind, found in items.items():
        name = found[0]["collection"]
        write_json(out / name / "collection.json", catalog.collection(kind, name, found))
        names.append(name)
    write_json(folder.catalog, catalog.root(names, plan.seed))
    log.info(
        "%s: %d items, %d buildings",
        out,
        sum(map(len, items.values())),
        sum(len(listed[0].uid) for _, listed, _ in built),
    )


def _clear(out: Path) -> None:
    """Remove an earlier archive, finished or not, and nothing else."""
    if not out.exists():
        return
    folder = ArchiveFolder(out)
    known = {path.name for path in (folder.catalog, folder.footprints, folder.boundary, folder.truth.root)}
    strange = [
        path.name
        for path in out.iterdir()
        if path.name not in known
        and not path.name.startswith(".")
        and not (path.is_dir() and (path / "collection.json").exists())
        and not (path.is_dir() and all(child.is_dir() for child in path.iterdir()))
    ]
    if strange:
        raise CityHeadsError(
            f"{out}: holds '{sorted(strange)[0]}', which is no part of a simulated archive; name another folder, "
            "since this one would be emptied"
        )
    # the root goes first, so that a half-removed archive does not look finished
    folder.catalog.unlink(missing_ok=True)
    shutil.rmtree(out)


@contextmanager
def _mapped(plan: Plan, simulate: SimulateConfig, imagery: ImageryConfig, processes: int) -> Iterator[Iterator[_Made]]:
    """Make all places, in the sheet's order, in one process or several; the bytes are the same."""
    if processes < 2 or len(plan.places) < 3:
        yield (_make(plan, simulate, imagery, place) for place in plan.places)
        return
    # spawn: a fork of a process with threads (those of numpy's libraries) may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent) as pool:
        count = len(plan.places)
        yield pool.map(_make, [plan] * count, [simulate] * count, [imagery] * count, plan.places)


def _end_with_parent() -> None:
    """End this worker when its parent is killed, which it would not notice otherwise."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


def _make(plan: Plan, simulate: SimulateConfig, imagery: ImageryConfig, place: Place) -> _Made:
    """Make everything of one place."""
    import rasterio

    world = make_world(plan, place, simulate.footprint_demolished_fraction)
    files: list[tuple[str, bytes]] = []
    items: dict[str, list[dict[str, Any]]] = {}

    def add(kind: str, described: tuple[dict[str, Any], dict[str, str]], layers: dict[str, pixels.Layer]) -> None:
        item, names = described
        base = f"{item['collection']}/{item['id']}"
        files.extend((f"{base}/{names[name]}", pixels.encode(layer)) for name, layer in layers.items() if name in names)
        files.append((f"{base}/{item['id']}.json", (json.dumps(item, indent=1, allow_nan=False) + "\n").encode()))
        items.setdefault(kind, []).append(item)

    with rasterio.Env(GDAL_NUM_THREADS="1"):
        s2 = imagery.s2
        for scene in place.scenes:
            for part, layers in enumerate(pixels.sentinel2(plan, place, world, scene, simulate)):
                described = catalog.scene_item(place, scene, layers, s2, part)
                add("S2L2A", described, layers)
        for radar in place.radars:
            s1 = imagery.S1RTC
            assert s1 is not None, "the plan has radars where the config has S1RTC"
            layers = pixels.sentinel1(plan, place, world, radar, simulate, s1.units)
            add("S1RTC", catalog.radar_item(place, radar, layers, s1, simulate.s1_looks), layers)
        if imagery.DEM is not None:
            layer = pixels.dem(place, world)
            add("DEM", catalog.dem_item(place, layer, imagery.DEM), {"DEM": layer})
        for year in _COVER_YEARS:
            layer = pixels.land_cover(plan, place, world, year, simulate.cover_error_fraction)
            add("COVER", catalog.cover_item(place, layer, year, _COVER), {"map": layer})
        files.append((_TRUTH.cover(place.name).as_posix(), pixels.encode(pixels.true_cover(place, world))))
    table = vectors.listed(plan, place, world, simulate)
    kept = [_near(plan, place, world, buildings) for buildings in (table, world.buildings)]
    return _Made(files, items, place.frame.epsg, *kept)


def _near(plan: Plan, place: Place, world: World, buildings: Buildings) -> Surveyed:
    """Give those of the buildings that lie at the parent and in the surveyed area, with the ground's height at each."""
    middles = shapely.get_coordinates(shapely.centroid(buildings.geometry))
    row = np.clip((place.frame.top - middles[:, 1]) // 10, 0, world.elevation.shape[0] - 1).astype(int)
    col = np.clip((middles[:, 0] - place.frame.left) // 10, 0, world.elevation.shape[1] - 1).astype(int)
    # the surface model holds a part of the building itself
    ground = np.maximum(world.elevation[row, col] - 0.2 * buildings.height_m, 0.5)
    kept = vectors.surveyed(plan, place, buildings)
    return buildings.take(kept), ground[kept]
