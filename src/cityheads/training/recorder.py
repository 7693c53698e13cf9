"""The history of a training, its best weights, its early end, and a state to resume from."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path
from cityheads.model.backbones.tuning import merged_state
from cityheads.model.seeds import mix
from cityheads.training.task import MultiHeadTask

__all__ = ["Recorder"]

progress = logging.getLogger("cityheads.progress")

#: A state to resume from is saved at most this often; it costs about as much as a few steps.
_SAVE_EVERY_S = 60.0


class Recorder(Callback):
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
