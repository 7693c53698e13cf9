"""Encoders: how they are found, built and given their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cityheads.errors import CityHeadsError

__all__ = ["Backbone", "blocks", "build_backbone", "default_indices"]


@dataclass
class Backbone:
    """An encoder with what is needed to lay its tokens out.

    Attributes:
        module: Gives one (B, N, D) or (B, D, h, w) tensor per layer.
        patch_size: Side of a token in pixels.
        frames: Time steps that the tokens of one image span (``num_frames // tubelet``), 1 without time.
        takes_dict: Whether the input is a mapping of modalities, not one tensor.
        temporal: Whether one encoder looks at each time step by itself (TerraTorch's ``TemporalWrapper``).
    """

    module: nn.Module
    patch_size: int = 16
    frames: int = 1
    takes_dict: bool = True
    temporal: bool = False


def build_backbone(name: str, modalities: Mapping[str, int], **arguments: Any) -> Backbone:
    """Build an encoder of TerraTorch's registry with random weights.

    Args:
        name: Name in the registry.
        modalities: Bands per modality; TerraMind takes any number of modalities, other encoders one.
        arguments: Further arguments of the encoder, with TerraTorch's names.

    Raises:
        CityHeadsError: The registry has no such encoder, or it does not take these modalities or arguments.
    """
    from terratorch.models.utils import _get_backbone
    from terratorch.registry import BACKBONE_REGISTRY

    if name not in BACKBONE_REGISTRY:
        raise CityHeadsError(f"config key 'model.backbone': TerraTorch knows no backbone '{name}'")
    bare = name.removeprefix("terratorch_")
    if bare.startswith("terramind_"):
        from cityheads.backbones.terramind import terramind_arguments

        module = _get_backbone(name, pretrained=False, **terramind_arguments(bare, modalities, arguments))
        return Backbone(module, temporal=bool(arguments.get("use_temporal")))
    if len(modalities) > 1:
        raise CityHeadsError(f"config key 'model.modalities': {name} takes one modality, not {', '.join(modalities)}")
    if bare.startswith("prithvi_"):
        from cityheads.backbones.prithvi import prithvi_arguments

        arguments, patch, frames = prithvi_arguments(bare, next(iter(modalities.values())), arguments)
        return Backbone(_get_backbone(name, pretrained=False, **arguments), patch, frames, takes_dict=False)
    module = _get_backbone(name, pretrained=False, **arguments)
    patch = next((m.patch_size for m in module.modules() if hasattr(m, "patch_size")), 16)
    return Backbone(module, patch if isinstance(patch, int) else patch[-1], takes_dict=False)


def default_indices(depth: int) -> list[int]:
    """Give the last layer of each quarter of an encoder: 2, 5, 8, 11 of 12 layers."""
    return [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]


def blocks(encoder: nn.Module) -> Sequence[nn.Module]:
    """Find the transformer blocks of an encoder: the longest list of modules of one class.

    Raises:
        ValueError: There is no such list.
    """
    lists = [m for m in encoder.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1]
    alike = [m for m in lists if len(Counter(type(child) for child in m)) == 1]
    if not alike:
        raise ValueError(f"{type(encoder).__name__} has no list of equal blocks")
    return list(max(alike, key=len))
