"""What a training makes of config and dataset before it starts: everything that rebuilds the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cityheads.config import Config, ModelConfig
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.model import ModelHead, ModelInput, SavedModel
from cityheads.core.artifacts.statistics import STATISTICS, DatasetStatistics
from cityheads.core.artifacts.store import STORE_INDEX
from cityheads.core.errors import CityHeadsError
from cityheads.core.layout import DatasetFolder
from cityheads.core.modalities import COORDS, DERIVED, MODALITIES
from cityheads.dataset.store import ChipStore
from cityheads.model.backbones.base import is_prithvi
from cityheads.model.backbones.prithvi import prithvi_statistics
from cityheads.model.derived import derive

__all__ = ["make_spec"]


def make_spec(config: Config, *, run: str, seed: int, dataset: Path, fold: int = 0) -> SavedModel:
    """Give everything that rebuilds the model without the config.

    Args:
        config: With the sections ``labels``, ``heads``, ``runs`` and ``model``.
        run: Name of the run.
        seed: Its seed.
        dataset: Folder of the assembled dataset.
        fold: Fold that the dataset is of.

    Raises:
        CityHeadsError: The run is unknown, or the dataset was assembled with other classes.
    """
    if run not in config.runs:
        raise CityHeadsError(f"config key 'runs': no run '{run}'; there are {', '.join(config.runs)}")
    config = config.for_run(run)
    folder, model = DatasetFolder(dataset), config.model
    classes = CLASSES.read(folder.classes)["labels"]
    heads: dict[str, ModelHead] = {}
    for name in config.runs[run].heads:
        head = config.heads[name]
        wanted = config.labels[head.label].class_names
        if tuple(item["name"] for item in classes.get(head.label, [])) != wanted:
            raise CityHeadsError(f"{folder.classes}: label {head.label} has other classes; assemble again")
        heads[name] = {
            "label": head.label,
            "classes": [{"id": item["id"], "name": item["name"]} for item in classes[head.label]],
            "loss": head.loss,
            "weight": head.weight,
            "metric": head.metric,
            "positive_class": head.positive_class if head.metric == "iou" else None,
            "decoder": head.decoder,
            "decoder_args": dict(head.decoder_args),
            "neck": head.neck,
            "class_weights": None if head.class_weights is None else list(head.class_weights),
            "lr": head.lr,
        }
    statistics = STATISTICS.read(folder.statistics)
    modalities: dict[str, ModelInput] = {
        name: _statistics(name, model, statistics, folder) for name in model.modalities
    }
    return {
        "run": run,
        "fold": fold,
        "seed": seed,
        "backbone": model.backbone,
        "model": model.model_dump(mode="json"),
        "modalities": modalities,
        "chip_px": STORE_INDEX.read(folder.store.index)["chip_px"],
        "heads": heads,
        "simulated": statistics["simulated"],
    }


def _statistics(name: str, model: ModelConfig, statistics: DatasetStatistics, folder: DatasetFolder) -> ModelInput:
    """Give the bands of an input with the mean and standard deviation that the model is to use."""
    if name == COORDS:
        return {"bands": ["longitude", "latitude"], "mean": [0.0, 0.0], "std": [1.0, 1.0]}
    modality = DERIVED[name] if name in DERIVED else MODALITIES[name]
    mean, std = list(modality.mean), list(modality.std)
    if model.normalization == "train":
        if name in DERIVED:
            mean, std = _measure(name, ChipStore(folder.root))
        else:
            entry = statistics["modalities"].get(name, {"mean": [], "std": [0.0]})
            mean, std = entry["mean"], entry["std"]
        if min(std) <= 0:
            raise CityHeadsError(
                f"{folder.statistics}: no usable statistics of {name}; set model.normalization to pretraining"
            )
    wanted = next((bands for of, bands in model.bands.items() if of == name), modality.bands)
    starts_trained = model.normalization == "pretraining" and (model.pretrained or model.weights)
    if starts_trained and name == "S2L2A" and is_prithvi(model.backbone):
        mean, std = prithvi_statistics(model.backbone, wanted)
        return {"bands": list(wanted), "mean": mean, "std": std}
    chosen = [modality.bands.index(band) for band in wanted]
    return {"bands": list(wanted), "mean": [mean[p] for p in chosen], "std": [std[p] for p in chosen]}


def _measure(name: str, store: ChipStore) -> tuple[list[float], list[float]]:
    """Give mean and standard deviation per band of a derived modality over the training chips; (0, 0) without data."""
    source = store.array("S2L2A")
    sums = np.zeros((3, len(DERIVED[name].bands)))
    for index in store.split_indices()["train"]:
        values = derive(name, torch.from_numpy(source[index].astype(np.float32))[None])[0].double().flatten(1)
        known = values.isfinite()
        values = values.where(known, 0.0)
        sums += torch.stack([known.double().sum(1), values.sum(1), values.square().sum(1)]).numpy()
    count, mean = sums[0], sums[1] / np.maximum(sums[0], 1)
    std = np.sqrt(np.maximum(sums[2] / np.maximum(count, 1) - mean**2, 0.0))
    return mean.tolist(), std.tolist()
