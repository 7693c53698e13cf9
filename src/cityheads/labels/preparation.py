"""Footprints are cleaned once, near the parents only, in one pass through the file and one along a Hilbert curve.

Neither pass holds more than a part of the rows: the first cleans a batch and puts its rows into files by their place on
the curve, the second sorts each of these files and writes it on.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from cityheads.config import Config, FootprintsLabel
from cityheads.core.artifacts.footprints import (
    FOOTPRINTS_SUMMARY,
    BoundarySummary,
    FootprintsSummary,
    VectorSource,
)
from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path, sha256_file
from cityheads.core.grid import Grid, Parent, area, parent_polygon, read_parents
from cityheads.labels.columns import dates, numbers, texts
from cityheads.labels.geoparquet import ROW_GROUP, boxes, geo_metadata, write_geoparquet
from cityheads.labels.losses import Losses
from cityheads.labels.section import label_section
from cityheads.labels.shapes import hilbert_keys, project, repair
from cityheads.labels.vector_files import VectorReader, Vectors, open_vectors, read_vectors

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COLUMNS", "parent_bounds", "prepare_footprints"]

log = logging.getLogger(__name__)

#: Our attributes and the names they go by, lower case: ours, the city's present export (NYC Open Data 5zhs-2jue), and
#: its older one (nqwf-w8eh). Shapefiles cut names after ten characters; that is tried too.
COLUMNS: dict[str, tuple[str, ...]] = {
    "bin": ("bin",),
    "construction_year": ("construction_year", "cnstrct_yr"),
    "demolition_year": ("demolition_year", "demolition_yr"),
    "height_roof_ft": ("height_roof_ft", "height_roof", "heightroof"),
    "feature_code": ("feature_code", "feat_code"),
    "status": ("status", "last_status_type", "lststatype"),
    "last_edited": ("last_edited", "last_edited_date", "lstmoddate"),
}

#: Cylindrical equal area on the WGS84 ellipsoid (EASE-Grid 2.0, global).
_EQUAL_AREA = 6933

#: Numbers beyond these are no building number (doubles hold whole numbers up to here), year or code.
_LARGEST_BIN, _LARGEST_INT32 = 2**53, 2**31 - 1

#: A degree box around a parent is widened by this, about 10 m, for what its densified outline leaves out.
_MARGIN_DEG = 1e-4

#: Files of the second pass: of 5 million rows each holds some 80,000, 20 MB of buildings.
_STRETCHES = 64


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
    """Clean the footprints near the parents and the surveyed area once, so that each parent reads its own rows only.

    Both are stored as GeoParquet in the parents' CRS, or in EPSG:4326 where the parents lie in several, the footprints
    sorted along a Hilbert curve, with a bbox per row. The attributes become ``bin`` (int64), ``construction_year`` and
    ``demolition_year`` (int32), ``height_roof_ft`` (float64, feet), ``feature_code`` (int32), ``status`` (text),
    ``last_edited`` (date), ``area_m2`` (from the geometry) and ``use``: 1 for a building, 255 for what is neither a
    building nor ground. Unknown values, also years and heights of 0, are null.

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
        CityHeadsError: A file is missing, unreadable, without rows, polygons or CRS; more of its rows than
            ``max_lost_percent`` cannot be used; the feature codes are unknown; or nothing of it lies in any parent.
    """
    import pyarrow as pa

    section = label_section(config, label, FootprintsLabel)
    grid = config.grid.grid
    sheet = read_parents(parents, grid)
    codes = {row.epsg for row in sheet}
    epsg = codes.pop() if len(codes) == 1 else 4326
    region = np.unique([_area_in(row, grid, epsg) for row in sheet], axis=0)
    outline, surveyed = _prepare_boundary(boundary, epsg, section, label)
    if not _meets(shapely.bounds(outline).reshape(-1, 4), region).any():
        raise CityHeadsError(f"{boundary}: the boundary meets no parent of {parents}")

    names = {name for ours in COLUMNS.values() for full in ours for name in (full, full[:10])}
    reader = open_vectors(
        source,
        layer=section.layer,
        where=section.where,
        columns=lambda name: name.lower() in names,
        near=lambda crs: _box_in(crs, epsg, region),
    )
    columns = _columns(reader.columns)
    if section.feature_codes and reader.columns and columns["feature_code"] is None:
        raise CityHeadsError(
            f"{source}: no feature code column ({', '.join(COLUMNS['feature_code'])}); set "
            f"labels.{label}.feature_codes to [] to keep all rows"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".footprints-", dir=out.parent) as scratch:
        cleaner = _Cleaner(section, columns, reader, region, epsg)
        rows = _Stretches(Path(scratch))
        for batch in reader.batches():
            cleaned = cleaner.clean(batch)
            if cleaned is not None:
                rows.add(*cleaned)
        cleaner.finish(label, parents)
        metadata = geo_metadata(cleaner.kinds, cleaner.bounds.tolist(), epsg)
        written = _write(rows, out, metadata)
    write_geoparquet(boundary_out, outline, pa.table({"area_m2": _area_m2(outline, epsg)}), epsg)
    cleaner.losses.counts["duplicate"] = written.duplicates
    facts: FootprintsSummary = {
        "label": label,
        "source": _provenance(source, reader.crs, reader.crs_assumed),
        "columns": columns,
        "epsg": epsg,
        "rows": cleaner.losses.rows,
        "feature_codes": _sorted_codes(cleaner.codes),
        "dropped": dict(cleaner.losses.counts),
        "repaired": cleaner.repaired,
        "kept": written.rows,
        "ignored": written.ignored,
        "unreadable_values": {name: number for name, number in sorted(cleaner.unreadable.items()) if number},
        "unknown_construction_year": written.unknown["construction_year"],
        "unknown_height": written.unknown["height_roof_ft"],
        "area_km2": _km2(written.area_m2),
        "boundary": surveyed,
    }
    FOOTPRINTS_SUMMARY.write(summary, facts)
    log.info(
        "%s: %d of %d footprints kept, %d of them to be ignored", source, written.rows, facts["rows"], written.ignored
    )


def _area_in(parent: Parent, grid: Grid, epsg: int) -> tuple[float, float, float, float]:
    """Give a box (left, bottom, right, top) in a CRS that holds the parent's area."""
    box = np.array([shapely.box(*area(parent, grid))])
    return _widened(shapely.bounds(project(box, parent.epsg, epsg))[0].tolist(), parent, epsg)


def parent_bounds(parent: Parent, grid: Grid, epsg: int) -> tuple[float, float, float, float]:
    """Give a box (left, bottom, right, top) in a CRS that holds the whole parent."""
    return _widened(parent_polygon(parent, grid, epsg).bounds, parent, epsg)


def _widened(box: Sequence[float], parent: Parent, epsg: int) -> tuple[float, float, float, float]:
    """Add to a box in degrees what densified outlines leave out."""
    left, bottom, right, top = box
    margin = 0.0 if epsg == parent.epsg else _MARGIN_DEG
    return left - margin, bottom - margin, right + margin, top + margin


class _Cleaner:
    """Cleans one batch after the other, and keeps account.

    Attributes:
        losses: Rows read, and rows dropped per reason.
        codes: Rows near the parents per feature code; None is unknown.
        repaired: Rows whose rings were repaired.
        unreadable: Values near the parents that could not be read, per attribute.
        kinds: Type ids of the geometries that stay.
        bounds: (left, bottom, right, top) of the geometries that stay.
    """

    def __init__(
        self,
        section: FootprintsLabel,
        columns: dict[str, str | None],
        reader: VectorReader,
        region: np.ndarray,
        epsg: int,
    ) -> None:
        self._section, self._columns, self._reader, self._epsg = section, columns, reader, epsg
        self._region = region
        self._frame = (*region[:, :2].min(axis=0).tolist(), *region[:, 2:].max(axis=0).tolist())
        self._there = _boxes_in(reader.crs, epsg, region)
        self._row = 0
        self._polygons = self._buildings = 0
        reasons = ("ground", "duplicate", "elsewhere")
        self.losses = Losses(reader.path, reasons)
        self.codes: Counter[int | None] = Counter()
        self.unreadable: Counter[str] = Counter()
        self.repaired = 0
        self.kinds: set[int] = set()
        self.bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def clean(self, vectors: Vectors) -> tuple[pa.Table, np.ndarray] | None:
        """Give the rows of a batch that stay, and their places on the curve; None where none stays."""
        import pyarrow as pa

        shapes = self.losses.shapes(vectors)
        rows = np.flatnonzero(~shapely.is_missing(shapes))
        self._polygons += len(rows)
        near = _meets(shapely.bounds(shapes[rows]).reshape(-1, 4), self._there)
        self.losses.counts["elsewhere"] += int((~near).sum())
        rows = rows[near]
        numbered = self._row + rows
        self._row += len(shapes)
        attributes, unreadable = _attributes(vectors.attributes, self._columns, rows)
        self.unreadable.update(unreadable)
        use = self._use(attributes)
        self.losses.counts["ground"] += int((use == 0).sum())
        keep = use != 0
        shapes, was_broken = repair(shapes[rows][keep])
        shapes = project(shapes, vectors.crs, self._epsg)
        area = np.asarray(shapely.area(shapes))
        solid = (area > 0) & np.isfinite(area)
        self.losses.counts["no_area"] += int((~solid).sum())
        bounds = shapely.bounds(shapes).reshape(-1, 4)
        here = solid & _meets(bounds, self._region)
        self.losses.counts["elsewhere"] += int((solid & ~here).sum())
        self.repaired += int((was_broken & here).sum())
        if not here.any():
            return None
        shapes, bounds, kept = shapes[here], bounds[here], np.flatnonzero(keep)[here]
        self._buildings += int((use[kept] == 1).sum())
        self.kinds |= {int(kind) for kind in np.unique(shapely.get_type_id(shapes))}
        self.bounds[:2] = np.minimum(self.bounds[:2], bounds[:, :2].min(axis=0))
        self.bounds[2:] = np.maximum(self.bounds[2:], bounds[:, 2:].max(axis=0))
        table = attributes.take(kept)
        table = table.append_column("area_m2", pa.array(_area_m2(shapes, self._epsg)))
        table = table.append_column("use", pa.array(use[kept]))
        table = table.append_column("geometry", pa.array(shapely.to_wkb(shapes), pa.binary()))
        table = table.append_column("bbox", boxes(bounds))
        return table.append_column("row", pa.array(numbered[kept])), hilbert_keys(bounds, self._frame)

    def _use(self, attributes: pa.Table) -> np.ndarray:
        """Say what each row is, (N,) uint8: 1 building, 0 ground, 255 neither, or not sure to stand."""
        section = self._section
        use = np.ones(attributes.num_rows, np.uint8)
        codes = attributes["feature_code"].to_numpy().astype(float)
        known = ~np.isnan(codes)
        values, counts = np.unique(codes[known].astype(np.int64), return_counts=True)
        self.codes.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        self.codes.update({None: int((~known).sum())})
        if section.feature_codes:
            use[~np.isin(codes, section.feature_codes)] = IGNORE
            use[np.isin(codes, section.ground_feature_codes)] = 0
        unsure = [status.lower() for status in section.ignore_statuses]
        if unsure and self._columns["status"] is not None:
            found = np.char.lower(texts(attributes["status"]).astype(str))
            use[np.isin(found, unsure) & (use == 1)] = IGNORE
        return use

    def finish(self, label: str, parents: Path) -> None:
        """Refuse a file of which too much is lost, or nothing is a building near the parents."""
        section, path = self._section, self._reader.path
        self.losses.finish(self._reader)
        if not self._polygons:
            raise CityHeadsError(f"{path}: holds no polygons")
        self.losses.check(section.max_lost_percent, label)
        if self._buildings:
            return
        if self.losses.counts["elsewhere"] == self._polygons:
            raise CityHeadsError(f"{path}: none of its {self._polygons} footprints lies in a parent of {parents}")
        held = ", ".join(f"{code} ({number})" for code, number in _sorted_codes(self.codes).items())
        raise CityHeadsError(
            f"{path}: no polygon near the parents has a feature code of labels.{label}.feature_codes "
            f"{list(section.feature_codes)} and stands; they have {held}"
        )


class _Stretches:
    """Rows on disk, in one file per stretch of the curve."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[int, Any] = {}
        self._schema: pa.Schema | None = None

    def add(self, table: pa.Table, keys: np.ndarray) -> None:
        """Put rows into the files of their places, (N,) uint32."""
        import pyarrow as pa

        stretch = keys // (2**32 // _STRETCHES)
        order = np.argsort(stretch, kind="stable")
        table = table.append_column("key", pa.array(keys)).take(order)
        self._schema = table.schema
        edges = np.searchsorted(stretch[order], np.arange(_STRETCHES + 1))
        for number, (start, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
            if end > start:
                if number not in self._writers:
                    self._writers[number] = pa.ipc.new_file(self._folder / f"{number}.arrow", table.schema)
                self._writers[number].write_table(table.slice(start, end - start))

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows along the curve; those of one place in the order in which they came."""
        import pyarrow as pa

        for number, writer in sorted(self._writers.items()):
            writer.close()
            path = self._folder / f"{number}.arrow"
            with pa.OSFile(str(path)) as stream:
                table = pa.ipc.open_file(stream).read_all()
            yield table.take(np.lexsort((table["row"].to_numpy(), table["key"].to_numpy())))
            path.unlink()


@dataclass
class _Written:
    """What the second pass found."""

    rows: int = 0
    ignored: int = 0
    duplicates: int = 0
    area_m2: float = 0.0
    unknown: Counter[str] = field(default_factory=Counter)


def _write(rows: _Stretches, out: Path, metadata: dict[str, str]) -> _Written:
    """Write the rows along the curve without duplicates, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    done = _Written()
    with atomic_path(out) as part:
        writer, rest = None, None
        for table in rows.tables():
            again = _duplicates(table)
            kept = table.filter(~again) if again.any() else table
            kept = kept.drop_columns(["key", "row"]).replace_schema_metadata(metadata)
            if writer is None:
                writer = pq.ParquetWriter(part, kept.schema, compression="zstd")
            # whole row groups only: what is left over goes before the rows of the next stretch
            waiting = kept if rest is None else pa.concat_tables([rest, kept])
            whole = waiting.num_rows // ROW_GROUP * ROW_GROUP
            if whole:
                writer.write_table(waiting.slice(0, whole), row_group_size=ROW_GROUP)
            rest = waiting.slice(whole).combine_chunks()
            done.rows += kept.num_rows
            done.duplicates += int(again.sum())
            done.ignored += int((kept["use"].to_numpy() == IGNORE).sum())
            done.area_m2 += float(kept["area_m2"].to_numpy().sum())
            done.unknown.update({name: kept[name].null_count for name in ("construction_year", "height_roof_ft")})
        assert writer is not None, "the cleaner refuses a file without buildings"
        if rest is not None and rest.num_rows:
            writer.write_table(rest)
        writer.close()
    return done


def _duplicates(table: pa.Table) -> np.ndarray:
    """Mark every row whose geometry and BIN an earlier row has; where rings start and turn does not matter.

    Such rows have the same box, so that they have the same place on the curve and lie in the same stretch.
    """
    box = table["bbox"].combine_chunks()
    corners = [np.asarray(box.field(index)).view(np.uint64) for index in range(4)]
    # boxes that differ may share a hash by chance; what follows looks closer
    mixed = corners[0].copy()
    for corner in corners[1:]:
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + corner
    _, group, sizes = np.unique(mixed, return_inverse=True, return_counts=True)
    again = np.zeros(table.num_rows, bool)
    candidates = np.flatnonzero(sizes[group] > 1)
    if not candidates.size:
        return again
    few = table.select(["geometry", "bin", "row"]).take(candidates)
    shapes = shapely.to_wkb(shapely.normalize(shapely.from_wkb(few["geometry"].to_numpy())))
    seen: set[tuple[bytes, int | None]] = set()
    numbers_of = few["bin"].to_pylist()
    for index in np.argsort(few["row"].to_numpy(), kind="stable"):
        key = (shapes[index], numbers_of[index])
        again[candidates[index]] = key in seen
        seen.add(key)
    return again


def _columns(names: Sequence[str]) -> dict[str, str | None]:
    """Find the file's column behind each of our attributes; None where it has none."""
    by_lower = {name.lower(): name for name in reversed(names)}
    found = {}
    for ours, theirs in COLUMNS.items():
        tried = [*theirs, *(name[:10] for name in theirs)]
        found[ours] = next((by_lower[name] for name in tried if name in by_lower), None)
    return found


def _attributes(table: pa.Table, columns: dict[str, str | None], rows: np.ndarray) -> tuple[pa.Table, dict[str, int]]:
    """Bring the attributes of some rows of any schema into ours; also count the values that could not be read."""
    import pyarrow as pa

    unreadable: dict[str, int] = {}
    arrays: dict[str, Any] = {}
    kinds = {
        "bin": pa.int64(), "construction_year": pa.int32(), "demolition_year": pa.int32(),
        "height_roof_ft": pa.float64(), "feature_code": pa.int32(), "status": pa.string(), "last_edited": pa.date32(),
    }  # fmt: skip
    for ours, theirs in columns.items():
        if theirs is None:
            arrays[ours] = pa.nulls(len(rows), kinds[ours])
        elif ours == "last_edited":
            arrays[ours], unreadable[ours] = dates(table[theirs].take(rows))
        elif ours == "status":
            arrays[ours] = pa.array([text or None for text in texts(table[theirs].take(rows))], pa.string())
        else:
            values, unreadable[ours] = numbers(table[theirs].take(rows))
            if ours in ("construction_year", "demolition_year", "height_roof_ft"):
                values = np.where(values > 0, values, np.nan)
            if ours != "height_roof_ft":
                values = np.trunc(values)
                strange = np.abs(values) > (_LARGEST_BIN if ours == "bin" else _LARGEST_INT32)
                unreadable[ours] += int(strange.sum())
                values = np.where(strange, np.nan, values)
            arrays[ours] = pa.array(values, from_pandas=True).cast(kinds[ours])
    return pa.table(arrays), unreadable


def _prepare_boundary(
    path: Path, epsg: int, section: FootprintsLabel, label: str
) -> tuple[np.ndarray, BoundarySummary]:
    """Repair and reproject the surveyed area; also say what was found."""
    vectors = read_vectors(path, layer=section.boundary_layer)
    losses = Losses(path)
    shapes = losses.shapes(vectors)
    losses.finish(vectors)
    shapes = shapes[~shapely.is_missing(shapes)]
    if not len(shapes):
        raise CityHeadsError(f"{path}: holds no polygons; the boundary is the outline of the surveyed area")
    shapes, broken = repair(shapes)
    shapes = project(shapes[~shapely.is_missing(shapes)], vectors.crs, epsg)
    area = shapely.area(shapes)
    solid = (area > 0) & np.isfinite(area)
    losses.counts["no_area"] += len(broken) - int(solid.sum())
    if not solid.any():
        raise CityHeadsError(f"{path}: the boundary has no area; it is the outline of the surveyed area")
    losses.check(section.max_lost_percent, label)
    shapes = shapes[solid]
    return shapes, {
        **_provenance(path, vectors.crs, vectors.crs_assumed),
        "rows": len(vectors.geometry),
        "kept": len(shapes),
        "repaired": int(broken.sum()),
        "area_km2": _km2(float(_area_m2(shapes, epsg).sum())),
    }


def _provenance(path: Path, crs: Any, assumed: bool) -> VectorSource:
    return {
        "file": Path(path).name,
        "sha256": sha256_file(path) if Path(path).is_file() else None,
        "crs": crs.to_string(),
        "crs_assumed": assumed,
    }


def _box_in(crs: Any, epsg: int, region: np.ndarray) -> tuple[float, float, float, float]:
    """Give one box in another CRS that holds all boxes (left, bottom, right, top) of EPSG ``epsg``, (N, 4)."""
    boxes_there = _boxes_in(crs, epsg, region)
    left, bottom = boxes_there[:, :2].min(axis=0).tolist()
    right, top = boxes_there[:, 2:].max(axis=0).tolist()
    return left, bottom, right, top


def _boxes_in(crs: Any, epsg: int, region: np.ndarray) -> np.ndarray:
    """Give boxes in another CRS, (N, 4), that hold boxes (left, bottom, right, top) of EPSG ``epsg``, (N, 4)."""
    bounds = shapely.bounds(project(shapely.box(*region.T), epsg, crs)).reshape(-1, 4)
    # what the divided outlines' corners leave out between them
    margin = 0.001 * np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])[:, None]
    return np.concatenate([bounds[:, :2] - margin, bounds[:, 2:] + margin], axis=1)


def _meets(bounds: np.ndarray, region: Iterable[np.ndarray]) -> np.ndarray:
    """Say which boxes, (N, 4), meet any box of a region, (M, 4): files of another city do not."""
    near = np.zeros(len(bounds), bool)
    for left, bottom, right, top in region:
        near |= (bounds[:, 0] <= right) & (bounds[:, 1] <= top) & (bounds[:, 2] >= left) & (bounds[:, 3] >= bottom)
    return near


def _sorted_codes(codes: Counter[int | None]) -> dict[str, int]:
    """Give the rows per feature code, unknown ones last."""
    known = {str(code): codes[code] for code in sorted(code for code in codes if code is not None)}
    return known | ({"unknown": codes[None]} if codes[None] else {})


def _area_m2(geometry: np.ndarray, epsg: int) -> np.ndarray:
    """Give areas in the parents' metric CRS, or, for degrees, in an equal-area projection of the same ellipsoid."""
    return np.asarray(shapely.area(project(geometry, 4326, _EQUAL_AREA) if epsg == 4326 else geometry))


def _km2(area_m2: float) -> float:
    return round(area_m2 / 1e6, 6)
