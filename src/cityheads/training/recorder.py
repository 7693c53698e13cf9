"""The history of a training, the weights that are kept, and a state to resume from."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
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
from cityheads.training.cost import CostMeter
from cityheads.training.task import MultiHeadTask

__all__ = ["Recorder"]

progress = logging.getLogger("cityheads.progress")

#: A state to resume from is saved at most this often; it costs about as much as a few steps.
_SAVE_EVERY_S = 60.0

#: What of a recorder belongs to that state.
_STATE = ("rows", "kept", "kept_epoch", "chips_seen")


class Recorder(Callback):
    """Keeps the history and the weights of one epoch, tells the user, and saves a state to resume from.

    Args:
        title: What the training is called, for messages.
        seed: Its seed.
        epochs: Its length.
        checkpoint: Epoch whose weights are kept: ``last``, or ``best`` by validation score (the first of equals).
        work: Folder for the state to resume from.
        meter: Measures what the training costs.
    """

    def __init__(self, title: str, seed: int, epochs: int, checkpoint: str, work: Path, meter: CostMeter) -> None:
        self.title = title
        self.seed = seed
        self.epochs = epochs
        self.checkpoint = checkpoint
        self.work = work
        self.meter = meter
        self.rows: list[dict[str, float]] = []
        self.kept: dict[str, Tensor] = {}
        self.kept_epoch = -1
        self.chips_seen = 0
        self.inference_chips_per_s = 0.0
        self._lr = math.nan
        self._validated, self._validation = 0, 0.0
        self._started = self._saved = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed training must know."""
        return {name: getattr(self, name) for name in _STATE} | {"cost": self.meter.cost()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` gave."""
        for name in _STATE:
            setattr(self, name, state_dict[name])
        self.meter.earlier = state_dict["cost"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the dropout of this step, and note its learning rate; the history tells that of an epoch's last one.

        With a seed per step a resumed training draws what an unbroken one would, whatever else draws in between.
        """
        torch.manual_seed(mix(self.seed, trainer.global_step))
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the chips and the energy."""
        self.meter.count()
        self.chips_seen += len(next(iter(batch["image"].values())))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the validation."""
        self._validated, self._validation = 0, time.perf_counter()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count the chips of the validation."""
        self._validated += len(next(iter(batch["image"].values())))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell how fast the validation was."""
        rate = self._validated / (time.perf_counter() - self._validation)
        self.inference_chips_per_s = max(self.inference_chips_per_s, rate)

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
        last = epoch + 1 == self.epochs
        if self._better(row) if self.checkpoint == "best" else last:
            self.kept_epoch = epoch
            self.kept = {name: value.cpu().clone() for name, value in merged_state(pl_module.model).items()}
        self._tell(pl_module, epoch, values)
        if not last and time.perf_counter() - self._saved >= _SAVE_EVERY_S:
            with atomic_path(self.work / "last.ckpt") as part:
                trainer.save_checkpoint(part)
            self._saved = time.perf_counter()

    def _better(self, row: Mapping[str, float]) -> bool:
        """Say whether an epoch is better than the one that is kept; an undefined score is worse than any other."""
        if self.kept_epoch < 0:
            return True
        best, score = self.rows[self.kept_epoch]["val/score"], row["val/score"]
        return score > best or (math.isnan(best) and not math.isnan(score))

    def _tell(self, task: MultiHeadTask, epoch: int, values: dict[str, float]) -> None:
        parts = [f"{self.title} epoch {epoch + 1}/{self.epochs}"]
        if "train/loss" in values:
            parts.append(f"loss {values['train/loss']:.3f}")
        for name, metric in task.metrics.items():
            parts.append(f"{name} {metric} {values[f'val/{name}/{metric}']:.3f}")
        parts.append(f" {time.perf_counter() - self._started:.1f} s")
        progress.info(" ".join(parts))
