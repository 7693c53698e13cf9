"""Published or local encoder weights, loaded completely or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cityheads.errors import CityHeadsError

__all__ = ["load_weights", "published_weights", "read_weights"]

#: Position embeddings are sine-cosine tables that the encoder computes itself, not learned weights.
_COMPUTED = re.compile(r"(^|\.)pos_emb$")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint without executing anything in it.

    Args:
        path: A ``.safetensors`` file, or a file of ``torch.save`` that holds tensors only; a Lightning or timm
            checkpoint may keep them under ``state_dict`` or ``model``.

    Raises:
        CityHeadsError: The file is missing, damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise CityHeadsError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own errors; all of them mean that the file is of no use
        raise CityHeadsError(f"{path}: cannot be read as weights ({type(error).__name__}: {error})") from None
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    tensors = {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CityHeadsError(f"{path}: holds no weights")
    return tensors


def published_weights(backbone: str) -> tuple[Path, dict[str, str]]:
    """Find the published weights of a TerraMind backbone, in the Hugging Face cache or by downloading them.

    Returns:
        The file, and where it is from: repository, file name and resolved revision.

    Raises:
        CityHeadsError: None are published under that name, or they cannot be had.
    """
    from huggingface_hub import hf_hub_download
    from terratorch.models.backbones.terramind.model.terramind_register import pretrained_weights

    entry = pretrained_weights.get(backbone.removesuffix("_tim"))
    if entry is None:
        raise CityHeadsError(f"config key 'model.pretrained': no weights are published for '{backbone}'")
    repository, name = entry["hf_hub_id"], entry["hf_hub_filename"]
    try:
        path = Path(hf_hub_download(repo_id=repository, filename=name))
    except Exception as error:  # offline, not cached, no access, disk full: the reason is in the message
        raise CityHeadsError(
            f"config key 'model.pretrained': {repository}/{name} cannot be had ({type(error).__name__}); connect to "
            "the internet, fill the Hugging Face cache, or name a file in model.weights"
        ) from None
    # the cache keeps a file under snapshots/<revision>/
    return path, {"repository": repository, "file": name, "revision": path.parent.name}


def load_weights(encoder: nn.Module, weights: Mapping[str, Tensor], source: str, *, new: Sequence[str] = ()) -> int:
    """Copy weights into an encoder, every one of them.

    Weights that the encoder has no place for (other modalities, a pretraining decoder) are left out.

    Args:
        encoder: The encoder; changed in place.
        weights: Tensors by the encoder's own names, or under one common prefix (``encoder.``, ``backbone.``, ...).
        source: What to call the weights in a message.
        new: Beginnings of names that no published weights can have, such as the embedding of a new modality; they
            keep their random values.

    Returns:
        Number of tensors that were loaded.

    Raises:
        CityHeadsError: A weight of the encoder is missing or of another shape; nothing has been changed then.
    """
    wanted = encoder.state_dict()
    weights = _without_prefix(weights, wanted)
    missing = sorted(
        name
        for name in wanted
        if name not in weights and not _COMPUTED.search(name) and not name.startswith(tuple(new))
    )
    if missing:
        raise CityHeadsError(
            f"{source}: {len(missing)} of the encoder's {len(wanted)} weights are missing: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}"
        )
    found = {name: weights[name] for name in wanted if name in weights}
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            raise CityHeadsError(
                f"{source}: {name} is {list(value.shape)}, the encoder takes {list(wanted[name].shape)}"
            )
    encoder.load_state_dict(found, strict=False)
    return len(found)


def _without_prefix(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Drop the prefix under which most of the wanted names are found, if any."""
    anchor = next(name for name in reversed(list(wanted)) if not _COMPUTED.search(name))
    prefixes = [name.removesuffix(anchor) for name in weights if name.endswith(f".{anchor}")]
    if anchor in weights or not prefixes:
        return weights
    prefix = min(prefixes, key=len)
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
