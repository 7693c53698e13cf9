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

from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import COORDS, DERIVED, MODALITIES
from cityheads.model.backbones import Backbone, build_backbone, default_indices, is_prithvi, is_terramind, single_date
from cityheads.model.backbones.prithvi import prithvi_statistics
from cityheads.model.backbones.terramind import coordinate_words, select_bands, set_coordinate_words
from cityheads.model.backbones.tuning import add_low_rank
from cityheads.model.backbones.weights import load_backbone, published_weights
from cityheads.model.multihead import MultiHeadModel, Normalise, build_head, build_neck

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
        images = x if isinstance(x, Mapping) else {self.acquired[0]: x}
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
        derived: Sequence[str] = (),
        lora: Mapping[str, Any] | None = None,
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
            normalise: ``none`` where the data module does it, ``pretraining`` for TerraMind's or Prithvi's statistics.
            in_channels: Bands of the one modality of a backbone that is not TerraMind.
            modality_dropout: Chance that a modality is left out of a training batch.
            derived: Modalities among ``RGB`` and ``NDVI`` that are not given but computed from S2L2A in stored units.
            lora: ``rank``, ``alpha`` (as much by default) and ``targets`` (``[attn.qkv, attn.proj]``): low-rank updates
                of a frozen encoder, as in the workflow; ``MultiHeadTask.export`` writes them merged.
            peft_config: TerraTorch's PEFT configuration of the backbone, in place of ``lora``.
            aux_decoders: Not used: an auxiliary head is a head with a small weight.
            kwargs: Arguments of the backbone, prefixed with ``backbone_``: ``backbone_pretrained``,
                ``backbone_ckpt_path``, ``backbone_modalities``, ``backbone_merge_method``, ... ``backbone_bands`` is
                {modality: bands} for TerraMind (``backbone_coords_vocabulary`` names the file of its words for
                coordinates, where weights come from a file), and a list of names (``BLUE`` or ``B02``) for Prithvi.

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
        if derived and (normalise == "none" or not set(derived) <= set(DERIVED)):
            raise CityHeadsError(
                f"model_args: derived is of {', '.join(DERIVED)}, from stored units; set normalise to pretraining"
            )
        if lora and peft_config:
            raise CityHeadsError("model_args: give lora or peft_config, not both")
        bands = arguments.pop("bands", None) or {}
        names = None
        if bands and not (is_terramind(backbone) and isinstance(bands, Mapping)):
            if is_terramind(backbone):
                raise CityHeadsError("model_args: backbone_bands of TerraMind are per modality: {S2L2A: [B04, ...]}")
            listed = next(iter(bands.values())) if isinstance(bands, Mapping) else bands
            names, bands = [str(getattr(band, "value", band)) for band in listed], {}
        if names is not None and in_channels is None:
            in_channels = len(names)
        modalities = _modalities(arguments.pop("modalities", None), in_channels)
        built = _build_encoder(backbone, modalities, bands, names, arguments)
        for name, chosen in bands.items():
            modalities[name] = len(chosen)
        if lora:
            given = {"alpha": lora["rank"], "targets": ["attn.qkv", "attn.proj"], **lora}
            add_low_rank(built.module, given["rank"], given["alpha"], given["targets"])
        if peft_config is not None and built.thoughts:
            mind: Any = single_date(built.module)
            mind.vit = get_peft_backbone(peft_config, mind.vit)
        elif peft_config is not None:
            built.module = get_peft_backbone(peft_config, built.module)
        encoder: Any = built.module
        channels = [int(size) for size in encoder.out_channels]
        layers = list(indices) if indices is not None else default_indices(len(channels))
        images = {name: count for name, count in modalities.items() if name != COORDS}
        merge = None
        if arguments.get("merge_method") == "concat" and not built.temporal:
            from cityheads.model.backbones.terramind import ConcatMerge

            merge = ConcatMerge([*images, *built.thoughts], channels[0])
            channels = [size * len(merge.modalities) for size in channels]
        channels = [channels[layer] for layer in layers]
        modules: dict[str, nn.Module] = {
            name: build_head(
                channels,
                {**head, "classes": _classes(head.get("classes", 1))},
                decoder_channels=decoder_channels,
                dropout=head_dropout,
                image_channels=sum(images.values()),
                necks=necks,
                merge=(arguments.get("merge_method", "mean") or "none") if is_terramind(backbone) else None,
            )
            for name, head in heads.items()
        }
        shared = any(head.get("neck") == "shared" for head in heads.values())
        return TerraTorchMultiHeadModel(
            built,
            {
                name: _normalise(name, count, normalise, names or bands.get(name), backbone)
                for name, count in images.items()
            },
            modules,
            indices=layers,
            neck=build_neck(channels, necks)[0] if shared else None,
            merge=merge,
            modality_dropout=modality_dropout,
            derived=derived,
            passed=[name for name in modalities if name not in images],
        )


def _build_encoder(
    name: str,
    modalities: Mapping[str, int],
    bands: Mapping[str, Sequence[str]],
    names: Sequence[str] | None,
    arguments: dict[str, Any],
) -> Backbone:
    """Build the encoder, with all of its published or local weights where they are asked for."""
    pretrained, checkpoint = arguments.pop("pretrained", False), arguments.pop("ckpt_path", None)
    trained_on, vocabulary = arguments.pop("pretrained_bands", None), arguments.pop("coords_vocabulary", None)
    loads_itself = not is_terramind(name) and not is_prithvi(name)
    if names is not None and len(names) != sum(modalities.values()):
        raise CityHeadsError(f"model_args: {len(names)} backbone_bands for {sum(modalities.values())} in_channels")
    if loads_itself and names is not None:
        arguments["bands"] = names
    built = build_backbone(
        name, modalities, pretrained=bool(pretrained and loads_itself and not checkpoint), **arguments
    )
    if checkpoint or (pretrained and not loads_itself):
        path = Path(checkpoint) if checkpoint else published_weights(name)[0]
        new = [f"encoder_embeddings.{modality}." for modality in modalities if modality not in (*_BANDS, COORDS)]
        load_backbone(name, built.module, path, bands=names, pretrained_bands=trained_on, new=new)
        if COORDS in modalities:
            if checkpoint and not vocabulary:
                raise CityHeadsError(
                    "model_args: coords with backbone_ckpt_path need backbone_coords_vocabulary, a file"
                )
            set_coordinate_words(built.module, coordinate_words(vocabulary))
    for modality, chosen in bands.items():
        select_bands(built.module, modality, chosen)
    return built


def _modalities(given: Any, in_channels: int | None) -> dict[str, int]:
    if given is None:
        if in_channels is None:
            raise CityHeadsError("model_args: name backbone_modalities, or in_channels for a backbone of one modality")
        return {"image": in_channels}
    result: dict[str, int] = {}
    for item in [given] if isinstance(given, Mapping) else given:
        if isinstance(item, Mapping):
            result |= {name: int(count) for name, count in item.items()}
        elif item in _BANDS or item == COORDS:
            result[item] = _BANDS.get(item, 2)
        else:
            raise CityHeadsError(f"model_args: modality '{item}' is new; say its number of bands as '{item}: 1'")
    return result


def _classes(classes: Any) -> list[Any]:
    return list(range(classes)) if isinstance(classes, int) else list(classes)


def _normalise(name: str, count: int, kind: str, bands: Sequence[str] | None, backbone: str) -> Normalise:
    if kind == "none":
        return Normalise([0.0] * count, [1.0] * count)
    if kind != "pretraining":
        raise CityHeadsError(f"model_args: normalise '{kind}' is neither none nor pretraining")
    if is_prithvi(backbone):
        mean, std = prithvi_statistics(backbone, bands)
        if len(mean) != count:
            raise CityHeadsError(
                f"model_args: normalise: {backbone} knows {len(mean)} bands; name yours backbone_bands"
            )
        return Normalise(mean, std)
    if name == "S2L1C":
        # not a modality of the workflow
        from terratorch.models.backbones.terramind.model import terramind_register as register

        key = "untok_sen2l1c@224"
        return Normalise(register.v1_pretraining_mean[key], register.v1_pretraining_std[key])
    known = MODALITIES | DERIVED
    if name not in known:
        raise CityHeadsError(f"model_args: there are no pretraining statistics of modality '{name}'")
    modality = known[name]
    positions = [modality.bands.index(band) for band in bands or modality.bands]
    return Normalise([modality.mean[p] for p in positions], [modality.std[p] for p in positions], modality.nodata)
