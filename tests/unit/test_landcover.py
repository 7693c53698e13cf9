"""Land cover: the code under every pixel centre, mapped to classes, cut to sub-chips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from config_fixtures import make_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_fixtures import label_config, write_sheet
from pyproj import Transformer
from rasterio.io import MemoryFile
from scene_fixtures import chosen_item, chosen_layer, scene_choice

from cityheads.archive.warp import Target
from cityheads.config import Config, LandcoverLabel, load_config, read_yaml
from cityheads.core.artifacts.scenes import SCENES
from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, Parent, parent_geobox, read_parents, subchips
from cityheads.labels.landcover import code_table, map_codes, rasterize_landcover, sample_nearest

WORLDCOVER = [
    {"name": "water", "color": "#3a7bc8", "codes": [80, 90, 95]},
    {"name": "developed", "color": "#c8574d", "codes": [50]},
    {"name": "forest", "color": "#2e7d4f", "codes": [10, 20]},
    {"name": "herbaceous", "color": "#b5cf6b", "codes": [30, 40]},
    {"name": "other", "color": "#c9b79c", "codes": [60, 70, 100]},
]
CLASS_OF = {80: 0, 90: 0, 95: 0, 50: 1, 10: 2, 20: 2, 30: 3, 40: 3, 60: 4, 70: 4, 100: 4, 0: 255}


def config_of(parent_px: int, *, asset_base: Path | None = None, **label: Any) -> Config:
    archive = {"provider": "stac", "catalog": "catalog.json", "asset_base": asset_base and str(asset_base)}
    return label_config("LULC", {"kind": "landcover", "classes": WORLDCOVER} | label, parent_px, archive=archive)


PARENT = Parent("P1", 32618, 587000.0, 4512000.0)


def write_scenes(
    folder: Path, label: str, *hrefs: str, parent: Parent = PARENT, collection: str = "esa-worldcover"
) -> Path:
    items = [chosen_item(Path(href).stem, collection=collection, datetime=None, assets={"map": href}) for href in hrefs]
    layers = {label: chosen_layer(items, collection=collection)}
    path = folder / "scenes.json"
    SCENES.write(path, scene_choice(parent, layers, catalog=str(folder / "catalog.json")))
    return path


def write_codes(path: Path, codes: np.ndarray, transform: Affine, crs: Any, nodata: int | None = 0) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=codes.shape[0], width=codes.shape[1], count=1, dtype=codes.dtype, crs=crs,
        transform=transform, nodata=nodata, compress="deflate",
    ) as target:  # fmt: skip
        target.write(codes, 1)
    return path


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(1)


def run(tmp_path: Path, config: Config, scenes: Path, parent: Parent = PARENT, label: str = "LULC") -> np.ndarray:
    sheet = write_sheet(tmp_path / "parents.tsv", parent)
    out = tmp_path / "parents" / parent.parent_id / f"MASK_{label}.tif"
    rasterize_landcover(
        config, parents=sheet, parent=parent.parent_id, label=label, scenes=scenes, chips=tmp_path / "chips", out=out
    )
    return read(out)


def test_every_pixel_of_a_real_worldcover_tile_is_the_cell_under_its_centre(tmp_path: Path, realdata: Path) -> None:
    """Principe's coast, with water, forest and the town of Santo Antonio, against GDAL's own point query."""
    tile = realdata / "worldcover_N00E006" / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif"
    parent = Parent("P1", 32632, 323000.0, 182500.0)
    config = config_of(128, asset_base=tile.parent)
    mask = run(tmp_path, config, write_scenes(tmp_path, "LULC", tile.name, parent=parent), parent)
    box = parent_geobox(parent, Grid(10, 128, 4))
    columns, rows = np.meshgrid(np.arange(128), np.arange(128))
    x = parent.left + 10 * (columns.ravel() + 0.5)
    y = parent.top - 10 * (rows.ravel() + 0.5)
    lon, lat = Transformer.from_crs(32632, 4326, always_xy=True).transform(x, y)
    with rasterio.open(tile) as source:
        codes = np.array([int(value[0]) for value in source.sample(zip(lon, lat, strict=True))])
    expected = np.array([CLASS_OF[code] for code in codes], np.uint8).reshape(128, 128)
    assert set(np.unique(expected)) >= {0, 1, 2, 3}, "the place must show more than one class"
    np.testing.assert_array_equal(mask, expected)
    with rasterio.open(tmp_path / "parents/P1/MASK_LULC.tif") as written:
        assert written.nodata == IGNORE
        assert written.crs.to_epsg() == 32632
        assert tuple(written.transform) == tuple(box.affine)
        assert written.colorinterp[0].name == "gray", "colours are a matter of the figures"
        assert written.tags()["classes"] == "0=water;1=developed;2=forest;3=herbaceous;4=other"


def test_gdals_warper_differs_from_the_lookup_at_cell_edges_only(realdata: Path) -> None:
    """GDAL approximates the projection to an eighth of a cell; farther from edges both agree, on a whole parent."""
    from rasterio.warp import Resampling, reproject

    tile = realdata / "worldcover_N00E006" / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif"
    target = Target.of_parent(Parent("P1", 32632, 323000.0, 182500.0), Grid(10, 896, 4))
    with rasterio.open(tile) as source:
        ours, valid = sample_nearest(source, target)
        warped = np.zeros(target.shape, np.uint8)
        reproject(
            rasterio.band(source, 1), warped, dst_transform=target.transform, dst_crs=target.crs, dst_nodata=0,
            resampling=Resampling.nearest,
        )  # fmt: skip
        to_cell = ~source.transform
    assert valid.all()
    rows, columns = np.nonzero(ours != warped)
    assert len(rows) < 1e-3 * ours.size
    x, y = target.transform * (columns + 0.5, rows + 0.5)
    u, v = to_cell * Transformer.from_crs(32632, 4326, always_xy=True).transform(x, y)
    assert (np.minimum(abs(u - np.round(u)), abs(v - np.round(v))) < 0.13).all()


@pytest.mark.parametrize("place", ["282D_485L_3_3", "38D_378R_2_3", "433D_629L_3_1"])
def test_real_io_lulc_codes_on_their_own_off_grid_raster(
    tmp_path: Path, realdata: Path, repository: Path, place: str
) -> None:
    written = read_yaml(repository / "config" / "terramesh.yaml")
    config = make_config(written, archive={"asset_base": str(realdata / "terramesh_catalog")})
    parents = read_parents(repository / "config" / "terramesh_parents.tsv", config.grid.grid)
    href = f"assets/{place}/lulc.tif"
    codes = read(realdata / "terramesh_catalog" / href)
    with rasterio.open(realdata / "terramesh_catalog" / href) as source:
        parent = next(row for row in parents if row.epsg == source.crs.to_epsg())
    for label in ("LULC", "BUILDINGS"):
        mask = run(tmp_path, config, write_scenes(tmp_path, label, href, parent=parent), parent, label)
        expected = np.full(codes.shape, IGNORE, np.uint8)
        section = config.labels[label]
        assert isinstance(section, LandcoverLabel)
        for number, item in enumerate(section.classes):
            expected[np.isin(codes, item.codes)] = number
        np.testing.assert_array_equal(mask, expected)


def test_sub_chips_are_exact_cuts_of_the_parent(tmp_path: Path) -> None:
    codes = np.random.default_rng(1).choice(list(CLASS_OF), (70, 70)).astype(np.uint8)
    write_codes(tmp_path / "a.tif", codes, Affine(10, 0, 586970, 0, -10, 4512030), "EPSG:32618")
    mask = run(tmp_path, config_of(64), write_scenes(tmp_path, "LULC", "a.tif"))
    np.testing.assert_array_equal(mask, np.vectorize(CLASS_OF.get)(codes[3:67, 3:67]))
    mosaic = np.zeros_like(mask)
    for piece in subchips(PARENT, Grid(10, 64, 4)):
        with rasterio.open(tmp_path / "chips" / "MASK_LULC" / f"{piece.chip_id}.tif") as source:
            assert tuple(source.transform) == tuple(piece.geobox.affine)
            assert source.crs.to_epsg() == 32618
            mosaic[piece.row_slice, piece.col_slice] = source.read(1)
    np.testing.assert_array_equal(mosaic, mask)


def test_the_first_item_with_a_class_wins_and_the_rest_is_ignored(tmp_path: Path) -> None:
    transform = Affine(10, 0, 587000, 0, -10, 4512000)
    first = np.zeros((64, 40), np.uint8)
    first[:, :20] = 10
    write_codes(tmp_path / "a.tif", first, transform, "EPSG:32618")
    write_codes(tmp_path / "b.tif", np.full((64, 50), 80, np.uint8), transform, "EPSG:32618")
    mask = run(tmp_path, config_of(64), write_scenes(tmp_path, "LULC", "a.tif", "b.tif"))
    assert (mask[:, :20] == 2).all()
    assert (mask[:, 20:50] == 0).all(), "nodata of the first item is filled from the second"
    assert (mask[:, 50:] == IGNORE).all(), "beyond all items nothing is known"


def test_an_ignored_code_is_filled_from_the_next_item(tmp_path: Path) -> None:
    transform = Affine(10, 0, 587000, 0, -10, 4512000)
    clouds = np.full((64, 64), 10, np.uint8)
    clouds[0] = 7
    write_codes(tmp_path / "a.tif", clouds, transform, "EPSG:32618", nodata=None)
    write_codes(tmp_path / "b.tif", np.full((64, 64), 50, np.uint8), transform, "EPSG:32618")
    config = config_of(64, ignore_codes=[0, 7])
    mask = run(tmp_path, config, write_scenes(tmp_path, "LULC", "a.tif", "b.tif"))
    assert (mask[0] == 1).all()
    assert (mask[1:] == 2).all()


@pytest.mark.parametrize("nudge", [-1e-9, 1e-9])
@pytest.mark.parametrize("shift", [0.0, 5.0, 10.0])
def test_rounding_of_the_sources_origin_changes_nothing(nudge: float, shift: float) -> None:
    """Origins differ by 1e-9 m between products; also where centres fall on cell edges (shift 5)."""
    codes = np.random.default_rng(2).integers(0, 255, (40, 40), dtype=np.uint8)
    target = Target.of_parent(PARENT, Grid(10, 32, 2))
    found = []
    for left in (PARENT.left - 30 + shift, PARENT.left - 30 + shift + nudge):
        with MemoryFile() as memory:
            path = Path(memory.name)
            write_codes(path, codes, Affine(10, 0, left, 0, -10, PARENT.top + 30 + nudge), "EPSG:32618", nodata=None)
            with rasterio.open(path) as source:
                found.append(sample_nearest(source, target)[0])
    np.testing.assert_array_equal(found[0], found[1])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    epsg=st.sampled_from([4326, 3857, 2263, 32617, 5070]),
    cell=st.floats(0.3, 4.0),
    shift=st.tuples(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9)),
    seed=st.integers(0, 2**16),
)
def test_any_source_grid_is_looked_up_cell_by_cell(
    epsg: int, cell: float, shift: tuple[float, float], seed: int
) -> None:
    """Every valid value is the cell that contains the centre, and every invalid one lies outside or on nodata."""
    target = Target.of_parent(PARENT, Grid(10, 32, 2))
    to = Transformer.from_crs(32618, epsg, always_xy=True)
    corner_x, corner_y = to.transform([587000.0, 587320.0], [4512000.0, 4511680.0])
    step_x, step_y = (corner_x[1] - corner_x[0]) / 32 * cell, (corner_y[0] - corner_y[1]) / 32 * cell
    codes = np.random.default_rng(seed).integers(0, 4, (30, 50), dtype=np.uint8)
    left, top = corner_x[0] + shift[0] * 20 * step_x, corner_y[0] + shift[1] * 20 * step_y
    with MemoryFile() as memory:
        path = Path(memory.name)
        write_codes(path, codes, Affine(step_x, 0, left, 0, -step_y, top), f"EPSG:{epsg}")
        with rasterio.open(path) as source:
            values, valid = sample_nearest(source, target)
    for row, column in np.random.default_rng(seed).integers(0, 32, (40, 2)):
        x, y = to.transform(587000 + 10 * (column + 0.5), 4512000 - 10 * (row + 0.5))
        u, v = (x - left) / step_x, (top - y) / step_y
        if min(abs(u - round(u)), abs(v - round(v))) < 1e-5:
            continue  # on an edge, where either neighbour is right
        inside = 0 <= u < 50 and 0 <= v < 30
        cell_value = codes[int(v), int(u)] if inside else 0
        assert valid[row, column] == (cell_value != 0)
        if valid[row, column]:
            assert values[row, column] == cell_value


def test_a_code_without_a_class_names_code_label_and_item(tmp_path: Path) -> None:
    codes = np.full((64, 64), 10, np.uint8)
    codes[5, 6:9] = 110
    write_codes(tmp_path / "tile7.tif", codes, Affine(10, 0, 587000, 0, -10, 4512000), "EPSG:32618")
    with pytest.raises(
        CityHeadsError, match=r"label LULC, item tile7: code 110 \(3 px\) has no class; list it"
    ) as error:
        run(tmp_path, config_of(64), write_scenes(tmp_path, "LULC", "tile7.tif"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "chips").exists(), "nothing half-written"


def test_a_strange_code_outside_the_parent_is_no_fault(tmp_path: Path) -> None:
    codes = np.full((64, 65), 10, np.uint8)
    codes[:, 64] = 110
    write_codes(tmp_path / "a.tif", codes, Affine(10, 0, 587000, 0, -10, 4512000), "EPSG:32618")
    assert (run(tmp_path, config_of(64), write_scenes(tmp_path, "LULC", "a.tif")) == 2).all()


def test_a_truncated_tile_is_one_line(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).choice([10, 50, 80], (64, 64)).astype(np.uint8)
    path = write_codes(tmp_path / "a.tif", codes, Affine(10, 0, 587000, 0, -10, 4512000), "EPSG:32618")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CityHeadsError, match=r"item a: .*cannot be read"):
        run(tmp_path, config_of(64), write_scenes(tmp_path, "LULC", "a.tif"))
    assert not (tmp_path / "chips").exists()


def test_a_raster_without_a_crs_is_one_line(tmp_path: Path) -> None:
    write_codes(tmp_path / "a.tif", np.full((64, 64), 10, np.uint8), Affine(10, 0, 587000, 0, -10, 4512000), None)
    with pytest.raises(CityHeadsError, match="the raster has no CRS"):
        run(tmp_path, config_of(64), write_scenes(tmp_path, "LULC", "a.tif"))


def test_a_missing_file_and_a_missing_choice_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match="no such file"):
        run(tmp_path, config_of(64), write_scenes(tmp_path, "LULC", "absent.tif"))
    with pytest.raises(CityHeadsError, match=r"scenes.json: no item is chosen for label LULC"):
        run(tmp_path, config_of(64), write_scenes(tmp_path, "OTHER", "absent.tif"))


def test_codes_map_as_the_design_says(repository: Path) -> None:
    section = load_config(repository / "config" / "config.yaml").labels["LULC"]
    assert isinstance(section, LandcoverLabel)
    table = code_table([item.codes for item in section.classes], section.ignore_codes)
    assert table == CLASS_OF
    codes = np.array([[10, 95], [0, 100]], np.uint8)
    np.testing.assert_array_equal(map_codes(codes, table, "x"), [[2, 0], [255, 4]])


def test_equal_input_gives_equal_bytes_whatever_the_colours(tmp_path: Path) -> None:
    codes = np.random.default_rng(3).choice([10, 50, 80, 0], (64, 64)).astype(np.uint8)
    write_codes(tmp_path / "a.tif", codes, Affine(10, 0, 587000, 0, -10, 4512000), "EPSG:32618")
    contents = []
    for classes in (WORLDCOVER, [item | {"color": "#123456"} for item in WORLDCOVER]):
        run(tmp_path, config_of(64, classes=classes), write_scenes(tmp_path, "LULC", "a.tif"))
        files = sorted((tmp_path / "chips").rglob("*.tif")) + sorted((tmp_path / "parents").rglob("*.tif"))
        assert len(files) == 17
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
