"""One training: from an assembled dataset to a folder that rebuilds the model, with the history of its epochs."""

from __future__ import annotations

import logging
import math
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from cityheads.config import Config, TrainConfig
from cityheads.core.artifacts.environment import ENVIRONMENT
from cityheads.core.artifacts.history import write_history
from cityheads.core.artifacts.model import MODEL, SavedModel
from cityheads.core.artifacts.settings import SETTINGS
from cityheads.core.artifacts.training import TRAINING, Parameters
from cityheads.core.environment import environment
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import canonical_json, sha256_bytes, sha256_file, write_bytes
from cityheads.core.layout import RunFolder
from cityheads.dataset.datamodule import ChipDataModule, keep_freed_memory
from cityheads.model.arithmetic import fixed_arithmetic
from cityheads.model.backbones.tuning import add_low_rank, checkpoint_blocks
from cityheads.model.backbones.weights import published_weights
from cityheads.model.builder import build_model
from cityheads.model.multihead import MultiHeadModel
from cityheads.model.seeds import seeded, training_seed
from cityheads.training.cost import CostMeter
from cityheads.training.recorder import Recorder
from cityheads.training.spec import make_spec
from cityheads.training.task import MultiHeadTask

__all__ = ["fit", "train"]


def train(
    config: Config, *, run: str, seed: int, dataset: Path, out: Path, fold: int = 0, settings: Path | None = None
) -> None:
    """Train one run with one seed and write its folder; ``training.json`` is written last.

    The same config, dataset and seed give the same bytes of weights and history (on CPU at the set number of
    threads). A killed training continues from its last saved epoch, if that was made from the same config and
    dataset, and ends in the same bytes.

    Args:
        config: With the sections ``labels``, ``heads``, ``runs``, ``model`` and ``train``.
        run: Name of the run.
        seed: Seed of the weights, the order of the chips, the augmentation and the dropout.
        dataset: Folder of the assembled dataset.
        out: Folder of the run.
        fold: Fold that the dataset is of.
        settings: ``settings.json``, what a search chose for this run; None trains with the settings of the config.

    Raises:
        CityHeadsError: The run is unknown, the dataset lacks something, or the loss is no longer finite.
    """
    if settings is None:
        fit(config, run=run, seed=seed, dataset=dataset, out=out, fold=fold, settings={}, candidates=1)
        return
    found = SETTINGS.read(settings)
    chosen = found["chosen"]
    fit(
        config.with_settings(run, chosen),
        run=run,
        seed=seed,
        dataset=dataset,
        out=out,
        fold=fold,
        settings=chosen,
        candidates=len(found["candidates"]),
    )


def fit(
    config: Config,
    *,
    run: str,
    seed: int,
    dataset: Path,
    out: Path,
    fold: int,
    settings: Mapping[str, Any],
    candidates: int,
) -> None:
    """Train as `train` does, with a config in which the settings of a search are in force already.

    Args:
        config: As for `train`, and so are those that follow.
        run: Name of the run.
        seed: Its seed.
        dataset: Folder of the assembled dataset.
        out: Folder of the run.
        fold: Fold that the dataset is of.
        settings: The settings of the search, for the record.
        candidates: How many it tried, for the record.

    Raises:
        CityHeadsError: As for `train`.
    """
    meter = CostMeter()
    dataset, out = Path(dataset), Path(out)
    spec = make_spec(config, run=run, seed=seed, dataset=dataset, fold=fold)
    config = config.for_run(run)
    options = config.train
    own_seed = training_seed(fold, seed)
    cuda = _uses_cuda(options.accelerator)
    keep_freed_memory()
    data = ChipDataModule(
        dataset,
        list(spec["modalities"]),
        {name: head["label"] for name, head in spec["heads"].items()},
        batch_size=options.batch_size,
        augment=options.augment,
        jitter=options.jitter,
        seed=own_seed,
        workers=options.workers,
        pin_memory=cuda,
    )
    data.store.verify()
    for split in ("train", "val"):
        data.dataset(split)
    model = build_model(spec)
    # after the model, since importing TerraTorch sets filters of its own
    _quiet()
    lora = config.model.lora
    if lora is not None and config.model.encoder == "trained":
        with seeded(own_seed, "lora"):
            add_low_rank(model.encoder, lora.rank, lora.alpha, lora.targets)
    if options.gradient_checkpointing:
        checkpoint_blocks(model.encoder)
    if options.compile:
        # the interference of the heads is measured by going back through a graph twice
        torch._functorch.config.donated_buffer = False
        model.compile()
    task = MultiHeadTask(
        spec["heads"],
        model,
        lr=options.lr,
        weight_decay=options.weight_decay,
        warmup_fraction=options.warmup_fraction,
        balance=options.balance,
        layer_decay=options.layer_decay,
        auxiliary_weight=options.auxiliary_weight,
        seed=own_seed,
    )
    work = RunFolder(out).work
    identity = sha256_bytes(
        canonical_json([spec, config.fingerprint(["train"]), data.store.index, data.indices]).encode()
    )
    resume = _prepare(out, work, identity)
    recorder = Recorder(f"{run}/{fold}/{seed}", own_seed, options.epochs, options.checkpoint, work, meter)
    trainer = Trainer(
        accelerator="cuda" if cuda else "cpu",
        devices=1,
        precision=options.precision,
        accumulate_grad_batches=options.accumulate,
        max_epochs=options.epochs,
        # some CUDA kernels of the decoders (bilinear upsampling) have no deterministic version
        deterministic="warn" if cuda else True,
        benchmark=False,
        logger=TensorBoardLogger(out, name="tensorboard", version=""),
        callbacks=[recorder],
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=work,
    )
    with fixed_arithmetic(options.threads):
        trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    search = {"settings": dict(settings), "candidates": candidates}
    _write(out, spec, model, recorder, data, options, trainer, search)
    shutil.rmtree(work)


def _prepare(out: Path, work: Path, identity: str) -> Path | None:
    """Clear what an earlier training left, but for a saved state of this very training; give that state."""
    folder = RunFolder(out)
    for path in (folder.training, folder.environment, folder.history, folder.model, folder.weights):
        path.unlink(missing_ok=True)
    state = work / "last.ckpt"
    marker = work / "identity"
    if state.exists() and marker.exists() and marker.read_text() == identity:
        return state
    for left in (work, folder.tensorboard):
        if left.exists():
            shutil.rmtree(left)
    write_bytes(marker, identity.encode())
    return None


def _write(
    out: Path,
    spec: SavedModel,
    model: MultiHeadModel,
    recorder: Recorder,
    data: ChipDataModule,
    options: TrainConfig,
    trainer: Trainer,
    search: Mapping[str, Any],
) -> None:
    from safetensors.torch import save

    folder = RunFolder(out)
    write_bytes(folder.weights, save({name: value.contiguous() for name, value in recorder.kept.items()}))
    MODEL.write(folder.model, spec)
    metrics = {name: head["metric"] for name, head in spec["heads"].items()}
    write_history(folder.history, metrics, recorder.rows)
    kept = recorder.rows[recorder.kept_epoch]
    cost = recorder.meter.cost()
    parameters: Parameters = {
        "total": _count(model),
        "trainable": _count(model, trainable=True),
        "encoder": _count(model.encoder),
        "heads": {name: _count(head) for name, head in model.heads.items()},
    }
    ENVIRONMENT.write(
        folder.environment,
        {
            **environment(),
            "device": torch.cuda.get_device_name() if trainer.strategy.root_device.type == "cuda" else "cpu",
            "threads": options.threads,
            "weights": _origin(spec),
            "wall_s": round(cost["wall_s"], 1),
            "peak_memory_mb": _rounded(cost["peak_memory_mb"]),
            "peak_gpu_memory_mb": _rounded(cost["peak_gpu_memory_mb"]),
            "cpu_energy_j": _rounded(cost["cpu_energy_j"]),
            "inference_chips_per_s": round(recorder.inference_chips_per_s, 1),
        },
    )
    TRAINING.write(
        folder.training,
        {
            "run": spec["run"],
            "fold": spec["fold"],
            "seed": spec["seed"],
            "schedule": {
                "epochs": len(recorder.rows),
                "batch_size": options.batch_size,
                "accumulate": options.accumulate,
                "lr": options.lr,
                "warmup_fraction": options.warmup_fraction,
                "weight_decay": options.weight_decay,
            },
            "steps": trainer.global_step,
            "chips_seen": recorder.chips_seen,
            "checkpoint": options.checkpoint,
            "kept_epoch": recorder.kept_epoch,
            "score": _defined(kept["val/score"]),
            "scores": {name: _defined(kept[f"val/{name}/{metric}"]) for name, metric in metrics.items()},
            "settings": search["settings"],
            "candidates": search["candidates"],
            "parameters": parameters,
            "chips": {split: len(indices) for split, indices in data.indices.items()},
        },
    )


def _origin(spec: SavedModel) -> dict[str, str] | None:
    """Say where the encoder's first weights came from: the resolved revision, or the hash of a local file."""
    if spec["model"]["encoder"] == "absent":
        return None
    if spec["model"]["weights"]:
        path = Path(spec["model"]["weights"])
        return {"file": path.name, "sha256": sha256_file(path)}
    return published_weights(spec["backbone"])[1] if spec["model"]["pretrained"] else None


def _defined(score: float) -> float | None:
    return score if math.isfinite(score) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _count(module: torch.nn.Module, *, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def _uses_cuda(accelerator: str) -> bool:
    available = torch.cuda.is_available()
    if accelerator == "cuda" and not available:
        raise CityHeadsError("config key 'train.accelerator': cuda was asked for, but torch finds no CUDA device")
    return available and accelerator != "cpu"


def _quiet() -> None:
    """Turn off Lightning's remarks about things that are chosen here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*number of training batches.*",
        ".*LeafSpec.*",
        ".*in eval mode.*",
    ):
        warnings.filterwarnings("ignore", text)
