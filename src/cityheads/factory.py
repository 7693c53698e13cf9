"""The multi-head model as a citizen of TerraTorch: its registries, its ``Model`` interface, its ``ModelOutput``.

Importing this module registers ``MultiHeadModelFactory`` as a model factory and ``FullResolutionDecoder`` as a name
that a head's ``decoder`` may take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from terratorch.models.model import Model, ModelFactory, ModelOutput
from terratorch.models.peft_utils import get_peft_backbone
from terratorch.models.utils import extract_prefix_keys
from terratorch.registry import MODEL_FACTORY_REGISTRY
from torch import Tensor, nn

from cityheads.backbones import build_backbone, default_indices
from cityheads.errors import CityHeadsError
from cityheads.modalities import MODALITIES
from cityheads.multihead import MultiHeadModel, Normalise, build_head, build_neck

__all__ = ["MultiHeadModelFactory", "MultiHeadOutput", "TerraTorchMultiHeadModel"]

#: Bands of TerraMind's pixel modalities (TerraTorch 1.2.11, ``terramind_register.PRETRAINED_BANDS``).
_BANDS = {"S2L2A": 12, "S2L1C": 13, "S1GRD": 2, "S1RTC": 2, "DEM": 1, "RGB": 3}


class MultiHeadOutput(ModelOutput):
    """A mapping from head to ``ModelOutput`` that is a ``ModelOutput`` itself.

    ``output`` holds all heads one after the other on the channel axis, which is what TerraTorch's tiled inference and
    everything else that knows one output can work with.
    """

    def __init__(self, heads: Mapping[str, Tensor]) -> None:
        super().__init__(output=torch.cat(list(heads.values()), dim=1), auxiliary_heads={})
        self.heads = {name: ModelOutput(output=tensor, auxiliary_heads={}) for name, tensor in heads.items()}

    def __getitem__(self, name: str) -> ModelOutput:
        return self.heads[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.heads)

    def __len__(self) -> int:
        return len(self.heads)

    def items(self) -> Any:
        """Give (name, output) pairs, in the order of the heads."""
        return self.heads.items()


class TerraTorchMultiHeadModel(MultiHeadModel, Model):
    """The multi-head model with TerraTorch's interface; its weights have the same names."""

    def forward(self, x: Any, **kwargs: Any) -> MultiHeadOutput:  # type: ignore[override]
        """Give the output per head at the size of the input.

        Args:
            x: {modality: (B, C, H, W)}, or one tensor for a model of one modality.
            kwargs: Passed on to the encoder, but for ``image_size``, which the input tells.
        """
        kwargs.pop("image_size", None)
        images = x if isinstance(x, Mapping) else {self.modalities[0]: x}
        return MultiHeadOutput(super().forward(images, **kwargs))


@MODEL_FACTORY_REGISTRY.register
class MultiHeadModelFactory(ModelFactory):
    """Builds a model of one backbone and any number of heads."""

    def build_model(
        self,
        task: str = "multihead",
        backbone: str = "terramind_v1_tiny",
        heads: Mapping[str, Mapping[str, Any]] | None = None,
        necks: Sequence[Mapping[str, Any]] | None = None,
        indices: Sequence[int] | None = None,
        decoder_channels: Sequence[int] = (512, 256, 128, 64),
        head_dropout: float = 0.0,
        normalise: str = "none",
        in_channels: int | None = None,
        modality_dropout: float = 0.0,
        peft_config: dict[str, Any] | None = None,
        aux_decoders: Any = None,
        **kwargs: Any,
    ) -> TerraTorchMultiHeadModel:
        """Build the model.

        Args:
            task: ``multihead``.
            backbone: Name in TerraTorch's registry.
            heads: Name -> classes, decoder, ... as in ``MultiHeadTask``.
            necks: TerraTorch's descriptions, ``SelectIndices`` and ``ReshapeTokensToImage`` left out: layers are
                chosen by ``indices``, and tokens are laid out on the grid that they come from.
            indices: Layers that the heads see; None for the last one of each quarter.
            decoder_channels: Channels of UNet decoders that do not say their own.
            head_dropout: Dropout before each head's last convolution.
            normalise: ``none`` where the data module does it, ``pretraining`` for TerraMind's statistics.
            in_channels: Bands of the one modality of a backbone that is not TerraMind.
            modality_dropout: Chance that a modality is left out of a training batch.
            peft_config: TerraTorch's PEFT configuration of the backbone.
            aux_decoders: Not used: an auxiliary head is a head with a small weight.
            kwargs: Arguments of the backbone, prefixed with ``backbone_``: ``backbone_pretrained``,
                ``backbone_ckpt_path``, ``backbone_modalities``, ``backbone_merge_method``, ...

        Raises:
            CityHeadsError: An argument is unknown, or weights are missing or not complete.
        """
        arguments, rest = extract_prefix_keys(kwargs, "backbone_")
        if rest:
            raise CityHeadsError(f"model_args: unknown argument '{next(iter(rest))}'")
        if aux_decoders:
            raise CityHeadsError("model_args: an auxiliary decoder is one more head with a small weight")
        if not heads:
            raise CityHeadsError("model_args: there are no heads")
        modalities = _modalities(arguments.pop("modalities", None), in_channels)
        pretrained, checkpoint = arguments.pop("pretrained", False), arguments.pop("ckpt_path", None)
        bands = arguments.pop("bands", None) or {}
        terramind = backbone.removeprefix("terratorch_").startswith("terramind_")
        if not terramind and (pretrained or checkpoint):
            arguments |= {"pretrained": True} | ({"ckpt_path": checkpoint} if checkpoint else {})
        built = build_backbone(backbone, modalities, **arguments)
        if terramind and (pretrained or checkpoint):
            from cityheads.backbones.weights import load_weights, published_weights, read_weights

            path = Path(checkpoint) if checkpoint else published_weights(backbone)[0]
            new = [f"encoder_embeddings.{name}." for name in modalities if name not in _BANDS]
            load_weights(built.module, read_weights(path), str(path), new=new)
        for name, chosen in bands.items():
            from cityheads.backbones.terramind import select_bands

            select_bands(built.module, name, chosen)
            modalities[name] = len(chosen)
        if peft_config is not None:
            built.module = get_peft_backbone(peft_config, built.module)
        encoder: Any = built.module
        channels = [int(size) for size in encoder.out_channels]
        layers = list(indices) if indices is not None else default_indices(len(channels))
        images = {name: count for name, count in modalities.items() if name != "coords"}
        merge = None
        if arguments.get("merge_method") == "concat" and not built.temporal:
            from cityheads.backbones.terramind import ConcatMerge

            merge = ConcatMerge(list(images), channels[0])
            channels = [size * len(images) for size in channels]
        channels = [channels[layer] for layer in layers]
        modules: dict[str, nn.Module] = {
            name: build_head(
                channels,
                {**head, "classes": _classes(head.get("classes", 1))},
                decoder_channels=decoder_channels,
                dropout=head_dropout,
                image_channels=sum(images.values()),
                necks=necks,
            )
            for name, head in heads.items()
        }
        shared = any(head.get("neck") == "shared" for head in heads.values())
        return TerraTorchMultiHeadModel(
            built,
            {name: _normalise(name, count, normalise, bands.get(name)) for name, count in images.items()},
            modules,
            indices=layers,
            neck=build_neck(channels, necks)[0] if shared else None,
            merge=merge,
            modality_dropout=modality_dropout,
            passed=[name for name in modalities if name not in images],
        )


def _modalities(given: Any, in_channels: int | None) -> dict[str, int]:
    if given is None:
        if in_channels is None:
            raise CityHeadsError("model_args: name backbone_modalities, or in_channels for a backbone of one modality")
        return {"image": in_channels}
    result: dict[str, int] = {}
    for item in [given] if isinstance(given, Mapping) else given:
        if isinstance(item, Mapping):
            result |= {name: int(count) for name, count in item.items()}
        elif item in _BANDS or item == "coords":
            result[item] = _BANDS.get(item, 2)
        else:
            raise CityHeadsError(f"model_args: modality '{item}' is new; say its number of bands as '{item}: 1'")
    return result


def _classes(classes: Any) -> list[Any]:
    return list(range(classes)) if isinstance(classes, int) else list(classes)


def _normalise(name: str, count: int, kind: str, bands: Sequence[str] | None) -> Normalise:
    if kind == "none":
        return Normalise([0.0] * count, [1.0] * count)
    if kind != "pretraining":
        raise CityHeadsError(f"model_args: normalise '{kind}' is neither none nor pretraining")
    from terratorch.models.backbones.terramind.model import terramind_register as register

    keys = {"S2L2A": "sen2l2a", "S2L1C": "sen2l1c", "S1GRD": "sen1grd", "S1RTC": "sen1rtc", "DEM": "dem"}
    key = f"untok_{keys.get(name, 'sen2rgb' if name == 'RGB' else name)}@224"
    if key not in register.v1_pretraining_mean:
        raise CityHeadsError(f"model_args: there are no pretraining statistics of modality '{name}'")
    mean, std = register.v1_pretraining_mean[key], register.v1_pretraining_std[key]
    if bands:
        positions = [MODALITIES[name].bands.index(band) for band in bands]
        mean, std = [mean[p] for p in positions], [std[p] for p in positions]
    return Normalise(mean, std, MODALITIES[name].nodata if name in MODALITIES else None)
