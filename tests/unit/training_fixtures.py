"""Records of trainings that never took place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cityheads.core.artifacts.environment import ENVIRONMENT
from cityheads.core.artifacts.training import TRAINING
from cityheads.core.layout import Layout

__all__ = ["write_training"]


def write_training(layout: Layout, run: str, seed: int, heads: Sequence[str], **changes: Any) -> None:
    """Write ``training.json`` and ``environment.json`` of fold 0; ``changes`` are of the first of them."""
    folder = layout.run(run, 0, seed)
    schedule: Any = {
        "epochs": 1, "batch_size": 8, "accumulate": 1, "lr": 0.1, "warmup_fraction": 0.1, "weight_decay": 0.01
    }  # fmt: skip
    sizes: Any = {"total": 7_580_000, "trainable": 7_580_000, "encoder": 1, "heads": dict.fromkeys(heads, 1)}
    record: Any = {
        "run": run, "fold": 0, "seed": seed, "schedule": schedule, "steps": 90, "chips_seen": 720,
        "checkpoint": "last", "kept_epoch": 0, "score": 0.5, "scores": dict.fromkeys(heads, 0.5), "settings": {},
        "candidates": 1, "chips": {}, "parameters": sizes,
    }  # fmt: skip
    TRAINING.write(folder.training, record | changes)
    ENVIRONMENT.write(
        folder.environment,
        {
            "python": "3.11", "platform": "Linux", "packages": {}, "revision": None, "device": "cpu", "threads": 1,
            "weights": None, "wall_s": 61.2, "peak_memory_mb": 1870.5, "peak_gpu_memory_mb": None, "cpu_energy_j": None,
            "inference_chips_per_s": 87.5,
        },
    )  # fmt: skip
