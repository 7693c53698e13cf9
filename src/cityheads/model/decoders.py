"""Decoders of TerraTorch's registry (its own and segmentation-models-pytorch's) as parts of a head."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cityheads.core.errors import CityHeadsError

__all__ = ["build_decoder", "try_head"]


def build_decoder(
    name: str, channels: list[int], arguments: Mapping[str, Any], *, outputs: int, decoder_channels: Sequence[int]
) -> tuple[nn.Module, bool]:
    """Build a decoder by its name in TerraTorch's registry.

    TerraTorch 1.2.11 asks the registry in place of the decoder whether it ends in a classifier, so that its own
    ``LinearDecoder`` cannot be built there.

    Args:
        name: Name in the registry, such as ``UperNetDecoder`` or ``smp_FPN``.
        channels: Channels of the feature maps, finest first.
        arguments: Arguments of the decoder.
        outputs: Channels of the head, for a decoder that ends in a classifier.
        decoder_channels: Channels of the stages of smp's U-Nets where the arguments do not say: one per map but the
            first, which those decoders do not look at.

    Returns:
        The decoder, and whether it ends in a classifier.

    Raises:
        CityHeadsError: The decoder is unknown or does not take its arguments.
    """
    from terratorch.registry import DECODER_REGISTRY

    if name not in DECODER_REGISTRY:
        raise CityHeadsError(f"decoder '{name}' is not in TerraTorch's registry")
    given = dict(arguments)
    kind = DECODER_REGISTRY.find_class(name)
    includes_head = bool(getattr(kind, "includes_head", False))
    if includes_head:
        given["num_classes"] = outputs
    known = inspect.signature(kind).parameters
    unknown = [argument for argument in given if argument not in known]
    if unknown:  # smp's decoders would swallow it without a word
        raise CityHeadsError(f"decoder '{name}' does not take these arguments (unknown: {', '.join(unknown)})")
    stages = known.get("decoder_channels")
    if stages is not None and isinstance(stages.default, tuple | list):
        given.setdefault("decoder_channels", list(decoder_channels)[: len(channels) - 1])
    try:
        return DECODER_REGISTRY.build(name, channels, **given), includes_head
    except Exception as error:  # whatever a decoder of somebody else's raises about its arguments
        raise CityHeadsError(f"decoder '{name}' does not take these arguments ({_line(error)})") from None


def try_head(name: str, head: Any, channels: Sequence[int], *, outputs: int, side: int) -> None:
    """Run a new head once on blank maps: some decoders need maps of other sizes than a plain transformer's pyramid.

    Args:
        name: Name of the decoder.
        head: ``neck``, ``decoder`` and ``head``; its modes and weights stay as they are.
        channels: Channels of the encoder's layers.
        outputs: Channels that the head has to give.
        side: Tokens along a side of the encoder's maps.

    Raises:
        CityHeadsError: The decoder cannot work with the maps.
    """
    maps = [torch.zeros(1, size, side, side) for size in channels]
    head.eval()
    try:
        with torch.no_grad():
            found: Tensor = head(head.neck(maps, image_size=(16 * side, 16 * side)))
        if found.dim() != 4 or found.shape[1] != outputs:
            raise ValueError(f"it gives {list(found.shape)}")
    except Exception as error:  # as above
        raise CityHeadsError(
            f"decoder '{name}' does not work with the pyramid of {side} x {side} tokens ({_line(error)}); choose "
            "another decoder, or larger chips"
        ) from None
    finally:
        head.train()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
