"""Encoders: how they are found, built and given their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cityheads.core.errors import CityHeadsError

__all__ = [
    "Backbone",
    "blocks",
    "build_backbone",
    "default_indices",
    "fine_tuned",
    "is_prithvi",
    "is_terramind",
    "single_date",
]


@dataclass
class Backbone:
    """An encoder with what is needed to lay its tokens out.

    Attributes:
        module: Gives one (B, N, D) or (B, D, h, w) tensor per layer.
        patch_size: Side of a token in pixels.
        frames: Time steps that the tokens of one image span (``num_frames // tubelet``), 1 without time.
        takes_dict: Whether the input is a mapping of modalities, not one tensor.
        temporal: Whether one encoder looks at each time step by itself (TerraTorch's ``TemporalWrapper``).
        steps: Time steps that an input must have; None for any number.
        thoughts: Modalities that the encoder imagines and whose tokens it gives beside those of its inputs.
    """

    module: nn.Module
    patch_size: int = 16
    frames: int = 1
    takes_dict: bool = True
    temporal: bool = False
    steps: int | None = None
    thoughts: tuple[str, ...] = ()


def build_backbone(name: str, modalities: Mapping[str, int], *, pretrained: bool = False, **arguments: Any) -> Backbone:
    """Build an encoder of TerraTorch's registry with random weights.

    Args:
        name: Name in the registry.
        modalities: Bands per modality; TerraMind takes any number of modalities, other encoders one.
        pretrained: Let the library that has the encoder load its published weights, and see that all were loaded. Not
            for TerraMind and Prithvi, whose weights are loaded afterwards.
        arguments: Further arguments of the encoder, with TerraTorch's names; ``thinking``, a mapping, for an encoder
            that thinks in modalities (see ``build_thinking``).

    Raises:
        CityHeadsError: The registry has no such encoder, or it does not take these modalities or arguments.
    """
    from terratorch.models.utils import _get_backbone
    from terratorch.registry import BACKBONE_REGISTRY

    if name not in BACKBONE_REGISTRY:
        raise CityHeadsError(f"config key 'model.backbone': TerraTorch knows no backbone '{name}'")
    bare = name.removeprefix("terratorch_")
    steps = _steps(arguments) if arguments.get("use_temporal") else None
    temporal = bool(arguments.get("use_temporal"))
    if steps:
        arguments["temporal_n_timestamps"] = steps
    thinking = arguments.pop("thinking", None)
    if thinking is not None and not (is_terramind(name) and bare.endswith("_tim")):
        raise CityHeadsError(
            f"config key 'model.thinking': {name} does not think in modalities; take terramind_v1_*_tim, or null"
        )
    if is_terramind(name):
        from cityheads.model.backbones.terramind import CoordinateWords, set_coordinate_words, terramind_arguments

        if bare.endswith("_tim"):
            from cityheads.model.backbones.thinking import build_thinking, split_arguments

            plain, thoughts, time = split_arguments(terramind_arguments(modalities, arguments))
            mind = build_thinking(bare, plain, **(thinking or {}), **thoughts)
            set_coordinate_words(mind, CoordinateWords())
            built = Backbone(_get_backbone(mind, **time), temporal=temporal, steps=steps, thoughts=tuple(mind.thoughts))
            return _grouped(built, time)
        module = _get_backbone(name, pretrained=False, **terramind_arguments(modalities, arguments))
        set_coordinate_words(module, CoordinateWords())
        return _grouped(Backbone(module, temporal=temporal, steps=steps), arguments)
    if len(modalities) > 1:
        raise CityHeadsError(f"config key 'model.modalities': {name} takes one modality, not {', '.join(modalities)}")
    # only TerraMind has several modalities to merge
    arguments.pop("merge_method", None)
    if is_prithvi(name):
        from cityheads.model.backbones.prithvi import prithvi_arguments

        arguments, patch, frames = prithvi_arguments(bare, next(iter(modalities.values())), arguments)
        if temporal and arguments["num_frames"] > 1:
            raise CityHeadsError("use_temporal looks at each date by itself; leave num_frames out")
        module = _get_backbone(name, pretrained=False, **arguments)
        steps = steps if temporal else arguments["num_frames"]
        return _grouped(Backbone(module, patch, frames, False, temporal, steps), arguments)
    if pretrained:
        from cityheads.model.backbones.weights import all_loaded

        with all_loaded(name) as watched:
            module = _get_backbone(name, pretrained=True, **arguments)
            watched.append(module)
    else:
        module = _get_backbone(name, pretrained=False, **arguments)
    patch = next((m.patch_size for m in module.modules() if hasattr(m, "patch_size")), 16)
    patch = patch if isinstance(patch, int) else patch[-1]
    return _grouped(Backbone(module, patch, 1, False, temporal, steps), arguments)


def _steps(arguments: Mapping[str, Any]) -> int | None:
    """Give the time steps that the temporal wrapper's arguments call for; None where any number will do."""
    pooling = arguments.get("temporal_pooling", "mean")
    if pooling not in ("mean", "max", "diff", "concat"):
        raise CityHeadsError(f"temporal_pooling '{pooling}' is none of mean, max, diff, concat")
    steps: int | None = arguments.get("temporal_n_timestamps")
    groups: Sequence[int] = arguments.get("temporal_subset_lengths") or ()
    if groups and steps not in (None, sum(groups)):
        raise CityHeadsError(f"temporal_subset_lengths {list(groups)} do not add up to temporal_n_timestamps {steps}")
    if pooling == "concat" and steps is None and not groups:
        raise CityHeadsError("temporal_pooling 'concat' needs temporal_n_timestamps: the channels depend on it")
    if pooling == "diff" and len(groups) != 2 and (groups or steps not in (None, 2)):
        raise CityHeadsError("temporal_pooling 'diff' is of two dates, or of two temporal_subset_lengths")
    return sum(groups) or steps or (2 if pooling == "diff" else None)


def _grouped(backbone: Backbone, arguments: Mapping[str, Any]) -> Backbone:
    """Mend the channels of dates that are averaged in groups before they are laid side by side."""
    groups = arguments.get("temporal_subset_lengths")
    module: Any = backbone.module
    if backbone.temporal and groups and arguments.get("temporal_pooling") == "concat":
        module.out_channels = [size * len(groups) for size in module.encoder.out_channels]
    return backbone


def is_prithvi(name: str) -> bool:
    """Tell whether a name in TerraTorch's registry is a Prithvi's transformer."""
    return name.removeprefix("terratorch_").startswith("prithvi_eo_")


def is_terramind(name: str) -> bool:
    """Tell whether a name in TerraTorch's registry is a TerraMind's."""
    return name.removeprefix("terratorch_").startswith("terramind_")


def default_indices(depth: int) -> list[int]:
    """Give the last layer of each quarter of an encoder: 2, 5, 8, 11 of 12 layers."""
    return [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]


def single_date(encoder: nn.Module) -> nn.Module:
    """Give the encoder that looks at one date: what is inside of TerraTorch's ``TemporalWrapper``, else itself."""
    return encoder.get_submodule("encoder") if type(encoder).__name__ == "TemporalWrapper" else encoder


def fine_tuned(encoder: nn.Module) -> nn.Module:
    """Give the part of an encoder that is fine-tuned: without the generator of one that thinks, else all of it."""
    one = single_date(encoder)
    return getattr(one, "fine_tuned", one)


def blocks(encoder: nn.Module) -> Sequence[nn.Module]:
    """Find the transformer blocks of the fine-tuned encoder: the longest list of modules of one class.

    Raises:
        ValueError: There is no such list.
    """
    lists = [m for m in fine_tuned(encoder).modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1]
    alike = [m for m in lists if len(Counter(type(child) for child in m)) == 1]
    if not alike:
        raise ValueError(f"{type(encoder).__name__} has no list of equal blocks")
    return list(max(alike, key=len))
