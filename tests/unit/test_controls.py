"""Controls: trivial predictors by numpy, boosted trees on planted datasets, and nothing of the test split in either."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dataset_fixtures
import geopandas
import numpy as np
import pytest
import shapely
from model_fixtures import LABELS, small_config, write_store
from scipy.ndimage import uniform_filter

from cityheads.cli import main
from cityheads.config import Config, write_config
from cityheads.core.artifacts.metrics import METRICS, Metrics
from cityheads.core.artifacts.predictions import PREDICTIONS
from cityheads.core.artifacts.readings import count_readings
from cityheads.core.artifacts.store import STORE_INDEX
from cityheads.core.confusion import HeadMetric
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file
from cityheads.core.grid import parent_geobox, read_parents
from cityheads.core.layout import ArchiveFolder, DatasetFolder, EvaluationFolder
from cityheads.core.raster import write_raster
from cityheads.dataset.store import ChipStore
from cityheads.evaluation.controls import boosting
from cityheads.evaluation.controls.pixels import PixelFeatures
from cityheads.evaluation.controls.trivial import by_proxy, most_frequent
from cityheads.evaluation.controls.verb import evaluate_control
from cityheads.verbs import VERBS

PROXIES = {"buildings": {"label": "LULC", "classes": ["developed"]}}
FAST = {"sample_px": 2000, "iterations": 10, "proxies": PROXIES}


def write(dataset: Path, **layers: np.ndarray) -> None:
    """Replace layers of a store."""
    files = DatasetFolder(dataset).store
    index = STORE_INDEX.read(files.index)
    for name, array in layers.items():
        np.save(files.array(name), array.astype(index["arrays"][name]["dtype"]))
        index["arrays"][name]["sha256"] = sha256_file(files.array(name))
    STORE_INDEX.write(files.index, index)


def layer(dataset: Path, name: str) -> np.ndarray:
    found: np.ndarray = np.load(DatasetFolder(dataset).store.array(name))
    return found


def make(config: Config, control: str, dataset: Path, out: Path) -> Metrics:
    own = config.for_control(control).restricted_to(VERBS["evaluate_control"].sections)
    evaluate_control(own, control=control, fold=0, dataset=dataset, out=out)
    return METRICS.read(EvaluationFolder(out).metrics)


def score(metrics: Metrics, head: str) -> float:
    value = metrics["heads"][head]["metric"]["value"]
    assert value is not None
    return value


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("dataset"), chips=24)


@pytest.fixture(scope="module")
def config() -> Config:
    return small_config(controls=FAST)


# --- without any image ------------------------------------------------------------------------------------------------


def test_the_majority_is_that_of_the_training_labels_alone() -> None:
    masks = np.array([[[2, 2, 255]], [[2, 1, 1]], [[0, 0, 0]]], np.uint8)
    assert most_frequent(masks, [0, 1], 3) == 2
    assert most_frequent(masks, [0, 1, 2], 3) == 0, "of several with the same count the first"
    assert most_frequent(masks[:, :, 2:], [0], 3) == 0, "no label at all"


def test_the_majority_control_is_scored_as_numpy_scores_it(config: Config, dataset: Path, tmp_path: Path) -> None:
    found = make(config, "majority", dataset, tmp_path)
    assert (found["run"], found["seed"], found["split"], found["kind"]) == ("majority", 0, "test", "control")
    positions = ChipStore(dataset).split_indices()
    for head, label in (("lulc", "LULC"), ("buildings", "BUILDINGS")):
        masks = layer(dataset, f"MASK_{label}")
        train, test = (masks[positions[split]] for split in ("train", "test"))
        often = int(np.bincount(train[train != 255]).argmax())
        predicted = np.load(EvaluationFolder(tmp_path).prediction(head))
        assert (predicted == often).all()
        counts = np.bincount(test[test != 255], minlength=len(LABELS[label]))
        expected = [float(counts[often] / counts.sum()) if index == often else 0.0 for index in range(len(counts))]
        assert found["heads"][head]["iou"] == pytest.approx(expected)
        assert found["heads"][head]["ignored"] == (test == 255).sum()
    assert score(found, "buildings") == 0, "an IoU of what is never predicted"


def test_a_proxy_reads_another_label_and_knows_nothing_where_that_does() -> None:
    other = np.array([[0, 1, 2, 255]], np.uint8)
    np.testing.assert_array_equal(by_proxy(other, [1, 2], 1), [[0, 1, 1, 0]])
    np.testing.assert_array_equal(by_proxy(other, [1], 0), [[1, 0, 1, 1]])


def test_the_proxy_control_is_the_other_label_against_this_one(config: Config, dataset: Path, tmp_path: Path) -> None:
    found = make(config, "proxy", dataset, tmp_path)
    assert list(found["heads"]) == ["buildings"], "land cover has no proxy"
    test = ChipStore(dataset).split_indices()["test"]
    true, developed = layer(dataset, "MASK_BUILDINGS")[test] == 1, layer(dataset, "MASK_LULC")[test] == 1
    known = layer(dataset, "MASK_BUILDINGS")[test] != 255
    expected = (true & developed & known).sum() / ((true | developed) & known).sum()
    assert score(found, "buildings") == pytest.approx(float(expected))


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_are_bands_then_means_and_spreads_of_what_has_data() -> None:
    rng = np.random.default_rng(0)
    radar = rng.normal(-12, 3, (1, 2, 9, 9)).astype(np.float32)
    optical = rng.integers(1, 4000, (1, 12, 9, 9)).astype(np.uint16)
    optical[0, :, 4, 4] = 0
    radar[0, :, :4, :4] = np.nan
    found = PixelFeatures({"S2L2A": optical, "S1RTC": radar}, (3,))(0)
    assert found.shape == (81, 14 * 3)
    assert found.dtype == np.float32
    image = found.reshape(9, 9, 3, 14)
    assert np.isnan(image[4, 4, 0, :12]).all(), "nodata of S2 is 0"
    np.testing.assert_array_equal(image[8, 8, 0, :12], optical[0, :, 8, 8])
    around = np.delete(optical[0, :, 3:6, 3:6].reshape(12, 9), 4, axis=1).astype(np.float64)
    np.testing.assert_allclose(image[4, 4, 1, :12], around.mean(1), rtol=1e-5)
    np.testing.assert_allclose(image[4, 4, 2, :12], around.std(1), rtol=1e-4)
    assert np.isnan(image[1, 1, 1:, 12:]).all(), "no radar anywhere near"
    corner = radar[0, :, [8, 7, 8, 7], [8, 8, 7, 7]]
    mirrored = np.average(corner, axis=0, weights=[1, 2, 2, 4])
    np.testing.assert_allclose(image[8, 8, 1, 12:], mirrored, rtol=1e-5)


def test_a_window_larger_than_a_sub_chip_is_refused() -> None:
    with pytest.raises(CityHeadsError, match=r"controls\.windows_px.*11 px is more than the 9 px"):
        PixelFeatures({"DEM": np.zeros((1, 1, 9, 9), np.float32)}, (3, 11))


# --- sampling and deciding --------------------------------------------------------------------------------------------


def test_a_sample_is_of_labelled_pixels_of_the_offered_sub_chips() -> None:
    masks = np.full((3, 20, 20), 255, np.uint8)
    masks[0, :10], masks[0, 10, :5], masks[1], masks[2] = 0, 1, 2, 1
    sample = boosting.draw_sample(masks, [0, 1], 4, 300, seed=0)
    np.testing.assert_allclose(sample.frequency, np.array([200, 5, 400, 0]) / 605)
    assert set(sample.pixels) == {0, 1}
    drawn = np.concatenate([masks[chip].ravel()[pixels] for chip, pixels in sample.pixels.items()])
    assert len(drawn) == 300
    assert set(drawn) <= {0, 1, 2}, "no pixel without a label"
    assert np.bincount(drawn)[2] == pytest.approx(200, abs=25), "each pixel is as likely as any other"
    assert all(len(np.unique(pixels)) == len(pixels) for pixels in sample.pixels.values())
    again, other = (boosting.draw_sample(masks, [0, 1], 4, 300, seed=seed) for seed in (0, 1))
    assert all((sample.pixels[chip] == again.pixels[chip]).all() for chip in (0, 1))
    assert any(not np.array_equal(sample.pixels[chip], other.pixels[chip]) for chip in (0, 1))


def test_a_small_dataset_is_taken_whole() -> None:
    masks = np.array([[[0, 0, 1, 255]]], np.uint8)
    assert boosting.draw_sample(masks, [0], 2, 1000, 0).pixels[0].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="no pixel has a label"):
        boosting.draw_sample(np.full((1, 2, 2), 255, np.uint8), [0], 2, 10, 0)


def test_the_decision_leans_where_validation_gains_by_it_and_only_there() -> None:
    metric = HeadMetric.of("iou", ["no", "yes"], "yes")
    model = boosting.PixelModel(None, np.array([0, 1]), np.array([0.9, 0.1]), 1)
    probabilities = np.stack([1 - np.linspace(0, 1, 101), np.linspace(0, 1, 101)], axis=1)
    threshold_of = {lean: model.decide(probabilities, lean).argmax() / 100 for lean in boosting.LEANS}
    assert threshold_of[0.0] == pytest.approx(0.51)
    assert threshold_of[1.0] == pytest.approx(0.11), "all classes taken as equally frequent"
    labels = (probabilities[:, 1] > 0.3).astype(np.uint8)
    lean = model.choose_lean([probabilities], [labels], metric)
    assert threshold_of[lean] == pytest.approx(0.3, abs=0.05)
    easy = (probabilities[:, 1] > 0.5).astype(np.uint8)
    assert model.choose_lean([probabilities], [easy], metric) == 0
    assert model.choose_lean([probabilities], [np.full(101, 255, np.uint8)], metric) == 0, "nothing to choose by"
    assert model.choose_lean([], [], metric) == 0


def test_a_head_with_one_class_in_training_predicts_it() -> None:
    masks = np.full((1, 4, 4), 1, np.uint8)
    model = boosting.fit(lambda _: np.zeros((16, 1)), masks, boosting.draw_sample(masks, [0], 3, 10, 0), 5)
    np.testing.assert_array_equal(model.probabilities(np.zeros((2, 1))), [[0, 1, 0], [0, 1, 0]])
    assert model.decide(model.probabilities(np.zeros((2, 1))), 0.5).tolist() == [1, 1]


# --- planted datasets through the verb --------------------------------------------------------------------------------


def planted(folder: Path, hidden: bool) -> Path:
    """Write a dataset whose classes one band tells: pixel by pixel, or ``hidden`` in noise but for the 7 px mean."""
    dataset = write_store(folder, chips=24)
    rng = np.random.default_rng(5)
    shape = (24, 12, 32, 32)
    smooth = uniform_filter(rng.normal(size=(24, 32, 32)), (1, 15, 15), mode="mirror")
    lulc = np.digitize(smooth, np.quantile(smooth, [1 / 3, 2 / 3])).astype(np.uint8)
    buildings = (smooth > np.quantile(smooth, 0.8)).astype(np.uint8)
    told = smooth / smooth.std() if hidden else lulc + 0.9 * buildings
    optical = rng.normal(2000, 200, shape)
    optical[:, 3] = 2000 + 300 * told + rng.normal(0, 600 if hidden else 5, told.shape)
    lulc[:, :3, :3] = 255
    write(
        dataset,
        S2L2A=np.clip(optical, 1, 9000),
        S1RTC=rng.normal(-12, 1, (24, 2, 32, 32)),
        DEM=np.zeros((24, 1, 32, 32)),
        MASK_LULC=lulc,
        MASK_BUILDINGS=buildings,
    )
    return dataset


def test_one_band_that_tells_the_classes_is_all_that_pixels_need(tmp_path: Path) -> None:
    data = planted(tmp_path / "data", hidden=False)
    found = make(small_config(controls=FAST), "pixels", data, tmp_path / "out")
    assert score(found, "lulc") > 0.97
    assert score(found, "buildings") > 0.97
    assert found["heads"]["lulc"]["ignored"] == 9 * 4, "255 is no class and no error"


def test_what_only_the_neighbourhood_tells_needs_context(tmp_path: Path) -> None:
    data = planted(tmp_path / "data", hidden=True)
    config = small_config(controls=FAST | {"sample_px": 8000, "iterations": 30})
    alone, around = (make(config, name, data, tmp_path / name) for name in ("pixels", "pixels_context"))
    for head, gain in (("lulc", 0.2), ("buildings", 0.2)):
        assert score(around, head) > score(alone, head) + gain, head


@pytest.mark.parametrize("control", ["majority", "proxy", "pixels", "pixels_context"])
def test_the_same_input_gives_the_same_bytes(config: Config, dataset: Path, tmp_path: Path, control: str) -> None:
    for name in ("one", "two"):
        make(config, control, dataset, tmp_path / name)
    one, two = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
                for f in (tmp_path / "one", tmp_path / "two"))  # fmt: skip
    assert one == two


@pytest.mark.parametrize("control", ["majority", "pixels", "pixels_context"])
def test_no_test_label_reaches_a_fit_or_a_choice(config: Config, dataset: Path, tmp_path: Path, control: str) -> None:
    """With other labels in the test split, the same is predicted of it; with others in training, something else."""
    test, train = (ChipStore(dataset).split_indices()[split] for split in ("test", "train"))

    def predicted(name: str, positions: list[int]) -> list[np.ndarray]:
        changed = shutil.copytree(dataset.parent, tmp_path / name) / dataset.name
        masks: dict[str, Any] = {f"MASK_{label}": layer(dataset, f"MASK_{label}") for label in LABELS}
        for label, array in masks.items():
            # classes change places; the majority becomes another one
            count = len(LABELS[label.removeprefix("MASK_")])
            array[positions] = np.where(array[positions] == 255, 255, (array[positions] + 1) % count)
        write(changed, **masks)
        make(config, control, changed, tmp_path / f"out_{name}")
        return [np.load(EvaluationFolder(tmp_path / f"out_{name}").prediction(head)) for head in ("lulc", "buildings")]

    honest, other_test, other_train = predicted("same", []), predicted("test", test), predicted("train", train)
    assert all(np.array_equal(a, b) for a, b in zip(honest, other_test, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(honest, other_train, strict=True))


def test_labels_without_a_class_for_training_are_an_error_in_one_line(config: Config, tmp_path: Path) -> None:
    data = write_store(tmp_path / "data", chips=12)
    masks = layer(data, "MASK_LULC")
    masks[ChipStore(data).split_indices()["train"]] = 255
    write(data, MASK_LULC=masks)
    with pytest.raises(CityHeadsError, match="head lulc, split 'train': no pixel has a label"):
        make(config, "pixels", data, tmp_path / "out")
    with pytest.raises(CityHeadsError, match="no control 'oracle' without training; there are majority, "):
        evaluate_control(config, control="oracle", fold=0, dataset=data, out=tmp_path / "out")


# --- ceiling ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> dataset_fixtures.Made:
    """Give a dataset whose archive knows the truth: a tenth of the land-cover labels are wrong, no building is."""
    root, layers = dataset_fixtures.make_dataset(tmp_path_factory.mktemp("city"))
    archive, rng = ArchiveFolder(root / "archive"), np.random.default_rng(3)
    standing, surveyed = [], []
    for parent in read_parents(root / "parents.tsv", dataset_fixtures.GRID):
        masks, box = layers[parent.parent_id], parent_geobox(parent, dataset_fixtures.GRID)
        wrong = rng.random((64, 64)) < 0.1
        masks["TRUE_LULC"] = np.where(wrong, (masks["MASK_LULC"] + 1) % 3, masks["MASK_LULC"])
        masks["TRUE_LULC"][0, 5, 5] = 255
        codes = np.where(masks["TRUE_LULC"] == 255, 0, masks["TRUE_LULC"] + 1).astype(np.uint8)
        write_raster(archive.truth.cover(parent.parent_id), codes, box, nodata=0)
        rows, columns = np.nonzero(masks["MASK_BUILDINGS"][0] == 1)
        left, top = parent.left + 10 * columns, parent.top - 10 * rows
        # no pixel centre lies on an edge, wherever rounding takes it
        standing += list(shapely.box(left + 1, top - 9, left + 9, top - 1))
        surveyed.append(shapely.box(parent.left, parent.top - 480, parent.left + 640, parent.top))
    for path, shapes in ((archive.truth.footprints, standing), (archive.boundary, surveyed)):
        geopandas.GeoDataFrame({"feature_code": ["2100"] * len(shapes)}, geometry=shapes, crs=32618).to_crs(
            4326
        ).to_file(path)
    return root, layers


def test_the_ceiling_is_the_truth_against_the_labels(city: dataset_fixtures.Made, tmp_path: Path) -> None:
    root, layers = city
    config = dataset_fixtures.CONFIG.for_control("ceiling").restricted_to(VERBS["evaluate_control"].sections)
    where = {"archive": root / "archive", "parents": root / "parents.tsv"}
    evaluate_control(config, control="ceiling", fold=0, dataset=root / "dataset/0", out=tmp_path, **where)
    found = METRICS.read(EvaluationFolder(tmp_path).metrics)
    assert found["heads"]["buildings"]["accuracy"] == 1.0, "what is true there is what the labels say"
    assert found["heads"]["lulc"]["accuracy"] == pytest.approx(0.9, abs=0.02), "a tenth of the labels is wrong"
    chips = PREDICTIONS.read(EvaluationFolder(tmp_path).predictions)["chips"]
    predicted = np.load(EvaluationFolder(tmp_path).prediction("lulc"))
    for chip, mask in zip(chips, predicted, strict=True):
        parent, place = chip.split("_")
        row, col = 16 * int(place[1]), 16 * int(place[3])
        truth = layers[parent]["TRUE_LULC"][0, row : row + 16, col : col + 16]
        np.testing.assert_array_equal(mask, np.where(truth == 255, 0, truth))


def test_an_archive_without_truth_or_a_job_without_archive_is_named(
    city: dataset_fixtures.Made, tmp_path: Path
) -> None:
    root, _ = city
    config = dataset_fixtures.CONFIG.for_control("ceiling").restricted_to(VERBS["evaluate_control"].sections)
    job = {"control": "ceiling", "fold": 0, "dataset": root / "dataset/0", "out": tmp_path / "out"}
    with pytest.raises(CityHeadsError, match="needs --archive, the simulated archive, and --parents"):
        evaluate_control(config, **job)
    with pytest.raises(CityHeadsError, match=r"truth.*: no such file; the archive has no truth"):
        evaluate_control(config, **job, archive=tmp_path, parents=root / "parents.tsv")


def test_only_the_simulated_archives_own_labels_have_a_ceiling() -> None:
    assert small_config().ceiling_heads == ("lulc", "buildings")
    assert "ceiling" not in small_config().untrained_controls, "it is no part of the floor"
    assert small_config(labels={"BUILDINGS": {"source": "roofs.gpkg"}}).ceiling_heads == ("lulc",)
    assert small_config(controls={"made": ["majority"]}).ceiling_heads == ()
    own = {"source": "roofs.gpkg", "boundary": "city.gpkg"}
    real = small_config(archive={"provider": "stac", "catalog": "c.json"}, labels={"BUILDINGS": own})
    assert real.ceiling_heads == ()
    sections = VERBS["evaluate_control"].sections
    before, after = small_config(), small_config(labels={"BUILDINGS": {"rule": "all_touched"}})
    for control, same in (("majority", True), ("pixels", True), ("ceiling", False)):
        fingerprints = {one.for_control(control).fingerprint(sections) for one in (before, after)}
        assert (len(fingerprints) == 1) == same, control


# --- config -----------------------------------------------------------------------------------------------------------


def test_controls_that_can_be_made_are_made() -> None:
    default = small_config()
    assert default.untrained_controls == ("majority", "pixels", "pixels_context")
    assert small_config(controls=FAST).untrained_controls == ("majority", "proxy", "pixels", "pixels_context")
    assert list(default.trained_controls) == ["no_encoder", "frozen_encoder"], "random weights need no other control"
    pretrained = small_config(model={"weights": "encoder.pt"}, seeds=[4, 5])
    assert list(pretrained.trained_controls) == ["no_encoder", "frozen_encoder", "random_encoder"]
    assert pretrained.control_seeds == (4,)
    assert small_config(seeds=[4, 5], controls={"seeds": [5, 6]}).control_seeds == (5, 6)
    model = pretrained.for_run("random_encoder").model
    assert (model.pretrained, model.weights, model.encoder) == (False, None, "trained")
    assert pretrained.for_run("no_encoder").model.encoder == "absent"
    assert list(small_config(model={"encoder": "frozen"}).trained_controls) == ["no_encoder"]
    assert small_config(model={"encoder": "absent"}).trained_controls == {}
    none = small_config(controls={"made": []})
    assert (none.untrained_controls, none.trained_controls) == ((), {})


def test_a_trained_control_is_the_tested_run_but_for_its_encoder() -> None:
    config = small_config(runs={"multihead": {"set": {"train.lr": 0.002, "model.encoder": "trained"}}})
    own = config.for_run("no_encoder")
    assert own.train.lr == 0.002
    assert list(own.heads) == ["lulc", "buildings"]
    assert own.model.encoder == "absent"
    assert "no_encoder" not in config.runs, "the report and the recipe list what the user asked for"
    again = own.for_run("no_encoder").restricted_to(("labels", "heads", "runs", "model", "train"))
    assert again.to_dict() == own.restricted_to(("labels", "heads", "runs", "model", "train")).to_dict()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"runs": {"no_encoder": {"heads": ["lulc"]}}}, "'runs.no_encoder': is the name of a control"),
        ({"runs": {"majority": {"heads": ["lulc"]}}}, "'runs.majority': is the name of a control"),
        ({"controls": {"made": ["majority", "pixel"]}}, "'controls.made.1': 'pixel' is none of majority, "),
        ({"controls": {"windows_px": [3, 4]}}, "'controls.windows_px': 4 has no middle pixel; take 3 or 5"),
        ({"controls": {"proxies": {"roofs": PROXIES["buildings"]}}}, "no head 'roofs'; there are lulc, buildings"),
        ({"controls": {"proxies": {"lulc": PROXIES["buildings"]}}}, "only a head of two classes"),
        (
            {"controls": {"proxies": {"buildings": {"label": "BUILDINGS", "classes": ["building"]}}}},
            "'controls.proxies.buildings.label': BUILDINGS is what the head itself learns",
        ),
        (
            {"controls": {"proxies": {"buildings": {"label": "LUCL", "classes": ["developed"]}}}},
            "no run learns a label 'LUCL'; did you mean 'LULC'?",
        ),
        (
            {"controls": {"proxies": {"buildings": {"label": "LULC", "classes": ["urban"]}}}},
            "label LULC has no class 'urban'; there are water, developed, forest",
        ),
    ],
)
def test_what_is_wrong_with_the_section_is_said_in_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(CityHeadsError) as caught:
        small_config(**changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_control_reruns_for_its_own_settings_only() -> None:
    sections = VERBS["evaluate_control"].sections
    before = small_config(controls=FAST)
    names = before.untrained_controls

    def changed(**changes: dict[str, Any]) -> list[str]:
        after = small_config(**{"controls": FAST, **changes})
        return [
            name
            for name in names
            if before.for_control(name).fingerprint(sections) != after.for_control(name).fingerprint(sections)
        ]

    assert changed(controls=FAST | {"windows_px": [3, 5]}) == ["pixels_context"]
    assert changed(controls=FAST | {"iterations": 11}) == ["pixels", "pixels_context"]
    assert changed(controls=FAST | {"proxies": {"buildings": {"label": "LULC", "classes": ["forest"]}}}) == ["proxy"]
    assert changed(controls=FAST | {"made": ["majority"]}) == []
    assert changed(train={"lr": 0.1}, heads={"lulc": {"loss": "ce", "weight": 2.0}}) == []
    assert changed(heads={"lulc": {"metric": "iou", "positive_class": "forest"}}) == [
        "majority",
        "pixels",
        "pixels_context",
    ]
    assert json.loads(before.for_control("majority").fingerprint(["controls"])) == {"controls": {}}


def test_the_command_line_gives_a_control_its_own_part_of_the_config(
    config: Config, dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_config(config, tmp_path / "config.yaml")

    def run(control: str) -> int:
        options = ["--config", tmp_path / "config.yaml", "--control", control, "--fold", 0, "--dataset", dataset]
        where = ["--out", tmp_path / control, "--readings", tmp_path / "readings.jsonl"]
        return main(["evaluate_control", *map(str, options + where)])

    assert run("proxy") == 0
    assert METRICS.read(EvaluationFolder(tmp_path / "proxy").metrics)["run"] == "proxy"
    assert count_readings(tmp_path / "readings.jsonl")["by_run"] == {"proxy": 1}
    assert run("no_encoder") == 1
    assert "no control 'no_encoder' without training here; there are majority, proxy, pixels, pix" in caplog.text
