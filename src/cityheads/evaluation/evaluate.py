"""Score one trained run on parents that it was not trained on, and calibrate it on its validation parents."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.config import Config
from cityheads.config.base import plain
from cityheads.core.artifacts.calibration import CALIBRATION, Calibration
from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.metrics import AblatedHead
from cityheads.core.artifacts.model import ModelHead, SavedModel
from cityheads.core.artifacts.readings import log_reading
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.artifacts.store import STORE_INDEX
from cityheads.core.classes import mask_layer
from cityheads.core.confusion import HeadMetric
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import canonical_json, sha256_bytes, sha256_file
from cityheads.core.layout import DatasetFolder, EvaluationFolder, RunFolder
from cityheads.core.modalities import removable
from cityheads.evaluation import ablation
from cityheads.evaluation.scores.calibration import fit_head
from cityheads.evaluation.writing import HeadResult, by_parent, confusions_of, write_evaluation

__all__ = ["Scored", "SplitChip", "evaluate", "evaluate_model", "far_order", "split_chips"]

log = logging.getLogger(__name__)

#: What is hidden from the decoders, in words.
_OCCLUDED = {
    "zeroed": "with the encoder's maps zeroed",
    "permuted": "with the encoder's maps of another sub-chip",
    "image_skip": "with the decoders' view of the image zeroed",
}

#: From images {modality: (B, C, h, w) float32, stored units} to logits {head: (B, C, h, w) float32}.
Predictor = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class SplitChip:
    """A sub-chip of a split: its place in the store, its id, its parent, and the size of its pixels in metres."""

    position: int
    chip_id: str
    parent_id: str
    resolution_m: float


@dataclass(frozen=True)
class Scored:
    """What a model says of the sub-chips, in their order.

    Attributes:
        predictions: (N, h, w) uint8 per head.
        probabilities: (N, C, h, w) float32 softmax scores per head; None where they were not asked for.
    """

    predictions: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray] | None = None


def evaluate_model(
    predict: Predictor,
    images: Mapping[str, np.ndarray],
    classes: Mapping[str, int],
    positions: Sequence[int],
    batch_size: int,
    *,
    probabilities: bool = False,
) -> Scored:
    """Predict sub-chips in fixed batches.

    Args:
        predict: The model.
        images: (N, C, h, w) per modality, in stored units and dtype; an input without pixels has less axes.
        classes: Number of classes per head.
        positions: Which of the N to predict, in this order.
        batch_size: Chips a forward pass; part of the recipe, since sums may depend on it.
        probabilities: Keep the softmax scores as well.

    Raises:
        ValueError: The model gives another shape than the images have, or other classes than a head has.
    """
    from scipy.special import softmax

    shape = next(array.shape[-2:] for array in images.values() if array.ndim >= 4)
    count = len(positions)
    predictions = {head: np.zeros((count, *shape), np.uint8) for head in classes}
    scores = {head: np.zeros((count, n, *shape), np.float32) for head, n in classes.items()} if probabilities else None
    for start in range(0, count, batch_size):
        chosen = positions[start : start + batch_size]
        batch = {name: np.stack([np.asarray(array[i], np.float32) for i in chosen]) for name, array in images.items()}
        found = predict(batch)
        here = slice(start, start + len(chosen))
        for head, n in classes.items():
            if found[head].shape != (len(chosen), n, *shape):
                raise ValueError(
                    f"head {head}: logits of shape {found[head].shape} for {len(chosen)} chips of {shape}, {n} classes"
                )
            predictions[head][here] = found[head].argmax(1)
            if scores is not None:
                scores[head][here] = softmax(found[head], axis=1)
    return Scored(predictions, scores)


def far_order(parents: Sequence[str]) -> list[int]:
    """Order sub-chips in pairs, each with one half of the split away: of another parent unless one holds over half.

    Args:
        parents: The parent of each of N sub-chips, N at least 2.

    Returns:
        Positions, an even number of them; with an odd N the first one pairs a second time.
    """
    order = sorted(range(len(parents)), key=lambda index: parents[index])
    half = len(order) // 2
    if len(order) % 2:
        order.append(order[0])
        half += 1
    return [index for pair in zip(order[:half], order[half:], strict=True) for index in pair]


def evaluate(
    config: Config,
    *,
    run: str,
    seed: int,
    dataset: Path,
    run_dir: Path,
    out: Path,
    fold: int = 0,
    split: str = "test",
    calibration: Path | None = None,
    readings: Path | None = None,
) -> None:
    """Predict a split with a trained model and write scores, confusion counts and predictions.

    On the validation split the probabilities are calibrated besides, and a threshold is chosen for the positive class
    of each head; the test split is scored with that calibration. Where the config asks for it, the test split is
    predicted once more without each modality that can be left out, and with the encoder or the image hidden from the
    decoders; that comes after the scores proper and leaves no trace in them.

    Args:
        config: Its sections ``runs``, ``train`` and ``evaluation``; all else is in the trained run.
        run: Name of the run.
        seed: Its seed.
        dataset: Folder of the assembled dataset.
        run_dir: Folder of the trained run.
        out: Folder of the evaluation; ``metrics.json`` is written last.
        fold: Fold that the dataset is of.
        split: ``val`` or ``test``.
        calibration: ``calibration.json`` of the same training's evaluation on ``val``, for ``test``; without it
            nothing is calibrated.
        readings: Log of the readings of the test split, to which a reading is added before the model sees the split.

    Raises:
        CityHeadsError: There is no such split, it is empty, the model or the calibration belongs to another run, or it
            was trained on other classes than the dataset has.
    """
    from cityheads.dataset.store import ChipStore
    from cityheads.model.arithmetic import fixed_arithmetic
    from cityheads.model.builder import load_model

    if split not in ("val", "test"):
        raise CityHeadsError(f"--split {split}: is neither val nor test")
    folder, run_folder, into = DatasetFolder(dataset), RunFolder(run_dir), EvaluationFolder(out)
    config = config.for_run(run)
    train, asked = config.train, config.evaluation
    chips = split_chips(folder, split)
    parents = [chip.parent_id for chip in chips]
    model, spec = load_model(run_folder.root)
    _check(spec, run, fold, seed, config.runs[run].heads, run_folder, folder)
    fitted = None if calibration is None or split == "val" else _read_calibration(calibration, run, fold, seed, spec)
    heads = spec["heads"]
    store = ChipStore(folder.root)
    store.verify()
    device, images = _device_of(train.accelerator), store.inputs(spec["modalities"])
    positions = [chip.position for chip in chips]
    if split == "test" and readings is not None:
        settings = canonical_json({"model": spec, "evaluation": plain(asked)})
        log_reading(
            readings,
            run=run,
            fold=fold,
            seed=seed,
            settings_sha256=sha256_bytes(settings.encode()),
            weights_sha256=sha256_file(run_folder.weights),
        )

    def score(order: Sequence[int], batch_size: int, *, probabilities: bool = False, **hidden: Any) -> Scored:
        return evaluate_model(
            _as_predictor(model, device, **hidden),
            images,
            {head: len(rule["classes"]) for head, rule in heads.items()},
            [positions[index] for index in order],
            batch_size,
            probabilities=probabilities,
        )

    everything, beside = range(len(chips)), split == "test"
    modalities = removable(spec["modalities"]) if beside and asked.modality_ablation else None
    occlusions = _occlusions(model, spec, len(chips)) if beside and asked.encoder_occlusion else None
    with fixed_arithmetic(train.threads):
        scored = score(everything, train.batch_size, probabilities=True)
        results = _results(heads, store, positions, scored)
        ablated, occluded = {}, {}
        for name in modalities or ():
            ablated[name] = _hidden(results, score(everything, train.batch_size, drop=[name]), parents)
        for name in occlusions or ():
            hide = functools.partial(score, occlude=name)
            far = name == "permuted"
            found = _far_apart(hide, parents, train.batch_size) if far else hide(everything, train.batch_size)
            occluded[name] = _hidden(results, found, parents)
    if split == "val":
        fitted = _fit(run, fold, seed, results, parents)
    metrics = write_evaluation(
        into,
        run=run,
        fold=fold,
        seed=seed,
        split=split,
        kind="run",
        simulated=spec["simulated"] or STATISTICS.read(folder.statistics)["simulated"],
        chips=[chip.chip_id for chip in chips],
        parents=parents,
        resolution_m=chips[0].resolution_m,
        heads=results,
        settings=asked,
        calibration=fitted,
        modality_ablation=None if modalities is None else ablated,
        not_ablated=None if modalities is None else _not_ablated(model.input_modalities, ablated),
        encoder_occlusion=None if occlusions is None else occluded,
    )
    for head, part in metrics["heads"].items():
        name, value = results[head].metric.title, part["metric"]["value"]
        log.info("%s/%d/%d %s: %s %s on %d %s sub-chips", run, fold, seed, head, name, _show(value), len(chips), split)
        for hidden, table in {**{f"without {key}": one for key, one in ablated.items()}, **occluded}.items():
            words = _OCCLUDED.get(hidden, hidden)
            log.info("%s/%d/%d %s %s: %s %s", run, fold, seed, head, words, name, _show(table[head]["value"]))


def _results(
    heads: Mapping[str, ModelHead], store: Any, positions: Sequence[int], scored: Scored
) -> dict[str, HeadResult]:
    """Put labels and predictions of each head side by side."""
    results = {}
    for head, rule in heads.items():
        masks = store.array(mask_layer(rule["label"]))
        results[head] = HeadResult(
            rule["label"],
            _metric(rule),
            np.stack([np.asarray(masks[position]) for position in positions]),
            scored.predictions[head],
            None if scored.probabilities is None else scored.probabilities[head],
        )
    return results


def _hidden(results: Mapping[str, HeadResult], found: Scored, parents: Sequence[str]) -> dict[str, AblatedHead]:
    """Compare the model with itself with something hidden, per head."""
    table = {}
    for head, result in results.items():
        before = by_parent(parents, confusions_of(result))
        after = by_parent(parents, confusions_of(replace(result, predictions=found.predictions[head])))
        stacked = [np.stack(list(counts.values())) for counts in (before, after)]
        table[head] = ablation.measure(stacked[0], stacked[1], result.metric, list(before))
    return table


def _occlusions(model: Any, spec: SavedModel, chips: int) -> list[str] | None:
    """Name what can be hidden from the decoders; None without an encoder."""
    if spec["model"].get("encoder") == "absent":
        return None
    there = {
        "zeroed": True,
        "permuted": chips > 1,
        "image_skip": any(head.needs_image for head in model.heads.values()),
    }
    return [name for name, possible in there.items() if possible]


def _far_apart(score: Callable[[Sequence[int], int], Scored], parents: Sequence[str], batch_size: int) -> Scored:
    """Score with the encoder's maps of a sub-chip half a split away.

    The model exchanges maps with the sub-chip half a batch further on, so batches are made of pairs: first the one of
    each pair, then the other.
    """
    pairs = far_order(parents)
    size = max(2, batch_size - batch_size % 2)
    order: list[int] = []
    for start in range(0, len(pairs), size):
        batch = pairs[start : start + size]
        order += batch[::2] + batch[1::2]
    found = score(order, size)
    first = {index: place for place, index in reversed(list(enumerate(order)))}
    back = [first[index] for index in range(len(parents))]
    return Scored({head: predicted[back] for head, predicted in found.predictions.items()})


def _fit(run: str, fold: int, seed: int, results: Mapping[str, HeadResult], parents: Sequence[str]) -> Calibration:
    """Calibrate every head on the validation split."""
    heads = {}
    for head, result in results.items():
        assert result.probabilities is not None
        metric = result.metric
        heads[head] = fit_head(result.probabilities, result.masks, parents, metric.classes, metric.positive_class)
    return {"run": run, "fold": fold, "seed": seed, "parents": list(dict.fromkeys(parents)), "heads": heads}


def _read_calibration(path: Path, run: str, fold: int, seed: int, spec: SavedModel) -> Calibration:
    """Read a calibration and see that it is this model's.

    Raises:
        CityHeadsError: It is another's.
    """
    found = CALIBRATION.read(path)
    fits = (found["run"], found["fold"], found["seed"]) == (run, fold, seed)
    classes = {head: [item["name"] for item in rule["classes"]] for head, rule in spec["heads"].items()}
    if not fits or {head: one["classes"] for head, one in found["heads"].items()} != classes:
        raise CityHeadsError(
            f"{path}: calibrates run {found['run']}, fold {found['fold']}, seed {found['seed']} with the heads "
            f"{', '.join(found['heads'])}, not {run}, {fold}, {seed}; evaluate its val split again"
        )
    return found


def _as_predictor(model: Any, device: str, drop: Sequence[str] = (), occlude: str | None = None) -> Predictor:
    """Wrap a multi-head model as numpy in, logits out.

    Args:
        model: The model.
        device: torch's device.
        drop: Modalities that the model is not to see, as if they had not been acquired.
        occlude: What to hide from the decoders; see `MultiHeadModel.forward`.
    """
    import torch

    model = model.to(device).eval()

    def predict(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            given = {name: torch.from_numpy(array).to(device) for name, array in images.items()}
            logits = model(given, drop=drop, occlude=occlude)
        return {head: value.float().cpu().numpy() for head, value in logits.items()}

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


def split_chips(dataset: DatasetFolder, split: str) -> list[SplitChip]:
    """List the kept sub-chips of a split in the order of the store.

    Raises:
        CityHeadsError: There is none, or the table does not fit the store.
    """
    path = dataset.chips
    rows = CHIPS.read(path, ("chip_id", "parent_id", "split", "kept", "store_index", "resolution_m"))
    chips = [
        SplitChip(row["store_index"], row["chip_id"], row["parent_id"], row["resolution_m"])
        for row in rows
        if row["kept"] and row["split"] == split
    ]
    if not chips:
        raise CityHeadsError(f"{path}: the {split} split has no kept sub-chip; change the splits or the quality limits")
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


def _not_ablated(inputs: Sequence[str], table: Mapping[str, Any]) -> dict[str, str]:
    only = "the only image that the model sees; without it there is nothing to look at"
    return {name: only for name in inputs if name not in table}


def _show(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
