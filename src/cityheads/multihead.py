"""One encoder, any number of dense heads: TerraTorch's parts, put together so that every head can be its own.

TerraTorch 1.2.11 has no such model: its auxiliary heads share the number of classes, the head's arguments and the
mask. Its backbones, necks and decoders are used as they are.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cityheads.errors import CityHeadsError
from cityheads.io import read_json
from cityheads.modalities import MODALITIES

__all__ = ["MultiHeadModel", "Normalise", "build_model", "load_model", "mix", "seeded"]

log = logging.getLogger(__name__)


class Normalise(nn.Module):
    """Stored units in, standardised values out; a missing pixel becomes the mean, that is 0.

    Args:
        mean: Mean per band, in stored units.
        std: Standard deviation per band, in stored units.
        nodata: Value that marks a missing pixel; NaN always does.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], nodata: float | None = None) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"need as many means as positive standard deviations, not {mean} and {std}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.nodata = None if nodata is None or math.isnan(nodata) else float(nodata)

    def forward(self, image: Tensor) -> Tensor:
        """Standardise (B, C, H, W) in stored units."""
        image = image.float()
        missing = image.isnan() if self.nodata is None else image.isnan() | (image == self.nodata)
        return ((image - self.mean) / self.std).masked_fill(missing, 0.0)


class _Head(nn.Module):
    """Neck, decoder and classifier of one head, from feature maps to (B, n, h, w)."""

    def __init__(self, neck: nn.Module, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.neck = neck
        self.decoder = decoder
        self.head = head

    def forward(self, features: list[Tensor], image_size: tuple[int, int]) -> Tensor:
        output: Tensor = self.head(self.decoder(self.neck(features, image_size=image_size)))
        return output


class MultiHeadModel(nn.Module):
    """A shared encoder and one neck, decoder and classifier per head, all of them built here.

    Args:
        encoder: Backbone whose ``forward(dict)`` gives a list of (B, N, D) tokens or (B, D, h, w) maps, one per layer,
            and whose ``out_channels`` lists the Ds.
        normalise: A ``Normalise`` per modality, in the order in which the encoder gets them.
        heads: Name -> module from feature maps to logits of any resolution.
        indices: Layers of the encoder that the heads see.
        patch_size: Side of a token in pixels.
    """

    def __init__(
        self,
        encoder: nn.Module,
        normalise: Mapping[str, Normalise],
        heads: Mapping[str, nn.Module],
        *,
        indices: Sequence[int],
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.normalise = nn.ModuleDict(normalise)
        self.heads = nn.ModuleDict(heads)
        self.indices = list(indices)
        self.patch_size = patch_size
        self._encoder_frozen = False

    @property
    def modalities(self) -> list[str]:
        """Names of the inputs."""
        return list(self.normalise)

    def freeze_encoder(self) -> None:
        """Stop training the encoder: no gradients, and evaluation mode whatever the model's mode is."""
        self._encoder_frozen = True
        self.encoder.requires_grad_(False)
        self.encoder.eval()

    def freeze_decoder(self) -> None:
        """Stop training every head, its neck included, in evaluation mode from the next ``train`` call on too."""
        self.heads.requires_grad_(False)

    def train(self, mode: bool = True) -> MultiHeadModel:
        """Set the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self._encoder_frozen:
            self.encoder.eval()
        return self

    def features(self, images: Mapping[str, Tensor]) -> list[Tensor]:
        """Give the encoder's chosen layers as (B, D, h, w) maps, of images whose sides are whole patches."""
        # the encoder takes keys out of the dict that it is given, so it gets one of its own
        inputs = {name: module(images[name]) for name, module in self.normalise.items()}
        height, width = inputs[self.modalities[0]].shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        outputs = self.encoder(inputs)
        return [tokens_to_map(outputs[index], grid) for index in self.indices]

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the logits of every head at the size of the input.

        Args:
            images: {modality: (B, C, H, W)} in stored units with nodata values; further keys are not looked at.

        Returns:
            {head: (B, n_classes, H, W)}.

        Raises:
            CityHeadsError: A modality is missing.
        """
        missing = [name for name in self.normalise if name not in images]
        if missing:
            raise CityHeadsError(f"the model needs modality {missing[0]}; it was given {', '.join(images) or 'none'}")
        size = images[self.modalities[0]].shape[-2:]
        padded = {name: _pad(images[name], 2 * self.patch_size) for name in self.normalise}
        inner = padded[self.modalities[0]].shape[-2:]
        features = self.features(padded)
        return {name: self._decode(head, features, inner, size) for name, head in self.heads.items()}

    @staticmethod
    def _decode(head: nn.Module, features: list[Tensor], inner: torch.Size, size: torch.Size) -> Tensor:
        logits: Tensor = head(list(features), (inner[0], inner[1]))
        if logits.shape[-2:] != inner:
            logits = F.interpolate(logits, size=inner, mode="bilinear")
        top, left = (inner[0] - size[0]) // 2, (inner[1] - size[1]) // 2
        return logits[..., top : top + size[0], left : left + size[1]]


def tokens_to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Lay tokens out on their grid: (B, N, D) -> (B, D, h, w); a map is given back as it is.

    TerraTorch's ``ReshapeTokensToImage`` guesses the grid from the number of tokens and takes 8 x 18 for 12 x 12, and
    drops the first token unless told otherwise. Here the grid is known, and one more token is a class token.

    Raises:
        ValueError: The number of tokens fits neither.
    """
    if tokens.dim() == 4:
        return tokens
    count = grid[0] * grid[1]
    if tokens.shape[1] == count + 1:
        tokens = tokens[:, 1:]
    if tokens.shape[1] != count:
        raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid of {grid[0]} x {grid[1]}")
    return tokens.transpose(1, 2).unflatten(2, grid)


def _pad(image: Tensor, multiple: int) -> Tensor:
    """Pad both sides by reflection to whole multiples; TerraTorch does the same, since decoders halve the grid."""
    height, width = image.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return image
    return F.pad(image, (right // 2, right - right // 2, down // 2, down - down // 2), mode="reflect")


def build_model(spec: Mapping[str, Any], *, weights: bool = True) -> MultiHeadModel:
    """Build a model from its specification (the content of ``model.json``).

    The encoder's random weights depend on the seed, each head's on the seed and the head's name: the same run with
    fewer heads starts from the same encoder, and the order of the heads does not matter.

    Args:
        spec: ``backbone``, ``seed``, ``model`` (the config's section), ``modalities`` {name: {bands, mean, std}} and
            ``heads`` {name: {classes, ...}}.
        weights: Load the encoder's published or local weights where the specification asks for them; False when
            trained weights are loaded afterwards.

    Raises:
        CityHeadsError: The backbone is unknown, or its weights are not to be had or not complete.
    """
    model, seed = spec["model"], spec["seed"]
    with seeded(seed, "encoder"):
        encoder = _build_encoder(spec)
    if weights and (model["weights"] or model["pretrained"]):
        from cityheads.backbones.weights import load_weights, published_weights, read_weights

        path = Path(model["weights"]) if model["weights"] else published_weights(spec["backbone"])[0]
        count = load_weights(encoder, read_weights(path), str(path))
        log.info("%s: loaded %d weights from %s", spec["backbone"], count, path.name)
    depth = len(encoder.out_channels)
    indices = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    heads: dict[str, nn.Module] = {}
    for name, head in spec["heads"].items():
        with seeded(seed, name):
            heads[name] = _build_head(
                [encoder.out_channels[index] for index in indices],
                model["decoder_channels"],
                len(head["classes"]),
                model["dropout"],
            )
    normalise = {
        name: Normalise(entry["mean"], entry["std"], MODALITIES[name].nodata)
        for name, entry in spec["modalities"].items()
    }
    built = MultiHeadModel(encoder, normalise, heads, indices=indices)
    if model["freeze_encoder"]:
        built.freeze_encoder()
    return built


def _build_encoder(spec: Mapping[str, Any]) -> Any:
    from terratorch.models.utils import _get_backbone
    from terratorch.registry import BACKBONE_REGISTRY

    name = spec["backbone"]
    if name not in BACKBONE_REGISTRY:
        raise CityHeadsError(f"config key 'model.backbone': TerraTorch knows no backbone '{name}'")
    encoder = _get_backbone(
        name, pretrained=False, modalities=list(spec["modalities"]), merge_method=spec["model"]["merge"]
    )
    if hasattr(encoder, "missing_mod_token"):
        # upstream leaves this parameter as uninitialised memory
        nn.init.normal_(encoder.missing_mod_token, std=0.02)
    return encoder


def _build_head(channels: list[int], decoder_channels: list[int], classes: int, dropout: float) -> nn.Module:
    from terratorch.models.heads import SegmentationHead
    from terratorch.models.necks import NeckSequential, build_neck_list
    from terratorch.registry import DECODER_REGISTRY

    necks, channels = build_neck_list([{"name": "LearnedInterpolateToPyramidal"}], channels)
    decoder = DECODER_REGISTRY.build("UNetDecoder", channels, channels=decoder_channels)
    return _Head(NeckSequential(*necks), decoder, SegmentationHead(decoder.out_channels, classes, dropout=dropout))


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Draw torch's random numbers from a stream that depends on the seed and a name; the outer stream is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, zlib.crc32(name.encode())))
        yield


def mix(*numbers: int) -> int:
    """Hash several numbers into one seed of 32 bits; torch's CPU generator does not look at more."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def load_model(run_dir: Path) -> tuple[MultiHeadModel, dict[str, Any]]:
    """Rebuild a trained model from its folder, in evaluation mode.

    Args:
        run_dir: Folder with ``model.json`` and ``model.safetensors``.

    Returns:
        The model and its specification.

    Raises:
        CityHeadsError: A file is missing or damaged, or the weights are not exactly those of the specification.
    """
    from cityheads.backbones.weights import read_weights

    run_dir = Path(run_dir)
    spec: dict[str, Any] = read_json(run_dir / "model.json")
    if spec.get("format") != 1:
        raise CityHeadsError(f"{run_dir / 'model.json'}: format {spec.get('format')} is not known; train again")
    weights = read_weights(run_dir / "model.safetensors")
    model = build_model(spec, weights=False)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise CityHeadsError(f"{run_dir / 'model.safetensors'}: does not fit model.json ({error})") from None
    return model.eval(), spec
