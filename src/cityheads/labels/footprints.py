"""Building footprints: cleaned once for the whole city, then rasterized per parent from its own rows only."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from cityheads.archive.warp import Target
from cityheads.config import Config, FootprintsLabel, PixelRule
from cityheads.core.artifacts.footprints import (
    FOOTPRINTS_SUMMARY,
    BoundarySummary,
    FootprintsSummary,
    RowCounts,
    VectorSource,
)
from cityheads.core.artifacts.scenes import item_time, read_scenes
from cityheads.core.classes import IGNORE, fraction_layer
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file
from cityheads.core.grid import Grid, Parent, find_parent, parent_polygon, read_parents
from cityheads.core.layout import ParentFolder
from cityheads.labels.masks import write_cuts, write_mask
from cityheads.labels.rasterize import covered_fraction, rasterize_polygons
from cityheads.labels.section import label_section
from cityheads.labels.vector_files import (
    Vectors,
    dates,
    hilbert_order,
    numbers,
    only_polygons,
    project,
    read_near,
    read_vectors,
    write_geoparquet,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COLUMNS", "building_mask", "polygons_of", "prepare_footprints", "rasterize_buildings"]

log = logging.getLogger(__name__)

#: Our attributes and the names they go by, lower case: ours, the city's present export (NYC Open Data 5zhs-2jue), and
#: its older one (nqwf-w8eh). Shapefiles cut names after ten characters; that is tried too.
COLUMNS: dict[str, tuple[str, ...]] = {
    "bin": ("bin",),
    "construction_year": ("construction_year", "cnstrct_yr"),
    "height_roof_ft": ("height_roof_ft", "height_roof", "heightroof"),
    "feature_code": ("feature_code", "feat_code"),
    "last_edited": ("last_edited", "last_edited_date", "lstmoddate"),
}

#: Cylindrical equal area on the WGS84 ellipsoid (EASE-Grid 2.0, global).
_EQUAL_AREA = 6933

#: Numbers beyond these are no building number (doubles hold whole numbers up to here), year or code.
_LARGEST_BIN, _LARGEST_INT32 = 2**53, 2**31 - 1

#: A degree box around a parent is widened by this, about 10 m, for what its densified outline leaves out.
_MARGIN_DEG = 1e-4


def prepare_footprints(
    config: Config,
    *,
    parents: Path,
    label: str,
    source: Path,
    boundary: Path,
    out: Path,
    boundary_out: Path,
    summary: Path,
) -> None:
    """Clean the footprints and the surveyed area once, so that each parent reads its own rows only.

    Both are stored as GeoParquet in the parents' CRS, or in EPSG:4326 where the parents lie in several, sorted along a
    Hilbert curve and with a bbox per row. That CRS is all that the outputs take from the parent sheet: footprints near
    no parent are kept too. The attributes become ``bin`` (int64), ``construction_year`` (int32), ``height_roof_ft``
    (float64, feet), ``feature_code`` (int32), ``last_edited`` (date) and ``area_m2`` (from the geometry); unknown
    values, also years and heights of 0, are null.

    Args:
        config: Config with sections ``grid`` and ``labels``.
        parents: Parent sheet.
        label: Name of the label layer, of kind footprints.
        source: Vector file of the footprints.
        boundary: Vector file of the surveyed area.
        out: Prepared footprints.
        boundary_out: Prepared boundary.
        summary: What was kept, repaired and dropped, written last.

    Raises:
        CityHeadsError: A file is missing, unreadable, without rows, polygons or CRS; the feature codes are unknown; or
            nothing of it lies in any parent.
    """
    import pyarrow as pa

    section = label_section(config, label, FootprintsLabel)
    grid = config.grid.grid
    sheet = read_parents(parents, grid)
    codes = {row.epsg for row in sheet}
    epsg = codes.pop() if len(codes) == 1 else 4326

    vectors = read_vectors(source)
    attributes, columns, unreadable = _attributes(vectors.attributes)
    if section.feature_codes and columns["feature_code"] is None:
        raise CityHeadsError(
            f"{source}: no feature code column ({', '.join(COLUMNS['feature_code'])}); set "
            f"labels.{label}.feature_codes to [] to keep all rows"
        )
    geometry, kept, counts = _clean(source, vectors, attributes, section.feature_codes, label)
    provenance, crs = _provenance(source, vectors), vectors.crs
    del vectors  # a city's geometries take a gigabyte: let the file's own go before they are copied into another CRS
    geometry = project(geometry, crs, epsg)
    finite = np.isfinite(shapely.area(geometry))  # beyond the projection's domain
    counts["dropped"]["not_finite"] += int((~finite).sum())
    geometry, kept = geometry[finite], kept[finite]
    if not _meets_parents(geometry, sheet, grid, epsg):
        raise CityHeadsError(f"{source}: none of its {len(geometry)} footprints lies in a parent of {parents}")
    outline, surveyed = _prepare_boundary(boundary, epsg)
    if not _meets_parents(outline, sheet, grid, epsg):
        raise CityHeadsError(f"{boundary}: the boundary meets no parent of {parents}")

    order = hilbert_order(geometry)
    geometry, attributes = geometry[order], attributes.take(kept[order])
    area_m2 = _area_m2(geometry, epsg)
    write_geoparquet(boundary_out, outline, pa.table({"area_m2": _area_m2(outline, epsg)}), epsg)
    write_geoparquet(out, geometry, attributes.append_column("area_m2", pa.array(area_m2)), epsg)
    facts: FootprintsSummary = {
        "label": label,
        "source": provenance,
        "columns": columns,
        "epsg": epsg,
        **counts,
        "kept": len(geometry),
        "unreadable_values": unreadable,
        "unknown_construction_year": attributes["construction_year"].null_count,
        "unknown_height": attributes["height_roof_ft"].null_count,
        "area_km2": _km2(area_m2),
        "boundary": surveyed,
    }
    FOOTPRINTS_SUMMARY.write(summary, facts)
    log.info("%s: %d of %d footprints kept", source, len(geometry), counts["rows"])


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
    tags: dict[str, str] = {"rule": section.rule}
    if section.standing_only:
        year = _scene_year(scenes, row, label)
        buildings, newer, undated = _standing(footprints, row, grid, year)
        tags |= {"scene_year": str(year), "newer_left_out": str(newer), "undated_kept": str(undated)}
        log.info("%s: %d buildings are newer than %d, %d of unknown year stay", parent, newer, year, undated)
    else:
        buildings = polygons_of(footprints, row, grid)
    surveyed = rasterize_polygons(polygons_of(boundary, row, grid), target, "centre")
    mask = building_mask(buildings, surveyed, target, section.rule, section.area_threshold)
    if section.rule == "area":
        tags["area_threshold"] = str(section.area_threshold)
    if section.fraction_layer:
        fraction = covered_fraction(buildings, target).astype(np.float32)
        fraction[~surveyed & (fraction == 0)] = np.nan
        layer = fraction_layer(label)
        place = ParentFolder(out.parent).raster(layer)
        write_cuts(fraction, row, grid, layer, place, chips, nodata=np.nan, bands=["covered fraction"])
    write_mask(mask, row, grid, label, section.class_names, out, chips, tags=tags)
    log.info(
        "%s: %d footprints, %.1f %% of the surveyed pixels are buildings (rule %s), %.1f %% of all are ignored",
        parent,
        len(buildings),
        100 * _share(mask == 1, mask != IGNORE),
        section.rule,
        100 * float((mask == IGNORE).mean()),
    )


def building_mask(
    buildings: np.ndarray, surveyed: np.ndarray, target: Target, rule: PixelRule, area_threshold: float = 0.5
) -> np.ndarray:
    """Give the mask of one grid: 1 building, 0 none, 255 none known because outside the surveyed area.

    Args:
        buildings: Polygons in the grid's CRS, WKB or shapely, (N,).
        surveyed: (H, W) bool, pixels inside the surveyed area.
        target: Grid of the mask, (H, W).
        rule: ``centre``, ``all_touched`` or ``area``.
        area_threshold: Least covered fraction under rule ``area``.

    Returns:
        (H, W) uint8.
    """
    mask = np.where(surveyed, 0, IGNORE).astype(np.uint8)
    mask[rasterize_polygons(buildings, target, rule, area_threshold)] = 1
    return mask


def polygons_of(path: Path, parent: Parent, grid: Grid) -> np.ndarray:
    """Read the polygons of a prepared file that may touch a parent, in the parent's CRS, as WKB or shapely objects."""
    wkb, _, epsg = read_near(path, lambda epsg: _bounds(parent, grid, epsg))
    return _into(wkb, epsg, parent)


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


def _standing(path: Path, parent: Parent, grid: Grid, year: int) -> tuple[np.ndarray, int, int]:
    """Read the buildings that stood in a year; also count the newer ones left out and the undated ones kept.

    The city's table knows years only: what was built in the year of the scene counts as standing.
    """
    wkb, columns, epsg = read_near(path, lambda epsg: _bounds(parent, grid, epsg), ("construction_year",))
    years = np.array([np.nan if value is None else value for value in columns["construction_year"]], float)
    newer = years > year
    return _into(wkb[~newer], epsg, parent), int(newer.sum()), int(np.isnan(years).sum())


def _bounds(parent: Parent, grid: Grid, epsg: int) -> tuple[float, float, float, float]:
    """Give a box in a CRS that holds the whole parent."""
    left, bottom, right, top = parent_polygon(parent, grid, epsg).bounds
    margin = 0.0 if epsg == parent.epsg else _MARGIN_DEG
    return left - margin, bottom - margin, right + margin, top + margin


def _attributes(table: pa.Table) -> tuple[pa.Table, dict[str, str | None], dict[str, int]]:
    """Bring the attributes of either schema into ours; also name the columns used and count what was unreadable."""
    import pyarrow as pa

    columns: dict[str, str | None] = {}
    unreadable: dict[str, int] = {}
    arrays: dict[str, Any] = {}
    kinds = {
        "bin": pa.int64(),
        "construction_year": pa.int32(),
        "height_roof_ft": pa.float64(),
        "feature_code": pa.int32(),
    }
    by_lower = {name.lower(): name for name in reversed(table.column_names)}
    for ours, names in COLUMNS.items():
        tried = [*names, *(name[:10] for name in names)]
        theirs = next((by_lower[name] for name in tried if name in by_lower), None)
        columns[ours] = theirs
        if theirs is None:
            arrays[ours] = pa.nulls(table.num_rows, kinds.get(ours, pa.date32()))
        elif ours == "last_edited":
            arrays[ours], unreadable[ours] = dates(table[theirs])
        else:
            values, unreadable[ours] = numbers(table[theirs])
            if ours in ("construction_year", "height_roof_ft"):
                values = np.where(values > 0, values, np.nan)
            if ours != "height_roof_ft":
                values = np.trunc(values)
                strange = np.abs(values) > (_LARGEST_BIN if ours == "bin" else _LARGEST_INT32)
                unreadable[ours] += int(strange.sum())
                values = np.where(strange, np.nan, values)
            arrays[ours] = pa.array(values, from_pandas=True).cast(kinds[ours])
    return pa.table(arrays), columns, {name: number for name, number in unreadable.items() if number}


def _clean(
    path: Path, vectors: Vectors, attributes: pa.Table, feature_codes: Sequence[int], label: str
) -> tuple[np.ndarray, np.ndarray, RowCounts]:
    """Drop what is no building, repair rings, drop duplicates.

    Returns:
        The geometries that stay, their row numbers, and the counts.
    """
    given = vectors.geometry
    empty = shapely.is_missing(given) | shapely.is_empty(given)
    polygons = only_polygons(given)
    flat = shapely.is_missing(polygons) & ~empty
    if empty.all() or not (~shapely.is_missing(polygons)).any():
        raise CityHeadsError(f"{path}: holds no polygons")
    codes = attributes["feature_code"].to_numpy()
    histogram = _histogram(codes)
    wanted = np.isin(codes, feature_codes) if feature_codes else np.ones(len(codes), bool)
    finite = np.isfinite(shapely.area(polygons))
    usable = ~shapely.is_missing(polygons) & finite
    rows = np.flatnonzero(usable & wanted)
    if not rows.size:
        held = ", ".join(f"{code} ({number})" for code, number in histogram.items())
        raise CityHeadsError(
            f"{path}: no polygon has a feature code of labels.{label}.feature_codes {list(feature_codes)}; it holds "
            f"{held}"
        )
    shapes = polygons[rows]
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = only_polygons(shapely.make_valid(shapes[broken]))
    collapsed = ~(shapely.area(shapes) > 0)
    shapes, rows = shapes[~collapsed], rows[~collapsed]
    again = _duplicates(shapes, attributes["bin"].to_numpy()[rows])
    counts: RowCounts = {
        "rows": len(given),
        "feature_codes": histogram,
        "dropped": {
            "unreadable": vectors.unreadable,
            "empty": int(empty.sum()) - vectors.unreadable,
            "not_polygon": int(flat.sum()),
            "not_finite": int((~shapely.is_missing(polygons) & ~finite).sum()),
            "other_feature_code": int((usable & ~wanted).sum()),
            "no_area": int(collapsed.sum()),
            "duplicate": int(again.sum()),
        },
        "repaired": int((broken & ~collapsed).sum()),
    }
    return shapes[~again], rows[~again], counts


def _histogram(codes: np.ndarray) -> dict[str, int]:
    """Count the rows per feature code, unknown ones last."""
    known = codes[~np.isnan(codes)] if codes.dtype.kind == "f" else codes
    values, numbers_of = np.unique(known, return_counts=True)
    counts = {str(int(value)): int(number) for value, number in zip(values, numbers_of, strict=True)}
    missing = len(codes) - len(known)
    return counts | ({"unknown": missing} if missing else {})


def _duplicates(shapes: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Mark every row whose geometry and BIN an earlier row has; where rings start and turn does not matter."""
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    _, group, sizes = np.unique(bounds, axis=0, return_inverse=True, return_counts=True)
    again = np.zeros(len(shapes), bool)
    seen: set[tuple[bytes, float | None]] = set()
    for index in np.flatnonzero(sizes[group.ravel()] > 1):
        number = float(bins[index])
        key = (shapely.to_wkb(shapely.normalize(shapes[index])), None if np.isnan(number) else number)
        again[index] = key in seen
        seen.add(key)
    return again


def _prepare_boundary(path: Path, epsg: int) -> tuple[np.ndarray, BoundarySummary]:
    """Repair and reproject the surveyed area; also say what was found."""
    vectors = read_vectors(path)
    shapes = only_polygons(vectors.geometry)
    shapes = shapes[~shapely.is_missing(shapes)]
    if not len(shapes):
        raise CityHeadsError(f"{path}: holds no polygons")
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = only_polygons(shapely.make_valid(shapes[broken]))
    shapes = project(shapes[~shapely.is_missing(shapes)], vectors.crs, epsg)
    return shapes, {
        **_provenance(path, vectors),
        "rows": len(vectors.geometry),
        "kept": len(shapes),
        "repaired": int(broken.sum()),
        "area_km2": _km2(_area_m2(shapes, epsg)),
    }


def _provenance(path: Path, vectors: Vectors) -> VectorSource:
    return {
        "file": Path(path).name,
        "sha256": sha256_file(path) if Path(path).is_file() else None,
        "crs": vectors.crs.to_string(),
        "crs_assumed": vectors.crs_assumed,
    }


def _meets_parents(geometry: np.ndarray, parents: Iterable[Parent], grid: Grid, epsg: int) -> bool:
    """Say whether any geometry's box meets any parent's box: files of another city do not."""
    boxes = shapely.bounds(geometry).reshape(-1, 4)
    for parent in parents:
        left, bottom, right, top = _bounds(parent, grid, epsg)
        near = (boxes[:, 0] <= right) & (boxes[:, 1] <= top) & (boxes[:, 2] >= left) & (boxes[:, 3] >= bottom)
        if near.any():
            return True
    return False


def _area_m2(geometry: np.ndarray, epsg: int) -> np.ndarray:
    """Give areas in the parents' metric CRS, or, for degrees, in an equal-area projection of the same ellipsoid."""
    return np.asarray(shapely.area(project(geometry, 4326, _EQUAL_AREA) if epsg == 4326 else geometry))


def _km2(area_m2: np.ndarray) -> float:
    return round(float(area_m2.sum()) / 1e6, 6)


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else 0.0
