"""Vector files: any of them, batch by batch, with the columns and rows that are wanted.

A file may be larger than the memory. Where it has an index (GeoPackage) or boxes (GeoParquet), what lies elsewhere is
not read at all. The heavy libraries are imported where they are used.
"""

from __future__ import annotations

import csv
import json
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from cityheads.core.errors import CityHeadsError
from cityheads.labels.columns import texts
from cityheads.labels.geoparquet import groups_near

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["VectorReader", "Vectors", "open_vectors", "read_vectors"]

log = logging.getLogger(__name__)

#: Names under which text formats keep their geometry, in order of preference.
_GEOMETRY_NAMES = ("geometry", "the_geom", "geom", "wkt", "wkb_geometry", "shape", "multipolygon")

#: What a zip file may hold, besides the parts of a shapefile that only accompany it.
_ZIPPED = (".shp", ".gpkg", ".geojson", ".json", ".fgb", ".gml", ".kml", ".gdb")

#: Rows of a batch: some 20 MB of buildings.
_BATCH = 1 << 16

_Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Vectors:
    """Rows of a vector layer in memory.

    Attributes:
        geometry: shapely geometries, None where missing, (N,).
        attributes: The other columns, N rows, in the file's own types and names.
        crs: CRS as the file gives it, or as it had to be assumed.
        crs_assumed: The file names no CRS, and its coordinates look like longitude and latitude.
        unreadable: Rows whose geometry could not be decoded; they are None in ``geometry``.
        unread: Rows that the file announces and does not hold.
    """

    geometry: np.ndarray
    attributes: pa.Table
    crs: Any
    crs_assumed: bool
    unreadable: int
    unread: int = 0


@dataclass
class VectorReader:
    """An open vector layer, to be read once.

    Attributes:
        path: The file.
        columns: All its columns but the geometry.
        crs: CRS as the file gives it; where it gives none, longitude and latitude, which every batch is checked for.
        crs_assumed: The file names no CRS.
        where: Rows wanted: values by column, compared as text.
        unread: After the last batch, rows that the file announces and does not hold; a cut shapefile has such.
        empty: After the last batch, rows that were passed over for want of a geometry, by an index.
    """

    path: Path
    columns: list[str]
    crs: Any
    crs_assumed: bool
    where: Mapping[str, Sequence[str]]
    _tables: Callable[[VectorReader], Iterator[tuple[pa.Table, str]]]
    unread: int = 0
    empty: int = 0
    _rows: int = field(default=0)

    def batches(self) -> Iterator[Vectors]:
        """Yield the rows in the order of the file, some 65,000 at a time.

        Raises:
            CityHeadsError: The file is damaged, holds no rows, or has no CRS where none can be assumed.
        """
        for table, name in self._tables(self):
            self._rows += table.num_rows
            for column, values in self.where.items():
                table = table.filter(np.isin(texts(table[column]), list(values)))
            geometry, unreadable = _decode(self.path, table[name])
            if self.crs_assumed:
                _check_degrees(self.path, geometry)
            yield Vectors(geometry, table.drop_columns([name]), self.crs, self.crs_assumed, unreadable)
        if self._rows + self.empty + self.unread == 0:
            raise CityHeadsError(f"{self.path}: holds no rows")


def open_vectors(
    path: Path,
    *,
    layer: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    columns: Callable[[str], bool] = lambda name: True,
    near: Callable[[Any], _Bounds] | None = None,
) -> VectorReader:
    """Open a vector file: (Geo)Parquet, CSV with WKT, or what GDAL reads (GeoJSON, Shapefile, GeoPackage, zipped too).

    Args:
        path: The file.
        layer: Layer of a file with several, or name without suffix of a zip's inner file; None for the only one.
        where: Rows wanted: values by column, compared as text.
        columns: Says which columns are wanted besides those of ``where``.
        near: Gives the box of interest in a CRS. An index may leave out rows elsewhere; without one they come too.

    Raises:
        CityHeadsError: The file is missing, unreadable, or holds no geometry, or not this layer or column.
    """
    from pyproj import CRS

    path = Path(path)
    if not path.exists():
        raise CityHeadsError(f"{path}: no such vector file")
    if path.is_file() and path.stat().st_size == 0:
        raise CityHeadsError(f"{path}: the file is empty")
    suffix, where = path.suffix.lower(), where or {}
    if suffix in (".parquet", ".geoparquet", ".csv", ".tsv"):
        if layer is not None:
            raise CityHeadsError(f"{path}: a {suffix} file has no layers; leave out 'layer' ({layer})")
        opened = (_open_parquet if "parquet" in suffix else _open_text)(path, near)
    else:
        opened = _open_gdal(path, layer, near)
    missing = next((name for name in where if name not in opened.columns), None)
    if missing is not None:
        raise CityHeadsError(f"{path}: no column '{missing}' (where); there are {', '.join(opened.columns[:12])}")
    wanted = [name for name in opened.columns if columns(name) or name in where]
    crs = CRS.from_epsg(4326) if opened.crs is None else opened.crs
    return VectorReader(
        path, opened.columns, crs, opened.crs is None, where, lambda reader: opened.tables(reader, wanted)
    )


def read_vectors(
    path: Path,
    *,
    layer: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    near: Callable[[Any], _Bounds] | None = None,
) -> Vectors:
    """Read a vector file whole, or what an index says lies near; arguments and errors are those of `open_vectors`.

    Rows without a geometry that an index passed over count as unread.
    """
    import pyarrow as pa

    reader = open_vectors(path, layer=layer, where=where, near=near)
    parts = list(reader.batches())
    if not parts:
        parts = [Vectors(np.empty(0, object), pa.table({name: pa.nulls(0) for name in reader.columns}), None, False, 0)]
    geometry = np.concatenate([part.geometry for part in parts])
    table = pa.concat_tables([part.attributes for part in parts], promote_options="permissive")
    unreadable = sum(part.unreadable for part in parts)
    return Vectors(geometry, table, reader.crs, reader.crs_assumed, unreadable, reader.unread + reader.empty)


@dataclass(frozen=True)
class _Opened:
    """A file that one of the formats' functions has looked into; ``tables`` reads it."""

    columns: list[str]
    crs: Any
    tables: Callable[[VectorReader, list[str]], Iterator[tuple[pa.Table, str]]]


def _open_parquet(path: Path, near: Callable[[Any], _Bounds] | None) -> _Opened:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyproj import CRS

    def unreadable(error: Exception) -> CityHeadsError:
        return CityHeadsError(f"{path}: cannot be read as Parquet ({error})")

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(error) from None
    crs, covering = None, None
    if b"geo" in (schema.metadata or {}):
        geo = json.loads(schema.metadata[b"geo"])
        name = geo["primary_column"]
        column = geo["columns"][name]
        if column["encoding"] != "WKB":
            raise CityHeadsError(f"{path}: geometry is encoded as {column['encoding']}; write it as WKB")
        # GeoParquet: no "crs" means OGC:CRS84, "crs": null means unknown
        crs = column.get("crs", "OGC:CRS84")
        crs = None if crs is None else CRS.from_user_input(crs)
        covering = column.get("covering", {}).get("bbox")
    else:
        name = _geometry_name(path, schema.names)
    paths = {corner: ".".join(place) for corner, place in (covering or {}).items()}

    def tables(reader: VectorReader, wanted: list[str]) -> Iterator[tuple[pa.Table, str]]:
        try:
            with pq.ParquetFile(path) as file:
                groups = list(range(file.metadata.num_row_groups))
                if near is not None and crs is not None and paths:
                    groups, reader.empty = groups_near(file.metadata, near(crs), paths)
                for batch in file.iter_batches(_BATCH, row_groups=groups, columns=[name, *wanted]):
                    yield pa.Table.from_batches([batch]), name
                if file.metadata.num_rows and not groups:
                    reader._rows += file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise unreadable(error) from None

    boxes = {place.split(".")[0] for place in paths.values()}
    return _Opened([column for column in schema.names if column != name and column not in boxes], crs, tables)


def _open_text(path: Path, near: Callable[[Any], _Bounds] | None) -> _Opened:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header = next(csv.reader(stream, delimiter=delimiter), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CityHeadsError(f"{path}: cannot be read as CSV ({error})") from None
    name = _geometry_name(path, header)

    def tables(reader: VectorReader, wanted: list[str]) -> Iterator[tuple[pa.Table, str]]:
        try:
            batches = arrow_csv.open_csv(
                path,
                # one row can be long: a borough's outline has 100,000 corners
                read_options=arrow_csv.ReadOptions(block_size=1 << 24),
                parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                # all as text: what the first block looks like says nothing of the rest
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()), include_columns=[name, *wanted]
                ),
            )
            for batch in batches:
                yield pa.Table.from_batches([batch]), name
        except (pa.ArrowException, OSError) as error:
            raise CityHeadsError(f"{path}: cannot be read as CSV ({error})") from None

    return _Opened([column for column in header if column != name], None, tables)


def _geometry_name(path: Path, columns: list[str]) -> str:
    by_lower = {name.lower(): name for name in reversed(columns)}
    for name in _GEOMETRY_NAMES:
        if name in by_lower:
            return by_lower[name]
    raise CityHeadsError(
        f"{path}: no geometry column ({', '.join(_GEOMETRY_NAMES[:4])}); its columns are {', '.join(columns[:12])}"
    )


def _open_gdal(path: Path, layer: str | None, near: Callable[[Any], _Bounds] | None) -> _Opened:
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError
    from pyproj import CRS

    errors = (DataSourceError, DataLayerError, OSError, RuntimeError)
    place, chosen = (path, layer) if path.suffix.lower() != ".zip" else _inside(path, layer)
    try:
        layers = [name for name, kind in pyogrio.list_layers(place) if kind is not None]
        if not layers:
            raise CityHeadsError(f"{path}: holds no geometry")
        if chosen is None and len(layers) > 1:
            raise CityHeadsError(f"{path}: holds the layers {', '.join(layers)}; name the wanted one as 'layer'")
        if chosen is not None and chosen not in layers:
            raise CityHeadsError(f"{path}: no layer '{chosen}'; there are {', '.join(layers)}")
        chosen = chosen or layers[0]
        info = pyogrio.read_info(place, layer=chosen)
    except errors as error:
        raise CityHeadsError(f"{path}: cannot be read as a vector file ({error})") from None
    crs = CRS.from_user_input(info["crs"]) if info["crs"] else None
    indexed = info["driver"] == "GPKG" and near is not None and crs is not None

    def tables(reader: VectorReader, wanted: list[str]) -> Iterator[tuple[pa.Table, str]]:
        import pyarrow as pa

        box = near(crs) if indexed and near is not None else None
        rows = 0
        try:
            if box is not None:
                name = info["geometry_name"] or "geom"
                _, bare = pyogrio.read_arrow(
                    place, layer=chosen, columns=[], read_geometry=False, return_fids=True, where=f'"{name}" IS NULL'
                )
                reader.empty = bare.num_rows
            options: Any = {"use_pyarrow": True, "batch_size": _BATCH, "bbox": box}
            with pyogrio.open_arrow(place, layer=chosen, columns=wanted, **options) as (meta, batches):
                name = meta["geometry_name"] or "wkb_geometry"
                if name not in batches.schema.names:
                    raise CityHeadsError(f"{path}: holds no geometry")
                for batch in batches:
                    rows += batch.num_rows
                    yield pa.Table.from_batches([batch]), name
        except (*errors, pa.ArrowException) as error:
            raise CityHeadsError(f"{path}: cannot be read as a vector file ({error})") from None
        # a shapefile's header counts the rows; other drivers would count by reading, or say what was once true
        if info["driver"] == "ESRI Shapefile":
            reader.unread = max(0, info["features"] - rows)
        if box is not None and info["features"] > 0:
            reader._rows += 1  # it holds rows, if none of them here

    # the city's export repeats the geometry as a property, half of the file
    names = [name for name in info["fields"] if name.lower() not in _GEOMETRY_NAMES]
    return _Opened(names, crs, tables)


def _inside(path: Path, layer: str | None) -> tuple[str, str | None]:
    """Find the vector file in a zip file, in whatever folder of it; also give the layer that is still to be chosen."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(name) for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise CityHeadsError(f"{path}: cannot be read as a zip file ({error})") from None
    found: set[PurePosixPath] = set()
    for name in names:
        # a geodatabase is a folder; what macOS adds is no data
        whole = next((part for part in [*name.parents, name] if part.suffix.lower() == ".gdb"), name)
        hidden = any(part.startswith((".", "__")) for part in whole.parts)
        if whole.suffix.lower() in _ZIPPED and not hidden:
            found.add(whole)
    if not found:
        raise CityHeadsError(f"{path}: holds no vector file ({', '.join(_ZIPPED[:4])}, ...)")
    if len(found) > 1:
        of_layer = {name for name in found if name.stem == layer}
        if len(of_layer) != 1:
            held = ", ".join(sorted(map(str, found)))
            raise CityHeadsError(f"{path}: holds the files {held}; name the wanted one, without suffix, as 'layer'")
        return f"/vsizip/{path}/{of_layer.pop()}", None
    only = found.pop()
    return f"/vsizip/{path}/{only}", None if only.stem == layer else layer


def _decode(path: Path, column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """Decode WKB or WKT; what cannot be decoded becomes None and is counted."""
    import pyarrow as pa
    import shapely

    kind = column.type
    if isinstance(kind, pa.ExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        kind = kind.storage_type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        decode = shapely.from_wkb
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        decode = shapely.from_wkt
    elif pa.types.is_null(kind):
        return np.full(len(column), None, object), 0
    else:
        raise CityHeadsError(f"{path}: the geometry column holds {kind}; it must hold WKB or WKT")
    raw = column.to_numpy()
    geometry = decode(raw, on_invalid="ignore")
    missing = np.flatnonzero(shapely.is_missing(geometry))
    return geometry, sum(bool(raw[index]) for index in missing)


def _check_degrees(path: Path, geometry: np.ndarray) -> None:
    import shapely

    west, south, east, north = shapely.total_bounds(geometry)
    if np.isnan(west) or (west >= -180 and east <= 180 and south >= -90 and north <= 90):
        return
    raise CityHeadsError(
        f"{path}: has no CRS, and its coordinates (around {west:.0f}, {south:.0f}) are no longitudes and latitudes; "
        "add a .prj beside a shapefile, or write a GeoPackage with a CRS"
    )
