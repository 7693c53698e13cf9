"""Further labels: folders of rasters, vector layers, and what is known nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from label_fixtures import label_config, write_sheet

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
