"""Encoders by their name in TerraTorch's registry, with random weights or those that their library loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cityheads.core.errors import CityHeadsError
from cityheads.model.backbones.base import Backbone, is_prithvi, is_terramind
from cityheads.model.backbones.prithvi import prithvi_arguments
from cityheads.model.backbones.terramind import CoordinateTokens, set_coordinate_tokens, terramind_arguments
from cityheads.model.backbones.weights import all_loaded

__all__ = ["build_backbone"]


def build_backbone(name: str, modalities: Mapping[str, int], *, pretrained: bool = False, **arguments: Any) -> Backbone:
    """Build an encoder of TerraTorch's registry with random weights.

    Args:
        name: Name in the registry.
        modalities: Bands per modality; TerraMind takes any number of modalities, other encoders one.
        pretrained: Let the library that has the encoder load its published weights, and see that all were loaded. Not
            for TerraMind and Prithvi, whose weights are loaded afterwards.
        arguments: Further arguments of the encoder, with TerraTorch's names; ``tim``, a mapping, for an encoder
            with Thinking-in-Modalities (see ``build_tim``).

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
    tim_options = arguments.pop("tim", None)
    if tim_options is not None and not (is_terramind(name) and bare.endswith("_tim")):
        raise CityHeadsError(
            f"config key 'model.tim': {name} has no Thinking-in-Modalities; take terramind_v1_*_tim, or null"
        )
    if is_terramind(name):
        if bare.endswith("_tim"):
            from cityheads.model.backbones.tim import build_tim, split_arguments

            plain, given, time = split_arguments(terramind_arguments(modalities, arguments))
            tim = build_tim(bare, plain, **(tim_options or {}), **given)
            set_coordinate_tokens(tim, CoordinateTokens())
            built = Backbone(_get_backbone(tim, **time), temporal=temporal, steps=steps, generated=tuple(tim.generated))
            return _grouped(built, time)
        module = _get_backbone(name, pretrained=False, **terramind_arguments(modalities, arguments))
        set_coordinate_tokens(module, CoordinateTokens())
        return _grouped(Backbone(module, temporal=temporal, steps=steps), arguments)
    if len(modalities) > 1:
        raise CityHeadsError(f"config key 'model.modalities': {name} takes one modality, not {', '.join(modalities)}")
    # only TerraMind has several modalities to merge
    arguments.pop("merge_method", None)
    if is_prithvi(name):
        arguments, patch, frames = prithvi_arguments(bare, next(iter(modalities.values())), arguments)
        if temporal and arguments["num_frames"] > 1:
            raise CityHeadsError("use_temporal looks at each date by itself; leave num_frames out")
        module = _get_backbone(name, pretrained=False, **arguments)
        steps = steps if temporal else arguments["num_frames"]
        return _grouped(Backbone(module, patch, frames, False, temporal, steps), arguments)
    if pretrained:
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
    """Correct the channels of dates that are averaged in groups before they are laid side by side."""
    groups = arguments.get("temporal_subset_lengths")
    module: Any = backbone.module
    if backbone.temporal and groups and arguments.get("temporal_pooling") == "concat":
        module.out_channels = [size * len(groups) for size in module.encoder.out_channels]
    return backbone
