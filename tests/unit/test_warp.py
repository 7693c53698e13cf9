"""One band onto one grid: window, resampling and edges against computations that share no code with ours."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from made_archive import EPSG, LEFT, TOP, Raster
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from cityheads.archive.warp import Target, plan, read_onto
from cityheads.core.errors import CityHeadsError

UTM = CRS.from_epsg(EPSG)


def target(px: int = 40, *, left: float = LEFT, top: float = TOP, step: float = 10, crs: CRS = UTM) -> Target:
    return Target((px, px), Affine(step, 0, left, 0, -step, top), crs)


def warped(path: Path, grid: Target, method: Resampling, *, fill: float, nodata: float | None = None) -> np.ndarray:
    """Compute the same with GDAL's virtual warper over the whole raster."""
    with rasterio.open(path) as source:
        own = source.nodata if source.nodata is not None else nodata
        own = math.nan if own is None else own
        with WarpedVRT(
            source, crs=grid.crs, transform=grid.transform, width=grid.shape[1], height=grid.shape[0],
            resampling=method, src_nodata=own, nodata=fill,
        ) as virtual:  # fmt: skip
            found: np.ndarray = virtual.read(1)
            return found


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 5000, (100, 120)).astype(np.uint16)


@settings(max_examples=40, deadline=None)
@given(
    column=st.integers(-60, 140), row=st.integers(-60, 120), px=st.integers(1, 50), drift=st.floats(-1e-9, 1e-9)
)  # fmt: skip
def test_an_aligned_window_is_the_slice_with_nodata_beyond_the_edges(
    column: int, row: int, px: int, drift: float
) -> None:
    pixels = np.random.default_rng(0).integers(1, 5000, (100, 120)).astype(np.uint16)
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", count=1, height=100, width=120, dtype="uint16", crs=UTM, nodata=0,
            transform=Affine(10, 0, LEFT + drift, 0, -10, TOP - drift), tiled=True, blockxsize=32, blockysize=32,
        ) as made:  # fmt: skip
            made.write(pixels, 1)
        with memory.open() as source:
            grid = target(px, left=LEFT + 10 * column, top=TOP - 10 * row)
            found = read_onto(source, grid, resampling="cubic", fill=0)
    padded = np.zeros((400, 400), np.uint16)
    padded[150:250, 150:270] = pixels
    assert np.array_equal(found, padded[150 + row : 150 + row + px, 150 + column : 150 + column + px])


def test_an_aligned_window_touches_no_pixel_too_many(tmp_path: Path, noise: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    Raster(noise).write(path)
    with rasterio.open(path) as source:
        how = plan(source, target(40, left=LEFT + 300, top=TOP - 200))
    assert how.window is not None
    assert (how.window.col_off, how.window.row_off, how.window.width, how.window.height) == (30, 20, 40, 40)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_coarser_bands_equal_a_warp_of_the_whole_raster(
    tmp_path: Path, noise: np.ndarray, method: str, shift: float
) -> None:
    path = tmp_path / "a.tif"
    Raster(noise, step=20, nodata=0).write(path)
    grid = target(64, left=LEFT + 400 + shift, top=TOP - 300 - shift)
    with rasterio.open(path) as source:
        found = read_onto(source, grid, resampling=method, fill=0)
    expected = warped(path, grid, Resampling[method], fill=0)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= (0 if method == "nearest" else 1)


def test_twenty_metres_onto_ten_by_hand(tmp_path: Path, noise: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    Raster(noise, step=20, nodata=0).write(path)
    with rasterio.open(path) as source:
        found = read_onto(source, target(40), resampling="bilinear", fill=0)
    # the centre of a 10 m pixel lies a quarter of a 20 m pixel off its centre; at the raster's edge the outer
    # neighbour does not exist and the inner one has all the weight
    wide = noise.astype(float)
    position = (np.arange(40) + 0.5) / 2 - 0.5
    low = np.floor(position).astype(int)
    weight = position - low
    first, second = np.clip(low, 0, None), low + 1
    rows = wide[first] * (1 - weight)[:, None] + wide[second] * weight[:, None]
    expected = rows[:, first] * (1 - weight) + rows[:, second] * weight
    assert np.abs(found - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_degrees_onto_metres_equals_a_warp_of_the_whole_raster(tmp_path: Path, method: str) -> None:
    rows, columns = np.mgrid[0:220, 0:260]
    hills = (50 + 20 * np.sin(rows / 6) + 10 * np.cos(columns / 5)).astype(np.float32)
    path = tmp_path / "dem.tif"
    Raster(hills, -73.96, 40.76, 1 / 3600, 4326).write(path)
    grid = target(200)
    with rasterio.open(path) as source:
        how = plan(source, grid)
        found = read_onto(source, grid, resampling=method, fill=math.nan)
    expected = warped(path, grid, Resampling[method], fill=math.nan)
    assert how.window is not None
    assert how.window.width * how.window.height < 0.4 * hills.size
    if method == "bilinear":
        assert np.abs(found - expected).max() < 0.05
    else:
        assert (found == expected).mean() > 0.99  # both approximate the transform, to an eighth of a pixel


@pytest.mark.parametrize("step", [10.0, 20.0])
def test_where_the_raster_ends_there_is_nodata_and_no_stretch(tmp_path: Path, step: float) -> None:
    path = tmp_path / "a.tif"
    Raster(np.arange(1, 401, dtype=np.uint16).reshape(20, 20), step=step, nodata=0).write(path)
    side = int(20 * step / 10)
    grid = target(40, left=LEFT + 10 * (side - 15), top=TOP + 50)
    with rasterio.open(path) as source:
        found = read_onto(source, grid, resampling="bilinear", fill=0)
    assert (found[:5] == 0).all()
    assert (found[:, 15:] == 0).all()
    assert (found[5:, :15][: side - 1] != 0).all()
    if step == 10:
        assert np.array_equal(found[5:25, :15], np.arange(1, 401).reshape(20, 20)[:20, 5:])


def test_nodata_does_not_bleed_into_its_neighbours(tmp_path: Path) -> None:
    pixels = np.full((20, 20), 1000, np.uint16)
    pixels[8:12, 8:12] = 0
    path = tmp_path / "a.tif"
    Raster(pixels, step=20).write(path)  # declares no nodata
    with rasterio.open(path) as source:
        found = read_onto(source, target(40), resampling="bilinear", fill=0, default_nodata=0)
    assert set(np.unique(found)) == {0, 1000}


def test_other_zone_and_no_overlap(tmp_path: Path, noise: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    Raster(noise, left=400000).write(path)
    with rasterio.open(path) as source:
        assert (read_onto(source, target(), resampling="nearest", fill=7) == 7).all()
        zone_19 = Target((10, 10), Affine(10, 0, 300000, 0, -10, TOP), CRS.from_epsg(32619))
        assert plan(source, zone_19).window is None


def test_a_coarse_grid_reads_the_overview(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    codes = np.kron(np.random.default_rng(1).integers(1, 11, (40, 40)), np.ones((8, 8))).astype(np.uint8)
    Raster(codes).write(path)
    with rasterio.open(path, "r+") as made:
        made.build_overviews([2, 4, 8], Resampling.nearest)
    grid = target(40, step=80)
    with rasterio.open(path) as source:
        how = plan(source, grid)
        found = read_onto(source, grid, resampling="nearest", fill=0)
    assert how.read_shape == (40, 40)
    assert np.array_equal(found, codes[::8, ::8])


def test_whole_numbers_become_floats_where_nodata_is_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Raster(np.full((20, 20), -3, np.int16), nodata=-32768).write(path)
    with rasterio.open(path) as source:
        found = read_onto(source, target(), resampling="nearest", fill=math.nan)
    assert found.dtype == np.float32
    assert np.isnan(found[20:]).all()
    assert (found[:20, :20] == -3).all()


@pytest.mark.parametrize("fill", [-32768, 70000])
def test_a_fill_that_whole_numbers_cannot_hold_makes_floats(tmp_path: Path, fill: float) -> None:
    """Such as the nodata of backscatter for a Level-1 GRD, which is uint16."""
    path = tmp_path / "a.tif"
    Raster(np.full((20, 20), 7, np.uint16)).write(path)
    with rasterio.open(path) as source:
        found = read_onto(source, target(40), resampling="nearest", fill=fill, default_nodata=fill)
    assert found.dtype == np.float32
    assert (found[:20, :20] == 7).all()
    assert (found[20:] == fill).all()


def test_a_raster_without_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", count=1, height=8, width=8, dtype="uint8") as made:
        made.write(np.ones((8, 8), np.uint8), 1)
    with rasterio.open(path) as source, pytest.raises(CityHeadsError, match="no CRS"):
        read_onto(source, target(), resampling="nearest", fill=0)
