"""Trying the files of items before they are chosen: what is gone or damaged gives way to the next best, and says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cityheads.archive.catalogues.item import Item
from cityheads.archive.choose.search import Search
from cityheads.archive.hrefs import base_of
from cityheads.archive.raster import open_raster
from cityheads.archive.warp import plan
from cityheads.core.errors import BadSceneError

__all__ = ["Flaws", "flaws_of", "pixels_of"]

log = logging.getLogger(__name__)

#: Why items cannot be used, by id.
Flaws = dict[str, str]


def pixels_of(items: Iterable[Item], read: Callable[[Item], np.ndarray]) -> tuple[list[tuple[Item, np.ndarray]], Flaws]:
    """Read something of each item; one whose file is gone or damaged is left out, with the reason."""
    found, flaws = [], {}
    for item in items:
        try:
            found.append((item, read(item)))
        except BadSceneError as error:
            flaws[item.id] = str(error)
    return found, flaws


def flaws_of(search: Search, layer: str, items: Iterable[Item], assets: Mapping[str, str]) -> Flaws:
    """Try the files of items as far as the config says (``archive.verify``), and say in one line which are unusable.

    Args:
        search: The parent and its catalogue.
        layer: Name of the layer, for the message.
        items: Those that are about to be chosen.
        assets: Our band names and the items' keys of what will be read.

    Raises:
        CityHeadsError: A file cannot be had for a reason that lies not in the scene, such as a server that is down.
    """
    archive = search.archive
    if archive.verify == "none":
        return {}
    base = base_of(search.catalog.location, archive.asset_base)

    def flaw(task: tuple[Item, str, str]) -> str | None:
        item, band, key = task
        where = f"collection {item.raw.get('collection')}: item {item.id}: band {band}"
        try:
            with open_raster(search.asset(item, key, band), base, archive=archive, where=where) as raster:
                planned = plan(raster, search.fine)
                if archive.verify == "pixels" and planned.window is not None:
                    raster.read(1, window=planned.window, out_shape=planned.read_shape)
        except BadSceneError as error:
            return str(error)
        return None

    tasks = [(item, band, key) for item in items for band, key in assets.items()]
    with ThreadPoolExecutor(min(archive.workers, len(tasks))) as pool:
        told = list(pool.map(flaw, tasks))
    flaws: Flaws = {}
    for (item, _, _), reason in zip(tasks, told, strict=True):
        if reason is not None and item.id not in flaws:
            flaws[item.id] = reason
            log.warning("%s: %s: the next best pass is taken: %s", search.parent.parent_id, layer, reason)
    return flaws
