"""GeoParquet 1.1 with a box per row: written whole, and read back only near a box.

Reading back needs pyarrow and shapely only; other libraries are imported where they are used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ROW_GROUP",
    "boxes",
    "geo_metadata",
    "geo_table",
    "groups_near",
    "read_near",
    "stored_epsg",
    "write_geoparquet",
]

#: Rows of a row group: a parent of the real run holds 50,000 buildings, and unneeded rows are read in such units.
ROW_GROUP = 4096

#: Corners of a box, in the order of ``shapely.bounds``.
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def geo_metadata(kinds: set[int], bounds: Sequence[float], epsg: int) -> dict[str, str]:
    """Give the metadata of a GeoParquet 1.1 file with columns ``geometry`` (WKB) and ``bbox``.

    Args:
        kinds: Type ids of the geometries, 3 for Polygon and 6 for MultiPolygon.
        bounds: (left, bottom, right, top) of all.
        epsg: CRS of the geometry.
    """
    from pyproj import CRS

    names = {3: "Polygon", 6: "MultiPolygon"}
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": sorted(names[kind] for kind in kinds),
                "crs": CRS.from_epsg(epsg).to_json_dict(),
                "bbox": [float(value) for value in bounds],
                "covering": {"bbox": {corner: ["bbox", corner] for corner in CORNERS}},
            }
        },
    }
    return {"geo": json.dumps(geo)}


def boxes(bounds: np.ndarray) -> pa.StructArray:
    """Give the column ``bbox`` of boxes (left, bottom, right, top), (N, 4)."""
    import pyarrow as pa

    return pa.StructArray.from_arrays([pa.array(bounds[:, i]) for i in range(4)], names=list(CORNERS))


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

    kinds = {int(kind) for kind in np.unique(shapely.get_type_id(geometry))}
    table = attributes.append_column("geometry", pa.array(shapely.to_wkb(geometry), pa.binary()))
    table = table.append_column("bbox", boxes(shapely.bounds(geometry).reshape(-1, 4)))
    return table.replace_schema_metadata(geo_metadata(kinds, shapely.total_bounds(geometry), epsg))


def write_geoparquet(path: Path, geometry: np.ndarray, attributes: pa.Table, epsg: int) -> None:
    """Write GeoParquet 1.1 with a bbox covering, whole or not at all.

    Args:
        path: Target.
        geometry: As for `geo_table`.
        attributes: N rows.
        epsg: CRS of the geometry.
    """
    import pyarrow.parquet as pq

    table = geo_table(geometry, attributes, epsg)
    with atomic_path(path) as part:
        pq.write_table(table, part, row_group_size=ROW_GROUP, compression="zstd")


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
            groups, _ = groups_near(
                file.metadata, (left, bottom, right, top), {name: f"bbox.{name}" for name in CORNERS}
            )
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


def groups_near(
    metadata: Any, bounds: tuple[float, float, float, float], places: Mapping[str, str]
) -> tuple[list[int], int]:
    """Pick the row groups whose statistics let a row meet a box.

    Args:
        metadata: Of an open Parquet file.
        bounds: (left, bottom, right, top).
        places: Path in the schema of ``xmin``, ``ymin``, ``xmax`` and ``ymax``.

    Returns:
        Numbers of the row groups (of all that lack statistics, too), and how many rows without a box the others hold.
    """
    if metadata.num_row_groups == 0:
        return [], 0
    left, bottom, right, top = bounds
    first = metadata.row_group(0)
    index = {first.column(number).path_in_schema: number for number in range(first.num_columns)}
    near, without = [], 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        found = [group.column(index[places[name]]).statistics for name in CORNERS]
        if all(each is not None and each.null_count == group.num_rows for each in found):
            without += group.num_rows
            continue
        if all(each is not None and each.has_min_max for each in found):
            x_min, y_min, x_max, y_max = found
            if not (x_min.min <= right and y_min.min <= top and x_max.max >= left and y_max.max >= bottom):
                without += x_min.null_count or 0
                continue
        near.append(number)
    return near, without
