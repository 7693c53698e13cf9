"""One training: from an assembled dataset to a folder that rebuilds the model, with the history of its epochs."""

from __future__ import annotations

import csv
import io
import logging
import math
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from cityheads.core.environment import environment
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import (
    atomic_path,
    canonical_json,
    read_json,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
)
from cityheads.core.modalities import COORDS, DERIVED, MODALITIES
from cityheads.dataset.datamodule import ChipDataModule, keep_freed_memory
from cityheads.dataset.store import ChipStore
from cityheads.model.arithmetic import fixed_arithmetic
from cityheads.model.backbones import is_prithvi
from cityheads.model.backbones.prithvi import prithvi_statistics
from cityheads.model.backbones.tuning import add_low_rank, merged_state, recompute_blocks
from cityheads.model.backbones.weights import published_weights
from cityheads.model.multihead import MultiHeadModel, build_model, derive, mix, seeded
from cityheads.training.task import MultiHeadTask

__all__ = ["make_spec", "train"]

log = logging.getLogger(__name__)
progress = logging.getLogger("cityheads.progress")

#: A state to resume from is saved at most this often; it costs about as much as a few steps.
_SAVE_EVERY_S = 60.0


def train(settings: dict[str, Any], *, run: str, seed: int, dataset: Path, out: Path) -> None:
    """Train one run with one seed and write its folder; ``training.json`` is written last.

    The same settings, dataset and seed give the same bytes of weights and history (on CPU at the set number of
    threads). A killed training continues from its last saved epoch, if that was made from the same settings and
    dataset, and ends in the same bytes.

    Args:
        settings: The sections ``labels``, ``heads``, ``runs``, ``model`` and ``train``.
        run: Name of the run.
        seed: Seed of the weights, the order of the chips, the augmentation and the dropout.
        dataset: Folder of the assembled dataset.
        out: Folder of the run.

    Raises:
        CityHeadsError: The run is unknown, the dataset lacks something, or the loss is no longer finite.
    """
    began = time.perf_counter()
    dataset, out = Path(dataset), Path(out)
    options = settings["train"]
    spec = make_spec(settings, run=run, seed=seed, dataset=dataset)
    cuda = _uses_cuda(options["accelerator"])
    keep_freed_memory()
    data = ChipDataModule(
        dataset,
        list(spec["modalities"]),
        {name: head["label"] for name, head in spec["heads"].items()},
        batch_size=options["batch_size"],
        augment=options["augment"],
        jitter=options["jitter"],
        seed=seed,
        workers=options["workers"],
        pin_memory=cuda,
    )
    data.store.verify()
    for split in ("train", "val"):
        data.dataset(split)
    model = build_model(spec)
    # after the model, since importing TerraTorch sets filters of its own
    _quiet()
    if spec["model"]["lora"]:
        lora = spec["model"]["lora"]
        with seeded(seed, "lora"):
            add_low_rank(model.encoder, lora["rank"], lora["alpha"], lora["targets"])
    if options["recompute"]:
        recompute_blocks(model.encoder)
    if options["compile"]:
        # the interference of the heads is measured by going back through a graph twice
        torch._functorch.config.donated_buffer = False
        model.compile()
    task = MultiHeadTask(
        spec["heads"],
        model,
        lr=options["lr"],
        weight_decay=options["weight_decay"],
        warmup_fraction=options["warmup_fraction"],
        balance=options["balance"],
        layer_decay=options["layer_decay"],
        seed=seed,
    )
    work = out / ".work"
    identity = sha256_bytes(canonical_json([spec, options, data.store.index, data.indices]).encode())
    resume = _prepare(out, work, identity)
    recorder = _Recorder(f"{run}/{seed}", seed, options["epochs"], options["patience"], work)
    trainer = Trainer(
        accelerator="cuda" if cuda else "cpu",
        devices=1,
        precision=options["precision"],
        accumulate_grad_batches=options["accumulate"],
        max_epochs=options["epochs"],
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
    with fixed_arithmetic(options["threads"]):
        trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    _write(out, spec, model, recorder, data, options, trainer, began)
    shutil.rmtree(work)


def make_spec(settings: dict[str, Any], *, run: str, seed: int, dataset: Path) -> dict[str, Any]:
    """Give everything that rebuilds the model without the config: the content of ``model.json``.

    Raises:
        CityHeadsError: The run is unknown, or the dataset was assembled with other classes.
    """
    if run not in settings["runs"]:
        raise CityHeadsError(f"config key 'runs': no run '{run}'; there are {', '.join(settings['runs'])}")
    classes = read_json(dataset / "classes.json")
    model = settings["model"]
    heads: dict[str, Any] = {}
    for name in settings["runs"][run]["heads"]:
        head = settings["heads"][name]
        label = head["label"]
        wanted = [item["name"] for item in settings["labels"][label]["classes"]]
        if [item["name"] for item in classes.get(label, [])] != wanted:
            raise CityHeadsError(f"{dataset / 'classes.json'}: label {label} has other classes; assemble again")
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
    statistics = read_json(dataset / "statistics.json")
    modalities = {name: _statistics(name, model, statistics, dataset) for name in model["modalities"]}
    return {
        "format": 1,
        "run": run,
        "seed": seed,
        "backbone": model["backbone"],
        "model": model,
        "modalities": modalities,
        "chip_px": read_json(dataset / "store" / "index.json")["chip_px"],
        "heads": heads,
        "simulated": bool(statistics["simulated"]),
    }


def _statistics(name: str, model: dict[str, Any], statistics: dict[str, Any], dataset: Path) -> dict[str, Any]:
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
                f"{dataset / 'statistics.json'}: no usable statistics of {name}; set model.normalization to pretraining"
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


class _Recorder(Callback):
    """Keeps the history and the best weights, stops early, tells the user, and saves a state to resume from."""

    def __init__(self, title: str, seed: int, epochs: int, patience: int, work: Path) -> None:
        self.title = title
        self.seed = seed
        self.epochs = epochs
        self.patience = patience
        self.work = work
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = -1
        self.best_score = -math.inf
        self.stopped_early = False
        self._lr = math.nan
        self._started = self._saved = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed training must know."""
        names = ("rows", "best", "best_epoch", "best_score", "stopped_early")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` gave."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the dropout of this step, and note its learning rate; the history tells that of an epoch's last one.

        With a seed per step a resumed training draws what an unbroken one would, whatever else draws in between.
        """
        torch.manual_seed(mix(self.seed, trainer.global_step))
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch; validation has run by now."""
        assert isinstance(pl_module, MultiHeadTask)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch
        row = {"epoch": float(epoch), "lr": self._lr, **values}
        self.rows.append(row)
        if not math.isfinite(values.get("train/loss", 0.0)):
            raise CityHeadsError(
                f"{self.title}: the loss of epoch {epoch + 1} is not finite; lower train.lr or train in 32-true"
            )
        score = values["val/score"]
        if score > self.best_score or self.best_epoch < 0:
            self.best_epoch = epoch
            self.best_score = score if not math.isnan(score) else -math.inf
            self.best = {name: value.cpu().clone() for name, value in merged_state(pl_module.model).items()}
        if epoch - self.best_epoch >= self.patience:
            self.stopped_early = epoch + 1 < self.epochs
            trainer.should_stop = True
        self._tell(pl_module, epoch, values)
        last = trainer.should_stop or epoch + 1 == self.epochs
        if not last and time.perf_counter() - self._saved >= _SAVE_EVERY_S:
            with atomic_path(self.work / "last.ckpt") as part:
                trainer.save_checkpoint(part)
            self._saved = time.perf_counter()

    def _tell(self, task: MultiHeadTask, epoch: int, values: dict[str, float]) -> None:
        parts = [f"{self.title} epoch {epoch + 1}/{self.epochs}"]
        if "train/loss" in values:
            parts.append(f"loss {values['train/loss']:.3f}")
        for name, metric in task.metrics.items():
            parts.append(f"{name} {metric} {values[f'val/{name}/{metric}']:.3f}")
        parts.append(f" {time.perf_counter() - self._started:.1f} s")
        progress.info(" ".join(parts))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say why it ended before its time."""
        if self.stopped_early:
            progress.info(
                "%s stopped after %d epochs: no better score since epoch %d",
                self.title, len(self.rows), self.best_epoch + 1,
            )  # fmt: skip


def _prepare(out: Path, work: Path, identity: str) -> Path | None:
    """Clear what an earlier training left, but for a saved state of this very training; give that state."""
    for name in ("training.json", "environment.json", "history.csv", "model.json", "model.safetensors"):
        (out / name).unlink(missing_ok=True)
    state = work / "last.ckpt"
    marker = work / "identity"
    if state.exists() and marker.exists() and marker.read_text() == identity:
        return state
    for folder in (work, out / "tensorboard"):
        if folder.exists():
            shutil.rmtree(folder)
    write_bytes(marker, identity.encode())
    return None


def _write(
    out: Path,
    spec: dict[str, Any],
    model: MultiHeadModel,
    recorder: _Recorder,
    data: ChipDataModule,
    options: dict[str, Any],
    trainer: Trainer,
    began: float,
) -> None:
    from safetensors.torch import save

    write_bytes(out / "model.safetensors", save({name: value.contiguous() for name, value in recorder.best.items()}))
    write_json(out / "model.json", spec)
    write_bytes(out / "history.csv", _history(recorder.rows, model, spec).encode())
    score = recorder.best_score
    parameters = {
        "total": _count(model),
        "trainable": _count(model, trainable=True),
        "encoder": _count(model.encoder),
        "heads": {name: _count(head) for name, head in model.heads.items()},
    }
    write_json(
        out / "environment.json",
        {
            **environment(),
            "device": torch.cuda.get_device_name() if trainer.strategy.root_device.type == "cuda" else "cpu",
            "threads": options["threads"],
            "weights": _origin(spec),
            "wall_s": round(time.perf_counter() - began, 1),
        },
    )
    write_json(
        out / "training.json",
        {
            "format": 1,
            "run": spec["run"],
            "seed": spec["seed"],
            "best_epoch": recorder.best_epoch,
            "epochs_run": len(recorder.rows),
            "monitor": "val/score",
            "best_score": score if math.isfinite(score) else None,
            "stopped_early": recorder.stopped_early,
            "parameters": parameters,
            "chips": {split: len(indices) for split, indices in data.indices.items()},
            "steps": trainer.global_step,
        },
    )


def _origin(spec: dict[str, Any]) -> dict[str, str] | None:
    """Say where the encoder's first weights came from: the resolved revision, or the hash of a local file."""
    if spec["model"]["weights"]:
        path = Path(spec["model"]["weights"])
        return {"file": path.name, "sha256": sha256_file(path)}
    return published_weights(spec["backbone"])[1] if spec["model"]["pretrained"] else None


def _history(rows: list[dict[str, float]], model: MultiHeadModel, spec: dict[str, Any]) -> str:
    names = ["epoch", "lr", "train/loss"] + [f"train/{name}/loss" for name in spec["heads"]] + ["val/loss"]
    for name, head in spec["heads"].items():
        names += [f"val/{name}/loss", f"val/{name}/{head['metric']}"]
    names.append("val/score")
    names += [f"train/{name}/chips" for name in spec["heads"]]
    if len(spec["heads"]) > 1:
        names.append("train/gradient_cosine")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(name, row.get(name, math.nan)) for name in names])
    return buffer.getvalue()


def _cell(name: str, value: float) -> str:
    """Give a value with 7 significant digits; nothing where it is undefined."""
    if math.isnan(value):
        return ""
    return str(int(value)) if name == "epoch" else f"{value:.7g}"


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
