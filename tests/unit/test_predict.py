"""Answers about points and maps of parents, against windows cut and models run by hand."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import product_fixtures
import pytest
import rasterio
import torch
from fake_results import Fake
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from cityheads.cli import main
from cityheads.core.artifacts.bundle import BUNDLE_CLASSES
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, write_json
from cityheads.product.city_map import CityMap
from cityheads.product.predict import fetch, predict_parent
from cityheads.product.publish import publish
from cityheads.product.tiles import tile_starts, tile_weights


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    return product_fixtures.make(tmp_path_factory.mktemp("product"))


@pytest.fixture(scope="module")
def bundle(fake: Fake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    publish(fake.settings("publish"), parents=fake.parents, results=fake.results, out=out)
    return out


@pytest.fixture(scope="module")
def city(fake: Fake, bundle: Path) -> CityMap:
    return CityMap(bundle, fake.results)


def point(fake: Fake, name: str, col: float, row: float) -> tuple[float, float]:
    """Give latitude and longitude of a place in a parent, in pixels from its upper left corner."""
    parent = next(one for one in product_fixtures.sheet(fake) if one.parent_id == name)
    back = Transformer.from_crs(parent.epsg, 4326, always_xy=True)
    lon, lat = back.transform(parent.left + 10 * col, parent.top - 10 * row)
    return lat, lon


class Pixelwise(torch.nn.Module):
    """A model whose scores at a pixel depend on that pixel alone: what tiling must not change."""

    def forward(self, images: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        s2, vv, dem = images["S2L2A"] / 1000, images["S1RTC"][:, 0] / 10, images["DEM"][:, 0] / 1000
        lulc = torch.stack([s2[:, 3], s2[:, 7], s2[:, 10], vv + 2, dem], 1)
        return {"lulc": lulc.nan_to_num(), "buildings": torch.stack([s2[:, 1], s2[:, 2]], 1)}


@pytest.fixture
def pixelwise(city: CityMap) -> Iterator[CityMap]:
    real, city.model = city.model, Pixelwise()
    yield city
    city.model = real


def read(fake: Fake, parent: str) -> dict[str, np.ndarray]:
    images = {}
    for name in ("S2L2A", "S1RTC", "DEM"):
        with rasterio.open(fake.results / "parents" / parent / f"{name}.tif") as source:
            images[name] = source.read().astype(np.float32)
    return images


def by_hand(model: Any, images: dict[str, np.ndarray], head: str) -> np.ndarray:
    with torch.inference_mode():
        logits = model({name: torch.from_numpy(image[None]) for name, image in images.items()})[head][0]
    exp = np.exp(logits.numpy().astype(np.float64) - logits.numpy().max(0))
    return exp / exp.sum(0)


def tempered(city: CityMap, head: str, scores: np.ndarray) -> np.ndarray:
    """Calibrate scores, (classes, ...), with the temperature of the bundle."""
    found = read_json(city.bundle.calibration)["heads"][head]
    assert found["method"] == "temperature"
    assert found["temperature"] != 1
    powers = scores ** (1 / found["temperature"])
    return powers / powers.sum(0)


# --- points --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", ["chile", "peru", "kenya"])
@pytest.mark.parametrize(("col", "row", "radius"), [(31.3, 33.8, 100.0), (20.5, 40.5, 35.0), (47.9, 16.2, 7.1)])
def test_answer_is_the_mean_score_within_the_circle(
    fake: Fake, city: CityMap, parent: str, col: float, row: float, radius: float
) -> None:
    found = city.at(*point(fake, parent, col, row), radius_m=radius)
    assert found["parent"] == parent
    assert found["split"] == product_fixtures.split_of(fake)[parent]
    assert found["window"]["centred"]
    top, left = round(row - 16), round(col - 16)
    images = {name: image[:, top : top + 32, left : left + 32] for name, image in read(fake, parent).items()}
    inside = np.array(
        [[math.dist((top + i + 0.5, left + j + 0.5), (row, col)) * 10 <= radius for j in range(32)] for i in range(32)]
    )
    assert found["pixels"] == inside.sum()
    assert found["valid_fraction"] == 1
    for head, part in found["heads"].items():
        scores = by_hand(city.model, images, head)[:, inside]
        probabilities = tempered(city, head, scores)
        assert part["calibrated"]
        assert list(part["fractions"]) == part["classes"] == list(part["map_fractions"])
        np.testing.assert_allclose(list(part["fractions"].values()), probabilities.mean(1), atol=1e-4)
        counts = [(scores.argmax(0) == index).mean() for index in range(len(scores))]
        np.testing.assert_allclose(list(part["map_fractions"].values()), counts, atol=1e-4)
        assert part["certainty"] == pytest.approx(probabilities.max(0).mean(), abs=1e-4)
        assert sum(part["fractions"].values()) == pytest.approx(1, abs=3e-4)
    assert found["heads"]["buildings"]["density"] == found["heads"]["buildings"]["fractions"]["building"]
    assert "density" not in found["heads"]["lulc"]


def test_bundle_without_a_calibration_gives_softmax_scores_and_says_so(
    fake: Fake, city: CityMap, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(city.bundle.root, folder)
    (folder / "calibration.json").unlink()
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "calibration" not in line))
    where = point(fake, "kenya", 30, 30)
    calibrated, raw = city.at(*where), CityMap(folder, fake.results).at(*where)
    assert calibrated["calibrated"]
    assert not any("softmax" in caveat for caveat in calibrated["caveats"])
    assert not raw["calibrated"]
    assert raw["caveats"][-1].startswith("Fractions of lulc, buildings are means of softmax scores")
    images = {name: image[:, 14:46, 14:46] for name, image in read(fake, "kenya").items()}
    inside = np.hypot(np.arange(32)[:, None] - 15.5, np.arange(32) - 15.5) * 10 <= 100
    for head, part in raw["heads"].items():
        assert not part["calibrated"]
        scores = by_hand(city.model, images, head)[:, inside]
        np.testing.assert_allclose(list(part["fractions"].values()), scores.mean(1), atol=1e-4)
        assert part["fractions"] != calibrated["heads"][head]["fractions"]
        assert part["map_fractions"] == calibrated["heads"][head]["map_fractions"]


def test_one_forward_pass_answers(fake: Fake, city: CityMap) -> None:
    calls = []
    handle = city.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        city.at(*point(fake, "peru", 30, 30))
    finally:
        handle.remove()
    assert calls == [1]


def test_window_moves_inside_at_the_edge_and_the_answer_says_so(fake: Fake, pixelwise: CityMap) -> None:
    found = pixelwise.at(*point(fake, "chile", 0.2, 63.6), radius_m=50)
    parent = product_fixtures.sheet(fake)[0]
    assert found["window"]["left"] == pytest.approx(parent.left)
    assert found["window"]["top"] == pytest.approx(parent.top - 320)
    assert not found["window"]["centred"]
    assert found["valid_fraction"] < 0.5
    assert any("near the edge" in caveat for caveat in found["caveats"])
    assert any("% of the pixels" in caveat for caveat in found["caveats"])
    inside = [(i, j) for i in range(64) for j in range(64) if math.dist((i + 0.5, j + 0.5), (63.6, 0.2)) <= 5]
    assert found["pixels"] == len(inside)
    scores = tempered(pixelwise, "lulc", by_hand(pixelwise.model, read(fake, "chile"), "lulc"))
    mean = np.mean([scores[:, i, j] for i, j in inside], axis=0)
    np.testing.assert_allclose(list(found["heads"]["lulc"]["fractions"].values()), mean, atol=1e-4)


def test_provenance_and_scores_come_with_the_answer(fake: Fake, city: CityMap) -> None:
    found = city.at(*point(fake, "kenya", 30, 30))
    chosen = read_json(fake.results / "scenes" / "kenya.json")["layers"]
    for name in ("S2L2A", "S1RTC", "DEM"):
        assert found["scenes"][name] == [{"id": i["id"], "datetime": i["datetime"]} for i in chosen[name]["items"]]
    # one test parent: the gate cannot tell
    verdict = read_json(fake.results / "gate.json")["verdict"]
    assert verdict == "inconclusive"
    assert found["model"] == {"run": "multihead", "seed": 0, "backbone": "terramind_v1_tiny", "verdict": verdict}
    assert any("verdict against single-task models is inconclusive" in caveat for caveat in found["caveats"])
    assert found["simulated"] is True
    assert "simulated" in found["caveats"][0]
    ious = read_json(fake.results / "evaluation" / "test" / "multihead" / "0" / "0" / "metrics.json")["heads"]["lulc"][
        "iou"
    ]
    scored = read_json(fake.results / "evaluation" / "test" / "multihead" / "0" / "0" / "metrics.json")["heads"]
    # 32 px of 10 m hold circles of 100 and 160 m; the default radius of 100 m is a circle of 200 m
    for radius, window in ((100.0, "circle_160m"), (50.0, "circle_100m")):
        for head, part in city.at(*point(fake, "kenya", 30, 30), radius_m=radius)["heads"].items():
            assert part["test_mae_window"] == window
            for name, one in scored[head]["application"][window]["classes"].items():
                assert part["test_mae"][name] == round(one["estimates"]["calibrated"]["mae"]["value"], 4)
    assert list(found["heads"]["lulc"]["test_iou"].values()) == [None if v is None else round(v, 4) for v in ious]
    json.dumps(found, allow_nan=False)


def test_places_that_the_model_has_seen_are_marked(fake: Fake, city: CityMap) -> None:
    for parent, split in product_fixtures.split_of(fake).items():
        caveats = city.at(*point(fake, parent, 30, 30))["caveats"]
        assert any(f"in the {split} split" in caveat for caveat in caveats) == (split != "test")


@pytest.mark.parametrize(
    ("lat", "lon", "words"),
    [
        (48.0, 11.0, r"outside the covered area, 3 parents between latitudes -[\d.]+ and -[\d.]+, .* the nearest"),
        (40.7, -95.0, "outside the covered area"),
        (95.0, 0.0, "no such place; latitude comes first"),
        (math.nan, 0.0, "no such place"),
        (0.0, 181.0, "no such place"),
    ],
)
def test_points_outside_are_refused(city: CityMap, lat: float, lon: float, words: str) -> None:
    with pytest.raises(CityHeadsError, match=words):
        city.at(lat, lon)


def test_covered_area_ends_at_the_edge_of_the_parent(fake: Fake, city: CityMap) -> None:
    for col, row in ((0.01, 0.01), (63.99, 63.99)):
        assert city.find(*point(fake, "kenya", col, row))[0].parent.parent_id == "kenya"
    for col, row in ((-0.01, 30), (64.01, 30), (30, -0.01), (30, 64.01)):
        with pytest.raises(CityHeadsError, match=r"the nearest, kenya, is 0\.0 km away"):
            city.find(*point(fake, "kenya", col, row))


@pytest.mark.parametrize("radius", [0.0, 7.0, 160.1, -5.0, math.nan])
def test_radius_that_does_not_fit_is_refused(fake: Fake, city: CityMap, radius: float) -> None:
    with pytest.raises(CityHeadsError, match="radius_m"):
        city.at(*point(fake, "kenya", 30, 30), radius_m=radius)


@given(st.floats(0.01, 63.98), st.floats(0.01, 63.98))
def test_the_least_radius_holds_a_pixel_anywhere(col: float, row: float) -> None:
    rows, cols = ([math.floor(value) + step + 0.5 for step in (-1, 0, 1)] for value in (row, col))
    near = [math.dist(centre, (row, col)) for centre in itertools.product(rows, cols)]
    assert min(near) <= math.sqrt(0.5)


@pytest.fixture
def damaged(fake: Fake, tmp_path: Path) -> Fake:
    shutil.copytree(fake.results, tmp_path / "results")
    return Fake(tmp_path / "results", fake.parents, fake.config)


def overwrite(fake: Fake, name: str, change: Any, parent: str = "peru") -> None:
    with rasterio.open(fake.results / "parents" / parent / f"{name}.tif", "r+") as target:
        array = target.read()
        change(array)
        target.write(array)


def set_at(rows: slice, cols: slice, value: float) -> Any:
    def change(array: np.ndarray) -> None:
        array[:, rows, cols] = value

    return change


def test_missing_pixels_do_not_count(damaged: Fake, bundle: Path) -> None:
    overwrite(damaged, "S1RTC", set_at(slice(None), slice(0, 30), math.nan))
    city = CityMap(bundle, damaged.results)
    city.model = Pixelwise()
    found = city.at(*point(damaged, "peru", 30, 30), radius_m=80)
    assert found["valid_fraction"] == pytest.approx(0.5, abs=0.06)
    assert any("% of the pixels" in caveat for caveat in found["caveats"])
    inside = [(i, j) for i in range(64) for j in range(30, 64) if math.dist((i + 0.5, j + 0.5), (30, 30)) <= 8]
    scores = tempered(city, "lulc", by_hand(city.model, read(damaged, "peru"), "lulc"))
    mean = np.mean([scores[:, i, j] for i, j in inside], axis=0)
    np.testing.assert_allclose(list(found["heads"]["lulc"]["fractions"].values()), mean, atol=1e-4)


def test_place_without_imagery_is_refused(damaged: Fake, bundle: Path) -> None:
    overwrite(damaged, "S2L2A", set_at(slice(20, 40), slice(20, 40), 0))
    city = CityMap(bundle, damaged.results)
    with pytest.raises(CityHeadsError, match="peru has no imagery within 50 m"):
        city.at(*point(damaged, "peru", 30, 30), radius_m=50)


def test_dropped_sub_chip_is_mentioned(fake: Fake, city: CityMap) -> None:
    dropped = [(name, where, why) for name, place in city.places.items() for where, why in place.dropped.items()]
    assert dropped, "the fixture drops some sub-chips"
    name, (row, col), why = dropped[0]
    caveats = city.at(*point(fake, name, 32 * col + 16, 32 * row + 16))["caveats"]
    assert any(why in caveat for caveat in caveats)


def test_missing_raster_or_one_on_another_grid_is_named(damaged: Fake, bundle: Path) -> None:
    city = CityMap(bundle, damaged.results)
    where = damaged.results / "parents" / "peru" / "DEM.tif"
    with rasterio.open(where, "r+") as target:
        target.transform = target.transform * rasterio.Affine.translation(0.5, 0)
    with pytest.raises(CityHeadsError, match=r"DEM.tif: is not on the grid"):
        city.at(*point(damaged, "peru", 30, 30))
    where.unlink()
    with pytest.raises(CityHeadsError, match=r"DEM.tif: no such file"):
        city.at(*point(damaged, "peru", 30, 30))


def test_tampered_bundle_is_not_loaded(fake: Fake, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    weights = bytearray((tmp_path / "bundle" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "bundle" / "model.safetensors").write_bytes(weights)
    with pytest.raises(CityHeadsError, match=r"model.safetensors: its bytes"):
        fetch(0.0, 0.0, bundle=tmp_path / "bundle", results=fake.results)


def test_model_for_larger_windows_than_a_parent_is_refused(fake: Fake, bundle: Path, tmp_path: Path) -> None:
    import hashlib

    shutil.copytree(bundle, tmp_path / "bundle")
    path = tmp_path / "bundle" / "model.json"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json(path, read_json(path) | {"chip_px": 128})
    sums = tmp_path / "bundle" / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(before, hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(CityHeadsError, match="takes 128 px"):
        CityMap(tmp_path / "bundle", fake.results)


def test_command_line_prints_json_and_nothing_else(
    fake: Fake, bundle: Path, city: CityMap, capsys: pytest.CaptureFixture[str]
) -> None:
    lat, lon = point(fake, "peru", 30, 30)
    where = ["--bundle", str(bundle), "--results", str(fake.results)]
    assert main(["fetch", "--lat", str(lat), "--lon", str(lon), "--radius-m", "60", *where]) == 0
    assert json.loads(capsys.readouterr().out) == city.at(lat, lon, 60)
    assert main(["fetch", "--lat", "48", "--lon", "11", *where]) == 1
    assert capsys.readouterr().out == ""


# --- inputs that are computed, taken in part, or no image ------------------------------------------------------------


DERIVED = {"modalities": ["DEM", "NDVI", "RGB", "coords"]}
SUBSET = {"modalities": ["S1RTC", "S2L2A"], "bands": {"S2L2A": ["B08", "B03"], "S1RTC": ["VH"]}}


@pytest.fixture(scope="module", params=[DERIVED, SUBSET], ids=["derived", "subset"])
def special(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Fake, Path, dict[str, Any]]:
    """Publish a model of unusual inputs; what it does not need is not there."""
    fake = product_fixtures.make(tmp_path_factory.mktemp("special"), model=request.param)
    unused = "S1RTC" if request.param is DERIVED else "DEM"
    for path in (fake.results / "parents").glob(f"*/{unused}.tif"):
        path.unlink()
    out = tmp_path_factory.mktemp("out") / "bundle"
    publish(fake.settings("publish"), parents=fake.parents, results=fake.results, out=out)
    return fake, out, request.param


def centre(fake: Fake, parent: str, top: int, left: int) -> list[float]:
    """Give longitude and latitude of the centre of a window of 32 px."""
    lat, lon = point(fake, parent, left + 16, top + 16)
    return [lon, lat]


def with_inputs(fake: Fake, model: dict[str, Any], parent: str, top: int, left: int) -> dict[str, np.ndarray]:
    images = {}
    for name in ("S2L2A", "DEM") if model is DERIVED else ("S2L2A", "S1RTC"):
        with rasterio.open(fake.results / "parents" / parent / f"{name}.tif") as source:
            images[name] = source.read().astype(np.float32)[:, top : top + 32, left : left + 32]
    if model is DERIVED:
        images["coords"] = np.array(centre(fake, parent, top, left), np.float32)
    return images


def test_answers_of_models_with_other_inputs(special: tuple[Fake, Path, dict[str, Any]]) -> None:
    fake, bundle, model = special
    city = CityMap(bundle, fake.results)
    found = city.at(*point(fake, "peru", 30.2, 35.1), radius_m=90)
    assert found["valid_fraction"] == 1
    assert list(found["scenes"]) == (["DEM", "S2L2A"] if model is DERIVED else ["S1RTC", "S2L2A"])
    images = with_inputs(fake, model, "peru", round(35.1 - 16), round(30.2 - 16))
    inside = np.array(
        [[math.dist((19 + i + 0.5, 14 + j + 0.5), (35.1, 30.2)) * 10 <= 90 for j in range(32)] for i in range(32)]
    )
    for head, part in found["heads"].items():
        scores = tempered(city, head, by_hand(city.model, images, head)[:, inside])
        np.testing.assert_allclose(list(part["fractions"].values()), scores.mean(1), atol=1e-4)


def test_maps_of_models_with_other_inputs(special: tuple[Fake, Path, dict[str, Any]]) -> None:
    fake, bundle, model = special
    city = CityMap(bundle, fake.results)
    found = city.map_parent("chile", 0)
    for top, left in itertools.product((0, 32), (0, 32)):
        images = with_inputs(fake, model, "chile", top, left)
        for head, classes in found.items():
            scores = by_hand(city.model, images, head)
            assert (scores.argmax(0) == classes[top : top + 32, left : left + 32]).mean() > 0.999


def test_coordinates_are_those_of_each_windows_centre(special: tuple[Fake, Path, dict[str, Any]]) -> None:
    fake, bundle, model = special
    city = CityMap(bundle, fake.results)
    given: list[dict[str, torch.Tensor]] = []
    handle = city.model.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    try:
        city.map_parent("kenya", 0)
    finally:
        handle.remove()
    if model is SUBSET:
        assert set(given[0]) == {"S1RTC", "S2L2A"}
        return
    expected = [centre(fake, "kenya", top, left) for top, left in itertools.product((0, 32), (0, 32))]
    assert given[0]["coords"].dtype == torch.float32
    np.testing.assert_allclose(given[0]["coords"].numpy(), expected, atol=1e-5)


def test_only_bands_that_the_model_looks_at_must_have_data(
    special: tuple[Fake, Path, dict[str, Any]], tmp_path: Path
) -> None:
    fake, bundle, _ = special
    shutil.copytree(fake.results, tmp_path / "results")
    own = Fake(tmp_path / "results", fake.parents, fake.config)
    # B11 is no part of either model; B03 is of both (RGB is made of it)
    for band, (rows, cols) in ((10, (slice(0, 64), slice(0, 64))), (2, (slice(0, 4), slice(0, 6)))):

        def change(array: np.ndarray, band: int = band, rows: slice = rows, cols: slice = cols) -> None:
            array[band, rows, cols] = 0

        overwrite(own, "S2L2A", change)
    found = CityMap(bundle, own.results).map_parent("peru")
    for classes in found.values():
        assert (classes[:4, :6] == 255).all()
        assert (classes == 255).sum() == 24


# --- maps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [None, 0, 7, 31])
def test_tiles_leave_no_seam(fake: Fake, pixelwise: CityMap, overlap: int | None) -> None:
    found = pixelwise.map_parent("chile", overlap)
    for head, classes in found.items():
        expected = by_hand(pixelwise.model, read(fake, "chile"), head).argmax(0)
        assert classes.dtype == np.uint8
        np.testing.assert_array_equal(classes, expected)


def test_without_overlap_a_map_is_its_sub_chips_side_by_side(fake: Fake, city: CityMap) -> None:
    found = city.map_parent("kenya", 0)
    images = read(fake, "kenya")
    for top in (0, 32):
        for left in (0, 32):
            cut = (slice(None), slice(top, top + 32), slice(left, left + 32))
            for head, classes in found.items():
                scores = by_hand(city.model, {name: image[cut] for name, image in images.items()}, head)
                agree = (scores.argmax(0) == classes[cut[1:]]).mean()
                # a batch of four and one alone may round differently where two classes tie
                assert agree > 0.999


def test_overlapping_tiles_are_blended_by_their_weights(fake: Fake, city: CityMap) -> None:
    images = read(fake, "peru")
    weights = tile_weights(32, 16)
    total = np.zeros((5, 64, 64))
    for top in (0, 16, 32):
        for left in (0, 16, 32):
            cut = (slice(None), slice(top, top + 32), slice(left, left + 32))
            total[cut] += by_hand(city.model, {name: i[cut] for name, i in images.items()}, "lulc") * weights
    assert (city.map_parent("peru", 16)["lulc"] == total.argmax(0)).mean() > 0.999


def test_map_is_a_geotiff_with_the_colours_of_its_classes(damaged: Fake, bundle: Path, tmp_path: Path) -> None:
    overwrite(damaged, "DEM", set_at(slice(0, 5), slice(0, 9), math.nan))
    predict_parent(parent="peru", bundle=bundle, results=damaged.results, out=tmp_path / "map")
    classes = BUNDLE_CLASSES.read(bundle / "classes.json")["labels"]
    for head, label in (("lulc", "LULC"), ("buildings", "BUILDINGS")):
        with rasterio.open(tmp_path / "map" / f"{head}.tif") as found:
            with rasterio.open(damaged.results / "parents" / "peru" / "S2L2A.tif") as parent:
                assert found.transform == parent.transform
                assert found.crs == parent.crs
            array = found.read(1)
            assert found.nodata == 255
            assert (array[:5, :9] == 255).all()
            assert (array == 255).sum() == 45
            for item in classes[label]:
                assert found.tags()[f"class_{item['id']}"] == item["name"]
                red, green, blue, _ = found.colormap(1)[item["id"]]
                assert f"#{red:02x}{green:02x}{blue:02x}" == item["color"]
            assert found.tags()["simulated"] == "True"


def test_unknown_parent_and_overlap_without_a_step_are_refused(city: CityMap) -> None:
    with pytest.raises(CityHeadsError, match="no parent 'atlantis'; there are chile, peru, kenya"):
        city.map_parent("atlantis")
    with pytest.raises(CityHeadsError, match="overlap_px 32"):
        city.map_parent("peru", 32)


@given(st.integers(1, 60), st.integers(0, 59), st.integers(0, 300))
def test_tiles_cover_everything_once_or_more_and_overlap_enough(tile: int, overlap: int, more: int) -> None:
    overlap = min(overlap, tile - 1)
    size = tile + more
    starts = tile_starts(size, tile, overlap)
    covered = np.zeros(size, int)
    for start in starts:
        assert 0 <= start <= size - tile
        covered[start : start + tile] += 1
    assert covered.min() >= 1
    assert all(one + tile - two >= overlap for one, two in itertools.pairwise(starts))
    assert len(set(starts)) == len(starts)


@given(st.integers(1, 64), st.integers(0, 63))
def test_weights_are_positive_symmetric_and_full_in_the_middle(tile: int, overlap: int) -> None:
    weights = tile_weights(tile, min(overlap, tile - 1))
    assert weights.min() > 0
    assert weights.max() <= 1
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    np.testing.assert_array_equal(weights, weights.T)
