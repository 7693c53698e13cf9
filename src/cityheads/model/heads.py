"""A head: neck, decoder and classifier of one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cityheads.core.errors import CityHeadsError
from cityheads.model.backbones.terramind import AttentionMerge, GatedMerge
from cityheads.model.decoders import FullResolutionDecoder, build_decoder, one_line

__all__ = ["Head", "HeadSpec", "build_head", "build_neck"]

#: Decoders whose channels are those of the model where a head does not say its own.
_UNETS = ("UNetDecoder", "FullResolutionDecoder")


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """What one head is.

    Attributes:
        outputs: Channels: the number of classes, or 1.
        decoder: A name in TerraTorch's registry, or ``FullResolutionDecoder``.
        decoder_args: Arguments of the decoder.
        shares_neck: Whether it looks at the neck that heads share, not at one of its own.
        regression: Whether it gives values, not class scores.
    """

    outputs: int
    decoder: str = "UNetDecoder"
    decoder_args: Mapping[str, Any] = field(default_factory=dict)
    shares_neck: bool = False
    regression: bool = False

    @classmethod
    def from_mapping(cls, head: Mapping[str, Any]) -> HeadSpec:
        """Read what ``model.json`` and ``MultiHeadTask`` say of a head.

        Args:
            head: ``classes`` (their number, or a list), and optionally ``decoder``, ``decoder_args``, ``neck`` (``own``
                or ``shared``) and ``target`` (``segmentation`` or ``regression``); the rest is not looked at.
        """
        regression = head.get("target", "segmentation") == "regression"
        classes = head.get("classes", 1)
        count = classes if isinstance(classes, int) else len(classes)
        return cls(
            outputs=1 if regression else count,
            decoder=head.get("decoder") or "UNetDecoder",
            decoder_args=dict(head.get("decoder_args") or {}),
            shares_neck=head.get("neck") == "shared",
            regression=regression,
        )


class Head(nn.Module):
    """Neck, decoder and classifier of one head, from feature maps to (B, n, h, w).

    Args:
        neck: The head's own neck; None where it looks at the model's shared one.
        decoder: Feature maps -> one map; with an attribute ``needs_image`` it gets the standardised input as well.
        head: One map -> logits, or values.
        merge: A module per layer of the encoder that makes one set of tokens of all modalities', where that is left to
            the heads; None where the heads get merged tokens.
    """

    def __init__(
        self, neck: nn.Module | None, decoder: nn.Module, head: nn.Module, merge: nn.ModuleList | None = None
    ) -> None:
        super().__init__()
        self.merge = merge
        self.neck = neck
        self.decoder = decoder
        self.head = head

    @property
    def needs_image(self) -> bool:
        """Whether the decoder looks at the input too."""
        return bool(getattr(self.decoder, "needs_image", False))

    def forward(self, features: list[Tensor], image: Tensor | None = None) -> Tensor:
        """Give (B, n, h, w) of the neck's maps and, where the decoder looks at it, the standardised input."""
        output: Tensor = self.head(self.decoder(features, image) if self.needs_image else self.decoder(features))
        return output


def build_neck(channels: list[int], necks: Sequence[Mapping[str, Any]] | None = None) -> tuple[nn.Module, list[int]]:
    """Build a chain of TerraTorch's necks; by default the learnt pyramid over four layers of a plain transformer.

    Args:
        channels: Channels of the feature maps.
        necks: TerraTorch's descriptions, each with ``name`` and arguments.

    Returns:
        The neck, and the channels of its output.
    """
    from terratorch.models.necks import NeckSequential, build_neck_list

    described = [dict(neck) for neck in necks] if necks is not None else [{"name": "LearnedInterpolateToPyramidal"}]
    chain, channels = build_neck_list(described, channels)
    return NeckSequential(*chain), list(channels)


def build_head(
    spec: HeadSpec,
    channels: list[int],
    *,
    decoder_channels: Sequence[int],
    dropout: float,
    image_channels: int,
    necks: Sequence[Mapping[str, Any]] | None,
    merge: str,
    side: int,
) -> Head:
    """Build one head.

    Args:
        spec: What it is.
        channels: Channels of the encoder's chosen layers.
        decoder_channels: Channels of a UNet decoder whose arguments do not say.
        dropout: Dropout before the last convolution.
        image_channels: Bands of all modalities together, for a decoder that looks at the input.
        necks: TerraTorch's descriptions of the necks; None for the learnt pyramid.
        merge: How the tokens of the modalities are merged; with ``dict`` and ``none`` the head does it itself.
        side: Tokens along a side of a chip, on which a decoder of the registry is tried.

    Raises:
        CityHeadsError: The decoder is unknown or does not take its arguments, or the head cannot merge.
    """
    from terratorch.models.heads import RegressionHead, SegmentationHead

    own_merge = None
    if merge in ("dict", "none"):
        if spec.shares_neck:
            raise CityHeadsError(
                f"config key 'model.merge': with '{merge}' each head merges the modalities itself, so it needs a neck "
                "of its own (heads.*.neck: own)"
            )
        kind = GatedMerge if merge == "dict" else AttentionMerge
        own_merge = nn.ModuleList(kind(size) for size in channels)
    layers = channels
    # also where the neck is shared: the decoder must fit it, and the random numbers that follow stay the same
    neck, channels = build_neck(layers, necks)
    arguments = dict(spec.decoder_args)
    if spec.decoder in _UNETS:
        arguments.setdefault("channels", list(decoder_channels))
    includes_head = False
    if spec.decoder == "FullResolutionDecoder":
        try:
            decoder: nn.Module = FullResolutionDecoder(channels, image_channels=image_channels, **arguments)
        except (TypeError, ValueError) as error:
            raise CityHeadsError(f"decoder '{spec.decoder}' does not take these arguments ({error})") from None
    else:
        decoder, includes_head = build_decoder(
            spec.decoder, channels, arguments, outputs=spec.outputs, decoder_channels=decoder_channels
        )
    if includes_head:
        last: nn.Module = nn.Identity()
    elif spec.regression:
        last = RegressionHead(decoder.out_channels, num_outputs=1, dropout=dropout)
    else:
        last = SegmentationHead(decoder.out_channels, spec.outputs, dropout=dropout)
    built = Head(neck, decoder, last, own_merge)
    if spec.decoder not in _UNETS:
        _try_head(spec, built, layers, side=side)
    if spec.shares_neck:
        built.neck = None
    return built


def _try_head(spec: HeadSpec, head: Any, channels: Sequence[int], *, side: int) -> None:
    """Run a new head once on blank maps: some decoders need maps of other sizes than a plain transformer's pyramid.

    Args:
        spec: What the head is.
        head: The head; its modes and weights stay as they are.
        channels: Channels of the encoder's layers.
        side: Tokens along a side of the encoder's maps.

    Raises:
        CityHeadsError: The decoder cannot work with the maps.
    """
    maps = [torch.zeros(1, size, side, side) for size in channels]
    head.eval()
    try:
        with torch.no_grad():
            found: Tensor = head(head.neck(maps, image_size=(16 * side, 16 * side)))
        if found.dim() != 4 or found.shape[1] != spec.outputs:
            raise ValueError(f"it gives {list(found.shape)}")
    except Exception as error:  # whatever a decoder of somebody else's raises
        raise CityHeadsError(
            f"decoder '{spec.decoder}' does not work with the pyramid of {side} x {side} tokens ({one_line(error)}); "
            "choose another decoder, or larger chips"
        ) from None
    finally:
        head.train()
