"""The +1000 of Sentinel-2: what assets declare, what the pixels say of it, and which of the two is followed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from made_archive import BANDS, GSD, PX, MadeArchive, Raster, complete, read_config, select_config, sheet

from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.read.offset_check import judge_offset
from cityheads.archive.read.parent import read_parent
from cityheads.archive.scaling import declared
from cityheads.core.errors import CityHeadsError

#: Reflectance x 10000 of what a summer scene holds, in the order of the bands.
SURFACES = {
    "vegetation": (250, 300, 550, 350, 900, 2400, 3000, 3200, 3300, 3300, 1600, 750),
    "water": (350, 400, 400, 250, 220, 200, 190, 150, 150, 140, 60, 40),
    "city": (900, 1050, 1200, 1300, 1450, 1600, 1700, 1750, 1800, 1850, 1900, 1800),
    "desert": (1300, 1500, 2200, 2900, 3200, 3300, 3400, 3500, 3600, 3700, 4500, 4200),
    "snow": (8500, 8800, 8900, 8800, 8700, 8600, 8500, 8300, 8200, 7900, 1300, 1200),
}


def scene(*surfaces: str, offset: int = 0, px: int = 120, seed: int = 0) -> dict[str, np.ndarray]:
    """Make the bands of a scene in stripes of equal width, each band at its own resolution."""
    rng = np.random.default_rng(seed)
    bands = {}
    for index, band in enumerate(BANDS):
        size = px * 10 // GSD[band]
        columns = np.arange(size) * len(surfaces) // size
        level = np.array([SURFACES[name][index] for name in surfaces])[columns]
        bands[band] = np.clip(level * rng.normal(1, 0.1, (size, size)), 1, None).round() + offset
    return {band: pixels.astype(np.uint16) for band, pixels in bands.items()}


def verdict(*surfaces: str, offset: int, subtracted: int) -> str:
    numbers = {
        band: np.kron(pixels, np.ones((GSD[band] // 10,) * 2, np.uint16)).astype(np.int32)
        for band, pixels in scene(*surfaces, offset=offset).items()
    }
    return judge_offset(numbers, subtracted)["verdict"]


@pytest.mark.parametrize("surfaces", [("vegetation",), ("city", "vegetation"), ("city", "city", "city", "water")])
def test_a_scene_with_something_dark_tells_whether_it_carries_the_offset(surfaces: tuple[str, ...]) -> None:
    assert verdict(*surfaces, offset=1000, subtracted=1000) == "agrees"
    assert verdict(*surfaces, offset=0, subtracted=0) == "agrees"
    assert verdict(*surfaces, offset=0, subtracted=1000) == "disagrees"
    assert verdict(*surfaces, offset=1000, subtracted=0) == "disagrees"


@pytest.mark.parametrize("surface", ["desert", "snow"])
def test_a_scene_without_anything_dark_is_accused_of_nothing(surface: str) -> None:
    assert verdict(surface, offset=0, subtracted=0) == "undecided"
    assert verdict(surface, offset=1000, subtracted=1000) == "undecided"


def test_real_scenes_are_told_apart(realdata: Path) -> None:
    """TerraMesh: the place in Chile carries the offset, the two others do not."""
    for place in sorted((realdata / "terramesh_catalog" / "assets").iterdir()):
        numbers = {}
        for band in BANDS:
            with rasterio.open(place / f"{band}.tif") as source:
                numbers[band] = source.read(1).astype(np.int32)
        carried = 1000 if place.name == "433D_629L_3_1" else 0
        assert judge_offset(numbers, carried)["verdict"] == "agrees", place.name
        assert judge_offset(numbers, 1000 - carried)["verdict"] == "disagrees", place.name


def made(folder: Path, offset: int, *surfaces: str, **properties: Any) -> MadeArchive:
    archive = complete(folder)
    for band, pixels in scene(*surfaces, offset=offset).items():
        Raster(pixels, step=GSD[band], nodata=0).write(folder / "assets" / "S2_A" / f"{band}.tif")
    archive.items["sentinel-2-l2a"][0]["properties"].update(properties)
    return archive


def declare(archive: MadeArchive, fields: dict[str, Any]) -> None:
    for band in BANDS:
        archive.items["sentinel-2-l2a"][0]["assets"][band].update(fields)


def read(archive: MadeArchive, folder: Path, **optical: Any) -> tuple[np.ndarray, dict[str, Any]]:
    parents, scenes, out = sheet(folder), folder / "P1.json", folder / "P1"
    settings = {"S2L2A": optical}
    select_scenes(select_config(**settings), parents=parents, parent="P1", catalog=str(archive.write()), out=scenes)
    read_parent(read_config(**settings), parents=parents, parent="P1", scenes=scenes, out=out)
    with rasterio.open(out / "S2L2A.tif") as source:
        layer = json.loads((out / "reading.json").read_text())["layers"]["S2L2A"]
        return source.read().astype(int), layer


def test_a_scene_of_2025_tagged_false_though_harmonised_stops_in_one_line(tmp_path: Path) -> None:
    archive = made(tmp_path, 0, "city", "vegetation", **{"earthsearch:boa_offset_applied": False,
                                                        "s2:processing_baseline": "05.11"})  # fmt: skip
    with pytest.raises(CityHeadsError, match=r"P1: S2L2A: item S2_A: .*offset: item\).* carry \+1000, but 2 %") as told:
        read(archive, tmp_path, offset="item")
    assert "\n" not in str(told.value)
    assert "archive.imagery.S2L2A.offset_of: {S2_A: 0}" in str(told.value)
    stack, layer = read(archive, tmp_path, offset="item", offset_of={"S2_A": 0})
    with rasterio.open(tmp_path / "assets" / "S2_A" / "B02.tif") as source:
        assert np.array_equal(stack[1], source.read(1)[:PX, :PX])
    assert layer["offset_dn"] == {"S2_A": 0}
    assert layer["offset_check"]["S2_A"]["verdict"] == "set"


def test_an_item_tagged_true_that_still_carries_the_offset_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = made(tmp_path, 1000, "city", "vegetation", **{"earthsearch:boa_offset_applied": True})
    with pytest.raises(CityHeadsError, match=r"carry no offset, but vegetation .*offset_of: \{S2_A: 1000\}"):
        read(archive, tmp_path, offset="item")
    with caplog.at_level(logging.WARNING):
        stack, layer = read(archive, tmp_path, offset="item", offset_check="warn")
    assert "the tags are followed" in caplog.text
    assert stack.min() > 1000, "followed as said"
    assert layer["offset_check"]["S2_A"]["verdict"] == "disagrees"


@pytest.mark.parametrize(
    "fields",
    [
        {"raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}]},
        {"bands": [{"name": "x", "raster:scale": 0.0001, "raster:offset": -0.1}]},
        {"raster:scale": 0.0001, "raster:offset": -0.1},
    ],
    ids=["raster v1", "STAC 1.1", "whole asset"],
)
def test_scale_and_offset_of_each_asset_are_followed(tmp_path: Path, fields: dict[str, Any]) -> None:
    archive = made(tmp_path, 1000, "city", "vegetation")
    declare(archive, fields)
    stack, layer = read(archive, tmp_path, offset="asset")
    plain, _ = read(archive, tmp_path, offset="baseline")
    assert np.array_equal(stack, plain)
    assert layer["offset_dn"] == {"S2_A": 1000}
    assert layer["scaling"]["S2_A"]["B09"] == {"scale": 0.0001, "offset": -0.1}


def test_another_scale_is_another_number_of_the_same_reflectance(tmp_path: Path) -> None:
    archive = made(tmp_path, 0, "city", "vegetation")
    declare(archive, {"raster:bands": [{"scale": 0.0002}]})
    stack, _ = read(archive, tmp_path, offset="asset")
    plain, _ = read(archive, tmp_path, offset="none")
    assert np.array_equal(stack, 2 * plain)


def test_an_asset_that_declares_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match=r"S2_A: band B01: its asset declares neither scale nor offset"):
        read(made(tmp_path, 0, "city", "vegetation"), tmp_path, offset="asset")
    assert declared({"raster:bands": []}) is None
    with pytest.raises(ValueError, match="its scale is 0"):
        declared({"raster:bands": [{"scale": 0}]})


def test_scale_and_offset_of_other_layers_are_applied_too(tmp_path: Path) -> None:
    """Elevation in decimetres, and backscatter as whole numbers whose asset says what they are."""
    archive = complete(tmp_path)
    read(archive, tmp_path)
    with rasterio.open(tmp_path / "P1" / "DEM.tif") as source:
        metres = source.read(1)
    with rasterio.open(tmp_path / "P1" / "S1RTC.tif") as source:
        decibels = source.read()
    for item, key, factor in (("DEM_A", "data", 10), ("S1_A", "vv", 1e4), ("S1_A", "vh", 1e4)):
        collection = "cop-dem-glo-30" if item == "DEM_A" else "sentinel-1-rtc"
        path = tmp_path / "assets" / item / f"{key}.tif"
        with rasterio.open(path) as source:
            profile, values = source.profile, source.read(1)
        profile.update(dtype="int32", nodata=-32768)
        with rasterio.open(path, "w", **profile) as target:
            target.write(np.rint(values * factor).astype(np.int32) + 50, 1)
        archive.items[collection][0]["assets"][key]["raster:bands"] = [{"scale": 1 / factor, "offset": -50 / factor}]
    read(archive, tmp_path)
    layers = json.loads((tmp_path / "P1" / "reading.json").read_text())["layers"]
    assert layers["DEM"]["scaling"] == {"DEM_A": {"DEM": {"scale": 0.1, "offset": -5.0}}}
    with rasterio.open(tmp_path / "P1" / "DEM.tif") as source:
        assert np.abs(source.read(1) - metres).max() < 0.06
    with rasterio.open(tmp_path / "P1" / "S1RTC.tif") as source:
        assert np.median(np.abs(source.read() - decibels)) < 0.05
