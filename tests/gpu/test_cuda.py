"""Training and evaluation on a CUDA device: mixed precision, compiled, and against the CPU."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_fixtures import small_config, write_store

from cityheads.config import Config
from cityheads.evaluation.evaluate import evaluate
from cityheads.model.builder import load_model
from cityheads.training.run import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = "cuda"


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("cuda") / "dataset")


def config_of(**options: Any) -> Config:
    """Give a config without dropout, whose random numbers differ between devices."""
    return small_config(model={"dropout": 0.0}, train={"epochs": 2, "accelerator": DEVICE} | options)


def run(dataset: Path, out: Path, **options: Any) -> list[dict[str, str]]:
    train(config_of(**options), run="multihead", seed=0, dataset=dataset, out=out)
    return list(csv.DictReader((out / "history.csv").open()))


@pytest.fixture(scope="module")
def full(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in full precision on the device."""
    out = tmp_path_factory.mktemp("cuda") / "full"
    run(dataset_dir, out)
    return out


def losses(history: list[dict[str, str]]) -> list[float]:
    return [float(row[name]) for row in history for name in ("train/loss", "val/loss")]


def test_half_precision_trains_about_as_full_precision_on_the_cpu(dataset_dir: Path, tmp_path: Path) -> None:
    half = run(dataset_dir, tmp_path / "half", precision="bf16-mixed")
    device = json.loads((tmp_path / "half" / "environment.json").read_text())["device"]
    assert device == torch.cuda.get_device_name()
    plain = run(dataset_dir, tmp_path / "cpu", accelerator="cpu")
    assert losses(half) == pytest.approx(losses(plain), rel=0.05)
    model, _ = load_model(tmp_path / "half")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.slow
def test_a_compiled_training_has_about_the_same_losses(dataset_dir: Path, full: Path, tmp_path: Path) -> None:
    compiled = run(dataset_dir, tmp_path, compile=True)
    plain = list(csv.DictReader((full / "history.csv").open()))
    assert losses(compiled) == pytest.approx(losses(plain), rel=0.02)


def test_both_devices_predict_nearly_the_same_pixels(dataset_dir: Path, full: Path, tmp_path: Path) -> None:
    found = {}
    for accelerator in (DEVICE, "cpu"):
        out = tmp_path / accelerator / "evaluation"
        config = config_of(accelerator=accelerator)
        evaluate(config, run="multihead", seed=0, dataset=dataset_dir, run_dir=full, out=out)
        found[accelerator] = {head: np.load(out / "predictions" / f"{head}.npy") for head in ("lulc", "buildings")}
    for head, predicted in found[DEVICE].items():
        assert (predicted == found["cpu"][head]).mean() > 0.98
