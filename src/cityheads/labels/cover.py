"""Find a parent grid for a city: the fewest squares of one size that cover its boundary without overlap."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import shapely
from pyproj import CRS
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from pyproj.exceptions import CRSError

from cityheads.config import Config
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path
from cityheads.core.grid import Grid, read_parents
from cityheads.labels.losses import Losses
from cityheads.labels.shapes import has_area, project, repair
from cityheads.labels.vector_files import read_vectors

__all__ = ["cover_boundary", "read_boundary", "squares_at"]

log = logging.getLogger(__name__)


def read_boundary(path: Path, epsg: int | None) -> tuple[shapely.Geometry, int]:
    """Read a boundary as one geometry in a metric CRS.

    Args:
        path: Vector file, of any kind that `read_vectors` reads.
        epsg: Target CRS; None picks the UTM zone of the boundary's centre.

    Returns:
        The union of all polygons, and its EPSG code.

    Raises:
        CityHeadsError: The file is missing, unreadable, without CRS or without area, or no UTM zone holds it.
    """
    path = Path(path)
    vectors = read_vectors(path)
    losses = Losses(path)
    shapes = losses.shapes(vectors)
    shapes = shapes[~shapely.is_missing(shapes)]
    if not len(shapes):
        raise CityHeadsError(f"{path}: holds no polygons; a boundary is the outline of an area")
    if epsg is None:
        epsg = _utm_zone(path, project(shapes, vectors.crs, 4326))
    try:
        crs = CRS.from_epsg(epsg)
    except CRSError:
        raise CityHeadsError(f"EPSG:{epsg} is unknown; use a metric CRS such as 32618") from None
    if not crs.is_projected or crs.axis_info[0].unit_name != "metre":
        raise CityHeadsError(f"EPSG:{epsg} is not a projected CRS in metres; use the place's UTM zone")
    shapes, _ = repair(project(shapes, vectors.crs, epsg))
    union = shapely.union_all(shapes[has_area(shapes)])
    if union.is_empty:
        raise CityHeadsError(f"{path}: the boundary has no area in EPSG:{epsg}")
    return union, epsg


def _utm_zone(path: Path, degrees: np.ndarray) -> int:
    """Give the EPSG code of the UTM zone in which the middle of some polygons lies, also across the antimeridian."""
    points = shapely.get_coordinates(degrees)
    angle = np.deg2rad(points[:, 0])
    # longitudes go round: their middle is that of the arc which leaves out the widest gap
    turn = np.sort(np.mod(angle, 2 * np.pi))
    gaps = np.diff(turn, append=turn[0] + 2 * np.pi)
    widest = int(gaps.argmax())
    middle = np.rad2deg(turn[widest] + gaps[widest] / 2 + np.pi)
    longitude = (middle + 180) % 360 - 180
    latitude = (points[:, 1].min() + points[:, 1].max()) / 2
    found = query_utm_crs_info("WGS 84", AreaOfInterest(longitude, latitude, longitude, latitude))
    if not found:
        raise CityHeadsError(f"{path}: no UTM zone holds {longitude:.1f}, {latitude:.1f}; name a CRS with --epsg")
    return int(found[0].code)


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
    many), and among equals the one whose least filled square is fullest, so that no parent holds only a sliver; where
    that is so of several, as on an island smaller than a square, the one that has the city in its middle.

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

    def off_centre_m(origin: tuple[float, float]) -> float:
        corners = squares_at(city, *origin, grid.side_m)
        left, top = corners.min(axis=0)[0], corners.max(axis=0)[1]
        right, bottom = corners.max(axis=0)[0] + grid.side_m, corners.min(axis=0)[1] - grid.side_m
        west, south, east, north = city.bounds
        return float(np.hypot(left + right - west - east, bottom + top - south - north) / 2)

    # to the share of a millionth, what rounding leaves of one and the same area is equal
    best = max(fitting, key=lambda origin: (round(fill(origin) / city.area, 6), -off_centre_m(origin)))
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
        text.append(f"{prefix}{number:0{width}d}\t{epsg}\t{left:.12g}\t{top:.12g}")
    with atomic_path(out) as part:
        part.write_text("\n".join(text) + "\n", encoding="utf-8")
        try:
            read_parents(part, grid)  # what would be refused later is refused now, and not written
        except CityHeadsError as error:
            raise CityHeadsError(str(error).replace(str(part), str(out))) from None
    log.info("%s: %d parents", out, len(corners))


def _steps(grid: Grid, step: float) -> int:
    return max(1, round(grid.side_m / step))
