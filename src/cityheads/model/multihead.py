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

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json
from cityheads.core.modalities import COORDS, DERIVED, DERIVED_FROM_S2, MODALITIES, TRUE_COLOUR_MAX_DN
from cityheads.model.backbones import Backbone, build_backbone, default_indices, is_terramind

__all__ = [
    "FullResolutionDecoder",
    "Head",
    "MultiHeadModel",
    "Normalise",
    "build_head",
    "build_model",
    "derive",
    "load_model",
    "mix",
    "seeded",
]

log = logging.getLogger(__name__)


class Normalise(nn.Module):
    """Stored units in, standardised values out; a missing pixel becomes the mean, that is 0.

    Args:
        mean: Mean per band, in stored units.
        std: Standard deviation per band, in stored units.
        nodata: Value that marks a missing pixel; NaN always does.
        bands: Positions of the bands to take, where not all of them are wanted.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        nodata: float | None = None,
        bands: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"need as many means as positive standard deviations, not {mean} and {std}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.nodata = None if nodata is None or math.isnan(nodata) else float(nodata)
        self.bands = None if bands is None else list(bands)

    def forward(self, image: Tensor) -> Tensor:
        """Standardise (B, C, H, W), or (B, C, T, H, W), in stored units."""
        if self.bands is not None:
            image = image[:, self.bands]
        image = image.float()
        missing = image.isnan() if self.nodata is None else image.isnan() | (image == self.nodata)
        mean, std = (self.mean, self.std) if image.dim() == 4 else (self.mean[..., None], self.std[..., None])
        return ((image - mean) / std).masked_fill(missing, 0.0)


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


class FullResolutionDecoder(nn.Module):
    """TerraTorch's UNet decoder, and one or two more stages up that take the input image as their skip.

    The UNet ends at a quarter of the input's resolution, and interpolation from there cannot give an edge back. Each
    further stage doubles the resolution and joins a shallow convolution of the input.

    Args:
        embed_dim: Channels of the feature maps.
        channels: Channels of the UNet's stages.
        image_channels: Bands of all modalities together.
        stages: 1 ends at half the input's resolution, 2 at the whole.
        stem_channels: Channels of the convolutions of the input.
    """

    needs_image = True

    def __init__(
        self,
        embed_dim: list[int],
        channels: list[int],
        image_channels: int,
        stages: int = 2,
        stem_channels: int = 16,
    ) -> None:
        from terratorch.models.decoders import UNetDecoder

        super().__init__()
        if stages not in (1, 2):
            raise ValueError(f"stages must be 1 or 2, not {stages}")
        self.unet = UNetDecoder(embed_dim, channels=channels)
        self.out_channels = self.unet.out_channels
        strides = (2, 1)[:stages]
        self.stems = nn.ModuleList(_conv(image_channels, stem_channels, stride) for stride in strides)
        self.ups = nn.ModuleList(_conv(self.out_channels + stem_channels, self.out_channels, 1) for _ in strides)

    def forward(self, features: list[Tensor], image: Tensor) -> Tensor:
        """Give (B, out_channels, H, W), or half of it, of maps and the standardised input (B, C, H, W)."""
        x: Tensor = self.unet(features)
        for stem, up in zip(self.stems, self.ups, strict=True):
            skip = stem(image)
            x = up(torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], dim=1))
        return x


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class MultiHeadModel(nn.Module):
    """A shared encoder and one neck, decoder and classifier per head, all of them built before the optimizer is.

    Args:
        backbone: The encoder; its ``out_channels`` lists the size of each layer's output.
        normalise: A ``Normalise`` per modality, in the order in which the encoder gets them.
        heads: Name -> head.
        indices: Layers of the encoder that the heads see.
        neck: Neck of the heads that have none of their own.
        merge: Module from the encoder's tokens per modality to one set of tokens, where the encoder does not merge.
        modality_dropout: Chance that a modality is left out of a training batch; at least one stays.
        derived: Modalities computed from S2L2A: ``NDVI``, ``RGB``.
        passed: Inputs that are no images and go to the encoder as they are: ``coords``.
    """

    def __init__(
        self,
        backbone: Backbone,
        normalise: Mapping[str, Normalise],
        heads: Mapping[str, nn.Module],
        *,
        indices: Sequence[int],
        neck: nn.Module | None = None,
        merge: nn.Module | None = None,
        modality_dropout: float = 0.0,
        derived: Sequence[str] = (),
        passed: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.encoder = backbone.module
        self.normalise = nn.ModuleDict(normalise)
        self.heads = nn.ModuleDict(heads)
        self.neck = neck
        self.merge = merge
        self.indices = list(indices)
        self.backbone = dict(vars(backbone))
        del self.backbone["module"]
        self.modality_dropout = modality_dropout
        self.derived = set(derived)
        self.passed = list(passed)
        self._frozen: list[nn.Module] = []

    @property
    def acquired(self) -> list[str]:
        """Names of the inputs that the caller gives, and of which one can be missing."""
        return list(dict.fromkeys(self._source(name) for name in (*self.normalise, *self.passed)))

    def _source(self, name: str) -> str:
        return "S2L2A" if name in self.derived else name

    def freeze_encoder(self) -> None:
        """Stop training the encoder: no gradients, and evaluation mode whatever the model's mode is."""
        self._freeze(self.encoder)

    def freeze_decoder(self) -> None:
        """Stop training necks and decoders; the classifiers go on."""
        parts = (part for head in self.heads.values() for part in (head.merge, head.neck, head.decoder))
        for module in (self.neck, *parts):
            if isinstance(module, nn.Module):
                self._freeze(module)

    def freeze_head(self) -> None:
        """Stop training the classifiers."""
        for head in self.heads.values():
            assert isinstance(head, Head)
            self._freeze(head.head)

    def _freeze(self, module: nn.Module) -> None:
        module.requires_grad_(False)
        module.eval()
        self._frozen.append(module)

    def train(self, mode: bool = True) -> MultiHeadModel:
        """Set the mode; what is frozen stays in evaluation mode, so that its running statistics do not move either."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(
        self, images: Mapping[str, Tensor], *, drop: Sequence[str] = (), **encoder_arguments: Any
    ) -> dict[str, Tensor]:
        """Give the logits of every head at the size of the input.

        Args:
            images: {modality: (B, C, H, W)} in stored units with nodata values, (B, C, T, H, W) for an encoder with
                time, (B, 2) longitude and latitude for ``coords``; further keys are not looked at.
            drop: Inputs to leave out, as if they had not been acquired; with S2L2A goes what is computed from it.
            encoder_arguments: Passed on to the encoder, such as Prithvi's ``temporal_coords``.

        Returns:
            {head: (B, n_classes, H, W)}.

        Raises:
            CityHeadsError: A modality is missing, or all of them are left out.
        """
        inputs = self._inputs(images, drop)
        first = next(tensor for tensor in inputs.values() if tensor.dim() >= 4)
        size = first.shape[-2:]
        inputs = {name: _pad(tensor, 2 * self.backbone["patch_size"]) for name, tensor in inputs.items()}
        inner = next(tensor for tensor in inputs.values() if tensor.dim() >= 4).shape[-2:]
        image = None
        if any(head.needs_image for head in self.heads.values()):
            image = torch.cat(
                [inputs[name] if name in inputs else self._blank(name, inputs) for name in self.normalise], 1
            )
        layers = self._layers(inputs, **encoder_arguments)
        shared = self.neck(self._maps(layers, inner), image_size=inner) if self.neck is not None else None
        logits: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            own = shared
            if isinstance(head.neck, nn.Module):
                own = head.neck(self._maps(layers, inner, head.merge), image_size=inner)
            out = head(own, image) if head.needs_image else head(own)
            if out.shape[-2:] != inner:
                out = F.interpolate(out, size=inner, mode="bilinear")
            top, left = (inner[0] - size[0]) // 2, (inner[1] - size[1]) // 2
            logits[name] = out[..., top : top + size[0], left : left + size[1]]
        return logits

    def _layers(self, inputs: Mapping[str, Tensor], **encoder_arguments: Any) -> list[Any]:
        """Give the tokens of the encoder's chosen layers: merged, per modality, or all in a row."""
        # the encoder takes keys out of the dict that it is given, so it gets one of its own
        given = dict(inputs) if self.backbone["takes_dict"] else next(t for t in inputs.values() if t.dim() >= 4)
        outputs = self.encoder(given, **encoder_arguments)
        chosen = [outputs[index] for index in self.indices]
        return chosen if self.merge is None else [self.merge(tokens) for tokens in chosen]

    def _maps(self, layers: list[Any], size: Sequence[int], merge: Any = None) -> list[Tensor]:
        """Lay tokens out as (B, D, h, w) maps, merged by a head's own modules where the encoder has not done it."""
        side = self.backbone["patch_size"]
        grid = (size[0] // side, size[1] // side)
        if merge is None:
            return [tokens_to_map(tokens, grid, self.backbone["frames"]) for tokens in layers]
        maps = []
        for tokens, module in zip(layers, merge, strict=True):
            if isinstance(tokens, Mapping):
                merged = module({name: one for name, one in tokens.items() if name not in self.passed})
            else:
                merged = module(tokens, grid[0] * grid[1])
            maps.append(tokens_to_map(merged, grid))
        return maps

    def _inputs(self, images: Mapping[str, Tensor], drop: Sequence[str]) -> dict[str, Tensor]:
        sources = [name for name in self.acquired if name not in drop]
        missing = [name for name in sources if name not in images]
        if missing:
            raise CityHeadsError(f"the model needs modality {missing[0]}; it was given {', '.join(images) or 'none'}")
        if self.training and self.modality_dropout:
            sources = self._drop_some(sources)
        inputs: dict[str, Tensor] = {}
        for name in (*self.normalise, *self.passed):
            source = self._source(name)
            if name in drop or source not in sources:
                continue
            image = images[source]
            if name in self.derived:
                image = derive(name, image)
            inputs[name] = image if name in self.passed else self.normalise[name](image)
        if not any(tensor.dim() >= 4 for tensor in inputs.values()):
            raise CityHeadsError("all image modalities are left out; the model needs at least one")
        steps = {tensor.shape[2] for tensor in inputs.values() if tensor.dim() == 5}
        self._check_steps(steps)
        if steps and self.backbone["temporal"]:
            # what does not change with time is repeated, which the temporal wrapper does not do by itself
            (count,) = steps
            for name, tensor in inputs.items():
                if tensor.dim() == 4:
                    inputs[name] = tensor.unsqueeze(2).expand(-1, -1, count, -1, -1)
        return inputs

    def _check_steps(self, found: set[int]) -> None:
        """Refuse time steps that the encoder was not built for; they would fail deep inside, or not at all."""
        wanted = self.backbone["steps"]
        if len(found) > 1 or (self.backbone["temporal"] and not found) or (wanted and (found or {1}) != {wanted}):
            given = " and ".join(map(str, sorted(found))) if found else "no time axis"
            raise CityHeadsError(
                f"the encoder takes (batch, bands, time, height, width) with {wanted or 'as many'} time steps"
                f"{'' if wanted else ' in all modalities'}; it was given {given}"
            )

    def _drop_some(self, names: list[str]) -> list[str]:
        keep = [name for name in names if float(torch.rand(())) >= self.modality_dropout]
        if any(name not in self.passed for name in keep):
            return keep
        images = [name for name in names if name not in self.passed]
        return [images[int(torch.randint(len(images), ()))]]

    def _blank(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        other = next(tensor for tensor in inputs.values() if tensor.dim() >= 4)
        module = self.normalise[name]
        assert isinstance(module, Normalise)
        return other.new_zeros(other.shape[0], len(module.mean), *other.shape[-2:])


def ndvi(s2: Tensor) -> Tensor:
    """Give the normalised difference vegetation index of Sentinel-2 (B, 12, ...), NaN where a band is missing.

    (B08 - B04) / (B08 + B04), Rouse et al. 1974, "Monitoring vegetation systems in the Great Plains with ERTS".
    """
    red, near = _bands_behind("NDVI", s2).split(1, dim=1)
    return ((near - red) / (near + red)).where((near > 0) & (red > 0), torch.nan)


def true_colour(s2: Tensor) -> Tensor:
    """Give red, green and blue from 0 to 255 of Sentinel-2 (B, 12, ...) reflectance x 10000, NaN where one is missing.

    See ``cityheads.core.modalities.TRUE_COLOUR_MAX_DN`` for the stretch.
    """
    visible = _bands_behind("RGB", s2)
    return (visible * (255 / TRUE_COLOUR_MAX_DN)).clamp(max=255).where(visible > 0, torch.nan)


def _bands_behind(name: str, s2: Tensor) -> Tensor:
    bands = MODALITIES["S2L2A"].bands
    return s2[:, [bands.index(band) for band in DERIVED_FROM_S2[name]]].float()


def derive(name: str, s2: Tensor) -> Tensor:
    """Compute a derived modality, ``NDVI`` or ``RGB``, of Sentinel-2 (B, 12, H, W), also with a time axis."""
    return {"NDVI": ndvi, "RGB": true_colour}[name](s2)


def tokens_to_map(tokens: Tensor, grid: tuple[int, int], frames: int = 1) -> Tensor:
    """Lay tokens out on their grid: (B, frames * h * w, D) -> (B, frames * D, h, w); a map is given back as it is.

    TerraTorch's ``ReshapeTokensToImage`` guesses the grid from the number of tokens and takes 8 x 18 for 12 x 12, and
    drops the first token unless told otherwise. Here the grid is known, and one more token is a class token.

    Raises:
        ValueError: The number of tokens fits neither.
    """
    if tokens.dim() == 4:
        return tokens
    count = frames * grid[0] * grid[1]
    if tokens.shape[1] == count + 1:
        tokens = tokens[:, 1:]
    if tokens.shape[1] != count:
        raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid of {frames} x {grid[0]} x {grid[1]}")
    if frames == 1:
        return tokens.transpose(1, 2).unflatten(2, grid)
    # time goes to the channels, frame after frame, as TerraTorch's necks have it
    stacked = tokens.unflatten(1, (frames, count // frames)).permute(0, 1, 3, 2)
    return stacked.flatten(1, 2).unflatten(2, grid)


def _pad(image: Tensor, multiple: int) -> Tensor:
    """Pad both sides by reflection to whole multiples; TerraTorch does the same, since decoders halve the grid."""
    if image.dim() < 4:
        return image
    height, width = image.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return image
    flat = image.flatten(1, -3)
    padded = F.pad(flat, (right // 2, right - right // 2, down // 2, down - down // 2), mode="reflect")
    return padded.unflatten(1, image.shape[1:-2])


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
    model, seed, modalities = spec["model"], spec["seed"], spec["modalities"]
    # a TerraMind is built with all bands, of which some are then taken; other encoders are built with theirs
    whole = is_terramind(spec["backbone"])
    known = {name: MODALITIES[name].bands for name in modalities if name in MODALITIES and whole}
    with seeded(seed, "encoder"):
        backbone = build_backbone(
            spec["backbone"],
            {name: len(known.get(name, entry["bands"])) for name, entry in modalities.items()},
            merge_method=model["merge"],
            thinking=model.get("thinking"),
        )
        encoder: Any = backbone.module
        if weights and (model["weights"] or model["pretrained"]):
            from cityheads.model.backbones.weights import load_backbone, published_weights

            path = Path(model["weights"]) if model["weights"] else published_weights(spec["backbone"])[0]
            # NDVI is no input of the pretraining
            new = [f"encoder_embeddings.{name}." for name in modalities if name == "NDVI"]
            chosen = None if whole else next(iter(modalities.values()))["bands"]
            count = load_backbone(spec["backbone"], encoder, path, bands=chosen, new=new)
            log.info("%s: loaded %d weights from %s", spec["backbone"], count, path.name)
        if weights and COORDS in modalities and (model["weights"] or model["pretrained"]):
            from cityheads.model.backbones.terramind import coordinate_words, set_coordinate_words

            set_coordinate_words(encoder, coordinate_words(model["coords_vocabulary"]))
        for name, bands in known.items():
            if list(modalities[name]["bands"]) != list(bands):
                from cityheads.model.backbones.terramind import select_bands

                select_bands(encoder, name, modalities[name]["bands"])
    channels = [int(size) for size in encoder.out_channels]
    indices = default_indices(len(channels))
    merge = None
    if model["merge"] == "concat":
        from cityheads.model.backbones.terramind import ConcatMerge

        images = [*(name for name in modalities if name != COORDS), *backbone.thoughts]
        with seeded(seed, "merge"):
            merge = ConcatMerge(images, channels[0])
        channels = [size * len(images) for size in channels]
    channels = [channels[index] for index in indices]
    image_channels = sum(len(entry["bands"]) for name, entry in modalities.items() if name != COORDS)
    heads: dict[str, nn.Module] = {}
    for name, head in spec["heads"].items():
        with seeded(seed, name):
            heads[name] = build_head(
                channels,
                head,
                decoder_channels=model["decoder_channels"],
                dropout=model["dropout"],
                image_channels=image_channels,
                merge=model["merge"],
                side=2 * math.ceil(spec.get("chip_px", 224) / (2 * backbone.patch_size)),
            )
    neck = None
    if any(head.get("neck") == "shared" for head in spec["heads"].values()):
        with seeded(seed, "neck"):
            neck = build_neck(channels)[0]
    normalise: dict[str, Normalise] = {}
    for name, entry in modalities.items():
        if name == COORDS:
            continue
        positions = None
        if name in MODALITIES and list(entry["bands"]) != list(MODALITIES[name].bands):
            positions = [MODALITIES[name].bands.index(band) for band in entry["bands"]]
        nodata = MODALITIES[name].nodata if name in MODALITIES else None
        normalise[name] = Normalise(entry["mean"], entry["std"], nodata, positions)
    built = MultiHeadModel(
        backbone,
        normalise,
        heads,
        indices=indices,
        neck=neck,
        merge=merge,
        modality_dropout=model.get("modality_dropout", 0.0),
        derived=[name for name in modalities if name in DERIVED],
        passed=[name for name in modalities if name == COORDS],
    )
    if model["freeze_encoder"]:
        built.freeze_encoder()
    return built


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
    channels: list[int],
    head: Mapping[str, Any],
    *,
    decoder_channels: Sequence[int],
    dropout: float = 0.0,
    image_channels: int = 0,
    necks: Sequence[Mapping[str, Any]] | None = None,
    merge: str | None = "mean",
    side: int = 14,
) -> Head:
    """Build one head.

    Args:
        channels: Channels of the encoder's chosen layers.
        head: ``classes``, and optionally ``decoder`` (a name in TerraTorch's registry, or ``FullResolutionDecoder``),
            ``decoder_args``, ``neck`` (``own`` or ``shared``) and ``target`` (``segmentation`` or ``regression``).
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

    from cityheads.model.decoders import build_decoder, try_head

    own_merge = None
    if merge in ("dict", "none"):
        from cityheads.model.backbones.terramind import AttentionMerge, GatedMerge

        if head.get("neck") == "shared":
            raise CityHeadsError(
                f"config key 'model.merge': with '{merge}' each head merges the modalities itself, so it needs a neck "
                "of its own (heads.*.neck: own)"
            )
        kind = GatedMerge if merge == "dict" else AttentionMerge
        own_merge = nn.ModuleList(kind(size) for size in channels)
    layers = channels
    neck, channels = build_neck(layers, necks)
    name = head.get("decoder") or "UNetDecoder"
    arguments = dict(head.get("decoder_args") or {})
    if name in ("UNetDecoder", "FullResolutionDecoder"):
        arguments.setdefault("channels", list(decoder_channels))
    regression = head.get("target", "segmentation") == "regression"
    outputs = 1 if regression else len(head["classes"])
    includes_head = False
    if name == "FullResolutionDecoder":
        try:
            decoder: nn.Module = FullResolutionDecoder(channels, image_channels=image_channels, **arguments)
        except (TypeError, ValueError) as error:
            raise CityHeadsError(f"decoder '{name}' does not take these arguments ({error})") from None
    else:
        decoder, includes_head = build_decoder(
            name, channels, arguments, outputs=outputs, decoder_channels=decoder_channels
        )
    if includes_head:
        last: nn.Module = nn.Identity()
    elif regression:
        last = RegressionHead(decoder.out_channels, num_outputs=1, dropout=dropout)
    else:
        last = SegmentationHead(decoder.out_channels, outputs, dropout=dropout)
    built = Head(neck, decoder, last, own_merge)
    if name not in ("UNetDecoder", "FullResolutionDecoder"):
        try_head(name, built, layers, outputs=outputs, side=side)
    if head.get("neck") == "shared":
        built.neck = None
    return built


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
    from cityheads.model.backbones.weights import read_weights

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
