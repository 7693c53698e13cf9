"""Losses over the labelled pixels of a batch; a batch without any gives zero and no gradient.

Why not the losses of TerraTorch and segmentation-models-pytorch as they are (TerraTorch 1.2.11, smp 0.5 and 0.6):

* cross-entropy and focal give NaN when every pixel is ignored;
* smp's multi-class Dice counts a class that is absent from the batch as a perfect 0 in the mean, so that the loss of a
  batch depends on how many classes it happens to hold;
* TerraTorch's ``dice`` drops ``class_weights`` without a word, and its ``focal`` is divided by the number of pixels
  twice, which leaves about 1e-5 at 256 px.

``torch.nn.functional.cross_entropy`` and smp's Lovász-Softmax are right on a batch with labels, and are used for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cityheads.core.classes import IGNORE

__all__ = ["LOSSES", "REGRESSION_LOSSES", "HeadLoss", "RegressionLoss", "dice_loss", "focal_loss", "fraction_loss"]

#: Names that a head's ``loss`` may take.
LOSSES = ("dice", "ce", "dice_ce", "focal", "lovasz")

#: Keeps Dice finite where a class has no probability mass; far below one pixel.
_EPS = 1e-6

#: Focusing parameter of the focal loss: the value that Lin et al. 2017 ("Focal Loss for Dense Object Detection",
#: arXiv:1708.02002, section 5.1) found best.
_GAMMA = 2.0


def dice_loss(logits: Tensor, target: Tensor, *, weight: Tensor | None = None, ignore_index: int = IGNORE) -> Tensor:
    """Give one minus the soft Dice coefficient, averaged over the classes that the batch's labels hold.

    The sums run over all labelled pixels of the batch (Milletari et al. 2016, "V-Net", arXiv:1606.04797, here with
    plain instead of squared probabilities), so a chip without a class does not dilute that class. A class that no
    label of the batch shows has no Dice coefficient and is left out; predicting it still costs the classes it takes
    pixels from.

    Args:
        logits: (B, C, H, W) scores before the softmax.
        target: (B, H, W) int64 class ids, ``ignore_index`` where unknown.
        weight: (C,) weight of each class in the average; None for equal weights.
        ignore_index: Label of pixels that do not count.

    Returns:
        Scalar in [0, 1]; at least one pixel must be labelled.
    """
    valid = (target != ignore_index).unsqueeze(1)
    probability = logits.float().softmax(dim=1) * valid
    truth = torch.zeros_like(probability).scatter_(1, target.unsqueeze(1).where(valid, 0), valid.float())
    hit = (probability * truth).sum(dim=(0, 2, 3))
    size = truth.sum(dim=(0, 2, 3))
    dice = (2 * hit + _EPS) / (probability.sum(dim=(0, 2, 3)) + size + _EPS)
    share = (size > 0).float() if weight is None else (size > 0) * weight
    return ((1 - dice) * share).sum() / share.sum()


def fraction_loss(logits: Tensor, target: Tensor, *, ignore_index: int = IGNORE) -> Tensor:
    """Give the cross-entropy between class scores on a coarse grid and the share of each class in its cells.

    Deep supervision (Lee et al. 2015, "Deeply-Supervised Nets", arXiv:1409.5185) of maps that are coarser than the
    labels: a cell of 160 m holds several classes, and what it can be asked for is how much of each.

    Args:
        logits: (B, C, h, w) scores before the softmax.
        target: (B, H, W) int64 class ids, ``ignore_index`` where unknown.
        ignore_index: Label of pixels that do not count.

    Returns:
        Scalar: the mean over the labelled pixels, or 0 without a gradient where there is none.
    """
    known = target != ignore_index
    truth = F.one_hot(target.where(known, 0), logits.shape[1]).permute(0, 3, 1, 2) * known.unsqueeze(1)
    # the share among all pixels of a cell, so that a cell counts by its labelled pixels
    share = F.adaptive_avg_pool2d(truth.float(), (logits.shape[-2], logits.shape[-1]))
    total = share.sum()
    if not total:
        return logits.new_zeros(())
    return -(share * logits.float().log_softmax(dim=1)).sum() / total


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    gamma: float = _GAMMA,
    ignore_index: int = IGNORE,
) -> Tensor:
    """Give the focal loss, averaged once over the labelled pixels.

    ``-(1 - p)^gamma log p`` of the true class (Lin et al. 2017, arXiv:1708.02002, equation 4). With class weights the
    average is weighted, as in cross-entropy, which it equals at ``gamma=0``.

    Args:
        logits: (B, C, H, W) scores before the softmax.
        target: (B, H, W) int64 class ids, ``ignore_index`` where unknown.
        weight: (C,) weight of each class; None for equal weights.
        gamma: Focusing parameter, at least 0.
        ignore_index: Label of pixels that do not count.

    Returns:
        Scalar, at least 0; at least one pixel must be labelled.
    """
    valid = target != ignore_index
    safe = target.where(valid, 0)
    log_p = logits.float().log_softmax(dim=1).gather(1, safe.unsqueeze(1)).squeeze(1)
    share = valid.float() if weight is None else weight[safe] * valid
    return (-((1 - log_p.exp()) ** gamma) * log_p * share).sum() / share.sum()


class HeadLoss(nn.Module):
    """The loss of one head.

    Args:
        kind: One of ``LOSSES``; ``dice_ce`` is the plain sum of both.
        class_weights: Positive weight per class; None for equal weights.
        ignore_index: Label of pixels that do not count.
    """

    weight: Tensor | None

    def __init__(
        self, kind: str = "dice", class_weights: Sequence[float] | None = None, ignore_index: int = IGNORE
    ) -> None:
        super().__init__()
        if kind not in LOSSES:
            raise ValueError(f"loss '{kind}' is none of {', '.join(LOSSES)}")
        if class_weights is not None and min(class_weights) <= 0:
            raise ValueError(f"class weights must be positive, not {list(class_weights)}")
        if class_weights is not None and kind == "lovasz":
            raise ValueError("loss 'lovasz' takes no class weights: it averages the classes' own IoU surrogates")
        self.kind = kind
        self.ignore_index = ignore_index
        weight = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Give the loss of a batch.

        Args:
            logits: (B, C, H, W) scores before the softmax.
            target: (B, H, W) int64 class ids, ``ignore_index`` where unknown.

        Returns:
            Scalar. Without a labelled pixel it is a zero that is cut off from the graph: the head's gradients stay
            None, so that an optimizer does not move it by momentum or weight decay either.
        """
        if not (target != self.ignore_index).any():
            return logits.new_zeros((), dtype=torch.float32)
        weight, ignore = self.weight, self.ignore_index
        if self.kind == "dice":
            return dice_loss(logits, target, weight=weight, ignore_index=ignore)
        if self.kind == "focal":
            return focal_loss(logits, target, weight=weight, ignore_index=ignore)
        if self.kind == "lovasz":
            from segmentation_models_pytorch.losses import LovaszLoss

            loss: Tensor = LovaszLoss("multiclass", ignore_index=ignore)(logits.float(), target)
            return loss
        cross_entropy = F.cross_entropy(logits.float(), target, weight=weight, ignore_index=ignore)
        if self.kind == "ce":
            return cross_entropy
        return cross_entropy + dice_loss(logits, target, weight=weight, ignore_index=ignore)


#: Names that the ``loss`` of a regression head may take.
REGRESSION_LOSSES = ("huber", "mse", "mae")


class RegressionLoss(nn.Module):
    """The loss of a head of per-pixel values, over the pixels whose target is known.

    Args:
        kind: One of ``REGRESSION_LOSSES``; Huber's turns from squared to absolute at 1.
    """

    def __init__(self, kind: str = "huber") -> None:
        super().__init__()
        if kind not in REGRESSION_LOSSES:
            raise ValueError(f"regression loss '{kind}' is none of {', '.join(REGRESSION_LOSSES)}")
        self.kind = kind

    def forward(self, values: Tensor, target: Tensor) -> Tensor:
        """Give the loss of a batch.

        Args:
            values: (B, 1, H, W) predicted values.
            target: (B, H, W) targets, NaN where unknown.

        Returns:
            Scalar; without a known pixel a zero that is cut off from the graph, as in ``HeadLoss``.
        """
        valid = target.isfinite()
        if not valid.any():
            return values.new_zeros((), dtype=torch.float32)
        predicted, true = values[:, 0].float()[valid], target[valid].float()
        if self.kind == "huber":
            return F.huber_loss(predicted, true)
        return F.mse_loss(predicted, true) if self.kind == "mse" else F.l1_loss(predicted, true)
