"""Find a parent grid for a city: the fewest squares of one size that cover its boundary without overlap."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import shapely

from cityheads.config import Config
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes
from cityheads.core.grid import Grid

__all__ = ["cover_boundary", "read_boundary", "squares_at"]

log = logging.getLogger(__name__)


def read_boundary(path: Path, epsg: int | None) -> tuple[shapely.Geometry, int]:
    """Read a boundary as one geometry in a metric CRS.

    Args:
        path: Any vector file that GDAL reads (also ``zip://``-less zipped shapefiles).
        epsg: Target CRS; None picks the UTM zone of the boundary's centre.

    Returns:
        The union of all polygons, and its EPSG code.

    Raises:
        CityHeadsError: The file is missing, unreadable, without CRS or without polygons.
    """
    import geopandas as gpd

    path = Path(path)
    if not path.exists():
        raise CityHeadsError(f"{path}: no such boundary file")
    try:
        frame = gpd.read_file(f"zip://{path}" if path.suffix == ".zip" else path)
    except Exception as error:
        raise CityHeadsError(f"{path}: cannot be read as a vector file ({error})") from None
    if frame.crs is None:
        raise CityHeadsError(f"{path}: has no CRS; add one (a .prj beside a shapefile, or use GeoPackage)")
    frame = frame[~(frame.geometry.is_empty | frame.geometry.isna())]
    if epsg is None:
        if frame.empty:
            raise CityHeadsError(f"{path}: holds no polygons")
        epsg = int(frame.estimate_utm_crs().to_epsg())
    union = shapely.union_all(shapely.make_valid(frame.to_crs(epsg).geometry.values))
    if union.is_empty or union.area == 0:
        raise CityHeadsError(f"{path}: holds no polygons")
    return union, epsg


def squares_at(boundary: shapely.Geometry, left: float, top: float, side: float) -> np.ndarray:
    """Give the (left, top) corners, (N, 2), of the squares of the lattice through (left, top) that share area with it.

    Squares are listed from north to south, then west to east.
    """
    west, south, east, north = boundary.bounds
    columns = np.arange(np.floor((west - left) / side), np.floor((east - left) / side) + 1)
    rows = np.arange(np.floor((top - north) / side), np.floor((top - south) / side) + 1)
    lefts, tops = np.meshgrid(left + columns * side, top - rows * side)
    corners = np.column_stack([lefts.ravel(), tops.ravel()])
    boxes = shapely.box(corners[:, 0], corners[:, 1] - side, corners[:, 0] + side, corners[:, 1])
    near = shapely.intersects(boxes, boundary)
    touching = np.zeros(len(boxes), bool)
    touching[near] = shapely.area(shapely.intersection(boxes[near], boundary)) > 0
    return corners[touching]


def cover_boundary(
    config: Config,
    *,
    boundary: Path,
    out: Path,
    epsg: int | None = None,
    step_px: int = 32,
    count: int | None = None,
    prefix: str = "P",
) -> None:
    """Write a parent sheet whose squares cover all of a boundary.

    All origins on a lattice of ``step_px`` within one square are tried. Squares of one lattice that share area with
    the boundary always cover it whole; the origin with the fewest squares wins (or, with ``count``, exactly that
    many), and among equals the one whose least filled square is fullest, so that no parent holds only a sliver.

    Args:
        config: Read is the section ``grid``.
        boundary: Vector file of the city's land.
        out: Sheet to write.
        epsg: Metric CRS of the grid; None picks the UTM zone.
        step_px: Spacing of the origins tried, in pixels.
        count: Wanted number of squares; None for the fewest.
        prefix: Prefix of the ids (``P01`` ...).

    Raises:
        CityHeadsError: No origin gives ``count`` squares.
    """
    grid = config.grid.grid
    city, epsg = read_boundary(boundary, epsg)
    step = step_px * grid.resolution_m
    shapely.prepare(city)
    # origins lie on multiples of the step, so that the sheet holds round numbers on the Sentinel-2 pixel grid
    west, north = np.floor(city.bounds[0] / step) * step, np.ceil(city.bounds[3] / step) * step
    tried = [(west - i * step, north + j * step) for i in range(_steps(grid, step)) for j in range(_steps(grid, step))]
    counts: dict[tuple[float, float], int] = {}
    for origin in tried:
        counts[origin] = len(squares_at(city, *origin, grid.side_m))
    wanted = min(counts.values()) if count is None else count
    fitting = [origin for origin, number in counts.items() if number == wanted]
    if not fitting:
        raise CityHeadsError(
            f"{boundary}: no origin of {len(tried)} gives {wanted} squares of {grid.side_m:g} m; "
            f"the counts run from {min(counts.values())} to {max(counts.values())}"
        )

    def fill(origin: tuple[float, float]) -> float:
        corners = squares_at(city, *origin, grid.side_m)
        boxes = shapely.box(corners[:, 0], corners[:, 1] - grid.side_m, corners[:, 0] + grid.side_m, corners[:, 1])
        return float(shapely.area(shapely.intersection(boxes, city)).min())

    best = max(fitting, key=fill)
    corners = squares_at(city, *best, grid.side_m)
    width = max(2, len(str(len(corners))))
    text = [
        f"# {len(corners)} squares of {grid.parent_px} px x {grid.resolution_m:g} m that cover all of the boundary's "
        f"{city.area / 1e6:.0f} km2 without overlap (EPSG:{epsg})",
        f"# made by: cityheads cover_boundary --boundary {Path(boundary).name} --epsg {epsg} --step-px {step_px}"
        + (f" --count {count}" if count is not None else ""),
        f"# {len(fitting)} of {len(tried)} origins give {wanted} squares; this one's least filled square holds "
        f"{fill(best) / 1e6:.2f} km2 of land",
        "parent_id\tepsg\tleft\ttop",
    ]
    for number, (left, top) in enumerate(corners, start=1):
        text.append(f"{prefix}{number:0{width}d}\t{epsg}\t{left:.0f}\t{top:.0f}")
    write_bytes(out, ("\n".join(text) + "\n").encode())
    log.info("%s: %d parents", out, len(corners))


def _steps(grid: Grid, step: float) -> int:
    return max(1, round(grid.side_m / step))
