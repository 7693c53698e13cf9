"""Evaluation: with a stand-in model whose errors are known, and with a real one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_fixtures import LABELS, small_config, write_store
from pyarrow import parquet
from sklearn import metrics as oracle

from cityheads.core.artifacts.calibration import CALIBRATION
from cityheads.core.artifacts.metrics import METRICS
from cityheads.core.artifacts.model import MODEL
from cityheads.core.artifacts.readings import count_readings, read_readings
from cityheads.core.confusion import HeadMetric
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, sha256_file, write_json
from cityheads.core.layout import DatasetFolder
from cityheads.core.modalities import removable
from cityheads.evaluation import evaluate as evaluate_module
from cityheads.evaluation.evaluate import Scored, evaluate, evaluate_model, far_order
from cityheads.evaluation.scores.pooled import pooled_fractions
from cityheads.evaluation.writing import HeadResult, confusions_of

CLASSES = {"lulc": 3, "buildings": 2}


class Fake:
    """Sees land cover in band 8 and buildings in VV, and notes the size of every batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def classes(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            "lulc": np.digitize(images["S2L2A"][:, 7], [1100, 3000]).astype(np.uint8),
            "buildings": (images["S1RTC"][:, 0] > -10).astype(np.uint8),
        }

    def __call__(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert all(array.dtype == np.float32 for array in images.values())
        self.batches.append(len(images["S2L2A"]))
        found = self.classes(images)
        return {
            head: np.stack([3.0 * (found[head] == index) for index in range(classes)], axis=1).astype(np.float32)
            for head, classes in CLASSES.items()
        }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("dataset"), chips=48)


def arrays(dataset: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    def load(name: str) -> np.ndarray:
        return np.load(dataset.parent / "store" / f"{name}.npy", mmap_mode="r")

    images = {name: load(name) for name in ("S2L2A", "S1RTC")}
    return images, {"lulc": load("MASK_LULC"), "buildings": load("MASK_BUILDINGS")}


def test_predictions_and_counts_agree_with_sklearn(dataset: Path) -> None:
    images, masks = arrays(dataset)
    positions = [40, 1, 7, 46, 3]
    fake = Fake()
    scored = evaluate_model(fake, images, CLASSES, positions, batch_size=2, probabilities=True)
    assert fake.batches == [2, 2, 1]
    assert scored.probabilities is not None
    for head, classes in CLASSES.items():
        metric = HeadMetric.of("miou", [str(index) for index in range(classes)])
        labels = np.stack([masks[head][position] for position in positions])
        counts = confusions_of(HeadResult(head, metric, labels, scored.predictions[head]))
        for index, position in enumerate(positions):
            given = {name: array[[position]].astype(np.float32) for name, array in images.items()}
            expected = fake.classes(given)[head][0]
            np.testing.assert_array_equal(scored.predictions[head][index], expected)
            counted = labels[index] != 255
            matrix = np.zeros((classes, classes), int)
            if counted.any():
                matrix = oracle.confusion_matrix(labels[index][counted], expected[counted], labels=range(classes))
            np.testing.assert_array_equal(counts[index], matrix)
        sure = math.exp(3) / (math.exp(3) + classes - 1)
        np.testing.assert_allclose(scored.probabilities[head].max(1), sure, rtol=1e-5)
        np.testing.assert_allclose(scored.probabilities[head].sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_do_not_change_the_predictions(dataset: Path, batch_size: int) -> None:
    images, _ = arrays(dataset)
    one = evaluate_model(Fake(), images, CLASSES, range(8), 8)
    two = evaluate_model(Fake(), images, CLASSES, range(8), batch_size)
    for head in CLASSES:
        np.testing.assert_array_equal(one.predictions[head], two.predictions[head])


@pytest.mark.parametrize("cut", [np.s_[:, :, ::2], np.s_[:, :1]])
def test_model_that_gives_another_shape_is_refused(dataset: Path, cut: Any) -> None:
    images, _ = arrays(dataset)

    def small(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {head: value[cut] for head, value in Fake()(batch).items()}

    with pytest.raises(ValueError, match="logits of shape"):
        evaluate_model(small, images, CLASSES, [0, 1], 2)


# --- a modality missing, with models that are rebuilt from their folders ---------------------------------------------


def write_run(folder: Path, dataset: Path, **model: Any) -> dict[str, Any]:
    """Write an untrained multi-head run and give the settings that belong to it."""
    from safetensors.torch import save_file

    from cityheads.model.builder import build_model
    from cityheads.training.spec import make_spec

    settings = small_config(model=model)
    spec = make_spec(settings, run="multihead", seed=0, dataset=dataset)
    built = build_model(spec)
    save_file({name: value.contiguous() for name, value in built.state_dict().items()}, folder / "model.safetensors")
    MODEL.write(folder / "model.json", spec)
    return settings


def by_hand(folder: Path, dataset: Path, drop: list[str], positions: range) -> dict[str, np.ndarray]:
    """Predict with the model's own argument, all sub-chips in one batch."""
    import torch

    from cityheads.dataset.store import ChipStore
    from cityheads.model.builder import load_model

    model, spec = load_model(folder)
    images = ChipStore(dataset).inputs(spec["modalities"])
    with torch.inference_mode():
        batch = {name: torch.from_numpy(np.asarray(a[positions], np.float32)) for name, a in images.items()}
        return {head: one.argmax(1).numpy() for head, one in model(batch, drop=drop).items()}


@pytest.mark.parametrize(
    ("model", "ablated", "kept"),
    [
        ({"modalities": ["S2L2A", "S1RTC", "DEM"]}, ["S2L2A", "S1RTC", "DEM"], []),
        ({"modalities": ["DEM", "NDVI", "RGB", "coords"]}, ["DEM", "S2L2A", "coords"], []),
        ({"modalities": ["S2L2A", "NDVI"], "bands": {"S2L2A": ["B02", "B08"]}}, [], ["S2L2A"]),
        ({"modalities": ["RGB", "coords"]}, ["coords"], ["S2L2A"]),
        ({"modalities": ["S2L2A", "S1RTC"], "merge": "concat"}, ["S2L2A", "S1RTC"], []),
        ({"modalities": ["S2L2A", "DEM"], "merge": "dict"}, ["S2L2A", "DEM"], []),
        ({"modalities": ["S1RTC", "DEM", "coords"], "merge": "none"}, ["S1RTC", "DEM", "coords"], []),
    ],
)
def test_each_modality_is_ablated_that_leaves_an_image(
    dataset: Path, tmp_path: Path, model: dict[str, Any], ablated: list[str], kept: list[str]
) -> None:
    settings = write_run(tmp_path, dataset, **model)
    evaluate(settings, run="multihead", seed=0, dataset=dataset, run_dir=tmp_path, out=tmp_path / "out")
    found = read_json(tmp_path / "out" / "metrics.json")
    assert list(found["modality_ablation"]) == ablated
    assert list(found["not_ablated"]) == kept
    assert all("the only image" in why for why in found["not_ablated"].values())
    _, masks = arrays(dataset)
    for head, predicted in by_hand(tmp_path, dataset, [], range(40, 48)).items():
        scored = np.load(tmp_path / "out" / "predictions" / f"{head}.npy")
        assert (scored == predicted).mean() > 0.999, "the scores proper are those of the whole model"
    for name in ablated:
        predicted = by_hand(tmp_path, dataset, [name], range(40, 48))
        for head, classes in CLASSES.items():
            part, mask = found["modality_ablation"][name][head], masks[head][40:]
            counted = mask != 255
            matrix = oracle.confusion_matrix(mask[counted], predicted[head][counted], labels=range(classes))
            # one batch of eight or several: two logits that tie may fall either way
            assert np.abs(matrix - part["confusion"]).sum() <= 4
            matrix = np.array(part["confusion"])
            ious = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
            np.testing.assert_allclose(part["iou"], ious)
            value = ious.mean() if head == "lulc" else ious[-1]
            assert part["value"] == pytest.approx(value)
            full = found["heads"][head]["metric"]["value"]
            assert part["delta_pp"] == pytest.approx(100 * (round(value, 4) - round(full, 4)), abs=1e-6)
            low, high = part["interval_pp"]
            assert low <= part["delta_pp"] <= high
            assert np.sum([one["confusion"] for one in part["per_parent"].values()], axis=0).tolist() == matrix.tolist()
            assert list(part["per_parent"]) == found["parents"]


def test_scores_are_the_same_to_the_bit_with_and_without_the_table(
    dataset: Path, run_dir: Path, evaluation: Path, tmp_path: Path
) -> None:
    settings = small_config(evaluation={"modality_ablation": False, "encoder_occlusion": False})
    evaluate(settings, run="multihead", seed=0, dataset=dataset, run_dir=run_dir, out=tmp_path)
    for path in evaluation.rglob("*"):
        if path.is_file() and path.name != "metrics.json":
            assert (tmp_path / path.relative_to(evaluation)).read_bytes() == path.read_bytes(), path.name
    without, asked = read_json(tmp_path / "metrics.json"), read_json(evaluation / "metrics.json")
    assert without.pop("modality_ablation") is None
    assert without.pop("not_ablated") == {}
    assert set(asked.pop("modality_ablation")) == {"S2L2A", "S1RTC", "DEM"}
    asked.pop("not_ablated")
    assert without.pop("encoder_occlusion") is None
    assert set(asked.pop("encoder_occlusion")) == {"zeroed", "permuted"}, "its decoders do not see the image"
    assert json.dumps(without) == json.dumps(asked)


def test_what_can_be_ablated_is_what_the_model_says_it_was_given(dataset: Path) -> None:
    from cityheads.model.builder import build_model
    from cityheads.training.spec import make_spec

    for names in (["S2L2A", "S1RTC", "DEM"], ["NDVI", "DEM", "coords"], ["S1RTC", "RGB"]):
        spec = make_spec(small_config(model={"modalities": names}), run="lulc", seed=0, dataset=dataset)
        assert sorted(removable(names)) == sorted(build_model(spec).input_modalities)


# --- the verb, with a model that is rebuilt from its folder --------------------------------------------------------


@pytest.fixture(scope="module")
def run_dir(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an untrained multi-head run."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, dataset)
    return folder


@pytest.fixture(scope="module")
def evaluation(dataset: Path, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation")
    evaluate(small_config(), run="multihead", seed=0, dataset=dataset, run_dir=run_dir, out=out)
    return out


def test_metrics_follow_from_the_predictions(dataset: Path, evaluation: Path) -> None:
    found = read_json(evaluation / "metrics.json")
    assert (found["run"], found["seed"], found["split"], found["simulated"]) == ("multihead", 0, "test", True)
    assert found["parents"] == ["P10", "P11"]
    assert found["chips"] == 8
    chips = read_json(evaluation / "predictions" / "index.json")["chips"]
    assert chips == read_json(dataset.parent / "store" / "index.json")["chips"][40:]
    _, masks = arrays(dataset)
    for head, classes in CLASSES.items():
        part = found["heads"][head]
        predicted = np.load(evaluation / "predictions" / f"{head}.npy")
        assert predicted.dtype == np.uint8
        assert predicted.shape == (8, 32, 32)
        mask = masks[head][40:]
        true, pred = mask[mask != 255], predicted[mask != 255]
        np.testing.assert_array_equal(part["confusion"], oracle.confusion_matrix(true, pred, labels=range(classes)))
        ious = oracle.jaccard_score(true, pred, average=None, labels=range(classes), zero_division=0)
        np.testing.assert_allclose(part["iou"], ious)
        np.testing.assert_allclose(part["miou"], ious.mean())
        np.testing.assert_allclose(
            part["mf1"], oracle.f1_score(true, pred, average="macro", labels=range(classes), zero_division=0)
        )
        np.testing.assert_allclose(part["accuracy"], oracle.accuracy_score(true, pred))
        assert part["metric"]["value"] == pytest.approx(ious.mean() if head == "lulc" else ious[-1])
        low, high = part["interval"]
        assert 0 <= low <= part["metric"]["value"] <= high <= 1
        assert (part["pixels"], part["ignored"]) == (true.size, mask.size - true.size)
        assert part["classes"] == [name for name, _ in LABELS[part["label"]]]
        parents = [one["confusion"] for one in part["per_parent"].values()]
        np.testing.assert_array_equal(np.sum(parents, axis=0), part["confusion"])


def test_counts_per_chip_add_up(evaluation: Path) -> None:
    found = read_json(evaluation / "metrics.json")
    table = parquet.read_table(evaluation / "confusion.parquet").to_pylist()
    assert list(table[0]) == ["chip_id", "parent_id", "head", "true", "pred", "count"]
    assert all(row["count"] > 0 and row["chip_id"].startswith(row["parent_id"]) for row in table)
    for head, part in found["heads"].items():
        for parent, one in part["per_parent"].items():
            matrix = np.zeros(np.shape(one["confusion"]), int)
            for row in table:
                if row["head"] == head and row["parent_id"] == parent:
                    matrix[row["true"], row["pred"]] += row["count"]
            np.testing.assert_array_equal(matrix, one["confusion"])


def test_same_model_gives_the_same_bytes(dataset: Path, run_dir: Path, evaluation: Path, tmp_path: Path) -> None:
    evaluate(small_config(), run="multihead", seed=0, dataset=dataset, run_dir=run_dir, out=tmp_path)
    names = sorted(str(path.relative_to(evaluation)) for path in evaluation.rglob("*") if path.is_file())
    assert names == [
        "confusion.parquet", "metrics.json", "predictions/buildings.npy", "predictions/index.json",
        "predictions/lulc.npy", "scores.parquet",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / name).read_bytes() == (evaluation / name).read_bytes(), name


# --- the splits, the calibration between them, and what is hidden ---------------------------------------------------


@pytest.fixture(scope="module")
def validation(dataset: Path, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("validation")
    evaluate(small_config(), run="multihead", seed=0, dataset=dataset, run_dir=run_dir, out=out, split="val")
    return out


@pytest.fixture(scope="module")
def calibrated(dataset: Path, run_dir: Path, validation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluate the test split with the calibration of the validation split, and log it."""
    out = tmp_path_factory.mktemp("calibrated")
    evaluate(
        small_config(), run="multihead", seed=0, dataset=dataset, run_dir=run_dir, out=out / "evaluation",
        calibration=validation / "calibration.json", readings=out / "readings.jsonl",
    )  # fmt: skip
    return out / "evaluation"


def softmax_by_hand(dataset: Path, run_dir: Path, positions: range) -> dict[str, np.ndarray]:
    """Give the probabilities of every head, (N, C, h, w) float64, all sub-chips in one batch."""
    import torch
    from scipy.special import softmax

    from cityheads.dataset.store import ChipStore
    from cityheads.model.builder import load_model

    model, spec = load_model(run_dir)
    images = ChipStore(dataset).inputs(spec["modalities"])
    with torch.inference_mode():
        batch = {name: torch.from_numpy(np.asarray(a[positions], np.float32)) for name, a in images.items()}
        return {head: softmax(one.double().numpy(), axis=1) for head, one in model(batch).items()}


def test_validation_split_is_scored_and_calibrated_and_nothing_is_hidden(dataset: Path, validation: Path) -> None:
    found = METRICS.read(validation / "metrics.json")
    assert (found["split"], found["parents"], found["chips"]) == ("val", ["P08", "P09"], 8)
    assert (found["modality_ablation"], found["encoder_occlusion"], found["not_ablated"]) == (None, None, {})
    heads = CALIBRATION.read(validation / "calibration.json")["heads"]
    assert {head: (one["method"], one["parents"]) for head, one in heads.items()} == {
        "lulc": ("temperature", 2), "buildings": ("temperature", 2),
    }  # fmt: skip
    assert heads["lulc"]["threshold"] is None
    for head, part in found["heads"].items():
        scores = part["calibration"]
        assert scores is not None
        assert scores["calibrated"] is not None
        before, after = scores["softmax"]["nll"]["value"], scores["calibrated"]["nll"]["value"]
        assert before is not None
        assert after is not None
        assert after <= before + 1e-6, head


def test_probabilities_are_scored_before_and_after_the_calibration(
    dataset: Path, run_dir: Path, validation: Path, calibrated: Path
) -> None:
    found = METRICS.read(calibrated / "metrics.json")
    assert (calibrated / "calibration.json").read_bytes() == (validation / "calibration.json").read_bytes()
    raw, (_, masks) = softmax_by_hand(dataset, run_dir, range(40, 48)), arrays(dataset)
    for head, classes in CLASSES.items():
        temperature = CALIBRATION.read(validation / "calibration.json")["heads"][head]["temperature"]
        assert temperature is not None
        powers = raw[head] ** (1 / temperature)
        mask = np.asarray(masks[head][40:])
        counted = mask != 255
        part = found["heads"][head]["calibration"]
        assert part is not None
        assert part["temperature"] == temperature
        for name, scores in (("softmax", raw[head]), ("calibrated", powers / powers.sum(1, keepdims=True))):
            flat = scores.transpose(0, 2, 3, 1)[counted]
            expected = oracle.log_loss(mask[counted], flat, labels=range(classes))
            got = part[name]["nll"]["value"]  # type: ignore[literal-required]
            assert got == pytest.approx(expected, rel=1e-4), (head, name)
        # 32 px hold nine squares of 100 m, and no window of 500 m
        table = found["heads"][head]["application"]
        assert set(table) == {"square_100m", "circle_100m", "square_160m", "circle_160m"}
        window, name = table["square_100m"], found["heads"][head]["classes"][-1]
        shares = [(blocks(mask == classes - 1) / 100), blocks(scores[:, classes - 1]) / 100]
        full = blocks(counted) == 100
        assert window["windows"] == full.sum(), "windows with a pixel less are left out, or counted on what is labelled"
        error = (shares[1] - shares[0])[full]
        got_errors = window["classes"][name]["estimates"]["calibrated"]
        assert got_errors["bias"]["value"] == pytest.approx(error.mean(), abs=1e-6)
        assert got_errors["mae"]["value"] == pytest.approx(np.abs(error).mean(), abs=1e-6)


def blocks(values: np.ndarray) -> np.ndarray:
    """Add (N, 32, 32) up over the nine blocks of 10 px from the second pixel on."""
    return values[:, 1:31, 1:31].astype(float).reshape(-1, 3, 10, 3, 10).sum((2, 4))


def test_threshold_is_chosen_on_validation_and_used_on_test(
    dataset: Path, run_dir: Path, validation: Path, calibrated: Path
) -> None:
    found = CALIBRATION.read(validation / "calibration.json")["heads"]["buildings"]
    threshold, temperature = found["threshold"], found["temperature"]
    assert threshold is not None
    assert temperature is not None
    part = METRICS.read(calibrated / "metrics.json")["heads"]["buildings"]["positive"]
    assert part is not None
    point = part["operating_point"]
    assert point is not None
    assert (part["name"], point["threshold"]) == ("building", threshold)
    _, masks = arrays(dataset)
    mask = np.asarray(masks["buildings"][40:])
    raw = softmax_by_hand(dataset, run_dir, range(40, 48))["buildings"] ** (1 / temperature)
    score = (raw / raw.sum(1, keepdims=True))[:, 1][mask != 255]
    truth, called = mask[mask != 255], score >= threshold
    assert point["precision"]["value"] == pytest.approx(oracle.precision_score(truth, called), abs=0.01)
    assert point["recall"]["value"] == pytest.approx(oracle.recall_score(truth, called), abs=0.01)
    assert part["average_precision"]["value"] == pytest.approx(oracle.average_precision_score(truth, score), abs=0.01)
    assert part["prevalence"] == pytest.approx(truth.mean())


def test_summaries_follow_from_the_rows_of_the_table(calibrated: Path) -> None:
    found = METRICS.read(calibrated / "metrics.json")
    table = parquet.read_table(calibrated / "scores.parquet").to_pandas()
    assert list(table.columns) == [
        "run", "fold", "seed", "split", "head", "parent", "chip", "metric", "class", "scale", "value", "n",
    ]  # fmt: skip
    assert set(table.run) == {"multihead"}
    assert set(table.split) == {"test"}
    assert (table.n > 0).all()
    assert not table.duplicated(["head", "chip", "metric", "class", "scale"]).any()
    assert all(chip.startswith(parent) for chip, parent in zip(table.chip, table.parent, strict=True))

    def mean(head: str, metric: str, class_name: str | None = None, scale: str | None = None) -> float:
        kept = table[(table["head"] == head) & (table.metric == metric)]
        kept = kept[kept["class"].isna() if class_name is None else kept["class"] == class_name]
        kept = kept[kept.scale.isna() if scale is None else kept.scale == scale]
        return float((kept.value * kept.n).sum() / kept.n.sum())

    def total(head: str, metric: str, class_name: str, scale: str | None = None) -> float:
        kept = table[(table["head"] == head) & (table.metric == metric) & (table["class"] == class_name)]
        return float((kept if scale is None else kept[kept.scale == scale]).value.sum())

    for head, part in found["heads"].items():
        hits = {name: total(head, "hits", name) for name in part["classes"]}
        for name, iou in zip(part["classes"], part["iou"], strict=True):
            union = total(head, "labelled", name) + total(head, "predicted", name) - hits[name]
            assert iou == pytest.approx(hits[name] / union)
        scores = part["calibration"]
        assert scores is not None
        assert scores["softmax"]["brier"]["value"] == pytest.approx(mean(head, "softmax_brier"))
        for scale, window in part["application"].items():
            for name, one in window["classes"].items():
                for estimate, errors in one["estimates"].items():
                    assert errors["bias"]["value"] == pytest.approx(mean(head, f"{estimate}_error", name, scale))
                    squared = mean(head, f"{estimate}_squared_error", name, scale)
                    assert errors["rmse"]["value"] == pytest.approx(math.sqrt(squared))
                    spread = mean(head, "labelled_fraction_squared", name, scale)
                    spread -= mean(head, "labelled_fraction", name, scale) ** 2
                    assert errors["r2"]["value"] == pytest.approx(1 - squared / spread)
        for scale, outlines in part["boundary"].items():
            for name, line in outlines["classes"].items():
                near, every = (total(head, f"boundary_{key}", name, scale) for key in ("predicted_near", "predicted"))
                # an untrained model may predict a class nowhere
                assert line["precision"]["value"] == (pytest.approx(near / every) if every else None)


def test_fractions_of_several_evaluations_are_those_of_all_their_windows(
    calibrated: Path, validation: Path, evaluation: Path
) -> None:
    """The splits stand for two folds: other parents, the same windows."""
    test, val = (METRICS.read(folder / "metrics.json")["heads"] for folder in (calibrated, validation))
    alone = pooled_fractions([calibrated / "scores.parquet"])
    both = pooled_fractions([calibrated / "scores.parquet", validation / "scores.parquet"])
    seeds = pooled_fractions([calibrated / "scores.parquet"] * 2)
    for head, part in test.items():
        assert set(alone[head]) == set(part["application"])
        for scale, window in part["application"].items():
            other = val[head]["application"][scale]
            for name, one in window["classes"].items():
                for way, errors in one["estimates"].items():
                    for key in ("bias", "relative_bias", "mae", "rmse", "r2"):
                        mine = alone[head][scale][name]["estimates"][way][key]  # type: ignore[literal-required]
                        again = seeds[head][scale][name]["estimates"][way][key]  # type: ignore[literal-required]
                        assert mine["value"] == pytest.approx(errors[key]["value"])  # type: ignore[literal-required]
                        assert again["value"] == pytest.approx(mine["value"])
                        assert mine["interval"] == pytest.approx(errors[key]["interval"])  # type: ignore[literal-required]
                    more = other["classes"][name]["estimates"][way]["mae"]["value"]
                    weights = window["windows"], other["windows"]
                    expected = np.average([errors["mae"]["value"], more], weights=weights)  # type: ignore[list-item]
                    assert both[head][scale][name]["estimates"][way]["mae"]["value"] == pytest.approx(expected)
    # an evaluation without probabilities has no estimate from them
    mixed = pooled_fractions([calibrated / "scores.parquet", evaluation / "scores.parquet"])
    assert set(mixed["lulc"]["square_100m"]["water"]["estimates"]) == {"argmax", "softmax"}


def test_unlabelled_head_is_undefined_all_through(run_dir: Path, tmp_path: Path) -> None:
    folder = write_store(tmp_path / "dataset", chips=48)
    store = DatasetFolder(folder).store
    file = store.array("MASK_BUILDINGS")
    mask = np.load(file)
    mask[32:] = 255
    np.save(file, mask)
    index = read_json(store.index)
    index["arrays"]["MASK_BUILDINGS"]["sha256"] = sha256_file(file)
    write_json(store.index, index)
    settings = {"run": "multihead", "seed": 0, "dataset": folder, "run_dir": run_dir}
    evaluate(small_config(), **settings, out=tmp_path / "val", split="val")  # type: ignore[arg-type]
    fitted = CALIBRATION.read(tmp_path / "val" / "calibration.json")["heads"]["buildings"]
    assert (fitted["method"], fitted["threshold"], fitted["pixels"]) == (None, None, 0)
    evaluate(
        small_config(),
        **settings,
        out=tmp_path / "test",
        calibration=tmp_path / "val" / "calibration.json",  # type: ignore[arg-type]
    )
    part = METRICS.read(tmp_path / "test" / "metrics.json")["heads"]["buildings"]
    nothing = {"value": None, "interval": None}
    assert part["kappa"] == nothing
    assert part["positive"] is not None
    assert (part["positive"]["average_precision"], part["positive"]["prevalence"]) == (nothing, None)
    assert part["positive"]["operating_point"] is None
    assert part["calibration"] is not None
    assert part["calibration"]["softmax"]["nll"] == nothing
    assert part["calibration"]["calibrated"] is None
    assert all(one["windows"] == 0 for one in part["application"].values())
    assert part["boundary"]["1px"]["classes"]["building"]["f1"] == nothing
    assert part["boundary"]["1px"]["mean_f1"] is None
    table = parquet.read_table(tmp_path / "test" / "scores.parquet")
    assert set(table["head"].to_pylist()) == {"lulc"}


def test_calibration_of_another_training_is_refused(
    dataset: Path, run_dir: Path, validation: Path, tmp_path: Path
) -> None:
    other = read_json(validation / "calibration.json") | {"seed": 4}
    write_json(tmp_path / "calibration.json", other)
    with pytest.raises(CityHeadsError, match="calibrates run multihead, fold 0, seed 4"):
        evaluate(
            small_config(), run="multihead", seed=0, dataset=dataset, run_dir=run_dir, out=tmp_path / "out",
            calibration=tmp_path / "calibration.json",
        )  # fmt: skip


def test_there_are_two_splits_to_evaluate(dataset: Path, run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CityHeadsError, match="--split train: is neither val nor test"):
        evaluate(small_config(), run="multihead", seed=0, dataset=dataset, run_dir=run_dir, out=tmp_path, split="train")


def test_each_reading_of_the_test_split_is_logged_and_counted(
    dataset: Path, run_dir: Path, calibrated: Path, tmp_path: Path
) -> None:
    log = calibrated.parent / "readings.jsonl"
    (first,) = read_readings(log)
    assert (first["run"], first["fold"], first["seed"]) == ("multihead", 0, 0)
    assert first["weights_sha256"] == sha256_file(run_dir / "model.safetensors")
    again = tmp_path / "readings.jsonl"
    again.write_bytes(log.read_bytes())
    settings = {"run": "multihead", "seed": 0, "dataset": dataset, "run_dir": run_dir, "readings": again}
    evaluate(small_config(), **settings, out=tmp_path / "a")  # type: ignore[arg-type]
    other = small_config(evaluation={"modality_ablation": False, "encoder_occlusion": False})
    evaluate(other, **settings, out=tmp_path / "b")  # type: ignore[arg-type]
    evaluate(other, **settings, out=tmp_path / "c", split="val")  # type: ignore[arg-type]
    counts = count_readings(again)
    assert (counts["readings"], counts["distinct"], counts["repeated"], counts["models"]) == (3, 2, 1, 1)
    assert counts["by_run"] == {"multihead": 2}


def test_encoder_that_is_hidden_is_scored_as_the_model_predicts_without_it(
    dataset: Path, run_dir: Path, calibrated: Path
) -> None:
    import torch

    from cityheads.dataset.store import ChipStore
    from cityheads.model.builder import load_model

    table = METRICS.read(calibrated / "metrics.json")["encoder_occlusion"]
    assert table is not None
    model, spec = load_model(run_dir)
    images = ChipStore(dataset).inputs(spec["modalities"])
    _, masks = arrays(dataset)
    # two parents of four sub-chips each: half a split away is the other parent, with all eight in one batch
    orders = {"zeroed": list(range(40, 48)), "permuted": list(range(40, 48))}
    for name, order in orders.items():
        with torch.inference_mode():
            batch = {key: torch.from_numpy(np.asarray(a[order], np.float32)) for key, a in images.items()}
            logits = model(batch, occlude=name)
        for head, classes in CLASSES.items():
            mask, predicted = np.asarray(masks[head][order]), logits[head].argmax(1).numpy()
            matrix = oracle.confusion_matrix(mask[mask != 255], predicted[mask != 255], labels=range(classes))
            assert np.abs(matrix - table[name][head]["confusion"]).sum() <= 4, (name, head)


@pytest.mark.parametrize("count", [2, 3, 8, 9, 15])
@pytest.mark.parametrize("size", [2, 4, 7, 16])
def test_far_sub_chips_are_of_other_parents_and_come_back_in_order(count: int, size: int) -> None:
    parents = [f"P{index % 3}" for index in range(count)]
    given: list[tuple[int, int]] = []

    def score(order: Any, batch_size: int) -> Scored:
        for start in range(0, len(order), batch_size):
            batch = list(order[start : start + batch_size])
            # as the model does it: the maps of the sub-chip half a batch further on
            shift = len(batch) // 2
            given.extend((chip, batch[(place - shift) % len(batch)]) for place, chip in enumerate(batch))
        return Scored({"head": np.array(order)[:, None, None]})

    found = evaluate_module._far_apart(score, parents, size)
    assert found.predictions["head"].ravel().tolist() == list(range(count))
    assert all(chip != other for chip, other in given)
    if count > 3:
        assert all(parents[chip] != parents[other] for chip, other in given)
    assert sorted(far_order(parents))[-1] == count - 1
    assert len(far_order(parents)) == count + count % 2


def copy_with(folder: Path, target: Path, change: Any) -> Path:
    target.mkdir()
    (target / "model.safetensors").symlink_to(folder / "model.safetensors")
    spec = json.loads((folder / "model.json").read_text())
    change(spec)
    write_json(target / "model.json", spec)
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda spec: spec.update(seed=3), "seed 3"),
        (lambda spec: spec.update(run="lulc"), "is run lulc"),
        (lambda spec: spec["heads"]["lulc"]["classes"].reverse(), "trained on the classes forest, developed, water"),
    ],
)
def test_model_of_another_run_or_other_classes_is_refused(
    dataset: Path, run_dir: Path, tmp_path: Path, change: Any, words: str
) -> None:
    other = copy_with(run_dir, tmp_path / "run", change)
    with pytest.raises(CityHeadsError, match=words):
        evaluate(small_config(), run="multihead", seed=0, dataset=dataset, run_dir=other, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_test_split_without_chips_is_refused(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "dataset", chips=12)
    table = parquet.read_table(folder / "chips.parquet")
    keep = [split != "test" for split in table["split"].to_pylist()]
    parquet.write_table(table.filter(keep), folder / "chips.parquet")
    with pytest.raises(CityHeadsError, match="test split has no kept sub-chip"):
        evaluate_module.evaluate(
            small_config(), run="multihead", seed=0, dataset=folder, run_dir=tmp_path / "run", out=tmp_path / "out"
        )


def test_manifest_that_does_not_fit_the_store_is_refused(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "dataset", chips=12)
    index = read_json(folder.parent / "store" / "index.json")
    index["chips"].reverse()
    write_json(folder.parent / "store" / "index.json", index)
    with pytest.raises(CityHeadsError, match="does not fit store"):
        evaluate_module.evaluate(
            small_config(), run="multihead", seed=0, dataset=folder, run_dir=tmp_path / "run", out=tmp_path / "out"
        )
