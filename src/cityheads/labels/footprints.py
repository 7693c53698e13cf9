"""Building footprints on one parent's grid: rasterized from the prepared file's rows near it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from cityheads.archive.warp import Target
from cityheads.config import Config, FootprintsLabel, PixelRule
from cityheads.core.artifacts.scenes import item_time, read_scenes
from cityheads.core.classes import IGNORE, fraction_layer
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, Parent, find_parent, read_parents
from cityheads.core.layout import ParentFolder
from cityheads.labels.geoparquet import read_near
from cityheads.labels.masks import write_cuts, write_mask
from cityheads.labels.preparation import parent_bounds
from cityheads.labels.rasterize import AREA_TOLERANCE, covered_fraction, rasterize_polygons
from cityheads.labels.section import label_section
from cityheads.labels.shapes import project

__all__ = ["Buildings", "building_mask", "buildings_of", "polygons_of", "rasterize_buildings"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Buildings:
    """What may stand on a parent, in its CRS, as WKB or shapely objects.

    Attributes:
        buildings: What counts as building, (N,).
        ignored: What is neither building nor ground, or may or may not stand, (M,).
        facts: What was left out or ignored for its date, for the mask's tags.
    """

    buildings: np.ndarray
    ignored: np.ndarray
    facts: dict[str, str]


def rasterize_buildings(
    config: Config,
    *,
    parents: Path,
    parent: str,
    label: str,
    footprints: Path,
    boundary: Path,
    chips: Path,
    out: Path,
    scenes: Path | None = None,
) -> None:
    """Write one parent's building mask and its sub-chips.

    A pixel with a building is 1; without one it is 0 inside the boundary, water included, and 255 outside, where
    nobody looked. A parent without any building is a true negative, not an error.

    Args:
        config: Config with sections ``grid`` and ``labels``.
        parents: Parent sheet.
        parent: Parent id.
        label: Name of the label layer, of kind footprints.
        footprints: Prepared footprints.
        boundary: Prepared boundary.
        chips: Folder that takes ``MASK_{label}/{chip}.tif``.
        out: The parent's mask, written last; with ``fraction_layer``, ``FRACTION_{label}.tif`` lies beside it (float32,
            covered fraction, NaN where unknown), and its cuts beside the mask's.
        scenes: The parent's frozen scene choice, which ``standing_only`` needs.

    Raises:
        CityHeadsError: A prepared file is missing or damaged, or the date of the scene is not known.
    """
    grid = config.grid.grid
    row = find_parent(read_parents(parents, grid), parent, parents)
    section = label_section(config, label, FootprintsLabel)
    target = Target.of_parent(row, grid)
    year = _scene_year(scenes, row, label) if section.standing_only else None
    found = buildings_of(footprints, row, grid, year)
    tags = {"rule": section.rule, **found.facts}
    surveyed = rasterize_polygons(polygons_of(boundary, row, grid), target, "centre")
    mask = building_mask(found.buildings, surveyed, target, section.rule, section.area_threshold, found.ignored)
    if section.rule == "area":
        tags["area_threshold"] = str(section.area_threshold)
    if section.fraction_layer:
        fraction = covered_fraction(found.buildings, target).astype(np.float32)
        fraction[~surveyed & (fraction == 0)] = np.nan
        if len(found.ignored):
            most = covered_fraction(_together(found.buildings, found.ignored), target)
            fraction[most > fraction + AREA_TOLERANCE] = np.nan
        layer = fraction_layer(label)
        place = ParentFolder(out.parent).raster(layer)
        write_cuts(fraction, row, grid, layer, place, chips, nodata=np.nan, bands=["covered fraction"])
    write_mask(mask, row, grid, label, section.class_names, out, chips, tags=tags)
    log.info(
        "%s: %d footprints and %d that are ignored (%s), %.1f %% of the surveyed pixels are buildings (rule %s), "
        "%.1f %% of all are ignored",
        parent,
        len(found.buildings),
        len(found.ignored),
        ", ".join(f"{name} {value}" for name, value in found.facts.items()),
        100 * _share(mask == 1, mask != IGNORE),
        section.rule,
        100 * float((mask == IGNORE).mean()),
    )


def building_mask(
    buildings: np.ndarray,
    surveyed: np.ndarray,
    target: Target,
    rule: PixelRule,
    area_threshold: float = 0.5,
    ignored: np.ndarray | None = None,
) -> np.ndarray:
    """Give the mask of one grid: 1 building, 0 none, 255 not known.

    Args:
        buildings: Polygons in the grid's CRS, WKB or shapely, (N,).
        surveyed: (H, W) bool, pixels inside the surveyed area; the others are 0 nowhere.
        target: Grid of the mask, (H, W).
        rule: ``centre``, ``all_touched`` or ``area``.
        area_threshold: Least covered fraction under rule ``area``.
        ignored: Polygons that may or may not be buildings, (M,): a pixel that would be one with them, and is none
            without them, is 255.

    Returns:
        (H, W) uint8.
    """
    mask = np.where(surveyed, 0, IGNORE).astype(np.uint8)
    if ignored is not None and len(ignored):
        # under the other rules a pixel needs a single polygon only
        most = _together(buildings, ignored) if rule == "area" else ignored
        mask[rasterize_polygons(most, target, rule, area_threshold)] = IGNORE
    mask[rasterize_polygons(buildings, target, rule, area_threshold)] = 1
    return mask


def _together(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Give polygons of two arrays, of WKB or shapely objects, as shapely objects in one."""
    return np.concatenate(
        [shapely.from_wkb(each) if len(each) and isinstance(each[0], bytes) else each for each in (one, two)]
    )


def polygons_of(path: Path, parent: Parent, grid: Grid) -> np.ndarray:
    """Read the polygons of a prepared file that may touch a parent, in the parent's CRS, as WKB or shapely objects."""
    wkb, _, epsg = read_near(path, lambda epsg: parent_bounds(parent, grid, epsg))
    return _into(wkb, epsg, parent)


def buildings_of(path: Path, parent: Parent, grid: Grid, year: int | None = None) -> Buildings:
    """Read the prepared footprints that may touch a parent.

    Args:
        path: Prepared footprints.
        parent: The parent.
        grid: Size of parents.
        year: Year of the image: buildings that are newer or were gone are left out, and those that were built or torn
            down in that very year are ignored, for the table knows years only. A building of unknown year stays. With
            None, all stay but those known to be torn down, which are ignored.
    """
    columns = ("use", "construction_year", "demolition_year")
    wkb, found, epsg = read_near(path, lambda epsg: parent_bounds(parent, grid, epsg), columns)
    built, gone = (
        np.array([np.nan if value is None else value for value in found[name]], float) for name in columns[1:]
    )
    ignored = found["use"] == IGNORE
    if year is None:
        ignored |= ~np.isnan(gone)
        return Buildings(_into(wkb[~ignored], epsg, parent), _into(wkb[ignored], epsg, parent), {})
    newer, torn, same = built > year, gone < year, (built == year) | (gone == year)
    facts = {
        "scene_year": year,
        "newer_left_out": int(newer.sum()),
        "demolished_left_out": int((torn & ~newer).sum()),
        "same_year_ignored": int((same & ~newer & ~torn).sum()),
        "undated_kept": int((np.isnan(built) & ~torn & ~ignored).sum()),
    }
    there = ~newer & ~torn
    ignored |= same
    stands, unsure = wkb[there & ~ignored], wkb[there & ignored]
    return Buildings(
        _into(stands, epsg, parent), _into(unsure, epsg, parent), {name: str(value) for name, value in facts.items()}
    )


def _into(wkb: np.ndarray, epsg: int, parent: Parent) -> np.ndarray:
    """Reproject where needed; WKB that lies right is passed on as it is, which saves decoding it."""
    if epsg == parent.epsg or not len(wkb):
        return wkb
    return project(shapely.from_wkb(wkb), epsg, parent.epsg)


def _scene_year(scenes: Path | None, parent: Parent, label: str) -> int:
    """Give the year of the Sentinel-2 scene that comes first in the parent's mosaic."""
    if scenes is None:
        raise CityHeadsError(f"config key 'labels.{label}.standing_only': needs --scenes, the parent's scene choice")
    chosen = read_scenes(scenes, parent)
    try:
        return int(item_time(chosen["layers"]["S2L2A"]["items"][0])[:4])
    except (LookupError, ValueError):
        raise CityHeadsError(f"{scenes}: names no date of a Sentinel-2 scene; delete it and run again") from None


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else 0.0
