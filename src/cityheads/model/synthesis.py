"""Modalities out of other modalities: TerraMind's generator and tokenizers, in stored units.

Jakubik et al. 2025, "TerraMind: Large-Scale Generative Multimodality for Earth Observation" (arXiv:2504.11171): an
encoder-decoder predicts the tokens of a modality, and the modality's tokenizer, a diffusion autoencoder, paints them.

TerraTorch 1.2.11 has both as ``terramind_v1_*_generate``. There ``standardize`` overwrites the caller's tensors,
``offset`` changes a table that all models share, seeds come from Python's ``random``, and missing pixels are read as
values. Here upstream's parts are used without that wrapper.

What a tokenizer paints lies within one standard deviation of the pretraining mean: the published models' diffusion
clips there (``clip_sample`` and ``thresholding`` in TerraTorch's ``tokenizer_register``).
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cityheads.config import SynthesisConfig
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file
from cityheads.core.modalities import MODALITIES, Modality
from cityheads.model.arithmetic import fixed_arithmetic
from cityheads.model.backbones.tim import TARGETS, build_generator, full_image, generate_tokens
from cityheads.model.backbones.weights import download, load_weights, published_weights, read_weights
from cityheads.model.seeds import own_stream

__all__ = [
    "Synthesizer",
    "build_synthesizer",
    "cut",
    "in_units",
    "load_tokenizer",
    "padded",
    "paint",
    "standardised",
    "synthesize",
    "valid",
]

log = logging.getLogger(__name__)
progress = logging.getLogger("cityheads.progress")

#: Upstream's names of modalities that come as pixels (``modality_info.MODALITY_INFO``).
PIXELS = {
    "S2L2A": "untok_sen2l2a@224",
    "S1RTC": "untok_sen1rtc@224",
    "S1GRD": "untok_sen1grd@224",
    "DEM": "untok_dem@224",
}

#: Side in pixels that TerraMind's positions are made for, and of a token.
_SIZE, _PATCH = 224, 16

#: Windows have sides of whole multiples of this: the tokenizers' decoders halve patches of 4 pixels three times.
_MULTIPLE = 32


@dataclass(frozen=True)
class Synthesizer:
    """What makes one modality of others.

    Attributes:
        target: Name of the modality.
        inputs: Names of the modalities that it is made of.
        generator: TerraMind's encoder and decoder.
        tokenizer: The target's tokenizer.
        origin: What made it, for the artifact.
    """

    target: str
    inputs: tuple[str, ...]
    generator: torch.nn.Module
    tokenizer: Any
    origin: dict[str, Any]

    def window(self, layers: Mapping[str, np.ndarray], *, steps: int, temperature: float, seed: int) -> np.ndarray:
        """Make one square window.

        Args:
            layers: {input: (C, n, n)} in stored units with nodata values; left as they are.
            steps: Diffusion steps.
            temperature: Spread of the choice of a token; 0 takes the most probable one.
            seed: Seed of the tokens and of the diffusion's first noise.

        Returns:
            (C, n, n) in stored units, nodata where no input has data.
        """
        size = layers[self.inputs[0]].shape[-1]
        known = np.any([valid(layers[name], MODALITIES[name]).any(axis=0) for name in self.inputs], axis=0)
        modality = MODALITIES[self.target]
        if not known.any():
            return np.full((len(modality.bands), size, size), modality.nodata, modality.dtype)
        images = {name: padded(standardised(layers[name], MODALITIES[name])) for name in self.inputs}
        side = next(iter(images.values())).shape[-1] // _PATCH
        given = {PIXELS[n]: full_image(PIXELS[n], image, side**2, image.device) for n, image in images.items()}
        key = TARGETS[self.target]
        tokens = generate_tokens(self.generator, given, [key], side**2, temperature=temperature, seed=seed)[key]
        painted = paint(self.tokenizer, tokens.view(1, side, side), steps=steps, seed=seed)
        result = in_units(cut(painted, size)[0].numpy(), modality)
        result[:, ~known] = modality.nodata
        return result


def synthesize(
    layers: Mapping[str, np.ndarray], target: str, options: SynthesisConfig, *, window_px: int, name: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Make a modality of a parent from the modalities that are there, window by window.

    The same input and options give the same bytes (on a CPU at one number of threads). Windows do not know each other,
    so what is made can have seams between them.

    Args:
        layers: {modality: (C, N, N)} in stored units; left as they are.
        target: What to make, such as ``S1RTC``.
        options: The config's ``archive.synthesis``.
        window_px: Side of a window; divides N.
        name: Name of the parent; part of the seeds.

    Returns:
        (C, N, N) in stored units, and what made it: ``generator``, weights, ``seed`` and so on.

    Raises:
        CityHeadsError: Weights are missing or not complete, or there is nothing to make it from.
    """
    inputs = tuple(layer for layer in layers if layer in PIXELS and layer != target)
    if not inputs:
        raise CityHeadsError(f"{name}: {target} cannot be made: there is no modality to make it from")
    maker = build_synthesizer(target, inputs, options)
    side = layers[inputs[0]].shape[-1]
    if side % window_px:
        raise ValueError(f"windows of {window_px} px do not divide a parent of {side} px")
    count = side // window_px
    modality = MODALITIES[target]
    result = np.empty((len(modality.bands), side, side), modality.dtype)
    with fixed_arithmetic(options.threads):
        for row in range(count):
            for column in range(count):
                progress.info("%s: %s is made, window %d of %d", name, target, row * count + column + 1, count**2)
                here = np.s_[:, row * window_px : (row + 1) * window_px, column * window_px : (column + 1) * window_px]
                seed = np.random.SeedSequence([options.seed, zlib.crc32(name.encode()), row, column])
                result[here] = maker.window(
                    {layer: layers[layer][here] for layer in inputs},
                    steps=options.steps,
                    temperature=options.temperature,
                    seed=int(seed.generate_state(1)[0]) >> 1,
                )
    made = {"steps": options.steps, "temperature": options.temperature, "seed": options.seed}
    return result, {**maker.origin, "from": list(inputs), "window_px": window_px, **made}


def build_synthesizer(target: str, inputs: tuple[str, ...], options: SynthesisConfig) -> Synthesizer:
    """Build a generator with its tokenizer, and give them their weights.

    Args:
        target: What to make.
        inputs: What to make it from.
        options: The config's ``archive.synthesis``.

    Raises:
        CityHeadsError: The backbone cannot generate, or weights are missing or not complete. Random weights are taken
            only where ``pretrained`` is false and no file is named.
    """
    backbone = options.backbone
    plain = backbone.removesuffix("_generate")
    with own_stream():
        torch.manual_seed(options.seed)
        generator = build_generator(plain, [PIXELS[name] for name in inputs], [TARGETS[target]], _SIZE)
    weights = None
    if options.weights:
        path = Path(options.weights)
        weights = {"file": path.name}
    elif options.pretrained:
        path, weights = published_weights(plain, "archive.synthesis.pretrained", "archive.synthesis.weights")
    if weights is not None:
        count = load_weights(generator, read_weights(path), str(path))
        weights["sha256"] = sha256_file(path)
        log.info("%s: loaded %d weights from %s", backbone, count, path.name)
    tokenizer, of_tokenizer = load_tokenizer(
        target, options.tokenizer_weights, pretrained=options.pretrained, seed=options.seed,
        asked="config key 'archive.synthesis.pretrained'", instead="name a file in archive.synthesis.tokenizer_weights",
    )  # fmt: skip
    trained = weights is not None and of_tokenizer is not None
    if not trained:
        log.warning("%s is made by an untrained generator: it is noise in the right units", target)
    origin = {
        "generator": backbone if trained else f"untrained generator ({backbone})",
        "trained": trained,
        "weights": weights,
        "tokenizer_weights": of_tokenizer,
    }
    return Synthesizer(target, inputs, generator, tokenizer, origin)


def load_tokenizer(
    modality: str, weights: str | Path | None, *, pretrained: bool, seed: int, asked: str, instead: str
) -> tuple[Any, dict[str, str] | None]:
    """Build the tokenizer of a modality and give it its weights, every one of them.

    Args:
        modality: ``S2L2A``, ``S1RTC``, ``S1GRD`` or ``DEM``.
        weights: Local checkpoint, in place of the published one.
        pretrained: Take the published weights.
        seed: Seed of random weights.
        asked: What asked for published weights, for a message.
        instead: What to do where they cannot be had, for a message.

    Returns:
        The tokenizer in evaluation mode, and where its weights are from; None for random ones.

    Raises:
        CityHeadsError: There is no such tokenizer, or the weights cannot be had or are not complete.
    """
    from terratorch.models.backbones.terramind.tokenizer.tokenizer_register import pretrained_weights
    from terratorch.registry import FULL_MODEL_REGISTRY

    if modality not in PIXELS:
        raise CityHeadsError(f"TerraMind has no tokenizer of pixels for '{modality}'; it has {', '.join(PIXELS)}")
    name = f"terramind_v1_tokenizer_{modality.lower()}"
    origin: dict[str, str] | None = None
    state: dict[str, Tensor] = {}
    if weights:
        path = Path(weights)
        origin = {"file": path.name}
    elif pretrained:
        path, origin = download(pretrained_weights[name], asked, instead)
    if origin is not None:
        state = read_weights(path)
        origin["sha256"] = sha256_file(path)
    with own_stream():
        torch.manual_seed(seed)
        tokenizer: Any = FULL_MODEL_REGISTRY.build(name, pretrained=False)
    tokenizer.requires_grad_(False).eval()
    if state:
        # every key, also of tables that the encoder computes: so does upstream
        load_weights(tokenizer, state, str(path), computed="(?!)")
    return tokenizer, origin


@torch.no_grad()
def paint(tokenizer: Any, tokens: Tensor, *, steps: int, seed: int) -> Tensor:
    """Decode tokens (B, h, w) to standardised pixels (B, C, 16 h, 16 w), from seeded noise.

    Args:
        tokenizer: A tokenizer with a diffusion decoder.
        tokens: Whole even numbers of tokens a side.
        steps: Diffusion steps.
        seed: Seed of the first noise.
    """
    generator = torch.Generator().manual_seed(seed)
    result: Tensor = tokenizer.decode_tokens(tokens, timesteps=steps, generator=generator, verbose=False)
    return result


def standardised(array: np.ndarray, modality: Modality) -> Tensor:
    """Give (1, C, H, W) with TerraMind's pretraining statistics of an array in stored units; nodata is the mean, 0."""
    mean = np.array(modality.mean, np.float32)[:, None, None]
    std = np.array(modality.std, np.float32)[:, None, None]
    values = np.where(valid(array, modality), (array.astype(np.float32) - mean) / std, np.float32(0))
    return torch.from_numpy(values)[None]


def in_units(values: np.ndarray, modality: Modality) -> np.ndarray:
    """Give standardised values (C, H, W) in stored units and dtype, without the value that marks a missing pixel."""
    mean = np.array(modality.mean, np.float32)[:, None, None]
    std = np.array(modality.std, np.float32)[:, None, None]
    result = values * std + mean
    dtype = np.dtype(modality.dtype)
    if dtype.kind == "f":
        return result.astype(dtype)
    return np.clip(np.rint(result), modality.nodata + 1, np.iinfo(dtype).max).astype(dtype)


def valid(array: np.ndarray, modality: Modality) -> np.ndarray:
    """Tell, band by band, where there is data."""
    return np.isfinite(array) if np.isnan(modality.nodata) else array != modality.nodata


def padded(image: Tensor) -> Tensor:
    """Extend (1, C, n, n) to whole multiples of 32 by mirroring, right and below."""
    missing = -image.shape[-1] % _MULTIPLE
    if not missing:
        return image
    extended = np.pad(image.numpy(), [(0, 0), (0, 0), (0, missing), (0, missing)], mode="reflect")
    return torch.from_numpy(extended)


def cut(image: Tensor, size: int) -> Tensor:
    """Undo ``padded``."""
    return image[..., :size, :size]
