"""From polygons to pixels: GDAL's conventions, and areas that are shapely's to the pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from label_fixtures import pixel_boxes, target_of
from rasterio.features import rasterize

from cityheads.config import PixelRule
from cityheads.labels.rasterize import covered_fraction, rasterize_polygons

#: The Murray Hill block's grid: 10 m, UTM 18N, 132 x 126 px from the upper left corner of its footprints.
LEFT, TOP, WIDTH, HEIGHT = 585750.0, 4511950.0, 132, 126


@pytest.fixture(scope="module")
def real_polygons(realdata: Path) -> np.ndarray:
    """All 1,285 polygons of the block in UTM 18N, through geopandas."""
    source = realdata / "nyc_buildings_murrayhill" / "building_footprints.geojson"
    return gpd.read_file(source).to_crs(32618).geometry.to_numpy()


def test_the_three_rules_on_the_real_block(real_polygons: np.ndarray) -> None:
    """38.7 % by pixel centre and 60.6 % all touched, where the area is 0.644 km2: 39.3 % of 1.31 x 1.25 km."""
    block = target_of(WIDTH, HEIGHT, LEFT, TOP)
    assert round(100 * rasterize_polygons(real_polygons, block, "centre").mean(), 1) == 38.7
    assert round(100 * rasterize_polygons(real_polygons, block, "all_touched").mean(), 1) == 60.6
    fraction = covered_fraction(real_polygons, block)
    union = shapely.union_all(real_polygons).area
    assert fraction.sum() * 100 == pytest.approx(union, rel=1e-6)
    assert round(100 * union / 1.31e3 / 1.25e3, 1) == 39.3
    # half a pixel covered is nearly what the centre says, but not pixel by pixel
    assert rasterize_polygons(real_polygons, block, "area", 0.5).mean() == pytest.approx(0.387, abs=0.01)


@pytest.mark.parametrize("all_touched", [False, True])
def test_real_pixels_are_gdals(real_polygons: np.ndarray, all_touched: bool) -> None:
    from rasterio.features import rasterize

    block = target_of(WIDTH, HEIGHT, LEFT, TOP)
    gdals = rasterize(real_polygons, block.shape, transform=block.transform, all_touched=all_touched)
    np.testing.assert_array_equal(
        rasterize_polygons(real_polygons, block, "all_touched" if all_touched else "centre"), gdals == 1
    )


def test_real_fractions_are_shapelys(real_polygons: np.ndarray) -> None:
    block = target_of(WIDTH, HEIGHT, LEFT, TOP)
    fraction = covered_fraction(real_polygons, block)
    parts, boxes = shapely.get_parts(shapely.union_all(real_polygons)), pixel_boxes(block)
    box, part = shapely.STRtree(parts).query(boxes)
    true = np.zeros(len(boxes))
    np.add.at(true, box, shapely.area(shapely.intersection(boxes[box], parts[part])) / 100)
    np.testing.assert_allclose(fraction.ravel(), true, atol=2e-6)


# centimetres: numbers near 1e-300, which no coordinate is, underflow in exactextract, and triangles a micrometre wide
# are for the rasterizers to round as they like
points = st.tuples(*(st.integers(a * 100, b * 100).map(lambda v: v / 100) for a, b in ((-20, 180), (-180, 20))))


@st.composite
def shapes(draw: st.DrawFn) -> Any:
    """Polygons with holes, multi-parts, slivers and pieces across the picture's edge."""
    kind = draw(st.sampled_from(["hull", "star", "holed", "multi", "rectangle"]))
    if kind == "rectangle":
        x, y = draw(points)
        return shapely.box(x, y, x + draw(st.floats(0.5, 80)), y + draw(st.floats(0.5, 80)))
    if kind == "star":
        x, y = draw(points)
        radii = draw(st.lists(st.floats(1, 60), min_size=5, max_size=12))
        angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
        shape = shapely.Polygon(np.column_stack([x + radii * np.cos(angles), y + radii * np.sin(angles)]))
    elif kind == "multi":
        discs = [shapely.Point(draw(points)).buffer(draw(st.floats(2, 25)), quad_segs=2) for _ in range(3)]
        shape = shapely.union_all(discs)
    else:
        shape = shapely.MultiPoint(draw(st.lists(points, min_size=3, max_size=8))).convex_hull
        if kind == "holed" and shape.geom_type == "Polygon":
            shape = shape.difference(shape.centroid.buffer(draw(st.floats(0.5, 20)), quad_segs=3))
    assume(shape.geom_type in ("Polygon", "MultiPolygon") and shape.is_valid and shape.area > 1e-3)
    return shape


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.lists(shapes(), min_size=1, max_size=5))
def test_covered_area_is_shapelys_for_any_polygons(drawn: list[Any]) -> None:
    target = target_of(16, 16)
    fraction = covered_fraction(np.array(drawn, object), target)
    union = shapely.union_all(drawn)
    true = shapely.area(shapely.intersection(pixel_boxes(target), union)).reshape(16, 16) / 100
    np.testing.assert_allclose(fraction, true, atol=5e-6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.lists(shapes(), min_size=1, max_size=5))
def test_centre_and_touch_are_what_they_say(drawn: list[Any]) -> None:
    """A centre clearly inside is covered, one clearly outside is not; all-touched holds the centres and touches."""
    target = target_of(16, 16)
    array = np.array(drawn, object)
    union = shapely.union_all(drawn)
    boxes = pixel_boxes(target)
    distance = shapely.distance(shapely.centroid(boxes), union.boundary).reshape(16, 16)
    inside = shapely.contains(union, shapely.centroid(boxes)).reshape(16, 16)
    clear = distance > 1e-6
    centre = rasterize_polygons(array, target, "centre")
    np.testing.assert_array_equal(centre[clear], inside[clear])
    touched = rasterize_polygons(array, target, "all_touched")
    meets = shapely.area(shapely.intersection(boxes, union)).reshape(16, 16)
    assert not (touched & ~shapely.dwithin(boxes, union, 1e-6).reshape(16, 16)).any()
    # GDAL walks the outline in single steps and may leave out a pixel that is only nicked at a corner
    assert touched[meets > 1].all()
    assert touched[centre].all()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.lists(shapes(), min_size=1, max_size=4), st.sampled_from([0.01, 0.25, 0.5, 1.0]))
def test_the_area_rule_is_its_threshold(drawn: list[Any], threshold: float) -> None:
    target = target_of(16, 16)
    true = shapely.area(shapely.intersection(pixel_boxes(target), shapely.union_all(drawn))).reshape(16, 16) / 100
    covered = rasterize_polygons(np.array(drawn, object), target, "area", threshold)
    clear = abs(true - threshold) > 1e-5
    np.testing.assert_array_equal(covered[clear], (true >= threshold)[clear])


def test_overlapping_polygons_count_once_and_touching_ones_add_up() -> None:
    target = target_of(2, 1)
    one, two, three = shapely.box(0, -10, 4, 0), shapely.box(2, -10, 6, 0), shapely.box(6, -10, 7, 0)
    np.testing.assert_allclose(covered_fraction(np.array([one, two, three]), target), [[0.7, 0.0]], atol=1e-6)
    assert rasterize_polygons(np.array([one, two]), target, "area", 0.6).tolist() == [[True, False]], (
        "at the threshold is enough"
    )


@pytest.mark.parametrize("rule", ["centre", "all_touched", "area"])
def test_wkb_and_shapely_and_nothing(rule: PixelRule) -> None:
    target = target_of(8, 8)
    array = np.array([shapely.box(5, -33, 42, -7)])
    wkb = np.empty(1, object)
    wkb[:] = shapely.to_wkb(array)
    np.testing.assert_array_equal(rasterize_polygons(array, target, rule), rasterize_polygons(wkb, target, rule))
    assert not rasterize_polygons(np.empty(0, object), target, rule).any()


@given(st.lists(st.tuples(*[st.integers(0, 7)] * 4), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_polygons_on_pixel_edges_touch_what_gdal_says(boxes: list[tuple[int, int, int, int]]) -> None:
    target = target_of(9, 9, 500000, 4500090)
    shapes = np.array([shapely.box(500000 + 10 * x, 4500000 + 10 * y, 500010 + 10 * (x + w), 4500010 + 10 * (y + h))
                       for x, y, w, h in boxes])  # fmt: skip
    expected = rasterize(shapes, (9, 9), transform=target.transform, all_touched=True)
    np.testing.assert_array_equal(rasterize_polygons(shapes, target, "all_touched"), expected == 1)
    np.testing.assert_array_equal(rasterize_polygons(shapely.to_wkb(shapes), target, "all_touched"), expected == 1)
