"""TerraMind's input side: modalities old and new, subsets of bands, and a merge that knows what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cityheads.errors import CityHeadsError

__all__ = ["ConcatMerge", "select_bands", "terramind_arguments"]

#: TerraMind's names of the Sentinel-2 bands (TerraTorch 1.2.11, ``terramind_register.PRETRAINED_BANDS``).
_S2_NAMES = {
    "B01": "COASTAL_AEROSOL", "B02": "BLUE", "B03": "GREEN", "B04": "RED", "B05": "RED_EDGE_1", "B06": "RED_EDGE_2",
    "B07": "RED_EDGE_3", "B08": "NIR_BROAD", "B8A": "NIR_NARROW", "B09": "WATER_VAPOR", "B11": "SWIR_1",
    "B12": "SWIR_2",
}  # fmt: skip

#: Modalities that TerraMind v1 was pretrained on as pixels or words. Upstream matches names by substring, so that a
#: misspelt one silently becomes another; here a name is one of these or a new modality.
_KNOWN = ("S2L2A", "S2L1C", "S1GRD", "S1RTC", "DEM", "RGB", "coords")


def terramind_arguments(name: str, modalities: Mapping[str, int], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments of TerraTorch's TerraMind for a set of modalities.

    Args:
        name: Name of the backbone.
        modalities: Bands per modality; one that TerraMind does not know becomes a new input of that many bands.
        arguments: ``merge_method`` and further arguments, passed on.

    Raises:
        CityHeadsError: A modality's name would be taken for another one by upstream's matching of substrings.
    """
    wanted: list[Any] = []
    for modality, bands in modalities.items():
        if modality in _KNOWN:
            wanted.append(modality)
            continue
        if modality.lower().startswith(("s1", "s2")) or any(k.lower() in modality.lower() for k in _KNOWN):
            raise CityHeadsError(
                f"config key 'model.modalities': '{modality}' would be taken for one of {', '.join(_KNOWN)}; "
                "choose another name"
            )
        if name.endswith("_tim"):
            raise CityHeadsError(f"config key 'model.modalities': {name} takes no new modality '{modality}'")
        wanted.append({modality: bands})
    result = {"modalities": wanted, **arguments}
    if result.get("merge_method") == "concat" and not result.get("use_temporal"):
        # upstream appends its token for missing modalities last, so that the channels of all modalities after a
        # missing one move, and leaves it uninitialised: ConcatMerge does it right
        result["merge_method"] = "dict"
    return result


class ConcatMerge(nn.Module):
    """Tokens per modality -> tokens side by side, each modality at its own place, a learnt token where one is missing.

    Args:
        modalities: Names of the image modalities, in the order of the channels.
        dim: Size of one modality's tokens.
    """

    def __init__(self, modalities: Sequence[str], dim: int) -> None:
        super().__init__()
        self.modalities = list(modalities)
        self.missing = nn.Parameter(torch.empty(dim))
        # as the encoder's own modality embeddings
        nn.init.normal_(self.missing, std=0.02)

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Merge {name: (B, N, D)} into (B, N, M * D)."""
        present = next(tokens[name] for name in self.modalities if name in tokens)
        return torch.cat([tokens.get(name, self.missing.expand_as(present)) for name in self.modalities], dim=-1)


def select_bands(encoder: nn.Module, modality: str, bands: Sequence[str]) -> None:
    """Keep the patch embedding's weights of some Sentinel-2 bands only, in the given order.

    Args:
        encoder: A TerraMind encoder with the embedding of all bands; changed in place.
        modality: ``S2L2A``.
        bands: Our band names, such as ``B04``.
    """
    from terratorch.models.backbones.terramind.model.terramind_register import (
        PRETRAINED_BANDS,
        select_modality_patch_embed_weights,
    )

    select_modality_patch_embed_weights(encoder, {modality: [_S2_NAMES[band] for band in bands]}, PRETRAINED_BANDS)
