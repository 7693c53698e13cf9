"""What all encoders share: how their tokens lie, which kind they are, and where their blocks are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

__all__ = [
    "S2_NAMES",
    "AbsentEncoder",
    "Backbone",
    "blocks",
    "default_indices",
    "fine_tuned",
    "is_prithvi",
    "is_terramind",
    "single_date",
]

#: TerraTorch's names of the Sentinel-2 bands (1.2.11, ``terramind_register.PRETRAINED_BANDS`` and ``HLSBands``).
S2_NAMES = {
    "B01": "COASTAL_AEROSOL", "B02": "BLUE", "B03": "GREEN", "B04": "RED", "B05": "RED_EDGE_1", "B06": "RED_EDGE_2",
    "B07": "RED_EDGE_3", "B08": "NIR_BROAD", "B8A": "NIR_NARROW", "B09": "WATER_VAPOR", "B11": "SWIR_1",
    "B12": "SWIR_2",
}  # fmt: skip


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
        generated: Modalities that the encoder generates and whose tokens it gives beside those of its inputs.
    """

    module: nn.Module
    patch_size: int = 16
    frames: int = 1
    takes_dict: bool = True
    temporal: bool = False
    steps: int | None = None
    generated: tuple[str, ...] = ()


class AbsentEncoder(nn.Module):
    """Stands where an encoder would: maps of zeros of the same sizes, without parameters or computation.

    What decoders reach with it, they reach without an encoder.

    Args:
        out_channels: Channels of each layer's map.
        patch_size: Side of a token of the encoder that is absent, in pixels.
    """

    def __init__(self, out_channels: Sequence[int], patch_size: int) -> None:
        super().__init__()
        self.out_channels = list(out_channels)
        self.patch_size = patch_size

    def forward(self, images: Mapping[str, Tensor] | Tensor, **_: Any) -> list[Tensor]:
        """Give one (B, D, h, w) map of zeros per layer for images of (B, C, H, W) or (B, C, T, H, W)."""
        tensors = images.values() if isinstance(images, Mapping) else [images]
        image = next(tensor for tensor in tensors if tensor.dim() >= 4)
        height, width = (side // self.patch_size for side in image.shape[-2:])
        return [image.new_zeros(image.shape[0], channels, height, width) for channels in self.out_channels]


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
    """Give the part of an encoder that is fine-tuned: without the generator of a TiM encoder, else all of it."""
    one = single_date(encoder)
    return getattr(one, "fine_tuned", one)


def blocks(encoder: nn.Module) -> Sequence[nn.Module]:
    """Find the transformer blocks of the fine-tuned encoder: the longest list of modules of one class.

    An absent encoder has none.

    Raises:
        ValueError: There is no such list.
    """
    if isinstance(encoder, AbsentEncoder):
        return []
    lists = [m for m in fine_tuned(encoder).modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1]
    alike = [m for m in lists if len(Counter(type(child) for child in m)) == 1]
    if not alike:
        raise ValueError(f"{type(encoder).__name__} has no list of equal blocks")
    return list(max(alike, key=len))
