"""A parent's rasters, pixel by pixel, against the archive they came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from made_archive import (
    BANDS,
    EPSG,
    GSD,
    LEFT,
    PX,
    TOP,
    MadeArchive,
    Raster,
    complete,
    dem_raster,
    read_config,
    s1_rasters,
    s2_rasters,
    select_config,
    sheet,
)
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.read.layers import mosaic
from cityheads.archive.read.parent import read_parent
from cityheads.archive.read.sentinel1 import to_db
from cityheads.config import resolve
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file
from cityheads.core.modalities import MODALITIES


def run(archive: MadeArchive, folder: Path, *, left: float = LEFT, top: float = TOP, **settings: Any) -> Path:
    catalog = archive.write()
    parents, scenes, out = sheet(folder, left, top), folder / "P1.json", folder / "parents" / "P1"
    select_scenes(select_config(**settings), parents=parents, parent="P1", catalog=str(catalog), out=scenes)
    read_parent(read_config(**settings), parents=parents, parent="P1", scenes=scenes, out=out)
    return out


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        found: np.ndarray = source.read()
        return found


def source(archive: MadeArchive, item: str, key: str) -> np.ndarray:
    return pixels(archive.folder / "assets" / item / f"{key}.tif")[0]


def reading(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "reading.json").read_text())
    return found


def test_the_rasters_lie_on_the_parents_grid_with_the_contracts_types(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    # half the power, so that one radar product cannot pass for the other
    grd = {key: Raster(r.pixels / 2, nodata=-32768) for key, r in s1_rasters(np.random.default_rng(8)).items()}
    archive.add("sentinel-1-grd", "GRD_A", grd, datetime="2024-07-08T22:50:00Z")
    out = run(archive, tmp_path, S1GRD={"units": "linear_power"})
    for name, modality in MODALITIES.items():
        with rasterio.open(out / f"{name}.tif") as found:
            assert found.shape == (PX, PX)
            assert found.crs.to_epsg() == EPSG
            assert found.transform == rasterio.transform.from_origin(LEFT, TOP, 10, 10)
            assert found.descriptions == modality.bands
            assert set(found.dtypes) == {modality.dtype}
            assert found.nodata == modality.nodata or (np.isnan(found.nodata) and np.isnan(modality.nodata))
    with rasterio.open(out / "SCL.tif") as found:
        assert (found.dtypes, found.nodata) == (("uint8",), 0)
    assert sorted(path.name for path in out.iterdir()) == [
        "DEM.tif",
        "S1GRD.tif",
        "S1RTC.tif",
        "S2L2A.tif",
        "SCL.tif",
        "reading.json",
    ]
    power = source(archive, "GRD_A", "vv")[:PX, :PX]
    assert np.allclose(pixels(out / "S1GRD.tif")[0], 10 * np.log10(power), atol=1e-4)
    layers = reading(out)["layers"]
    assert (layers["S1GRD"]["items"], layers["S1RTC"]["items"]) == (["GRD_A"], ["S1_A"])
    assert layers["S1GRD"]["median_db"]["VV"] < layers["S1RTC"]["median_db"]["VV"] - 2


def test_ten_metre_bands_are_the_slice_minus_the_offset_and_never_below_one(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    values = np.random.default_rng(5).integers(990, 3000, (120, 120)).astype(np.uint16)
    values[3, 4] = 0
    Raster(values, nodata=0).write(tmp_path / "assets" / "S2_A" / "B03.tif")
    stack = pixels(run(archive, tmp_path) / "S2L2A.tif")
    cut = values[:PX, :PX].astype(int)
    expected = np.where(cut == 0, 0, np.clip(cut - 1000, 1, None))
    assert (expected == 1).sum() > 1
    assert np.array_equal(stack[BANDS.index("B03")], expected)
    assert np.array_equal(stack[BANDS.index("B08")], source(archive, "S2_A", "B08")[:PX, :PX] - 1000)


def test_before_baseline_four_nothing_is_subtracted(tmp_path: Path) -> None:
    archive = complete(tmp_path, baseline="03.01")
    out = run(archive, tmp_path)
    assert np.array_equal(pixels(out / "S2L2A.tif")[BANDS.index("B02")], source(archive, "S2_A", "B02")[:PX, :PX])
    assert reading(out)["layers"]["S2L2A"]["offset_dn"] == {"S2_A": 0}


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
def test_coarse_bands_come_onto_the_grid_by_the_configured_method(tmp_path: Path, method: str) -> None:
    out = run(complete(tmp_path), tmp_path, S2L2A={"resampling": method})
    stack = pixels(out / "S2L2A.tif")
    for band in ("B05", "B01"):
        with (
            rasterio.open(tmp_path / "assets" / "S2_A" / f"{band}.tif") as raw,
            WarpedVRT(
                raw, transform=rasterio.transform.from_origin(LEFT, TOP, 10, 10), width=PX, height=PX,
                resampling=Resampling[method],
            ) as expected,
        ):  # fmt: skip
            difference = stack[BANDS.index(band)].astype(int) - np.clip(expected.read(1).astype(int) - 1000, 1, None)
        assert np.abs(difference).max() <= 1
    methods = reading(out)["layers"]["S2L2A"]["resampling"]
    assert {methods[band] for band in BANDS if GSD[band] == 10} == {"none"}
    assert {methods[band] for band in BANDS if GSD[band] > 10} == {method}


def test_by_default_coarse_bands_are_whole_native_pixels(tmp_path: Path) -> None:
    stack = pixels(run(complete(tmp_path), tmp_path) / "S2L2A.tif")
    for index, band in enumerate(BANDS):
        factor = GSD[band] // 10
        native = source(MadeArchive(tmp_path), "S2_A", band)
        copied = np.kron(native, np.ones((factor, factor), native.dtype))[:PX, :PX]
        np.testing.assert_array_equal(stack[index], copied - 1000, err_msg=band)


def test_a_single_band_may_come_onto_the_grid_by_another_method(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    plain = pixels(run(archive, tmp_path, S2L2A={"resampling": "bilinear"}) / "S2L2A.tif")
    cubic = pixels(run(archive, tmp_path, S2L2A={"resampling": "cubic"}) / "S2L2A.tif")
    out = run(archive, tmp_path, S2L2A={"resampling": "bilinear", "resampling_of": {"B01": "cubic"}})
    mixed = pixels(out / "S2L2A.tif")
    for index, band in enumerate(BANDS):
        np.testing.assert_array_equal(mixed[index], (cubic if band == "B01" else plain)[index])
    assert not np.array_equal(plain[BANDS.index("B01")], cubic[BANDS.index("B01")])
    methods = reading(out)["layers"]["S2L2A"]["resampling"]
    assert (methods["B01"], methods["B09"]) == ("cubic", "bilinear")


def test_radar_becomes_decibels_and_nodata_nan(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    vv = s1_rasters(np.random.default_rng(8))["vv"]
    vv.pixels[0, 0], vv.pixels[1, 1], vv.pixels[2, 2] = -32768, 0, -0.01
    vv.write(tmp_path / "assets" / "S1_A" / "vv.tif")
    out = run(archive, tmp_path)
    found = pixels(out / "S1RTC.tif")[0]
    with np.errstate(all="ignore"):
        expected = 10 * np.log10(vv.pixels[:PX, :PX].astype(float))
    assert np.isnan(found[[0, 1, 2], [0, 1, 2]]).all()
    data = np.isfinite(found)
    assert (~data).sum() == 3
    assert np.abs(found[data] - expected[data]).max() < 1e-5
    layer = reading(out)["layers"]["S1RTC"]
    assert layer["median_db"]["VV"] == pytest.approx(np.median(expected[data]), abs=1e-3)
    assert layer["valid_fraction"] == pytest.approx(1 - 3 / PX**2, abs=1e-6)


def test_elevation_is_warped_bilinearly(tmp_path: Path) -> None:
    out = run(complete(tmp_path), tmp_path)
    with (
        rasterio.open(tmp_path / "assets" / "DEM_A" / "data.tif") as raw,
        WarpedVRT(
            raw, crs=f"EPSG:{EPSG}", transform=rasterio.transform.from_origin(LEFT, TOP, 10, 10), width=PX, height=PX,
            resampling=Resampling.bilinear,
        ) as expected,
    ):  # fmt: skip
        assert np.abs(pixels(out / "DEM.tif")[0] - expected.read(1)).max() < 0.05


def test_classification_is_cut_by_nearest_and_clear_pixels_are_counted(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    codes = np.random.default_rng(4).choice(np.array([3, 4, 5, 6, 8, 9, 10, 11], np.uint8), (60, 60))
    Raster(codes, step=20, nodata=0).write(tmp_path / "assets" / "S2_A" / "SCL.tif")
    out = run(archive, tmp_path)
    expected = np.kron(codes, np.ones((2, 2), np.uint8))[:PX, :PX]
    assert np.array_equal(pixels(out / "SCL.tif")[0], expected)
    clear = np.isin(expected, [2, 4, 5, 6, 7, 11]).mean()
    assert reading(out)["layers"]["S2L2A"]["clear_fraction"] == pytest.approx(clear, abs=1e-6)


def test_without_classification_there_is_no_scl_and_no_clear_fraction(tmp_path: Path) -> None:
    out = run(complete(tmp_path), tmp_path, S2L2A={"scl_asset": None})
    assert not (out / "SCL.tif").exists()
    assert reading(out)["layers"]["S2L2A"]["clear_fraction"] is None


def test_cloud_probability_is_read_beside_the_classification(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    percent = np.random.default_rng(6).integers(0, 101, (60, 60)).astype(np.uint8)
    Raster(percent, step=20, nodata=0).write(tmp_path / "assets" / "S2_A" / "cloud.tif")
    archive.items["sentinel-2-l2a"][0]["assets"]["cloud"] = {"href": "../../assets/S2_A/cloud.tif"}
    out = run(archive, tmp_path, S2L2A={"cloud_asset": "cloud"})
    assert np.array_equal(pixels(out / "CLD.tif")[0], np.kron(percent, np.ones((2, 2), np.uint8))[:PX, :PX])
    assert reading(out)["layers"]["S2L2A"]["sha256_CLD"] == sha256_file(out / "CLD.tif")
    Raster(percent + 100, step=20, nodata=0).write(tmp_path / "assets" / "S2_A" / "cloud.tif")
    with pytest.raises(CityHeadsError, match=r"S2_A: unit error: cloud probabilities up to 200.*cloud_asset"):
        run(archive, tmp_path, S2L2A={"cloud_asset": "cloud"})


def test_beyond_the_tile_there_is_nodata_not_a_stretched_image(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    archive.items["sentinel-2-l2a"].clear()
    rng = np.random.default_rng(1)
    archive.add("sentinel-2-l2a", "HALF", s2_rasters(rng, left=LEFT - 1200 + 240), datetime="2024-07-10T15:50:00Z",
                **{"s2:processing_baseline": "05.10"})  # fmt: skip
    out = run(archive, tmp_path)
    stack = pixels(out / "S2L2A.tif")
    assert (stack[:, :, 24:] == 0).all()
    assert (stack[:, :, :24] > 0).all()
    assert np.array_equal(stack[BANDS.index("B02"), :, :24], source(archive, "HALF", "B02")[:PX, 96:] - 1000)
    assert reading(out)["layers"]["S2L2A"]["valid_fraction"] == pytest.approx(24 / 64)


def test_tiles_of_different_baselines_are_mosaicked_each_with_its_own_offset(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    archive.items["sentinel-2-l2a"].clear()
    rng = np.random.default_rng(1)
    for name, left, baseline in (("EAST", LEFT + 240, "05.10"), ("WEST", LEFT - 900, "03.01")):
        archive.add("sentinel-2-l2a", name, s2_rasters(rng, left=left), datetime="2024-07-10T15:50:00Z",
                    **{"s2:processing_baseline": baseline, "platform": "Sentinel-2A"})  # fmt: skip
    out = run(archive, tmp_path)
    blue = pixels(out / "S2L2A.tif")[BANDS.index("B02")]
    assert np.array_equal(blue[:, 24:], source(archive, "EAST", "B02")[:PX, :40] - 1000)
    assert np.array_equal(blue[:, :24], source(archive, "WEST", "B02")[:PX, 90:114])
    layer = reading(out)["layers"]["S2L2A"]
    assert layer["items"] == ["EAST", "WEST"]
    assert layer["offset_dn"] == {"EAST": 1000, "WEST": 0}
    assert layer["valid_fraction"] == 1


def test_a_grid_that_is_off_the_archives_is_warped(tmp_path: Path) -> None:
    out = run(complete(tmp_path), tmp_path, left=LEFT + 103, top=TOP - 57, S2L2A={"resampling": "bilinear"})
    grid = rasterio.transform.from_origin(LEFT + 103, TOP - 57, 10, 10)
    with (
        rasterio.open(tmp_path / "assets" / "S2_A" / "B02.tif") as raw,
        WarpedVRT(raw, transform=grid, width=PX, height=PX, resampling=Resampling.bilinear) as expected,
    ):
        difference = pixels(out / "S2L2A.tif")[BANDS.index("B02")] - (expected.read(1).astype(int) - 1000)
    assert np.abs(difference).max() <= 1
    assert reading(out)["layers"]["S2L2A"]["resampling"]["B02"] == "bilinear"


def test_reading_twice_gives_the_same_bytes_and_no_machine_paths(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    out = run(archive, tmp_path, workers=1)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {path.name: path.read_bytes() for path in run(archive, tmp_path, workers=7).iterdir()} == first
    assert str(tmp_path).encode() not in first["reading.json"]


def test_other_rows_splits_and_regions_of_the_sheet_do_not_matter(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    out = run(archive, tmp_path)
    files = [tmp_path / "P1.json", *sorted(out.iterdir())]
    first = [path.read_bytes() for path in files]
    full = tmp_path / "full.tsv"
    rows = [f"P{k}\t{EPSG}\t{LEFT + 1000 * (k - 1)}\t{TOP}\ttrain\tR{k}" for k in (2, 1, 3)]
    full.write_text("\n".join(["# three", "parent_id\tepsg\tleft\ttop\tsplit\tregion", *rows]) + "\n")
    select_scenes(select_config(), parents=full, parent="P1", catalog=str(archive.catalog), out=files[0])
    read_parent(read_config(), parents=full, parent="P1", scenes=files[0], out=out)
    assert [path.read_bytes() for path in files] == first


def flood(folder: Path, item: str, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = folder / "assets" / item / f"{key}.tif"
    with rasterio.open(path) as raw:
        made, step, left, top, nodata, epsg = (
            raw.read(1),
            raw.res[0],
            raw.bounds.left,
            raw.bounds.top,
            raw.nodata,
            raw.crs,
        )
    Raster(change(made), left, top, step, epsg.to_epsg(), nodata).write(path)


def spoil_all(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: [flood(folder, "S2_A", band, change) for band in BANDS] and None


def amplitude(folder: Path) -> None:
    for key in ("vv", "vh"):
        flood(folder, "S1_A", key, np.sqrt)


@pytest.mark.parametrize(
    ("spoil", "settings", "says"),
    [
        (lambda folder: None, {"S1RTC": {"units": "db"}}, r"item S1_A: band VV: unit error: .* this is linear power"),
        (
            lambda folder: flood(folder, "S1_A", "vv", lambda power: power * 60),
            {},
            r"P1: S1RTC: item S1_A: band VV: unit error: the median is \d+\.\d dB",
        ),
        (lambda folder: flood(folder, "S1_A", "vh", lambda power: power * 0), {}, r"item S1_A: band VH: not one pixel"),
        (
            spoil_all(lambda dn: dn.astype(np.uint16) * 15),
            {},
            r"P1: S2L2A: item S2_A: unit error: .* above reflectance 2",
        ),
        (
            spoil_all(lambda dn: (dn // 1000).astype(np.uint16)),
            {"S2L2A": {"offset": "none"}},
            r"S2_A: unit error: .* median",
        ),
        (spoil_all(lambda dn: dn.astype(np.float32) / 1e4), {}, r"item S2_A: band B01: values are float32"),
        (
            spoil_all(lambda dn: (dn - 1000) // 4),
            {},
            r"item S2_A: by its tags .*offset: baseline\) its values carry \+1000, but 2 % of B\w+ lie below \d+",
        ),
        (
            lambda folder: Raster(np.full((120, 120), 260, np.uint16), nodata=0).write(folder / "assets/S1_A/vv.tif"),
            {},
            r"item S1_A: band VV: values are uint16 digital numbers, the amplitude of a Level-1 GRD",
        ),
        (
            lambda folder: flood(folder, "S1_A", "vv", lambda power: power * 1e4),
            {},
            r"item S1_A: band VV: values are float32 digital numbers",
        ),
        (
            lambda folder: flood(folder, "S1_A", "vv", lambda power: 10 * np.log10(power)),
            {},
            r"item S1_A: band VV: unit error: \d+% of the values are below zero, so this is dB",
        ),
        (
            amplitude,
            {},
            r"S1_A: unit error: as power .* set archive.imagery.S1RTC.units: amplitude, or units_check: warn",
        ),
        (
            spoil_all(lambda dn: dn * 0),
            {"S2L2A": {"scl_asset": "SCL"}},
            r"item S2_A: not one pixel of the parent has data",
        ),
        (
            lambda folder: flood(folder, "DEM_A", "data", lambda metres: metres * 1000),
            {},
            r"DEM_A: unit error: elevations",
        ),
    ],
)
def test_a_unit_error_fails_and_names_the_item(
    tmp_path: Path, spoil: Callable[[Path], None], settings: dict[str, Any], says: str
) -> None:
    archive = complete(tmp_path)
    spoil(tmp_path)
    with pytest.raises(CityHeadsError, match=says) as caught:
        run(archive, tmp_path, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "parents" / "P1" / "reading.json").exists()


def test_amplitude_is_read_as_such_where_the_config_says_so(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    power = pixels(run(archive, tmp_path) / "S1RTC.tif")
    amplitude(tmp_path)
    out = run(archive, tmp_path, S1RTC={"units": "amplitude"})
    assert np.abs(pixels(out / "S1RTC.tif") - power).max() < 1e-4
    run(archive, tmp_path, S1RTC={"units_check": "warn"})


def test_missing_elevation_is_an_error_and_never_sea_level(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    archive.items["cop-dem-glo-30"].clear()
    archive.add("cop-dem-glo-30", "EAST", {"data": dem_raster(np.random.default_rng(0), west=-73.93)},
                datetime="2021-04-22T00:00:00Z")  # fmt: skip
    with pytest.raises(CityHeadsError, match=r"P1: DEM: item EAST: \d+\.\d+% of the parent has no elevation"):
        run(archive, tmp_path)
    archive.add("cop-dem-glo-30", "WEST", {"data": dem_raster(np.random.default_rng(0), west=-73.99)},
                datetime="2021-04-22T00:00:00Z")  # fmt: skip
    assert np.isfinite(pixels(run(archive, tmp_path) / "DEM.tif")).all()


@pytest.mark.parametrize("keep", [0, 40, 0.5, 0.95])
def test_a_truncated_raster_names_item_band_and_file(tmp_path: Path, keep: float) -> None:
    archive = complete(tmp_path)
    run(archive, tmp_path)
    path = tmp_path / "assets" / "S2_A" / "B08.tif"
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(CityHeadsError, match=r"item S2_A: band B08: assets/S2_A/B08\.tif cannot be read") as caught:
        read_parent(
            read_config(),
            parents=sheet(tmp_path),
            parent="P1",
            scenes=tmp_path / "P1.json",
            out=tmp_path / "parents" / "P1",
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "parents" / "P1" / "reading.json").exists()


def test_a_missing_raster_is_named(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    (tmp_path / "assets" / "S2_A" / "B08.tif").unlink()
    with pytest.raises(CityHeadsError, match=r"item S2_A: band B08: assets/S2_A/B08\.tif: no such file"):
        run(archive, tmp_path)


@pytest.mark.parametrize(
    ("gcps", "says"),
    [
        (None, r"S1_A/vv\.tif: the raster has no CRS; write it into the file"),
        ([GroundControlPoint(0, 0, -73.9, 40.7), GroundControlPoint(9, 9, -73.8, 40.6)],
         r"has no CRS; it has ground control points instead, as a Level-1 GRD does; take a collection that is terrain"),
    ],
    ids=["nothing", "ground control points"],
)  # fmt: skip
def test_a_raster_that_does_not_say_where_it_lies_is_refused_for_that(tmp_path: Path, gcps: Any, says: str) -> None:
    archive = complete(tmp_path)
    place = {} if gcps is None else {"gcps": gcps, "crs": "EPSG:4326"}
    with rasterio.open(
        tmp_path / "assets" / "S1_A" / "vv.tif", "w", driver="GTiff", count=1, height=120, width=120, dtype="uint16",
        **place,
    ) as target:  # fmt: skip
        target.write(np.full((1, 120, 120), 300, np.uint16))
    with pytest.raises(CityHeadsError, match=says) as caught:
        run(archive, tmp_path)
    assert "\n" not in str(caught.value)
    assert "truncated or damaged" not in str(caught.value)


def test_a_virtual_raster_in_disguise_cannot_reach_other_files(tmp_path: Path) -> None:
    archive = complete(tmp_path)
    victim = tmp_path / "assets" / "S2_A" / "B03.tif"
    path = tmp_path / "assets" / "S2_A" / "B08.tif"
    path.write_text(
        f'<VRTDataset rasterXSize="120" rasterYSize="120"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{victim}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(CityHeadsError, match=r"item S2_A: band B08: .* cannot be read"):
        run(archive, tmp_path)


def test_a_choice_made_for_another_place_is_refused(tmp_path: Path) -> None:
    run(complete(tmp_path), tmp_path)
    with pytest.raises(CityHeadsError, match=r"P1\.json: chosen for P1 at 590000"):
        read_parent(
            read_config(), parents=sheet(tmp_path, left=LEFT + 10), parent="P1", scenes=tmp_path / "P1.json",
            out=tmp_path / "parents" / "P1",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda choice: choice.pop("format_version"), r"this scene choice has no format version, .* reads 1"),
        (
            lambda choice: choice["layers"]["DEM"].pop("items"),
            r"not a scene choice: key 'layers\.DEM\.items': Field required",
        ),
        (lambda choice: choice["layers"]["DEM"].update(item=1), r"not a scene choice: key 'layers\.DEM\.item'"),
    ],
)
def test_a_choice_that_is_old_or_damaged_is_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], Any], says: str
) -> None:
    run(complete(tmp_path), tmp_path)
    scenes = tmp_path / "P1.json"
    choice = json.loads(scenes.read_text())
    spoil(choice)
    scenes.write_text(json.dumps(choice))
    with pytest.raises(CityHeadsError, match=rf"P1\.json: {says}.*--forcerun select_scenes"):
        read_parent(read_config(), parents=sheet(tmp_path), parent="P1", scenes=scenes, out=tmp_path / "o")


def test_the_first_array_with_data_gives_the_pixel() -> None:
    a, b = np.array([[1, 0, 0]], np.uint16), np.array([[9, 2, 0]], np.uint16)
    assert mosaic([a, b], 0).tolist() == [[1, 2, 0]]
    c, d = np.array([1, np.nan, np.nan]), np.array([9, 2, np.nan])
    assert np.array_equal(mosaic([c, d], np.nan), [1, 2, np.nan], equal_nan=True)
    assert a.tolist() == [[1, 0, 0]]


def test_decibels() -> None:
    assert np.array_equal(to_db(np.array([1, 10, 0.1, 0, -1, np.nan])), np.float32([0, 10, -10, *[np.nan] * 3]), True)


def test_native_bands_become_what_terramind_was_trained_on(realdata: Path, tmp_path: Path) -> None:
    """TerraMesh's own pixels: its coarse bands, shrunk to their native size, are read as TerraMesh has them."""
    for place in sorted((realdata / "terramesh_catalog" / "assets").iterdir()):
        folder = tmp_path / place.name
        archive = complete(folder)
        for band in BANDS:
            seen, factor = pixels(place / f"{band}.tif")[0], GSD[band] // 10
            Raster(seen[::factor, ::factor], step=GSD[band], nodata=0).write(folder / "assets" / "S2_A" / f"{band}.tif")
        # as TerraMesh has them: one of the three carries the offset
        stack = pixels(run(archive, folder, S2L2A={"offset": "none", "offset_check": "warn"}) / "S2L2A.tif")
        for index, band in enumerate(BANDS):
            np.testing.assert_array_equal(stack[index], pixels(place / f"{band}.tif")[0][:PX, :PX], err_msg=band)


def test_real_samples_come_through_to_the_pixel(realdata: Path, repository: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load((repository / "config" / "terramesh.yaml").read_text())
    catalog = realdata / "terramesh_catalog" / "catalog.json"
    raw["archive"] |= {"catalog": str(catalog), "asset_base": str(realdata)}
    used, parents = resolve(raw), repository / "config" / "terramesh_parents.tsv"
    for place, offset in (("433D_629L_3_1", 1000), ("282D_485L_3_3", 0), ("38D_378R_2_3", 0)):
        scenes, out = tmp_path / f"{place}.json", tmp_path / place
        select_scenes(
            used,
            parents=parents,
            parent=place,
            catalog=str(catalog),
            out=scenes,
        )
        read_parent(used, parents=parents, parent=place, scenes=scenes, out=out)
        assets = realdata / "terramesh_catalog" / "assets" / place
        stack = pixels(out / "S2L2A.tif").astype(int)
        for index, band in enumerate(BANDS):
            dn = pixels(assets / f"{band}.tif")[0].astype(int)
            assert np.array_equal(stack[index], np.clip(dn - offset, 1, None)), (place, band)
        for index, key in enumerate(("vv", "vh")):
            power = pixels(assets / f"{key}.tif")[0].astype(float)
            assert np.abs(pixels(out / "S1RTC.tif")[index] - 10 * np.log10(power)).max() < 1e-5
        assert np.array_equal(pixels(out / "DEM.tif")[0], pixels(assets / "dem.tif")[0])
        layers = reading(out)["layers"]
        assert set(layers["S2L2A"]["resampling"].values()) == {"none"}
        assert -20 < layers["S1RTC"]["median_db"]["VV"] < -5
