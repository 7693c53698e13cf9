"""One encoder, any number of dense heads: TerraTorch's parts, put together so that every head can be its own.

TerraTorch 1.2.11 has no such model: its auxiliary heads share the number of classes, the head's arguments and the
mask. Its backbones, necks and decoders are used as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cityheads.core.errors import CityHeadsError
from cityheads.model.backbones.base import Backbone
from cityheads.model.derived import derive
from cityheads.model.heads import Head
from cityheads.model.normalization import Normalization

__all__ = ["MultiHeadModel", "Occlusion", "tokens_to_map"]

#: What can be hidden from the decoders.
Occlusion = Literal["zeroed", "permuted", "image_skip"]


class MultiHeadModel(nn.Module):
    """A shared encoder and one neck, decoder and classifier per head, all of them built before the optimizer is.

    Args:
        backbone: The encoder; its ``out_channels`` lists the size of each layer's output.
        normalization: One per modality, in the order in which the encoder gets them.
        heads: Name -> head.
        indices: Layers of the encoder that the heads see.
        map_channels: Channels of the last of these layers, as merged.
        neck: Neck of the heads that have none of their own.
        merge: Module from the encoder's tokens per modality to one set of tokens, where the encoder does not merge.
        modality_dropout: Chance that a modality is left out of a training batch; at least one stays.
        derived: Modalities computed from S2L2A: ``NDVI``, ``RGB``.
        passed: Inputs that are no images and go to the encoder as they are: ``coords``.
    """

    def __init__(
        self,
        backbone: Backbone,
        normalization: Mapping[str, Normalization],
        heads: Mapping[str, nn.Module],
        *,
        indices: Sequence[int],
        map_channels: int,
        neck: nn.Module | None = None,
        merge: nn.Module | None = None,
        modality_dropout: float = 0.0,
        derived: Sequence[str] = (),
        passed: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.encoder = backbone.module
        # under this name the statistics lie in every file of weights
        self.normalise = nn.ModuleDict(normalization)
        self.heads = nn.ModuleDict(heads)
        self.neck = neck
        self.merge = merge
        self.indices = list(indices)
        self.map_channels = map_channels
        self.backbone = dict(vars(backbone))
        del self.backbone["module"]
        self.modality_dropout = modality_dropout
        self.derived = set(derived)
        self.passed = list(passed)
        self._frozen: list[nn.Module] = []

    @property
    def normalization(self) -> nn.ModuleDict:
        """The statistics of each image modality, in the order in which the encoder gets them."""
        return self.normalise

    @property
    def input_modalities(self) -> list[str]:
        """Names of the inputs that the caller gives, and of which one can be missing."""
        return list(dict.fromkeys(self._source(name) for name in (*self.normalization, *self.passed)))

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
        self,
        images: Mapping[str, Tensor],
        *,
        drop: Sequence[str] = (),
        occlude: Occlusion | None = None,
        with_maps: bool = False,
        **encoder_arguments: Any,
    ) -> Any:
        """Give the logits of every head at the size of the input.

        Args:
            images: {modality: (B, C, H, W)} in stored units with nodata values, (B, C, T, H, W) for an encoder with
                time, (B, 2) longitude and latitude for ``coords``; further keys are not looked at.
            drop: Inputs to leave out, as if there were no image of them; with S2L2A goes what is computed from it.
            occlude: What to hide from the decoders, to see what they do without it: with ``zeroed`` the encoder's maps
                are zeros, with ``permuted`` each chip gets the maps of the chip half a batch further on (zeros where
                the batch is one chip), with ``image_skip`` decoders that look at the input see its mean in its place.
            with_maps: Give the encoder's last maps as well.
            encoder_arguments: Passed on to the encoder, such as Prithvi's ``temporal_coords``.

        Returns:
            {head: (B, n_classes, H, W)}; ``with_maps`` that and {head: (B, map_channels, h, w)}, the last map of the
            encoder that the head's neck sees, one cell per patch of the padded input.

        Raises:
            CityHeadsError: A modality is missing, or all of them are left out.
            ValueError: There is no such occlusion.
        """
        if occlude is not None and occlude not in get_args(Occlusion):
            raise ValueError(f"occlude '{occlude}' is none of {', '.join(get_args(Occlusion))}")
        inputs = self._inputs(images, drop)
        first = next(tensor for tensor in inputs.values() if tensor.dim() >= 4)
        size = first.shape[-2:]
        inputs = {name: _pad(tensor, 2 * self.backbone["patch_size"]) for name, tensor in inputs.items()}
        inner = next(tensor for tensor in inputs.values() if tensor.dim() >= 4).shape[-2:]
        image = None
        if any(head.needs_image for head in self.heads.values()):
            image = torch.cat(
                [inputs[name] if name in inputs else self._blank(name, inputs) for name in self.normalization], 1
            )
            if occlude == "image_skip":
                image = torch.zeros_like(image)
        layers = self._layers(inputs, **encoder_arguments)
        maps: dict[str, Tensor] = {}
        shared = common = None
        if self.neck is not None:
            common = self._maps(layers, inner, occlude=occlude)
            shared = self.neck(common, image_size=inner)
        logits: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            own, seen = shared, common
            if isinstance(head.neck, nn.Module):
                seen = self._maps(layers, inner, head.merge, occlude)
                own = head.neck(seen, image_size=inner)
            assert seen is not None, "a head without a neck of its own shares one"
            maps[name] = seen[-1]
            out = head(own, image) if head.needs_image else head(own)
            if out.shape[-2:] != inner:
                out = F.interpolate(out, size=inner, mode="bilinear")
            top, left = (inner[0] - size[0]) // 2, (inner[1] - size[1]) // 2
            logits[name] = out[..., top : top + size[0], left : left + size[1]]
        return (logits, maps) if with_maps else logits

    def _layers(self, inputs: Mapping[str, Tensor], **encoder_arguments: Any) -> list[Any]:
        """Give the tokens of the encoder's chosen layers: merged, per modality, or all in a row."""
        # the encoder takes keys out of the dict that it is given, so it gets one of its own
        given = dict(inputs) if self.backbone["takes_dict"] else next(t for t in inputs.values() if t.dim() >= 4)
        outputs = self.encoder(given, **encoder_arguments)
        chosen = [outputs[index] for index in self.indices]
        return chosen if self.merge is None else [self.merge(tokens) for tokens in chosen]

    def _maps(
        self, layers: list[Any], size: Sequence[int], merge: Any = None, occlude: Occlusion | None = None
    ) -> list[Tensor]:
        """Give (B, D, h, w) maps of tokens, merged by a head's own modules where the encoder has not done it."""
        return [_occluded(one, occlude) for one in self._laid_out(layers, size, merge)]

    def _laid_out(self, layers: list[Any], size: Sequence[int], merge: Any) -> list[Tensor]:
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
        sources = [name for name in self.input_modalities if name not in drop]
        missing = [name for name in sources if name not in images]
        if missing:
            raise CityHeadsError(f"the model needs modality {missing[0]}; it was given {', '.join(images) or 'none'}")
        if self.training and self.modality_dropout:
            sources = self._drop_some(sources)
        inputs: dict[str, Tensor] = {}
        for name in (*self.normalization, *self.passed):
            source = self._source(name)
            if name in drop or source not in sources:
                continue
            image = images[source]
            if name in self.derived:
                image = derive(name, image)
            inputs[name] = image if name in self.passed else self.normalization[name](image)
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
        module = self.normalization[name]
        assert isinstance(module, Normalization)
        return other.new_zeros(other.shape[0], len(module.mean), *other.shape[-2:])


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


def _occluded(maps: Tensor, how: Occlusion | None) -> Tensor:
    """Hide (B, D, h, w) maps of the encoder: zeros, or those of the chip half a batch further on."""
    count = maps.shape[0]
    if how == "zeroed" or (how == "permuted" and count == 1):
        return torch.zeros_like(maps)
    # half a batch, as neighbours in a batch may be neighbours on the ground
    return maps.roll(count // 2, dims=0) if how == "permuted" else maps


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
