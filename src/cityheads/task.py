"""One training step for several heads, and the metrics that choose the best epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from cityheads.config import IGNORE
from cityheads.losses import HeadLoss
from cityheads.multihead import MultiHeadModel

__all__ = ["Confusion", "MultiHeadTask", "iou_per_class", "schedule"]


class Confusion(nn.Module):
    """Counts of (true, predicted) class pairs over the labelled pixels of an epoch, kept on the device.

    Args:
        classes: Number of classes.
        ignore_index: Label of pixels that do not count.
    """

    counts: Tensor

    def __init__(self, classes: int, ignore_index: int = IGNORE) -> None:
        super().__init__()
        self.classes = classes
        self.ignore_index = ignore_index
        self.register_buffer("counts", torch.zeros(classes, classes, dtype=torch.int64), persistent=False)

    def reset(self) -> None:
        """Start anew."""
        self.counts.zero_()

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: (B, C, H, W) scores against (B, H, W) labels."""
        valid = target != self.ignore_index
        pairs = target[valid] * self.classes + logits.argmax(dim=1)[valid]
        self.counts += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)


def iou_per_class(counts: Tensor) -> Tensor:
    """Give the IoU per class of a (C, C) confusion matrix, rows true; NaN for a class without a labelled pixel."""
    counts = counts.double()
    hit, true = counts.diagonal(), counts.sum(1)
    return (hit / (counts.sum(0) + true - hit)).where(true > 0, math.nan)


def _metric(counts: Tensor, name: str) -> float:
    iou = iou_per_class(counts)
    return float(iou[-1] if name == "iou" else iou.nanmean())


def schedule(step: int, *, steps: int, warmup_fraction: float) -> float:
    """Give the factor on the learning rate: a linear rise over the warm-up, then half a cosine to 0.

    Args:
        step: Steps taken so far, from 0.
        steps: Steps of the whole training.
        warmup_fraction: Share of the steps in which the rate rises.
    """
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


class MultiHeadTask(LightningModule):
    """The weighted sum of the heads' losses; ``val/score`` is the mean of the heads' metrics.

    Args:
        model: The model.
        heads: Per head ``classes``, ``loss``, ``weight`` and ``metric`` (``miou`` or ``iou``, of the last class).
        lr: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        warmup_fraction: Share of the steps in which the learning rate rises.
    """

    def __init__(
        self,
        model: MultiHeadModel,
        heads: Mapping[str, Mapping[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        warmup_fraction: float,
    ) -> None:
        super().__init__()
        self.model = model
        self.losses = nn.ModuleDict({name: HeadLoss(head["loss"]) for name, head in heads.items()})
        self.confusion = nn.ModuleDict({name: Confusion(len(head["classes"])) for name, head in heads.items()})
        self.weights = {name: float(head["weight"]) for name, head in heads.items()}
        self.metrics = {name: str(head["metric"]) for name, head in heads.items()}
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the logits per head."""
        logits: dict[str, Tensor] = self.model(images)
        return logits

    def _confusion(self, name: str) -> Confusion:
        module = self.confusion[name]
        assert isinstance(module, Confusion)
        return module

    def _losses(self, logits: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: loss(logits[name], masks[name]) for name, loss in self.losses.items()}

    def _log_losses(self, stage: str, losses: Mapping[str, Tensor], total: Tensor, size: int) -> None:
        values = {f"{stage}/loss": total} | {f"{stage}/{name}/loss": loss for name, loss in losses.items()}
        detached = {name: value.detach() for name, value in values.items()}
        self.log_dict(detached, on_step=False, on_epoch=True, batch_size=size)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor | None:
        """Give the weighted sum of the losses, or None (no step) where no head has a label."""
        losses = self._losses(self(batch["image"]), batch["mask"])
        total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
        self._log_losses("train", losses, total, len(batch["chip_id"]))
        return total if total.requires_grad else None

    def on_validation_epoch_start(self) -> None:
        """Empty the confusion matrices."""
        for name in self.confusion:
            self._confusion(name).reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count a batch in the confusion matrices and log its losses."""
        logits = self(batch["image"])
        losses = self._losses(logits, batch["mask"])
        total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
        self._log_losses("val", losses, total, len(batch["chip_id"]))
        for name in self.confusion:
            self._confusion(name).update(logits[name], batch["mask"][name])

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the epoch; what is undefined (NaN) does not enter the score."""
        values = {name: _metric(self._confusion(name).counts, metric) for name, metric in self.metrics.items()}
        defined = [value for value in values.values() if not math.isnan(value)]
        score = sum(defined) / len(defined) if defined else math.nan
        logged = {f"val/{name}/{self.metrics[name]}": value for name, value in values.items()} | {"val/score": score}
        self.log_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in logged.items()})

    def configure_optimizers(self) -> Any:
        """Give AdamW over the trainable parameters, with warm-up and cosine by step."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            return schedule(step, steps=steps, warmup_fraction=self.warmup_fraction)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
