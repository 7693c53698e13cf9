"""Further labels: folders of rasters, vector layers, and what is known nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from affine import Affine
from label_fixtures import label_config, write_sheet
from pyproj import Transformer

from cityheads.config import Config
from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Parent
from cityheads.labels.custom import rasterize_layer

HERE = Parent("P1", 32618, 587000.0, 4512000.0)
NEXT = Parent("P2", 32618, 588280.0, 4512000.0)
DRY_WET = [{"name": "dry", "color": "#e8e6e1"}, {"name": "wet", "color": "#3a7bc8"}]


def config_of(label: dict[str, Any]) -> Config:
    return label_config("FLOOD", {"classes": DRY_WET} | label)


def run(
    folder: Path, label: dict[str, Any], source: Path, parent: str = "P1", boundary: Path | None = None
) -> np.ndarray:
    out = folder / "parents" / parent / "MASK_FLOOD.tif"
    sheet = write_sheet(folder / "parents.tsv", HERE, NEXT)
    rasterize_layer(
        config_of(label), parents=sheet, parent=parent, label="FLOOD", source=source, chips=folder / "chips", out=out,
        boundary=boundary,
    )  # fmt: skip
    assert len(list((folder / "chips" / "MASK_FLOOD").glob(f"{parent}_r*c*.tif"))) == 16
    with rasterio.open(out) as mask:
        return mask.read(1)


def write(path: Path, array: np.ndarray, left: float, top: float, nodata: int | None = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=array.shape[0], width=array.shape[1], count=1, dtype=array.dtype,
        crs="EPSG:32618", transform=Affine(10, 0, left, 0, -10, top), nodata=nodata,
    ) as target:  # fmt: skip
        target.write(array, 1)


RASTER = {"kind": "raster", "source": "flood", "ignore_codes": []}


def test_rasters_are_found_by_place_and_the_rest_is_unknown(tmp_path: Path) -> None:
    """Two chips' rasters of arbitrary names; another parent, for which there is none, is 255 throughout."""
    water = np.random.default_rng(0).integers(0, 2, (32, 32), dtype=np.uint8)
    write(tmp_path / "flood" / "a.tif", water, 587000 + 320, 4512000 - 640)
    gap = water.copy()
    gap[:4] = 255
    write(tmp_path / "flood" / "deep" / "b.tif", gap, 587000 + 960, 4512000)
    mask = run(tmp_path, RASTER, tmp_path / "flood")
    expected = np.full((128, 128), IGNORE, np.uint8)
    expected[64:96, 32:64] = water
    expected[0:32, 96:128] = gap
    np.testing.assert_array_equal(mask, expected)
    assert (run(tmp_path, RASTER, tmp_path / "flood", "P2") == IGNORE).all()


def test_codes_of_rasters_can_be_mapped(tmp_path: Path) -> None:
    codes = np.full((128, 128), 7, np.uint8)
    codes[:64] = 3
    codes[0] = 9
    write(tmp_path / "flood" / "a.tif", codes, 587000, 4512000)
    classes = [DRY_WET[0] | {"codes": [3]}, DRY_WET[1] | {"codes": [7]}]
    mask = run(tmp_path, RASTER | {"classes": classes, "ignore_codes": [9]}, tmp_path / "flood")
    assert (mask[0] == IGNORE).all()
    assert (mask[1:64] == 0).all()
    assert (mask[64:] == 1).all()
    with pytest.raises(CityHeadsError, match=r"label FLOOD, a.tif: code 9 \(128 px\) has no class"):
        run(tmp_path, RASTER | {"classes": classes}, tmp_path / "flood")


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match="no such folder"):
        run(tmp_path, RASTER, tmp_path / "absent")
    (tmp_path / "flood").mkdir()
    with pytest.raises(CityHeadsError, match="holds no GeoTIFF"):
        run(tmp_path, RASTER, tmp_path / "flood")
    write(
        tmp_path / "flood" / "a.tif",
        np.random.default_rng(0).integers(0, 2, (128, 128), dtype=np.uint8),
        587000,
        4512000,
    )
    whole = (tmp_path / "flood" / "a.tif").read_bytes()
    (tmp_path / "flood" / "a.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CityHeadsError, match=r"a.tif: cannot be read as a raster"):
        run(tmp_path, RASTER, tmp_path / "flood")


def flood_example(repository: Path) -> dict[str, Any]:
    """Read the example of a flood layer out of the page about labels."""
    page = (repository / "docs" / "labels.md").read_text()
    found: dict[str, Any] = yaml.safe_load(page[page.index("```yaml\nlabels:\n  FLOOD:") + 8 :].partition("```")[0])
    return found["labels"]["FLOOD"]


@pytest.mark.parametrize(("dtype", "nodata"), [("int16", -32768), ("int16", -1), ("float32", None)])
def test_the_documented_flood_example_reads_sen1floods11(
    tmp_path: Path, repository: Path, dtype: str, nodata: int | None
) -> None:
    """Its hand labels are int16 in degrees, -1 where nothing is known, with -32768 or nothing as nodata."""
    hand = np.random.default_rng(0).integers(-1, 2, (600, 700)).astype(dtype)
    if dtype == "float32":
        hand[hand == -1] = np.nan
    left, top = gpd.GeoSeries([shapely.Point(586500, 4512500)], crs=32618).to_crs(4326)[0].coords[0]
    path = tmp_path / "flood" / "USA_1_LabelHand.tif"
    path.parent.mkdir()
    step = 8.983152841195215e-05
    with rasterio.open(
        path, "w", driver="GTiff", height=600, width=700, count=1, dtype=dtype, crs="EPSG:4326",
        transform=Affine(step, 0, left, 0, -step, top), nodata=nodata,
    ) as target:  # fmt: skip
        target.write(hand, 1)
    mask = run(tmp_path, flood_example(repository), tmp_path / "flood")
    rows, columns = np.mgrid[0:128, 0:128] + 0.5
    x, y = HERE.left + 10 * columns, HERE.top - 10 * rows
    lon, lat = Transformer.from_crs(32618, 4326, always_xy=True).transform(x, y)
    codes = hand[np.floor((top - lat) / step).astype(int), np.floor((lon - left) / step).astype(int)]
    np.testing.assert_array_equal(mask, np.where(np.isin(codes, [0, 1]), codes, IGNORE).astype(np.uint8))
    assert len(np.unique(mask)) == 3


def test_codes_are_any_whole_numbers(tmp_path: Path) -> None:
    codes = np.full((128, 128), 512, np.int32)
    codes[:64], codes[0] = 65535, -1
    write(tmp_path / "flood" / "a.tif", codes, 587000, 4512000, nodata=None)
    classes = [DRY_WET[0] | {"codes": [512]}, DRY_WET[1] | {"codes": [65535]}]
    mask = run(tmp_path, RASTER | {"classes": classes, "ignore_codes": [-1]}, tmp_path / "flood")
    assert [mask[0, 0], mask[1, 0], mask[64, 0]] == [IGNORE, 1, 0]


def test_rasters_that_are_no_class_masks(tmp_path: Path) -> None:
    """Scores instead of classes, and several bands, of which the config names the right one."""
    flood = tmp_path / "flood"
    write(flood / "a.tif", np.full((128, 128), 0.37, np.float32), 587000, 4512000, nodata=None)
    with pytest.raises(CityHeadsError, match=r"a.tif: holds the value 0.37; a class mask holds whole numbers"):
        run(tmp_path, RASTER, flood)
    with rasterio.open(
        flood / "a.tif", "w", driver="GTiff", height=128, width=128, count=2, dtype="uint8", crs="EPSG:32618",
        transform=Affine(10, 0, 587000, 0, -10, 4512000),
    ) as target:  # fmt: skip
        target.write(np.stack([np.full((128, 128), 9), np.ones((128, 128))]).astype(np.uint8))
    with pytest.raises(CityHeadsError, match=r"a.tif: has 2 bands; set labels.FLOOD.band"):
        run(tmp_path, RASTER, flood)
    assert (run(tmp_path, RASTER | {"band": 2}, flood) == 1).all()
    with pytest.raises(CityHeadsError, match=r"has no band 3 \(labels.FLOOD.band\), but 2"):
        run(tmp_path, RASTER | {"band": 3}, flood)


def vector(path: Path, shapes: list[Any], **columns: Any) -> Path:
    gpd.GeoDataFrame(columns, geometry=shapes, crs=32618).to_crs(2263).to_file(path)
    return path


WEST = shapely.box(587000, 4510720, 587640, 4512000)
POND = shapely.box(587100, 4511500, 587190, 4511580)
LAKE = shapely.box(587600, 4511000, 587700, 4511100)


def test_a_vector_layer_with_its_surveyed_area(tmp_path: Path) -> None:
    source = vector(tmp_path / "flood.gpkg", [POND, LAKE])
    boundary = vector(tmp_path / "area.gpkg", [WEST])
    label = {"kind": "vector", "source": "x", "boundary": "y"}
    mask = run(tmp_path, label, source, boundary=boundary)
    expected = np.full((128, 128), IGNORE, np.uint8)
    expected[:, :64] = 0
    expected[42:50, 10:19] = 1
    expected[90:100, 60:70] = 1
    np.testing.assert_array_equal(mask, expected)
    assert (run(tmp_path, label, source, "P2", boundary) == IGNORE).all()


def test_a_vector_layer_with_classes(tmp_path: Path) -> None:
    """Values name the classes; without a background class the rest is unknown; a later class covers an earlier one."""
    source = vector(tmp_path / "zones.gpkg", [WEST, POND, LAKE], zone=["X", "AE", "none"])
    classes = [DRY_WET[0] | {"values": ["X"]}, DRY_WET[1] | {"values": ["AE"]}]
    label = {"kind": "vector", "source": "x", "attribute": "zone", "classes": classes}
    mask = run(tmp_path, label | {"ignore_values": ["none"]}, source)
    expected = np.full((128, 128), IGNORE, np.uint8)
    expected[:, :64] = 0
    expected[42:50, 10:19] = 1
    expected[90:100, 60:64] = IGNORE
    np.testing.assert_array_equal(mask, expected)
    with pytest.raises(CityHeadsError, match="value 'none' of column 'zone' has no class"):
        run(tmp_path, label, source)
    with pytest.raises(CityHeadsError, match=r"no column 'depth' \(labels.FLOOD.attribute\); there are zone"):
        run(tmp_path, label | {"attribute": "depth"}, source)


def test_lines_and_points_need_a_width(tmp_path: Path) -> None:
    """A road 40 m wide, of which only the built ones count, from one of two layers."""
    road = shapely.LineString([(587000, 4511500), (588280, 4511500)])
    tree = shapely.Point(587605, 4511905)
    source = tmp_path / "flood.gpkg"
    frame = gpd.GeoDataFrame({"state": ["built", "planned", "built"]}, geometry=[road, LAKE, tree], crs=32618)
    frame.to_file(source, layer="roads")
    frame.iloc[:0].to_file(source, layer="other")
    boundary = vector(tmp_path / "area.gpkg", [WEST])
    label = {"kind": "vector", "source": "x", "boundary": "y", "layer": "roads", "where": {"state": ["built"]}}
    mask = run(tmp_path, label | {"buffer_m": 20}, source, boundary=boundary)
    assert (mask[48:52] == 1).all()
    assert (mask[[47, 52], :50] == 0).all()
    assert mask[9, 60] == mask[10, 60] == 1
    assert (mask[90:100, 60:64] == 0).all(), "planned"
    with pytest.raises(CityHeadsError, match=r"2 of 2 rows are lost \(2 lines or points, not polygons\)"):
        run(tmp_path, label, source, boundary=boundary)
    with pytest.raises(CityHeadsError, match=r"no column 'status' \(where\); there are state"):
        run(tmp_path, label | {"where": {"status": ["built"]}}, source, boundary=boundary)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"kind": "raster"}, "'labels.FLOOD.source' is missing"),
        ({"kind": "raster", "source": "x"}, r"code 0 is mapped twice; see classes and ignore_codes \(default \[0\]\)"),
        ({"kind": "vector"}, "'labels.FLOOD.source' is missing"),
        ({"kind": "vector", "source": "x"}, "'labels.FLOOD.boundary': 'dry' is known inside a surveyed area only"),
        (
            {"kind": "vector", "source": "x", "classes": [DRY_WET[0] | {"values": ["a"]}, DRY_WET[1]]},
            "'labels.FLOOD.attribute': name the column",
        ),
        ({"kind": "vector", "source": "x", "attribute": "z", "boundary": "b"}, "only one class, the background"),
        (
            {"kind": "vector", "source": "x", "attribute": "z", "boundary": "b", "ignore_values": ["a"],
             "classes": [DRY_WET[0], DRY_WET[1] | {"values": ["a"]}]},
            "value 'a' is mapped twice",
        ),
    ],
)  # fmt: skip
def test_configs_that_make_no_sense(label: dict[str, Any], message: str) -> None:
    with pytest.raises(CityHeadsError, match=message):
        config_of(label)


# ------------------------------------------------------------------------- what buildings can give besides the mask


def test_a_label_of_another_kind_or_none_is_refused(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "parents.tsv", HERE)
    for label, message in (("FLOOD", "labels.FLOOD.kind': footprints is rasterized by"), ("A", "labels.A': no such")):
        with pytest.raises(CityHeadsError, match=message):
            rasterize_layer(
                config_of({"kind": "footprints"}), parents=sheet, parent="P1", label=label, source=tmp_path,
                chips=tmp_path / "chips", out=tmp_path / "mask.tif",
            )  # fmt: skip
