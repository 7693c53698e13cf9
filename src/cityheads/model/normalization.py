"""From stored units to what an encoder was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Normalization"]


class Normalization(nn.Module):
    """Stored units in, standardised values out; a missing pixel becomes the mean, that is 0.

    Args:
        mean: Mean per band, in stored units.
        std: Standard deviation per band, in stored units.
        nodata: Value that marks a missing pixel; NaN always does.
        bands: Positions of the bands to take, where not all of them are wanted.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        nodata: float | None = None,
        bands: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"need as many means as positive standard deviations, not {mean} and {std}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.nodata = None if nodata is None or math.isnan(nodata) else float(nodata)
        self.bands = None if bands is None else list(bands)

    def forward(self, image: Tensor) -> Tensor:
        """Standardise (B, C, H, W), or (B, C, T, H, W), in stored units."""
        if self.bands is not None:
            image = image[:, self.bands]
        image = image.float()
        missing = image.isnan() if self.nodata is None else image.isnan() | (image == self.nodata)
        mean, std = (self.mean, self.std) if image.dim() == 4 else (self.mean[..., None], self.std[..., None])
        return ((image - mean) / std).masked_fill(missing, 0.0)
