"""Published or local encoder weights, loaded completely or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cityheads.core.errors import CityHeadsError
from cityheads.model.backbones.base import is_prithvi, single_date
from cityheads.model.backbones.prithvi import COMPUTED, prithvi_weights

__all__ = ["all_loaded", "download", "load_backbone", "load_weights", "published_weights", "read_weights"]

#: Position embeddings of TerraMind are sine-cosine tables that the encoder computes itself, not learned weights.
_COMPUTED = r"(^|\.)pos_emb$"


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


def published_weights(
    backbone: str, key: str = "model.pretrained", instead: str = "model.weights"
) -> tuple[Path, dict[str, str]]:
    """Find the published weights of a TerraMind or Prithvi, in the Hugging Face cache or by downloading them.

    Args:
        backbone: Name in TerraTorch's registry.
        key: Config key that asked for them, for the message.
        instead: Config key that can name a file, for the message.

    Returns:
        The file, and where it is from: repository, file name and resolved revision.

    Raises:
        CityHeadsError: None are published under that name, or they cannot be had.
    """
    from terratorch.models.backbones import prithvi_vit
    from terratorch.models.backbones.terramind.model import terramind_register

    published = {**prithvi_vit.pretrained_weights, **terramind_register.pretrained_weights}
    entry = published.get(backbone.removeprefix("terratorch_").removesuffix("_tim"))
    if entry is None:
        raise CityHeadsError(f"config key '{key}': no weights are published for '{backbone}'")
    return download(entry, f"config key '{key}'", f"name a file in {instead}")


def download(entry: Mapping[str, str], key: str, instead: str) -> tuple[Path, dict[str, str]]:
    """Find a published file in the Hugging Face cache, or download it.

    Args:
        entry: Repository and file, as TerraTorch lists them (``hf_hub_id``, ``hf_hub_filename``).
        key: What asked for it, for the message.
        instead: What to do where it cannot be had, for the message.

    Returns:
        The file, and where it is from: repository, file name and resolved revision.

    Raises:
        CityHeadsError: It cannot be had.
    """
    from huggingface_hub import hf_hub_download

    repository, name = entry["hf_hub_id"], entry["hf_hub_filename"]
    try:
        path = Path(hf_hub_download(repo_id=repository, filename=name))
    except Exception as error:  # offline, not cached, no access, disk full: the reason is in the message
        raise CityHeadsError(
            f"{key}: {repository}/{name} cannot be had ({type(error).__name__}); connect to the internet, fill the "
            f"Hugging Face cache, or {instead}"
        ) from None
    # the cache keeps a file under snapshots/<revision>/
    return path, {"repository": repository, "file": name, "revision": path.parent.name}


def load_backbone(
    name: str,
    encoder: nn.Module,
    path: Path,
    *,
    bands: Sequence[str] | None = None,
    pretrained_bands: Sequence[str] | None = None,
    new: Sequence[str] = (),
) -> int:
    """Read a checkpoint and copy it into an encoder, every weight of it.

    Args:
        name: Name of the backbone in TerraTorch's registry.
        encoder: The encoder; changed in place.
        path: Checkpoint, as for ``read_weights``.
        bands: Names of the encoder's bands, for Prithvi; None for as many as the checkpoint has, in its order.
        pretrained_bands: Names of the checkpoint's bands; None for the six of the published Prithvi.
        new: As for ``load_weights``.

    Returns:
        Number of tensors that were loaded.

    Raises:
        CityHeadsError: The file cannot be read, or does not hold all of the encoder's weights.
    """
    weights = read_weights(path)
    if not is_prithvi(name):
        # token ids of coordinates, which come with a file of their own
        return load_weights(encoder, weights, str(path), new=(*new, "tokenizer."))
    # layers that TerraTorch adds to a pretrained Prithvi: an adapter's, and prompts
    new = (*new, *getattr(single_date(encoder), "extra_layers", ()), "vpt_prompt_embeddings.")
    chosen = prithvi_weights(weights, bands, str(path), pretrained_bands)
    return load_weights(encoder, chosen, str(path), new=new, computed=COMPUTED)


def load_weights(
    encoder: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    *,
    new: Sequence[str] = (),
    computed: str = _COMPUTED,
) -> int:
    """Copy weights into an encoder, every one of them.

    Weights that the encoder has no place for (other modalities, a pretraining decoder) are left out. A TiM encoder
    takes them twice: for the part that is fine-tuned, and for its generator.

    Args:
        encoder: The encoder; changed in place.
        weights: Tensors by the encoder's own names, or under one common prefix (``encoder.``, ``backbone.``, ...).
        source: What to call the weights in a message.
        new: Beginnings of names that no published weights can have, such as the embedding of a new modality; they
            keep their random values.
        computed: Pattern of names that the encoder computes itself.

    Returns:
        Number of tensors that were loaded.

    Raises:
        CityHeadsError: A weight of the encoder is missing or of another shape; nothing has been changed then.
    """
    one = single_date(encoder)
    parts: Mapping[str, nn.Module] = getattr(one, "parts", {"encoder": one})
    found = {what: _fitting(part, what, weights, source, new, computed) for what, part in parts.items()}
    for what, part in parts.items():
        part.load_state_dict(found[what], strict=False)
    return sum(map(len, found.values()))


def _fitting(
    module: nn.Module, what: str, weights: Mapping[str, Tensor], source: str, new: Sequence[str], computed: str
) -> dict[str, Tensor]:
    """Give the weights that a module takes, or fail when one is missing or of another shape."""
    wanted = module.state_dict()
    learned = [name for name in wanted if not re.search(computed, name) and not name.startswith(tuple(new))]
    weights = _without_prefix(weights, learned[-1])
    missing = sorted(name for name in learned if name not in weights)
    if missing:
        raise _incomplete(source, missing, len(wanted), what)
    found = {name: weights[name] for name in wanted if name in weights}
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            raise CityHeadsError(
                f"{source}: {name} is {list(value.shape)}, the {what} takes {list(wanted[name].shape)}"
            )
    return found


def _incomplete(source: str, missing: Sequence[str], total: int, what: str = "encoder") -> CityHeadsError:
    named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    return CityHeadsError(f"{source}: {len(missing)} of the {what}'s {total} weights are missing: {named}")


def _without_prefix(weights: Mapping[str, Tensor], anchor: str) -> Mapping[str, Tensor]:
    """Drop the prefix under which a name that must be there is found, if any."""
    prefixes = [name.removesuffix(anchor) for name in weights if name.endswith(f".{anchor}")]
    if anchor in weights or not prefixes:
        return weights
    prefix = min(prefixes, key=len)
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


@contextmanager
def all_loaded(source: str) -> Iterator[list[nn.Module]]:
    """Watch a library load an encoder by itself; leaving fails unless every parameter was loaded.

    Libraries load with ``strict=False``, and a missing weight is a warning at most. Inside, ``torch.load`` executes no
    pickled code either, whatever the library asks for.

    Args:
        source: What to call the weights in a message.

    Yields:
        A list that the caller puts the encoder into.

    Raises:
        CityHeadsError: Parameters, or running statistics, of the encoder were not loaded.
    """
    encoders: list[nn.Module] = []
    loaded: dict[int, Tensor] = {}  # with the tensors, so that no other one can get the id of one that is gone
    original = nn.Module.load_state_dict

    def noted(module: nn.Module, state: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        result = original(module, state, *args, **kwargs)
        now = module.state_dict(keep_vars=True)
        loaded.update({id(now[name]): now[name] for name in state if name in now})
        return result

    flag = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(flag)
    os.environ[flag] = "1"
    nn.Module.load_state_dict = noted  # type: ignore[method-assign, assignment]
    try:
        yield encoders
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]
        del os.environ[flag]
        if before is not None:
            os.environ[flag] = before
    for encoder in encoders:
        wanted = {name for name, _ in encoder.named_parameters()}
        state = encoder.state_dict(keep_vars=True)
        wanted |= {name for name in state if name.endswith(("running_mean", "running_var"))}
        missing = sorted(name for name in wanted if name in state and id(state[name]) not in loaded)
        if missing:
            raise _incomplete(source, missing, len(wanted))
