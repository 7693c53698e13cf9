"""Choose the scenes of one parent and freeze the choice with its reasons."""

from __future__ import annotations

import logging
from pathlib import Path

from cityheads.archive.catalogues.item import time_of
from cityheads.archive.catalogues.open import open_catalog
from cityheads.archive.choose.dem import choose_dem
from cityheads.archive.choose.landcover import choose_landcover
from cityheads.archive.choose.search import Search
from cityheads.archive.choose.sentinel1 import choose_sentinel1
from cityheads.archive.choose.sentinel2 import choose_sentinel2
from cityheads.config import Config, LandcoverLabel
from cityheads.core.artifacts.agreement import read_agreement
from cityheads.core.artifacts.scenes import SCENES, ChosenLayer, SceneChoice, item_time, read_scenes
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Parent, find_parent, read_parents
from cityheads.core.layout import parent_file
from cityheads.core.modalities import MODALITIES
from cityheads.core.redaction import scrub

__all__ = ["select_scenes"]

log = logging.getLogger(__name__)


def select_scenes(
    config: Config,
    *,
    parents: Path,
    parent: str,
    out: Path,
    catalog: str | None = None,
    agreement: Path | None = None,
) -> None:
    """Choose the scenes of one parent and freeze the choice.

    Args:
        config: Read are the sections ``grid``, ``archive`` and ``labels``.
        parents: Parent sheet.
        parent: Parent id.
        out: ``scenes/{parent}.json``.
        catalog: URL of a STAC API, or URL or path of a static ``catalog.json``; None takes that of the config.
        agreement: What the choices of all parents keep to (`agree_scenes`); None holds this one to nothing.

    Raises:
        CityHeadsError: A collection that is not there, no usable scene, an item without a needed band.
    """
    grid = config.grid.grid
    square = find_parent(read_parents(parents, grid), parent, parents)
    archive = config.archive
    catalog = catalog or archive.catalog
    if catalog is None:
        raise CityHeadsError("config key 'archive.catalog': the simulated archive's is to be named with --catalog")
    if archive.frozen_scenes is not None:
        shipped = parent_file(Path(archive.frozen_scenes), parent)
        SCENES.write(out, _shipped(shipped, config, square, catalog))
        return
    source = open_catalog(catalog, archive)
    search = Search.of(archive, square, grid, source)
    agreed = read_agreement(agreement)
    imagery = archive.imagery
    layers: dict[str, ChosenLayer] = {"S2L2A": choose_sentinel2(search, imagery.s2, agreed["window"])}
    first = layers["S2L2A"]["items"][0]
    when = time_of(item_time(first), f"item {first['id']}")
    for name, rule in imagery.radar.items():
        layers[name] = choose_sentinel1(search, name, rule, when, agreed["orbits"].get(name))
    if imagery.DEM is not None:
        layers["DEM"] = choose_dem(search, imagery.DEM)
    for name, label in config.labels.items():
        if isinstance(label, LandcoverLabel):
            layers[name] = choose_landcover(search, name, label)
    simulated = source.simulated or any(
        item["properties"].get("cityheads:simulated") is True for layer in layers.values() for item in layer["items"]
    )
    SCENES.write(
        out,
        {
            "parent": {"parent_id": parent, "epsg": square.epsg, "left": square.left, "top": square.top},
            "simulated": simulated,
            "catalog": scrub(catalog),
            "layers": layers,
        },
    )
    log.info("%s: %s", parent, "; ".join(f"{name}: {layer['why']}" for name, layer in layers.items()))


def _shipped(path: Path, config: Config, parent: Parent, catalog: str) -> SceneChoice:
    """Take a shipped scene choice instead of searching, when it has all that the config asks for."""
    try:
        scenes = read_scenes(path, parent)
    except CityHeadsError as error:
        raise CityHeadsError(f"config key 'archive.frozen_scenes': {error}") from None
    imagery = config.archive.imagery
    needed = {name: list(MODALITIES[name].bands) for name in imagery.names}
    if imagery.s2.scl_asset is not None:
        needed["S2L2A"].append("SCL")
    if imagery.s2.cloud_asset is not None:
        needed["S2L2A"].append("CLD")
    needed |= {name: ["map"] for name, label in config.labels.items() if isinstance(label, LandcoverLabel)}
    for layer, bands in needed.items():
        chosen = scenes["layers"].get(layer)
        if chosen and chosen.get("synthesized") and layer in imagery.synthesized:
            continue
        if not chosen or not chosen["items"]:
            raise CityHeadsError(f"{path}: the shipped choice has no layer {layer}, which the config asks for")
        for item in chosen["items"]:
            lacking = [band for band in bands if band not in item["assets"]]
            if lacking:
                raise CityHeadsError(f"{path}: layer {layer}: item {item['id']}: no band {lacking[0]}")
            if layer == "S2L2A" and "offset_dn" not in item:
                raise CityHeadsError(f"{path}: layer {layer}: item {item['id']}: no offset_dn")
    log.info("%s: the choice in %s is taken; nothing is searched", parent.parent_id, path)
    return {**scenes, "catalog": scrub(catalog)}
