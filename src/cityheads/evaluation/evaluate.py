"""Score one run on the held-out parents: one confusion matrix per sub-chip and head, and all that follows from it."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.config import Config
from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.metrics import METRICS, AblatedHead, HeadScores
from cityheads.core.artifacts.model import ModelHead, SavedModel
from cityheads.core.artifacts.predictions import PREDICTIONS, write_confusions
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.artifacts.store import STORE_INDEX
from cityheads.core.classes import mask_layer
from cityheads.core.confusion import (
    HeadMetric,
    accuracy,
    class_iou,
    confusion_matrix,
    f1,
    mean_defined,
    or_none,
    precision,
    recall,
)
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_bytes, write_bytes
from cityheads.core.layout import DatasetFolder, EvaluationFolder, RunFolder
from cityheads.core.modalities import removable
from cityheads.evaluation import ablation, bootstrap

__all__ = ["Scored", "TestChip", "evaluate", "evaluate_model"]

log = logging.getLogger(__name__)

#: From images {modality: (B, C, h, w) float32, stored units} to classes {head: (B, h, w) uint8}.
Predictor = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class TestChip:
    """A sub-chip of the test split: its place in the store, its id and its parent."""

    __test__ = False

    position: int
    chip_id: str
    parent_id: str


@dataclass(frozen=True)
class Scored:
    """Predictions and confusion matrices of the test split, in the order of the chips.

    Attributes:
        predictions: (N, h, w) uint8 per head.
        confusions: (N, C, C) int64 per head, rows true, columns predicted.
        ignored: Number of pixels without a label, per head.
    """

    predictions: dict[str, np.ndarray]
    confusions: dict[str, np.ndarray]
    ignored: dict[str, int]


def evaluate_model(
    predict: Predictor,
    images: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    classes: Mapping[str, int],
    positions: Sequence[int],
    batch_size: int,
) -> Scored:
    """Predict sub-chips in fixed batches and count hits and errors.

    Args:
        predict: The model.
        images: (N, C, h, w) per modality, in stored units and dtype.
        masks: (N, h, w) uint8 per head, 255 = ignore.
        classes: Number of classes per head.
        positions: Which of the N to predict, in this order.
        batch_size: Chips a forward pass; part of the recipe, since sums may depend on it.

    Raises:
        ValueError: The model gives another shape or a class that a head does not have.
    """
    shape = next(iter(masks.values())).shape[1:]
    predictions = {head: np.zeros((len(positions), *shape), np.uint8) for head in masks}
    for start in range(0, len(positions), batch_size):
        chosen = positions[start : start + batch_size]
        batch = {name: np.stack([np.asarray(array[i], np.float32) for i in chosen]) for name, array in images.items()}
        found = predict(batch)
        for head, target in predictions.items():
            if found[head].shape != (len(chosen), *shape):
                raise ValueError(f"head {head}: predictions of shape {found[head].shape} for {len(chosen)} of {shape}")
            target[start : start + len(chosen)] = found[head]
    confusions = {
        head: np.stack(
            [
                confusion_matrix(np.asarray(mask[position]), predictions[head][index], classes[head])
                for index, position in enumerate(positions)
            ]
        )
        for head, mask in masks.items()
    }
    sizes = len(positions) * shape[0] * shape[1]
    return Scored(predictions, confusions, {head: sizes - int(one.sum()) for head, one in confusions.items()})


def evaluate(config: Config, *, run: str, seed: int, dataset: Path, run_dir: Path, out: Path, fold: int = 0) -> None:
    """Predict the test split with a trained model and write scores, confusion counts and predictions.

    Where the config asks for it, the split is predicted once more without each modality that can be left out; that
    comes after the scores proper and leaves no trace in them.

    Args:
        config: Its sections ``runs``, ``train`` and ``evaluation``; all else is in the trained run.
        run: Name of the run.
        seed: Its seed.
        dataset: Folder of the assembled dataset.
        run_dir: Folder of the trained run.
        out: Folder of the evaluation; ``metrics.json`` is written last.
        fold: Fold that the dataset is of.

    Raises:
        CityHeadsError: The test split is empty, the model belongs to another run, or it was trained on other classes
            than the dataset has.
    """
    from cityheads.dataset.store import ChipStore
    from cityheads.model.arithmetic import fixed_arithmetic
    from cityheads.model.builder import load_model

    folder, run_folder, into = DatasetFolder(dataset), RunFolder(run_dir), EvaluationFolder(out)
    config = config.for_run(run)
    train = config.train
    chips = _test_chips(folder)
    model, spec = load_model(run_folder.root)
    _check(spec, run, fold, seed, config.runs[run].heads, run_folder, folder)
    heads = spec["heads"]
    store = ChipStore(folder.root)
    store.verify()
    device, images = _device_of(train.accelerator), store.inputs(spec["modalities"])
    masks = {head: store.array(mask_layer(rule["label"])) for head, rule in heads.items()}

    def score(drop: Sequence[str] = ()) -> Scored:
        return evaluate_model(
            _as_predictor(model, device, drop),
            images,
            masks,
            {head: len(rule["classes"]) for head, rule in heads.items()},
            [chip.position for chip in chips],
            train.batch_size,
        )

    leave_out = removable(spec["modalities"])
    with fixed_arithmetic(train.threads):
        scored = score()
        ablated = {name: score([name]) for name in leave_out} if config.evaluation.modality_ablation else None
    for head, predicted in scored.predictions.items():
        buffer = io.BytesIO()
        np.save(buffer, predicted, allow_pickle=False)
        write_bytes(into.prediction(head), buffer.getvalue())
    ids = [chip.chip_id for chip in chips]
    PREDICTIONS.write(into.predictions, {"chips": ids})
    write_confusions(into.confusion, ids, [chip.parent_id for chip in chips], scored.confusions)
    metrics = {head: _metric(rule) for head, rule in heads.items()}
    scores = _scores(chips, scored, heads, metrics)
    table = None if ablated is None else _ablation(chips, scored, ablated, metrics)
    METRICS.write(
        into.metrics,
        {
            "run": run,
            "fold": fold,
            "seed": seed,
            "split": "test",
            "simulated": spec["simulated"] or STATISTICS.read(folder.statistics)["simulated"],
            "parents": list(dict.fromkeys(chip.parent_id for chip in chips)),
            "chips": len(chips),
            "chips_sha256": sha256_bytes("\n".join(ids).encode()),
            "confidence": bootstrap.CONFIDENCE,
            "heads": scores,
            "modality_ablation": table,
            "not_ablated": {} if table is None else _not_ablated(model.input_modalities, table),
        },
    )
    for head, part in scores.items():
        name, value = metrics[head].title, part["metric"]["value"]
        log.info("%s/%d/%d %s: %s %s on %d sub-chips", run, fold, seed, head, name, _show(value), len(chips))
        for modality, found in (table or {}).items():
            log.info(
                "%s/%d/%d %s without %s: %s %s", run, fold, seed, head, modality, name, _show(found[head]["value"])
            )


def _as_predictor(model: Any, device: str, drop: Sequence[str] = ()) -> Predictor:
    """Wrap a multi-head model as numpy in, classes out.

    Args:
        model: The model.
        device: torch's device.
        drop: Modalities that the model is not to see, as if they had not been acquired.
    """
    import torch

    model = model.to(device).eval()

    def predict(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            logits = model({name: torch.from_numpy(array).to(device) for name, array in images.items()}, drop=drop)
        return {head: value.argmax(1).to(torch.uint8).cpu().numpy() for head, value in logits.items()}

    return predict


def _device_of(accelerator: str) -> str:
    """Give torch's device for the config's ``train.accelerator``.

    Raises:
        CityHeadsError: ``cuda`` is asked for and there is none.
    """
    import torch

    if accelerator == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if accelerator == "cuda":
        raise CityHeadsError("config key 'train.accelerator': no CUDA device here; use cpu or auto")
    return "cpu"


def _test_chips(dataset: DatasetFolder) -> list[TestChip]:
    """List the kept sub-chips of the test split in the order of the store."""
    path = dataset.chips
    rows = CHIPS.read(path, ("chip_id", "parent_id", "split", "kept", "store_index"))
    chips = [
        TestChip(row["store_index"], row["chip_id"], row["parent_id"])
        for row in rows
        if row["kept"] and row["split"] == "test"
    ]
    if not chips:
        raise CityHeadsError(f"{path}: the test split has no kept sub-chip; change the splits or the quality limits")
    chips.sort(key=lambda chip: chip.position)
    stored = STORE_INDEX.read(dataset.store.index)["chips"]
    if any(chip.position >= len(stored) or stored[chip.position] != chip.chip_id for chip in chips):
        raise CityHeadsError(f"{path}: does not fit store/index.json; assemble the dataset again")
    return chips


def _check(
    spec: SavedModel,
    run: str,
    fold: int,
    seed: int,
    heads: Sequence[str],
    run_dir: RunFolder,
    dataset: DatasetFolder,
) -> None:
    if (spec["run"], spec["fold"], spec["seed"]) != (run, fold, seed) or list(spec["heads"]) != list(heads):
        raise CityHeadsError(
            f"{run_dir.model}: is run {spec['run']}, fold {spec['fold']}, seed {spec['seed']}, with the heads "
            f"{', '.join(spec['heads'])}; wanted is {run}, fold {fold}, seed {seed}, with {', '.join(heads)}; "
            "train again"
        )
    tables = CLASSES.read(dataset.classes)["labels"]
    for head, rule in spec["heads"].items():
        trained, there = ([item["name"] for item in table] for table in (rule["classes"], tables[rule["label"]]))
        if trained != there:
            raise CityHeadsError(
                f"{run_dir.model}: head {head} was trained on the classes {', '.join(trained)}, but "
                f"{dataset.classes} has {', '.join(there)}; train again"
            )


def _metric(rule: ModelHead) -> HeadMetric:
    return HeadMetric.of(rule["metric"], [item["name"] for item in rule["classes"]], rule["positive_class"])


def _by_parent(chips: Sequence[TestChip], confusions: np.ndarray) -> dict[str, np.ndarray]:
    """Add the (N, C, C) counts of the sub-chips up to (C, C) per parent, in the order of the store."""
    parents = list(dict.fromkeys(chip.parent_id for chip in chips))
    of_parent = np.array([parents.index(chip.parent_id) for chip in chips])
    return {parent: confusions[of_parent == index].sum(0) for index, parent in enumerate(parents)}


def _scores(
    chips: Sequence[TestChip], scored: Scored, heads: Mapping[str, ModelHead], metrics: Mapping[str, HeadMetric]
) -> dict[str, HeadScores]:
    """Score each head on its pooled confusion matrix, with an interval over the choice of test parents."""
    found: dict[str, HeadScores] = {}
    for head, metric in metrics.items():
        by_parent = _by_parent(chips, scored.confusions[head])
        per_parent = np.stack(list(by_parent.values()))
        draws = bootstrap.resample_counts(len(per_parent), bootstrap.RESAMPLES, bootstrap.SEED).astype(np.float64)
        pooled = per_parent.sum(0)
        value, ious, f1s = float(metric(pooled)), class_iou(pooled), f1(pooled)
        resampled = metric(np.tensordot(draws, per_parent.astype(np.float64), axes=(1, 0)))
        variance = bootstrap.parent_variance(resampled, len(per_parent))
        between = bootstrap.interval(value, variance, len(per_parent) - 1, bootstrap.CONFIDENCE, (0.0, 1.0))
        found[head] = {
            "label": heads[head]["label"],
            "classes": list(metric.classes),
            "confusion": pooled.tolist(),
            "iou": or_none(ious),
            "miou": or_none(mean_defined(ious)),
            "f1": or_none(f1s),
            "mf1": or_none(mean_defined(f1s)),
            "precision": or_none(precision(pooled)),
            "recall": or_none(recall(pooled)),
            "accuracy": or_none(accuracy(pooled)),
            "pixels": int(pooled.sum()),
            "ignored": scored.ignored[head],
            "metric": {"name": metric.name, "positive_class": metric.positive_class, "value": or_none(value)},
            "interval": None if between is None else list(between),
            "per_parent": {
                parent: {"confusion": counts.tolist(), "value": or_none(metric(counts))}
                for parent, counts in by_parent.items()
            },
        }
    return found


def _ablation(
    chips: Sequence[TestChip], full: Scored, ablated: Mapping[str, Scored], metrics: Mapping[str, HeadMetric]
) -> dict[str, dict[str, AblatedHead]]:
    """Compare the model with itself without each of its modalities: per modality and head."""
    table: dict[str, dict[str, AblatedHead]] = {name: {} for name in ablated}
    for head, metric in metrics.items():
        per_parent = _by_parent(chips, full.confusions[head])
        before = np.stack(list(per_parent.values()))
        for name, scored in ablated.items():
            after = np.stack(list(_by_parent(chips, scored.confusions[head]).values()))
            table[name][head] = ablation.measure(before, after, metric, list(per_parent))
    return table


def _not_ablated(inputs: Sequence[str], table: Mapping[str, Any]) -> dict[str, str]:
    only = "the only image that the model sees; without it there is nothing to look at"
    return {name: only for name in inputs if name not in table}


def _show(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
