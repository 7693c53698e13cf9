"""Metrics of an epoch, counted on the device: one meter for each head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cityheads.core.classes import IGNORE
from cityheads.core.confusion import HeadMetric

__all__ = ["Confusion", "Residuals"]


class Confusion(nn.Module):
    """Counts of (true, predicted) class pairs over the labelled pixels of an epoch, kept on the device.

    Args:
        score: The head's metric; it names the classes too.
        ignore_index: Label of pixels that do not count.
    """

    counts: Tensor

    def __init__(self, score: HeadMetric, ignore_index: int = IGNORE) -> None:
        super().__init__()
        self.score = score
        self.classes = classes = len(score.classes)
        self.metric = score.name
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

    def compute(self) -> float:
        """Give the metric; NaN where it is undefined."""
        return float(self.score(self.counts.cpu().numpy()))


class Residuals(nn.Module):
    """Sums for the coefficient of determination over the known pixels of an epoch."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.metric = "r2"
        self.register_buffer("sums", torch.zeros(4, dtype=torch.float64), persistent=False)

    def reset(self) -> None:
        """Start anew."""
        self.sums.zero_()

    def update(self, values: Tensor, target: Tensor) -> None:
        """Add a batch: (B, 1, H, W) values against (B, H, W) targets, NaN where unknown."""
        valid = target.isfinite()
        true, error = target[valid].double(), (values[:, 0][valid] - target[valid]).double()
        count = torch.as_tensor(float(true.numel()), dtype=torch.float64, device=true.device)
        self.sums += torch.stack([count, true.sum(), true.square().sum(), error.square().sum()])

    def compute(self) -> float:
        """Give one minus the share of the variance that is left; NaN where the target does not vary."""
        count, total, squares, error = self.sums.tolist()
        spread = squares - total**2 / count if count else 0.0
        return 1 - error / spread if spread > 0 else math.nan
