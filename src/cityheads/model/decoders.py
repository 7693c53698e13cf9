"""Decoders: those of TerraTorch's registry (its own and segmentation-models-pytorch's), and one that sees the input."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cityheads.core.errors import CityHeadsError

__all__ = ["FullResolutionDecoder", "build_decoder", "one_line"]


class FullResolutionDecoder(nn.Module):
    """TerraTorch's UNet decoder, and one or two more stages up that take the input image as their skip.

    The UNet ends at a quarter of the input's resolution, and interpolation from there cannot give an edge back. Each
    further stage doubles the resolution and joins a shallow convolution of the input.

    What a pixel is can depend on where it lies: the same light pixel is a roof in one district and a yard in another.
    That is a product of both inputs, which a sum of them cannot say. So the encoder's maps scale and shift the channels
    of the skip (feature-wise linear modulation: Perez et al. 2018, arXiv:1709.07871) before both are joined.

    Args:
        embed_dim: Channels of the feature maps.
        channels: Channels of the UNet's stages.
        image_channels: Bands of all modalities together.
        stages: 1 ends at half the input's resolution, 2 at the whole.
        stem_channels: Channels of the convolutions of the input.
        convolutions: Convolutions of a stage after both are joined.
        modulate: Let the encoder's maps scale and shift the skip; False joins it as it is.
    """

    needs_image = True

    def __init__(
        self,
        embed_dim: list[int],
        channels: list[int],
        image_channels: int,
        stages: int = 2,
        stem_channels: int = 32,
        convolutions: int = 2,
        modulate: bool = True,
    ) -> None:
        from terratorch.models.decoders import UNetDecoder

        super().__init__()
        if stages not in (1, 2):
            raise ValueError(f"stages must be 1 or 2, not {stages}")
        if convolutions < 1:
            raise ValueError(f"convolutions must be at least 1, not {convolutions}")
        self.unet = UNetDecoder(embed_dim, channels=channels)
        self.out_channels = self.unet.out_channels
        strides = (2, 1)[:stages]
        self.stems = nn.ModuleList(_conv(image_channels, stem_channels, stride) for stride in strides)
        # scale and shift of each channel of the skip
        modulations = (nn.Conv2d(self.out_channels, 2 * stem_channels, 1) for _ in strides if modulate)
        self.modulations = nn.ModuleList(modulations)
        widths = [self.out_channels + stem_channels] + [self.out_channels] * (convolutions - 1)
        self.ups = nn.ModuleList(
            nn.Sequential(*(_conv(width, self.out_channels, 1) for width in widths)) for _ in strides
        )

    def forward(self, features: list[Tensor], image: Tensor) -> Tensor:
        """Give (B, out_channels, H, W), or half of it, of maps and the standardised input (B, C, H, W)."""
        x: Tensor = self.unet(features)
        for stage, (stem, up) in enumerate(zip(self.stems, self.ups, strict=True)):
            skip = stem(image)
            x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
            if self.modulations:
                scale, shift = self.modulations[stage](x).chunk(2, dim=1)
                skip = skip * (1 + scale) + shift
            x = up(torch.cat([x, skip], dim=1))
        return x


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


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
        raise CityHeadsError(f"decoder '{name}' does not take these arguments ({one_line(error)})") from None


def one_line(error: Exception) -> str:
    """Give an error's message without its line breaks, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
