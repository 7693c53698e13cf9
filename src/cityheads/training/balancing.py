"""Ways of balancing the heads, and how much they are at odds.

``fixed`` weights; ``uncertainty`` learns one log variance per head (Kendall et al. 2018, "Multi-Task Learning Using
Uncertainty to Weigh Losses", arXiv:1705.07115, on top of the weights); ``pcgrad`` projects conflicting gradients of the
shared part (Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", arXiv:2001.06782).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["BALANCES", "balanced", "gradient_cosine", "project_conflicts", "projected_backward"]

#: Ways of balancing the heads.
BALANCES = ("fixed", "uncertainty", "pcgrad")


def balanced(
    losses: Mapping[str, Tensor], weights: Mapping[str, float], log_variance: Mapping[str, Tensor] | nn.ParameterDict
) -> dict[str, Tensor]:
    """Give each head's share of the total; a head without labels adds nothing, not even its log variance.

    Args:
        losses: Scalar loss of each head; without a gradient where the batch has no label of it.
        weights: Fixed weight of each head.
        log_variance: What ``uncertainty`` has learnt of each head; empty for the other ways.
    """
    shares: dict[str, Tensor] = {}
    for name, loss in losses.items():
        share = weights[name] * loss
        if name in log_variance and loss.requires_grad:
            share = torch.exp(-log_variance[name]) * share + log_variance[name] / 2
        shares[name] = share
    return shares


def gradient_cosine(shares: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> Tensor | None:
    """Give the mean cosine between the heads' gradients on some parameters; None where there are no two.

    Near 1 the heads want the same of the encoder, below 0 each undoes what another does.

    Args:
        shares: Each head's share of the loss, of the heads that have one; their graph is kept.
        parameters: Trained parameters that all heads share.
    """
    if len(shares) < 2 or not parameters:
        return None
    flat = []
    for share in shares.values():
        gradients = torch.autograd.grad(share, parameters, retain_graph=True, allow_unused=True)
        flat.append(torch.cat([g.flatten() for g in gradients if g is not None]).float())
    pairs = [torch.cosine_similarity(a, b, dim=0) for a, b in itertools.combinations(flat, 2)]
    return torch.stack(pairs).mean().detach()


def project_conflicts(gradients: Sequence[Tensor], order: random.Random) -> Tensor:
    """Give the sum of the tasks' gradients, each freed of what works against another one.

    PCGrad, Yu et al. 2020, "Gradient Surgery for Multi-Task Learning" (arXiv:2001.06782, algorithm 1).

    Args:
        gradients: One flat gradient per task.
        order: Source of the order in which a gradient meets the others.
    """
    total = torch.zeros_like(gradients[0])
    for index, gradient in enumerate(gradients):
        projected = gradient.clone()
        others = [other for position, other in enumerate(gradients) if position != index]
        order.shuffle(others)
        for other in others:
            dot = torch.dot(projected, other)
            if dot < 0:
                projected -= dot / other.square().sum() * other
        total += projected
    return total


def projected_backward(
    shares: Mapping[str, Tensor],
    scale: Tensor,
    own: Mapping[str, Sequence[nn.Parameter]],
    shared: Sequence[nn.Parameter],
    order: random.Random,
) -> None:
    """Run the backward pass head by head, and add the projected gradients to the shared parameters.

    Args:
        shares: Each head's share of the loss, of the heads that have one.
        scale: What the loss was multiplied with, by mixed precision or the accumulation of gradients.
        own: Trained parameters of each head.
        shared: Trained parameters of all others.
        order: As for `project_conflicts`.
    """
    gradients: list[Tensor] = []
    waiting = len(shares)
    for name, share in shares.items():
        waiting -= 1
        parameters = [*shared, *own[name]]
        found = torch.autograd.grad(share * scale, parameters, retain_graph=waiting > 0, allow_unused=True)
        pairs = list(zip(parameters, found, strict=True))
        if shared:
            flat = [(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs[: len(shared)]]
            gradients.append(torch.cat(flat))
        for parameter, gradient in pairs[len(shared) :]:
            _add_gradient(parameter, gradient)
    if not shared:
        return
    joined = project_conflicts(gradients, order)
    for parameter, part in zip(shared, joined.split([p.numel() for p in shared]), strict=True):
        _add_gradient(parameter, part.view_as(parameter))


def _add_gradient(parameter: nn.Parameter, gradient: Tensor | None) -> None:
    if gradient is not None:
        parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient
