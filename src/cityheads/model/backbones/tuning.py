"""Ways of training an encoder with less: low-rank updates, and gradient checkpointing."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cityheads.core.errors import CityHeadsError
from cityheads.model.backbones.base import blocks, fine_tuned

__all__ = ["LowRank", "add_low_rank", "checkpoint_blocks", "merged_state"]


class LowRank(nn.Module):
    """A linear layer with a low-rank update: ``W x + alpha / rank * B A x``, W frozen.

    Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685, section 4.1). A starts as
    Kaiming-uniform noise and B as zeros, so that training starts from the encoder as it is.

    Args:
        base: The layer; its parameters are frozen.
        rank: Rank of the update.
        alpha: Scale of the update.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Give (..., out) of (..., in)."""
        out: Tensor = self.base(x) + self.scale * F.linear(F.linear(x, self.down), self.up)
        return out

    def merged_weight(self) -> Tensor:
        """Give the weight of the plain layer that does the same."""
        return self.base.weight + self.scale * self.up @ self.down


def add_low_rank(encoder: nn.Module, rank: int, alpha: float, targets: Sequence[str]) -> int:
    """Freeze an encoder and give its target layers low-rank updates.

    Args:
        encoder: Changed in place.
        rank: Rank of the updates.
        alpha: Scale of the updates.
        targets: Ends of the names of linear layers, such as ``attn.qkv``.

    Returns:
        Number of layers that have got one.

    Raises:
        CityHeadsError: A target names no linear layer.
    """
    encoder.requires_grad_(False)
    encoder = fine_tuned(encoder)
    count = 0
    for target in targets:
        found = [name for name, m in encoder.named_modules() if name.endswith(target) and isinstance(m, nn.Linear)]
        if not found:
            raise CityHeadsError(f"config key 'model.lora.targets': '{target}' is no linear layer of the encoder")
        for name in found:
            parent, _, last = name.rpartition(".")
            base = encoder.get_submodule(name)
            assert isinstance(base, nn.Linear)
            setattr(encoder.get_submodule(parent), last, LowRank(base, rank, alpha))
        count += len(found)
    return count


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Give a model's weights with every low-rank update added to its layer, under the plain layers' names."""
    state = {name: value.detach() for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, LowRank):
            del state[f"{name}.up"], state[f"{name}.down"]
            state.pop(f"{name}.base.weight")
            state[f"{name}.weight"] = module.merged_weight().detach()
            if module.base.bias is not None:
                state[f"{name}.bias"] = state.pop(f"{name}.base.bias")
    return state


def checkpoint_blocks(encoder: nn.Module) -> None:
    """Turn gradient checkpointing on: compute each block's activations a second time in place of keeping them.

    The blocks stay where they are, so that the names of the weights do not change.
    """
    for block in blocks(encoder):
        forward = block.forward

        def checkpointed(*args: Any, _forward: Any = forward, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return _forward(*args, **kwargs)
            return checkpoint(_forward, *args, use_reentrant=False, **kwargs)

        block.forward = functools.wraps(forward)(checkpointed)
