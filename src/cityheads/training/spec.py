"""What a training makes of config and dataset before it starts: everything that rebuilds the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cityheads.config.base import plain
from cityheads.core.artifacts.classes import CLASSES
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


def make_spec(settings: dict[str, Any], *, run: str, seed: int, dataset: Path) -> dict[str, Any]:
    """Give everything that rebuilds the model without the config: the content of ``model.json``.

    Raises:
        CityHeadsError: The run is unknown, or the dataset was assembled with other classes.
    """
    if run not in settings["runs"]:
        raise CityHeadsError(f"config key 'runs': no run '{run}'; there are {', '.join(settings['runs'])}")
    files = DatasetFolder(dataset)
    classes = CLASSES.read(files.classes)["labels"]
    model = plain(settings["model"])
    heads: dict[str, Any] = {}
    for name in settings["runs"][run]["heads"]:
        head = plain(settings["heads"][name])
        label = head["label"]
        wanted = [item["name"] for item in settings["labels"][label]["classes"]]
        if [item["name"] for item in classes.get(label, [])] != wanted:
            raise CityHeadsError(f"{files.classes}: label {label} has other classes; assemble again")
        heads[name] = {
            "label": label,
            "classes": classes[label],
            "loss": head["loss"],
            "weight": head["weight"],
            "metric": head["metric"],
            **{key: head[key] for key in ("decoder", "decoder_args", "neck", "class_weights", "lr")},
        }
        weights = head["class_weights"]
        if weights is not None and len(weights) != len(wanted):
            raise CityHeadsError(f"config key 'heads.{name}.class_weights': {len(wanted)} classes need as many weights")
    statistics = STATISTICS.read(files.statistics)
    modalities = {name: _statistics(name, model, statistics, dataset) for name in model["modalities"]}
    return {
        "format": 1,
        "run": run,
        "seed": seed,
        "backbone": model["backbone"],
        "model": model,
        "modalities": modalities,
        "chip_px": STORE_INDEX.read(files.store.index)["chip_px"],
        "heads": heads,
        "simulated": statistics["simulated"],
    }


def _statistics(name: str, model: dict[str, Any], statistics: DatasetStatistics, dataset: Path) -> dict[str, Any]:
    """Give the bands of an input with the mean and standard deviation that the model is to use."""
    if name == COORDS:
        return {"bands": ["longitude", "latitude"], "mean": [0.0, 0.0], "std": [1.0, 1.0]}
    modality = DERIVED[name] if name in DERIVED else MODALITIES[name]
    mean, std = list(modality.mean), list(modality.std)
    if model["normalization"] == "train":
        if name in DERIVED:
            mean, std = _measure(name, ChipStore(dataset))
        else:
            entry = statistics["modalities"].get(name, {"mean": [], "std": [0.0]})
            mean, std = entry["mean"], entry["std"]
        if min(std) <= 0:
            raise CityHeadsError(
                f"{DatasetFolder(dataset).statistics}: no usable statistics of {name}; set model.normalization to "
                "pretraining"
            )
    wanted = model["bands"].get(name, list(modality.bands))
    for band in wanted:
        if band not in modality.bands:
            raise CityHeadsError(
                f"config key 'model.bands.{name}': no band '{band}'; there are {', '.join(modality.bands)}"
            )
    starts_trained = model["normalization"] == "pretraining" and (model["pretrained"] or model["weights"])
    if starts_trained and name == "S2L2A" and is_prithvi(model["backbone"]):
        mean, std = prithvi_statistics(model["backbone"], wanted)
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
