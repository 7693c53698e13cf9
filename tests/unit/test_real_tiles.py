"""The real Copernicus DEM and WorldCover tiles, onto a UTM grid, against computations that share no code with ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from cityheads.archive.catalogues.item import Item
from cityheads.archive.catalogues.open import open_catalog
from cityheads.archive.catalogues.static import StaticCatalog
from cityheads.archive.raster import open_raster
from cityheads.archive.warp import Target, plan, read_onto
from cityheads.config import ArchiveConfig

#: A 5 km square on São Tomé, where the two tiles overlap: hills, a coast and the sea.
EPSG, PX = 32632, 512
ARCHIVE = ArchiveConfig(catalog="catalog.json", offline=True)


@pytest.fixture(scope="module")
def corner() -> tuple[float, float]:
    x, y = Transformer.from_crs(4326, EPSG, always_xy=True).transform(6.70, 0.40)
    return round(x / 10) * 10.0, round(y / 10) * 10.0


@pytest.fixture(scope="module")
def target(corner: tuple[float, float]) -> Target:
    transform = rasterio.transform.from_origin(*corner, 10, 10)
    return Target((PX, PX), transform, CRS.from_epsg(EPSG))


def longitude_latitude(corner: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Give the places of all pixel centres, exactly."""
    x = corner[0] + 10 * (np.arange(PX) + 0.5)
    y = corner[1] - 10 * (np.arange(PX) + 0.5)
    found: tuple[np.ndarray, np.ndarray] = Transformer.from_crs(EPSG, 4326, always_xy=True).transform(
        *np.meshgrid(x, y)
    )
    return found


def dem(realdata: Path) -> Path:
    return next((realdata / "copdem30_N00E006").glob("*.tif"))


def worldcover(realdata: Path) -> Path:
    return next((realdata / "worldcover_N00E006").glob("*_Map.tif"))


def read(path: Path, target: Target, method: str, fill: float) -> tuple[np.ndarray, float]:
    """Read with our code; give also the share of the raster's pixels that was read."""
    with open_raster(path.name, str(path.parent), archive=ARCHIVE, where="item X") as source:
        how = plan(source, target)
        assert how.window is not None
        share = how.window.width * how.window.height / (source.width * source.height)
        return read_onto(source, target, resampling=method, fill=fill, planned=how), share


def test_real_elevation_equals_bilinear_interpolation_by_hand(
    realdata: Path, target: Target, corner: tuple[float, float]
) -> None:
    found, share = read(dem(realdata), target, "bilinear", np.nan)
    with rasterio.open(dem(realdata)) as source:
        metres, transform = source.read(1), source.transform
    lon, lat = longitude_latitude(corner)
    column = (lon - transform.c) / transform.a - 0.5
    row = (lat - transform.f) / transform.e - 0.5
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    across, down = column - left, row - top
    upper = metres[top, left] * (1 - across) + metres[top, left + 1] * across
    lower = metres[top + 1, left] * (1 - across) + metres[top + 1, left + 1] * across
    expected = upper * (1 - down) + lower * down
    difference = np.abs(found - expected)
    # GDAL approximates the projection to an eighth of a 30 m pixel; on these slopes that is metres at worst
    assert np.isfinite(found).all()
    assert difference.mean() < 0.05
    assert np.quantile(difference, 0.999) < 1.0
    assert np.ptp(expected) > 20
    assert share < 0.01


def test_real_elevation_equals_a_warp_of_the_whole_tile(realdata: Path, target: Target) -> None:
    found, _ = read(dem(realdata), target, "bilinear", np.nan)
    with (
        rasterio.open(dem(realdata)) as source,
        WarpedVRT(
            source, crs=target.crs, transform=target.transform, width=PX, height=PX, resampling=Resampling.bilinear
        ) as virtual,
    ):
        difference = np.abs(found - virtual.read(1))
    assert difference.mean() < 0.05
    assert np.quantile(difference, 0.999) < 1.0


def test_real_land_cover_equals_the_cell_under_each_centre(
    realdata: Path, target: Target, corner: tuple[float, float]
) -> None:
    from cityheads.labels.landcover import sample_nearest

    with open_raster(worldcover(realdata).name, str(worldcover(realdata).parent), archive=ARCHIVE, where="X") as source:
        found, valid = sample_nearest(source, target)
    lon, lat = longitude_latitude(corner)
    with rasterio.open(worldcover(realdata)) as source:
        column = np.floor((lon - source.transform.c) / source.transform.a).astype(int)
        row = np.floor((lat - source.transform.f) / source.transform.e).astype(int)
        window = rasterio.windows.Window(column.min(), row.min(), np.ptp(column) + 1, np.ptp(row) + 1)
        expected = source.read(1, window=window)[row - row.min(), column - column.min()]
    assert valid.all() == (expected != 0).all()
    assert (found == expected).mean() > 0.9999  # ties on cell edges may fall either way
    assert len(np.unique(expected)) >= 4


def test_the_sea_is_at_zero_where_land_cover_says_water(realdata: Path, target: Target) -> None:
    metres, _ = read(dem(realdata), target, "bilinear", np.nan)
    codes, _ = read(worldcover(realdata), target, "nearest", 0)
    water = codes == 80
    if water.mean() < 0.01:
        pytest.skip("no water in this square")
    assert np.median(metres[water]) == 0
    assert np.median(metres[~water & (codes != 0)]) > 1


def test_the_real_items_of_the_tiles_are_read(realdata: Path, tmp_path: Path) -> None:
    for path in [*realdata.glob("copdem30_N00E006/*.json"), *realdata.glob("worldcover_N00E006/*.json")]:
        raw = json.loads(path.read_text())
        if raw.get("type") != "Feature":
            continue
        item = Item(raw, str(path), str(path.parent))
        assert item.footprint.area > 0.5
        assert item.when.year in range(2010, 2025)
    (tmp_path / "catalog.json").write_text(
        json.dumps({"type": "Catalog", "id": "x", "stac_version": "1.0.0", "links": []})
    )
    assert isinstance(open_catalog(str(tmp_path / "catalog.json"), ARCHIVE), StaticCatalog)
