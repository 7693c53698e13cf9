"""Read all modalities of one parent onto one grid: the scene choice in, three or four rasters out."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from cityheads.archive.read import dem, generated, sentinel1, sentinel2
from cityheads.archive.read.layers import read_layers
from cityheads.config import Config
from cityheads.core.artifacts.reading import READING, LayerReading, LayerRecord
from cityheads.core.artifacts.scenes import read_scenes
from cityheads.core.errors import BadSceneError
from cityheads.core.files import sha256_file
from cityheads.core.grid import find_parent, parent_geobox, read_parents
from cityheads.core.layout import ParentFolder
from cityheads.core.modalities import MODALITIES, SCL_NODATA
from cityheads.core.raster import write_raster
from cityheads.core.version import VERSION

__all__ = ["read_parent"]

log = logging.getLogger(__name__)


def read_parent(config: Config, *, parents: Path, parent: str, scenes: Path, out: Path) -> None:
    """Read all modalities of one parent onto one grid.

    Args:
        config: Read are the sections ``grid``, ``archive`` and ``quality``.
        parents: Parent sheet.
        parent: Parent id.
        scenes: Frozen scene choice of the parent.
        out: Folder for one GeoTIFF per modality, for ``SCL.tif`` and ``CLD.tif`` where the archive has them, and for
            ``reading.json``, written last.

    Raises:
        CityHeadsError: A raster is missing or damaged, elevation is missing, or the values betray a unit error.
    """
    grid = config.grid.grid
    square = find_parent(read_parents(parents, grid), parent, parents)
    choice = read_scenes(scenes, square)
    imagery = config.archive.imagery
    geobox = parent_geobox(square, grid)
    folder = ParentFolder(out)
    folder.reading.unlink(missing_ok=True)
    chosen = choice["layers"]
    absent = [name for name in imagery.radar if name in chosen and chosen[name].get("synthesized")]
    radars = {name: rule for name, rule in imagery.radar.items() if name not in absent}
    wanted = sentinel2.wanted(imagery.s2)
    for name, rule in radars.items():
        wanted |= sentinel1.wanted(name, rule)
    if imagery.DEM is not None:
        wanted |= dem.wanted(imagery.DEM)
    try:
        found = read_layers(choice, wanted, square, grid, config.archive)
    except BadSceneError as error:
        raise BadSceneError(f"{error}; to have another scene chosen, list the item in 'archive.exclude'") from None

    stacks: dict[str, np.ndarray] = {}
    records: dict[str, LayerRecord] = {}
    stacks["S2L2A"], beside, records["S2L2A"] = sentinel2.stack(parent, chosen["S2L2A"], found, imagery.s2)
    for name, rule in radars.items():
        stacks[name], records[name] = sentinel1.stack(
            parent, name, chosen[name], found, rule, config.quality.s1_median_db
        )
    if imagery.DEM is not None:
        stacks["DEM"], records["DEM"] = dem.stack(parent, chosen["DEM"], found)
    inputs = dict(stacks)
    for name in absent:
        stacks[name], records[name] = generated.stack(
            parent, name, inputs, config.archive.synthesis, window_px=grid.chip_px
        )

    tags = {"parent": parent, "simulated": str(choice["simulated"]).lower()}
    layers: dict[str, LayerReading] = {}
    for name, stack in stacks.items():
        modality = MODALITIES[name]
        path = folder.raster(name)
        more = {"unit": modality.unit} | ({"synthesized": "true"} if name in absent else {})
        write_raster(path, stack, geobox, nodata=modality.nodata, bands=modality.bands, tags=tags | more)
        layers[name] = {**records[name], "sha256": sha256_file(path)}
    if "SCL" in beside:
        write_raster(folder.raster("SCL"), beside["SCL"], geobox, nodata=SCL_NODATA, bands=["SCL"], tags=tags)
        layers["S2L2A"]["sha256_SCL"] = sha256_file(folder.raster("SCL"))
    if "CLD" in beside:
        more = {"unit": "cloud probability, percent"}
        write_raster(folder.raster("CLD"), beside["CLD"], geobox, nodata=None, bands=["CLD"], tags=tags | more)
        layers["S2L2A"]["sha256_CLD"] = sha256_file(folder.raster("CLD"))
    READING.write(
        folder.reading,
        {
            "parent_id": parent,
            "simulated": choice["simulated"],
            "layers": layers,
            "versions": _versions(),
        },
    )
    fractions = ", ".join(f"{name} {layer['valid_fraction']:.1%} valid" for name, layer in layers.items())
    log.info("%s: %s", parent, fractions)


def _versions() -> dict[str, str]:
    import rasterio

    return {
        "cityheads": VERSION,
        "gdal": rasterio.__gdal_version__,
        "numpy": np.__version__,
        "rasterio": rasterio.__version__,
    }
