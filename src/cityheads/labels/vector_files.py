"""Vector files: read any, write GeoParquet, and read back only the rows near a box.

The heavy libraries are imported where they are used: reading back a prepared file needs pyarrow and shapely only. The
search for a parent grid has a reader of its own, `cityheads.archive.tiling.read_boundary`, which lies below the labels
and wants no more than one outline in a metric CRS.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Vectors",
    "dates",
    "geo_table",
    "hilbert_order",
    "numbers",
    "only_polygons",
    "project",
    "read_near",
    "read_vectors",
    "write_geoparquet",
]

log = logging.getLogger(__name__)

#: Names under which text formats keep their geometry, in order of preference.
_GEOMETRY_NAMES = ("geometry", "the_geom", "geom", "wkt", "wkb_geometry", "shape", "multipolygon")

#: Rows of a row group: a parent of the real run holds 50,000 buildings, and unneeded rows are read in such units.
_ROW_GROUP = 4096


@dataclass(frozen=True)
class Vectors:
    """A vector layer in memory.

    Attributes:
        geometry: shapely geometries, None where missing, (N,).
        attributes: The other columns, N rows, in the file's own types and names.
        crs: CRS as the file gives it, or as it had to be assumed.
        crs_assumed: The file names no CRS, and its coordinates look like longitude and latitude.
        unreadable: Rows whose geometry could not be decoded; they are None in ``geometry``.
    """

    geometry: np.ndarray
    attributes: pa.Table
    crs: Any
    crs_assumed: bool
    unreadable: int


def read_vectors(path: Path) -> Vectors:
    """Read a vector file: (Geo)Parquet, CSV with WKT, or what GDAL reads (GeoJSON, Shapefile, GeoPackage, zipped too).

    Raises:
        CityHeadsError: The file is missing, unreadable, holds no rows or no geometry, or names no CRS where none can be
            assumed.
    """
    path = Path(path)
    if not path.exists():
        raise CityHeadsError(f"{path}: no such vector file")
    if path.is_file() and path.stat().st_size == 0:
        raise CityHeadsError(f"{path}: the file is empty")
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".geoparquet"):
        table, name, crs = _read_parquet(path)
    elif suffix in (".csv", ".tsv"):
        table, name, crs = _read_text(path)
    else:
        table, name, crs = _read_gdal(path)
    if table.num_rows == 0:
        raise CityHeadsError(f"{path}: holds no rows")
    geometry, unreadable = _decode(path, table[name])
    crs_assumed = crs is None
    if crs_assumed:
        crs = _assume_crs(path, geometry)
    return Vectors(geometry, table.drop_columns([name]), crs, crs_assumed, unreadable)


def _read_parquet(path: Path) -> tuple[pa.Table, str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyproj import CRS

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise CityHeadsError(f"{path}: cannot be read as Parquet ({error})") from None
    metadata = table.schema.metadata or {}
    if b"geo" not in metadata:
        return table, _geometry_name(path, table.column_names), None
    geo = json.loads(metadata[b"geo"])
    name = geo["primary_column"]
    column = geo["columns"][name]
    if column["encoding"] != "WKB":
        raise CityHeadsError(f"{path}: geometry is encoded as {column['encoding']}; write it as WKB")
    # GeoParquet: no "crs" means OGC:CRS84, "crs": null means unknown
    crs = column.get("crs", "OGC:CRS84")
    return table, name, None if crs is None else CRS.from_user_input(crs)


def _read_text(path: Path) -> tuple[pa.Table, str, Any]:
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(
            path,
            # one row can be long: a borough's outline has 100,000 corners
            read_options=csv.ReadOptions(block_size=1 << 26),
            parse_options=csv.ParseOptions(
                delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True
            ),
        )
    except (pa.ArrowException, OSError) as error:
        raise CityHeadsError(f"{path}: cannot be read as CSV ({error})") from None
    return table, _geometry_name(path, table.column_names), None


def _geometry_name(path: Path, columns: list[str]) -> str:
    by_lower = {name.lower(): name for name in reversed(columns)}
    for name in _GEOMETRY_NAMES:
        if name in by_lower:
            return by_lower[name]
    raise CityHeadsError(
        f"{path}: no geometry column ({', '.join(_GEOMETRY_NAMES[:4])}); its columns are {', '.join(columns[:12])}"
    )


def _read_gdal(path: Path) -> tuple[pa.Table, str, Any]:
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError
    from pyproj import CRS

    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
        if not layers:
            raise CityHeadsError(f"{path}: holds no geometry")
        if len(layers) > 1:
            raise CityHeadsError(f"{path}: holds the layers {', '.join(layers)}; write the wanted one to its own file")
        fields = pyogrio.read_info(path, layer=layers[0])["fields"]
        # the city's export repeats the geometry as a property, half of the file
        wanted = [name for name in fields if name.lower() not in _GEOMETRY_NAMES]
        meta, table = pyogrio.read_arrow(path, layer=layers[0], columns=wanted)
    except (DataSourceError, DataLayerError, OSError, RuntimeError) as error:
        raise CityHeadsError(f"{path}: cannot be read as a vector file ({error})") from None
    name = meta["geometry_name"] or "wkb_geometry"
    if name not in table.column_names:
        raise CityHeadsError(f"{path}: holds no geometry")
    return table, name, CRS.from_user_input(meta["crs"]) if meta["crs"] else None


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
    unreadable = int((shapely.is_missing(geometry) & np.array([bool(value) for value in raw])).sum())
    return geometry, unreadable


def _assume_crs(path: Path, geometry: np.ndarray) -> Any:
    import shapely
    from pyproj import CRS

    west, south, east, north = shapely.total_bounds(geometry)
    if np.isnan(west) or (west >= -180 and east <= 180 and south >= -90 and north <= 90):
        return CRS.from_epsg(4326)
    raise CityHeadsError(
        f"{path}: has no CRS, and its coordinates (around {west:.0f}, {south:.0f}) are no longitudes and latitudes; "
        "add a .prj beside a shapefile, or write a GeoPackage with a CRS"
    )


def only_polygons(geometry: np.ndarray) -> np.ndarray:
    """Keep the polygonal part of every geometry, in two dimensions; None where there is none."""
    import shapely

    if shapely.has_z(geometry).any():
        geometry = shapely.force_2d(geometry)
    kind = shapely.get_type_id(geometry)
    kept = np.full(geometry.shape, None, object)
    whole = np.isin(kind, (3, 6)) & ~shapely.is_empty(geometry)
    kept[whole] = geometry[whole]
    for index in np.flatnonzero(kind == 7):
        parts = shapely.get_parts(shapely.get_parts(geometry[index]))
        faces = parts[shapely.get_type_id(parts) == 3]
        if len(faces):
            kept[index] = faces[0] if len(faces) == 1 else shapely.multipolygons(faces)
    return kept


def project(geometry: np.ndarray, source: Any, target: Any) -> np.ndarray:
    """Reproject geometries corner by corner; x is east or longitude in both CRS."""
    import shapely
    from pyproj import CRS, Transformer

    source, target = CRS.from_user_input(source), CRS.from_user_input(target)
    if source == target:
        return geometry
    to = Transformer.from_crs(source, target, always_xy=True)
    return shapely.transform(geometry, lambda xy: np.column_stack(to.transform(xy[:, 0], xy[:, 1])))


def hilbert_order(geometry: np.ndarray) -> np.ndarray:
    """Give the order along a Hilbert curve, in which what is near in space is near in the file; ties stay in order."""
    import geopandas as gpd

    if len(geometry) < 2:
        return np.arange(len(geometry))
    return np.argsort(gpd.GeoSeries(geometry).hilbert_distance(level=16).to_numpy(), kind="stable")


def geo_table(geometry: np.ndarray, attributes: pa.Table, epsg: int) -> pa.Table:
    """Give the table of a GeoParquet 1.1 file with a bbox covering.

    Args:
        geometry: shapely polygons and MultiPolygons, none missing or empty, (N,).
        attributes: N rows.
        epsg: CRS of the geometry.

    Returns:
        The attributes, then ``geometry`` (WKB) and ``bbox``, with the format's metadata.
    """
    import pyarrow as pa
    import shapely
    from pyproj import CRS

    bounds = shapely.bounds(geometry).reshape(-1, 4)
    corners = ("xmin", "ymin", "xmax", "ymax")
    box = pa.StructArray.from_arrays([pa.array(bounds[:, i]) for i in range(4)], names=list(corners))
    kinds = {3: "Polygon", 6: "MultiPolygon"}
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": sorted(kinds[kind] for kind in np.unique(shapely.get_type_id(geometry))),
                "crs": CRS.from_epsg(epsg).to_json_dict(),
                "bbox": [float(value) for value in shapely.total_bounds(geometry)],
                "covering": {"bbox": {corner: ["bbox", corner] for corner in corners}},
            }
        },
    }
    table = attributes.append_column("geometry", pa.array(shapely.to_wkb(geometry), pa.binary()))
    return table.append_column("bbox", box).replace_schema_metadata({"geo": json.dumps(geo)})


def write_geoparquet(path: Path, geometry: np.ndarray, attributes: pa.Table, epsg: int) -> None:
    """Write GeoParquet 1.1 with a bbox covering, whole or not at all.

    Args:
        path: Target.
        geometry: As for `geo_table`, sorted so that row groups are compact.
        attributes: N rows.
        epsg: CRS of the geometry.
    """
    import pyarrow.parquet as pq

    table = geo_table(geometry, attributes, epsg)
    with atomic_path(path) as part:
        pq.write_table(table, part, row_group_size=_ROW_GROUP, compression="zstd")


def stored_epsg(path: Path) -> int:
    """Give the EPSG code of a GeoParquet file that `write_geoparquet` wrote."""
    import pyarrow.parquet as pq

    return _epsg(path, pq.read_schema(path).metadata)


def _epsg(path: Path, metadata: dict[bytes, bytes] | None) -> int:
    try:
        return int(json.loads((metadata or {})[b"geo"])["columns"]["geometry"]["crs"]["id"]["code"])
    except (KeyError, ValueError, TypeError):
        raise CityHeadsError(f"{path}: not a file that prepare_footprints wrote; delete it and run again") from None


def read_near(
    path: Path, bounds_of: Any, columns: tuple[str, ...] = ()
) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
    """Read the rows whose box meets a box; row groups that cannot hold any are not read.

    Args:
        path: GeoParquet file that `write_geoparquet` wrote.
        bounds_of: Function that gives (left, bottom, right, top) for the file's EPSG code.
        columns: Attributes wanted besides the geometry.

    Returns:
        WKB (N,), the attributes as a dict of arrays, and the EPSG code.

    Raises:
        CityHeadsError: The file is missing, damaged, or not ours.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(path).exists():
        raise CityHeadsError(f"{path}: no such file; prepare_footprints writes it")
    try:
        with pq.ParquetFile(path) as file:
            epsg = _epsg(path, file.schema_arrow.metadata)
            left, bottom, right, top = bounds_of(epsg)
            groups = _groups_near(file.metadata, left, bottom, right, top)
            table = file.read_row_groups(groups, columns=["geometry", "bbox", *columns])
    except (pa.ArrowException, OSError) as error:
        raise CityHeadsError(f"{path}: cannot be read as Parquet ({error}); delete it and run again") from None
    # plain numpy from here: pyarrow's compute functions and its own way to numpy would import pandas, a second or so
    box = table["bbox"].combine_chunks()
    xmin, ymin, xmax, ymax = (np.from_dlpack(box.field(corner)) for corner in range(4))
    near = (xmin <= right) & (ymin <= top) & (xmax >= left) & (ymax >= bottom)
    return _objects(table["geometry"])[near], {name: _objects(table[name])[near] for name in columns}, epsg


def _objects(column: Any) -> np.ndarray:
    """Give a column's values as objects, None where missing."""
    values = np.empty(len(column), object)
    values[:] = column.to_pylist()
    return values


def _groups_near(metadata: Any, left: float, bottom: float, right: float, top: float) -> list[int]:
    """Pick the row groups whose statistics let a row meet the box."""
    if metadata.num_row_groups == 0:
        return []
    first = metadata.row_group(0)
    place = {first.column(index).path_in_schema: index for index in range(first.num_columns)}
    near = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        low_x, low_y = (group.column(place[f"bbox.{name}"]).statistics.min for name in ("xmin", "ymin"))
        high_x, high_y = (group.column(place[f"bbox.{name}"]).statistics.max for name in ("xmax", "ymax"))
        if low_x <= right and low_y <= top and high_x >= left and high_y >= bottom:
            near.append(number)
    return near


_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


def numbers(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """Read a column as numbers, whatever its type.

    Returns:
        (N,) float64, NaN where empty or unreadable, and how many values were unreadable.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = kind.value_type
    unreadable = 0
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = pc.utf8_trim_whitespace(column)
        text = pc.if_else(pc.equal(text, ""), None, text)
        good = pc.match_substring_regex(text, _NUMBER.pattern)
        unreadable = int(pc.sum(pc.invert(good)).as_py() or 0)
        column = pc.if_else(good, text, None)
    elif not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    ):
        return np.full(len(column), np.nan), len(column) - column.null_count
    return column.cast(pa.float64(), safe=False).to_numpy(), unreadable


def dates(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """Read a column as days: dates, time stamps, or text that begins with 2017-08-22, 2017/08/22 or 08/22/2017.

    Returns:
        date32 column, null where empty or unreadable, and how many values were unreadable.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return column.cast(pa.date32(), safe=False), 0
    if pa.types.is_null(kind):
        return column.cast(pa.date32()), 0
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return pa.chunked_array([pa.nulls(len(column), pa.date32())]), len(column) - column.null_count
    text = pc.utf8_trim_whitespace(column)
    text = pc.replace_substring(pc.utf8_slice_codeunits(text, 0, 10), "/", "-")
    day = pc.coalesce(
        pc.strptime(text, format="%Y-%m-%d", unit="s", error_is_null=True),
        pc.strptime(text, format="%m-%d-%Y", unit="s", error_is_null=True),
    ).cast(pa.date32())
    given = pc.and_kleene(pc.is_valid(text), pc.not_equal(text, ""))
    unreadable = int(pc.sum(pc.and_(pc.fill_null(given, False), pc.is_null(day))).as_py() or 0)
    return day, unreadable
