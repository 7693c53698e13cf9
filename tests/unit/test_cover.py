"""The search for a parent grid that covers a city."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from config_fixtures import make_config

from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, parent_polygon, read_parents
from cityheads.labels.cover import cover_boundary, read_boundary, squares_at

CONFIG = make_config(grid={"resolution_m": 10, "parent_px": 128, "chips_per_side": 4})


def boundary(tmp_path: Path, geometry: shapely.Geometry, crs: str | None = "EPSG:32618") -> Path:
    path = tmp_path / "city.gpkg"
    gpd.GeoDataFrame(geometry=[geometry], crs=crs).to_file(path)
    return path


def test_the_sheet_covers_the_city_with_the_fewest_squares(tmp_path: Path) -> None:
    # 2 x 1 squares fit exactly, at one origin; any other origin of the lattice needs 6
    city = shapely.box(499840, 4498560, 502400, 4499840)
    cover_boundary(CONFIG, boundary=boundary(tmp_path, city), out=tmp_path / "p.tsv", epsg=32618, step_px=32)
    grid = Grid(10, 128, 4)
    parents = read_parents(tmp_path / "p.tsv", grid)
    assert [(parent.left, parent.top) for parent in parents] == [(499840, 4499840), (501120, 4499840)]
    assert shapely.union_all([parent_polygon(parent, grid) for parent in parents]).contains(city)


def test_an_impossible_count_is_refused_with_the_possible_ones(tmp_path: Path) -> None:
    city = shapely.Point(500000, 4500000).buffer(2000)
    with pytest.raises(CityHeadsError, match=r"gives 3 squares of 1280 m; the counts run from \d+ to \d+"):
        cover_boundary(
            CONFIG, boundary=boundary(tmp_path, city), out=tmp_path / "p.tsv", epsg=32618, step_px=64, count=3
        )
    assert not (tmp_path / "p.tsv").exists()


def test_squares_that_only_touch_do_not_count() -> None:
    city = shapely.box(0, 0, 10, 10)
    np.testing.assert_array_equal(squares_at(city, 0, 10, 10), [[0, 10]])


def test_the_utm_zone_is_found_and_bad_files_are_named(tmp_path: Path) -> None:
    city = shapely.box(-74.0, 40.7, -73.9, 40.8)
    assert read_boundary(boundary(tmp_path, city, "EPSG:4326"), None)[1] == 32618
    with pytest.raises(CityHeadsError, match="no such vector file"):
        read_boundary(tmp_path / "none.gpkg", None)
    (tmp_path / "x.geojson").write_text("{")
    with pytest.raises(CityHeadsError, match="cannot be read as a vector file"):
        read_boundary(tmp_path / "x.geojson", None)
    with pytest.raises(CityHeadsError, match="holds no polygons"):
        read_boundary(boundary(tmp_path, shapely.Point(0, 0)), 32618)


def test_long_edges_stay_straight_in_degrees(tmp_path: Path) -> None:
    """A box of 0.5 degrees is no box in metres: its corners alone would cut off 97 m."""
    box = shapely.box(-74.25, 40.5, -73.75, 41.0)
    city, epsg = read_boundary(boundary(tmp_path, box, "EPSG:4326"), 32618)
    middle = gpd.GeoSeries([shapely.Point(-74.0, 40.5)], crs=4326).to_crs(epsg)[0]
    assert city.exterior.distance(middle) < 0.1


def test_across_the_antimeridian(tmp_path: Path) -> None:
    """Cut in two there, as GeoJSON wants it, or a ring that jumps: one place in one zone."""
    halves = shapely.MultiPolygon([shapely.box(179.99, -17, 180, -16.99), shapely.box(-180, -17, -179.99, -16.99)])
    jump = shapely.Polygon([(179.99, -17), (-179.99, -17), (-179.99, -16.99), (179.99, -16.99)])
    for shape in (halves, jump):
        city, epsg = read_boundary(boundary(tmp_path, shape, "EPSG:4326"), None)
        assert epsg in (32701, 32760)
        assert city.area == pytest.approx(2129 * 1107, rel=0.01)


def test_a_tiny_island_lies_in_the_middle(tmp_path: Path) -> None:
    island = shapely.Point(500300, 4500700).buffer(20)
    cover_boundary(CONFIG, boundary=boundary(tmp_path, island), out=tmp_path / "p.tsv", epsg=32618, step_px=8)
    (parent,) = read_parents(tmp_path / "p.tsv", Grid(10, 128, 4))
    assert abs(parent.left + 640 - 500300) <= 40
    assert abs(parent.top - 640 - 4500700) <= 40


def test_only_a_sheet_that_is_accepted_is_written(tmp_path: Path) -> None:
    city = boundary(tmp_path, shapely.box(499840, 4498560, 502400, 4499840))
    for epsg, message in ((2263, "not a projected CRS in metres"), (4326, "not a projected"), (99999, "is unknown")):
        with pytest.raises(CityHeadsError, match=message):
            cover_boundary(CONFIG, boundary=city, out=tmp_path / "p.tsv", epsg=epsg)
    with pytest.raises(CityHeadsError, match=r"p.tsv: line 5: parent_id 'no id01' is unfit"):
        cover_boundary(CONFIG, boundary=city, out=tmp_path / "p.tsv", epsg=32618, prefix="no id")
    assert not (tmp_path / "p.tsv").exists()
