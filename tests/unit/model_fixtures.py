"""A small, learnable packed dataset and the config of a small model, for the tests of the model layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from config_fixtures import make_config

from cityheads.config import Config
from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.artifacts.store import STORE_INDEX
from cityheads.core.files import sha256_file
from cityheads.core.grid import SPLITS
from cityheads.core.layout import DatasetFolder

CHIP_PX = 32
LABELS = {
    "LULC": [("water", "#0000ff"), ("developed", "#ff0000"), ("forest", "#00ff00")],
    "BUILDINGS": [("not building", "#eeeeee"), ("building", "#444444")],
}


def write_store(folder: Path, *, chips: int = 24, px: int = CHIP_PX, seed: int = 0) -> Path:
    """Write a store and fold 0 of a dataset in which land cover follows B08 and B04, and buildings follow VV.

    Returns:
        The fold's folder; the store lies beside it.
    """
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 3, (chips, px // 8, px // 8))
    lulc = blocks.repeat(8, 1).repeat(8, 2)
    buildings = (lulc == 1) & (rng.random((chips, px // 4, px // 4)) < 0.5).repeat(4, 1).repeat(4, 2)
    s2 = rng.normal(1500, 80, (chips, 12, px, px))
    s2[:, 7] += np.array([-1300, 500, 2500])[lulc]
    s2[:, 3] += np.array([-1200, 900, -800])[lulc]
    s1 = rng.normal(-14, 0.5, (chips, 2, px, px)) + 8 * buildings[:, None]
    dem = rng.normal(20, 2, (chips, 1, px, px)) * (lulc != 0)[:, None]
    arrays = {
        "S2L2A": np.clip(s2, 1, 20000).astype(np.uint16),
        "S1RTC": s1.astype(np.float32),
        "DEM": dem.astype(np.float32),
        "MASK_LULC": lulc.astype(np.uint8),
        "MASK_BUILDINGS": buildings.astype(np.uint8),
    }
    arrays["S2L2A"][0, :, :4, :4] = 0
    arrays["S1RTC"][0, :, :4, :4] = np.nan
    arrays["MASK_LULC"][:, 0, 0] = 255
    arrays["MASK_BUILDINGS"][1] = 255
    files = DatasetFolder(folder / "0")
    files.store.root.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(files.store.array(name), array)
    ids = [f"P{index // 4:02d}_r{index % 4 // 2}c{index % 2}" for index in range(chips)]
    splits = ["train" if i < chips * 2 // 3 else "val" if i < chips * 5 // 6 else "test" for i in range(chips)]
    STORE_INDEX.write(
        files.store.index,
        {
            "chips": ids,
            "chip_px": px,
            "arrays": {
                name: {"dtype": a.dtype.name, "shape": list(a.shape), "sha256": sha256_file(files.store.array(name))}
                for name, a in arrays.items()
            },
        },
    )
    table = {"chip_id": [*ids, "P99_r0c0"], "split": [*splits, "train"], "kept": [True] * chips + [False]}
    table |= {"parent_id": [i[:3] for i in table["chip_id"]], "store_index": [*range(chips), -1]}
    table |= {"left": [580000.0 + 10 * px * i for i in range(chips + 1)], "top": [4.5e6] * (chips + 1)}
    table |= {name: [value] * (chips + 1) for name, value in (("epsg", 32618), ("chip_px", px), ("resolution_m", 10.0))}
    rows = len(table["chip_id"])
    table |= {"epsg": [32618] * rows, "left": [583960.0 + 10 * px * i for i in range(rows)], "top": [4507520.0] * rows}
    table |= {"chip_px": [px] * rows, "resolution_m": [10.0] * rows}
    CHIPS.write(files.chips, pa.table(table))
    CLASSES.write(
        files.classes,
        {
            "labels": {
                label: [{"id": number, "name": name} for number, (name, _) in enumerate(classes)]
                for label, classes in LABELS.items()
            }
        },
    )
    modalities = {
        name: {
            "bands": [],
            "mean": np.nanmean(arrays[name], axis=(0, 2, 3), dtype=np.float64).tolist(),
            "std": np.nanstd(arrays[name], axis=(0, 2, 3), dtype=np.float64).tolist(),
        }
        for name in ("S2L2A", "S1RTC", "DEM")
    }
    STATISTICS.write(
        files.statistics,
        {
            "modalities": modalities,
            "class_pixels": {},
            "chips": {split: splits.count(split) for split in SPLITS},
            "synthesized": {},
            "dropped": {},
            "simulated": True,
        },
    )
    return files.root


#: Both labels, both heads and their baselines, small enough to train in seconds.
_SMALL: dict[str, Any] = {
    "archive": {"provider": "simulated"},
    "labels": {
        "LULC": {
            "kind": "landcover",
            "classes": [{"name": n, "color": c, "codes": [i + 1]} for i, (n, c) in enumerate(LABELS["LULC"])],
        },
        "BUILDINGS": {
            "kind": "footprints",
            "classes": [{"name": n, "color": c} for n, c in LABELS["BUILDINGS"]],
        },
    },
    "heads": {
        "lulc": {"label": "LULC", "loss": "dice", "metric": "miou"},
        "buildings": {"label": "BUILDINGS", "loss": "dice", "metric": "iou", "positive_class": "building"},
    },
    "runs": {
        "multihead": {"heads": ["lulc", "buildings"]},
        "lulc": {"heads": ["lulc"]},
        "buildings": {"heads": ["buildings"]},
    },
    "model": {"decoder_channels": [16, 16, 8, 8]},
    "train": {"epochs": 2, "batch_size": 8, "lr": 0.001, "accelerator": "cpu", "threads": 1},
}


def small_config(**changes: dict[str, Any]) -> Config:
    """Give the config of a small model on the dataset of `write_store`; ``changes`` by section."""
    return make_config(_SMALL, **changes)
