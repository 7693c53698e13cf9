"""Prithvi with any number of frames and any tubelet: feature sizes follow the frames that are left after embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from cityheads.core.errors import CityHeadsError
from cityheads.model.backbones.base import S2_NAMES

__all__ = ["BANDS", "COMPUTED", "effective_frames", "prithvi_arguments", "prithvi_statistics", "prithvi_weights"]

#: Bands that the published Prithvi were trained on, in their order (TerraTorch 1.2.11, ``prithvi_vit``; Sentinel-2's
#: B02, B03, B04, B8A, B11 and B12).
BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")

#: Names of the weights that the encoder computes itself: sine-cosine position tables, which follow the image's size
#: and the number of frames.
COMPUTED = r"(^|\.)pos_embed$"

#: Side of a patch where the arguments do not say: 14 for the 600 M models, else 16 (TerraTorch's ``prithvi_cfgs``).
_PATCH, _PATCH_600 = 16, 14


def effective_frames(num_frames: int, tubelet: int) -> int:
    """Give the time steps that an embedding of tubelets leaves: ``num_frames // tubelet``.

    Raises:
        CityHeadsError: The frames do not fill whole tubelets.
    """
    if tubelet < 1 or num_frames < 1 or num_frames % tubelet:
        raise CityHeadsError(
            f"{num_frames} frames do not fill whole tubelets of {tubelet}; choose a multiple of it for num_frames"
        )
    return num_frames // tubelet


def prithvi_arguments(name: str, bands: int, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], int, int]:
    """Give TerraTorch's arguments of a Prithvi encoder, its patch size and its effective frames.

    TerraTorch swallows ``tubelet_size`` without a word; the tubelet is the first number of ``patch_size``, and that is
    where it goes. The position in time is encoded per frame only, so a tubelet above 1 turns that encoding off in the
    ``_tl`` models.

    Args:
        name: Name of the backbone.
        bands: Number of bands; not passed on where ``bands`` or ``in_chans`` is given.
        arguments: ``num_frames``, ``tubelet_size``, ``patch_size`` (a number, or [tubelet, side, side]) and others.

    Raises:
        CityHeadsError: The frames do not fill whole tubelets, or two arguments contradict each other.
    """
    result = dict(arguments)
    frames = int(result.setdefault("num_frames", 1))
    patch = result.pop("patch_size", _PATCH_600 if "600" in name else _PATCH)
    tubelet = result.pop("tubelet_size", None)
    if not isinstance(patch, int):
        sides = list(patch)
        if len(sides) != 3 or sides[1] != sides[2]:
            raise CityHeadsError(f"patch_size {sides} is neither a number nor [tubelet, side, side]")
        if tubelet is not None and sides[0] != tubelet:
            raise CityHeadsError(f"tubelet_size {tubelet} contradicts patch_size {sides}; give one of them")
        tubelet, patch = int(sides[0]), int(sides[1])
    tubelet = 1 if tubelet is None else int(tubelet)
    effective = effective_frames(frames, tubelet)
    if tubelet > 1:
        result.setdefault("coords_encoding", [])
        if "time" in result["coords_encoding"]:
            raise CityHeadsError("coords_encoding 'time' needs a tubelet of 1; leave it out")
    result["patch_size"] = [tubelet, patch, patch]
    result.setdefault("bands", list(range(bands)))
    return result, patch, effective


def prithvi_statistics(name: str, bands: Sequence[str] | None = None) -> tuple[list[float], list[float]]:
    """Give mean and standard deviation per band that a Prithvi was trained with, in reflectance x 10000.

    Args:
        name: Name of the backbone.
        bands: Names of the bands (``BLUE``, or ``B02``); None for ``BANDS``.

    Raises:
        CityHeadsError: It was not trained with one of the bands.
    """
    from terratorch.models.backbones.prithvi_vit import prithvi_cfgs

    found = prithvi_cfgs[name.removeprefix("terratorch_")]
    for band in bands or ():
        if S2_NAMES.get(band, band) not in BANDS:
            raise CityHeadsError(
                f"{name} was not trained on band '{band}'; choose of B02, B03, B04, B8A, B11, B12 (config key "
                "'model.bands.S2L2A')"
            )
    positions = [BANDS.index(S2_NAMES.get(band, band)) for band in bands or BANDS]
    return [found["mean"][p] for p in positions], [found["std"][p] for p in positions]


def prithvi_weights(
    weights: Mapping[str, Tensor],
    bands: Sequence[str] | None,
    source: str,
    pretrained_bands: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Give a Prithvi checkpoint with the patch embedding of some bands, and without its position tables.

    The decoder of the masked autoencoder may stay: an encoder has no place for it.

    Args:
        weights: Tensors of the checkpoint, with whatever prefix.
        bands: Names of the model's bands in its order (``BLUE``, or ``B02``); None for those of the checkpoint.
        source: What to call the weights in a message.
        pretrained_bands: Names of the checkpoint's bands; None for ``BANDS``.

    Raises:
        CityHeadsError: The checkpoint has no weights for one of the bands.
    """
    chosen = {name: value for name, value in weights.items() if not name.endswith("pos_embed")}
    if bands is None:
        return chosen
    known = [S2_NAMES.get(band, band) for band in pretrained_bands or BANDS]
    for band in bands:
        if S2_NAMES.get(band, band) not in known:
            raise CityHeadsError(f"{source}: no weights for band '{band}'; there are {', '.join(known)}")
    positions = [known.index(S2_NAMES.get(band, band)) for band in bands]
    for name, value in chosen.items():
        if name.endswith("patch_embed.proj.weight"):
            if value.shape[1] != len(known):
                raise CityHeadsError(
                    f"{source}: {name} is of {value.shape[1]} bands, not of {len(known)} ({', '.join(known)}); "
                    "name them as backbone_pretrained_bands"
                )
            chosen[name] = value[:, positions]
    return chosen
