"""Prithvi with any number of frames and any tubelet: feature sizes follow the frames that are left after embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cityheads.errors import CityHeadsError

__all__ = ["effective_frames", "prithvi_arguments"]

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
