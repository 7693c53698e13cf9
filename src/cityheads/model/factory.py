"""The multi-head model as a citizen of TerraTorch: its registries, its ``Model`` interface, its ``ModelOutput``.

Importing this module registers ``MultiHeadModelFactory`` as a model factory and ``FullResolutionDecoder`` as a name
that a head's ``decoder`` may take.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from terratorch.models.model import Model, ModelFactory, ModelOutput
from terratorch.models.utils import extract_prefix_keys
from terratorch.registry import MODEL_FACTORY_REGISTRY
from torch import Tensor

from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import COORDS, DERIVED, MODALITIES
from cityheads.model.backbones.base import is_prithvi, is_terramind
from cityheads.model.backbones.prithvi import prithvi_statistics
from cityheads.model.backbones.terramind import PIXEL_BANDS
from cityheads.model.builder import EncoderSpec, InputSpec, LowRankSpec, ModelSpec, WeightsSpec, build
from cityheads.model.heads import HeadSpec
from cityheads.model.multihead import MultiHeadModel

__all__ = ["MultiHeadModelFactory", "MultiHeadOutput", "TerraTorchMultiHeadModel"]


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

    def forward(self, x: Any, *, with_maps: bool = False, **kwargs: Any) -> Any:  # type: ignore[override]
        """Give the output per head at the size of the input, a `MultiHeadOutput`; ``with_maps`` the encoder's maps too.

        Args:
            x: {modality: (B, C, H, W)}, or one tensor for a model of one modality.
            with_maps: As for `MultiHeadModel.forward`.
            kwargs: Passed on to the encoder, but for ``image_size``, which the input tells.
        """
        kwargs.pop("image_size", None)
        images = x if isinstance(x, Mapping) else {self.input_modalities[0]: x}
        if with_maps:
            logits, maps = super().forward(images, with_maps=True, **kwargs)
            return MultiHeadOutput(logits), maps
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
        normalization: str = "none",
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
            normalization: ``none`` where the data module does it, ``pretraining`` for the statistics of TerraMind or
                Prithvi.
            in_channels: Bands of the one modality of a backbone that is not TerraMind.
            modality_dropout: Chance that a modality is left out of a training batch.
            derived: Modalities among ``RGB`` and ``NDVI`` that are not given but computed from S2L2A in stored units.
            lora: ``rank``, ``alpha`` (as much by default) and ``targets`` (``[attn.qkv, attn.proj]``): low-rank updates
                of a frozen encoder, as in the workflow; ``MultiHeadTask.export`` writes them merged.
            peft_config: TerraTorch's PEFT configuration of the backbone, in place of ``lora``.
            aux_decoders: Not used: an auxiliary head is a head with a small weight.
            kwargs: Arguments of the backbone, prefixed with ``backbone_``: ``backbone_pretrained``,
                ``backbone_ckpt_path``, ``backbone_modalities``, ``backbone_merge_method``, ... ``backbone_bands`` is
                {modality: bands} for TerraMind (``backbone_coords_vocabulary`` names its vocabulary of
                coordinates, where weights come from a file), and a list of names (``BLUE`` or ``B02``) for Prithvi.

        Raises:
            CityHeadsError: An argument is unknown, or weights are missing or not complete.
        """
        arguments, rest = extract_prefix_keys(kwargs, "backbone_")
        if rest:
            raise _unknown(next(iter(rest)), inspect.signature(self.build_model).parameters)
        if aux_decoders:
            raise CityHeadsError("model_args: an auxiliary decoder is one more head with a small weight")
        if not heads:
            raise CityHeadsError("model_args: there are no heads")
        if derived and (normalization == "none" or not set(derived) <= set(DERIVED)):
            raise CityHeadsError(
                f"model_args: derived is of {', '.join(DERIVED)}, from stored units; set normalization to pretraining"
            )
        if lora and peft_config:
            raise CityHeadsError("model_args: give lora or peft_config, not both")
        bands, names = _bands(backbone, arguments.pop("bands", None))
        if names is not None and in_channels is None:
            in_channels = len(names)
        modalities = _modalities(arguments.pop("modalities", None), in_channels)
        for name in bands:
            if name not in modalities:
                raise CityHeadsError(f"model_args: backbone_bands: '{name}' is not among backbone_modalities")
        # TerraTorch writes None where the config says none
        merge = arguments.pop("merge_method", "mean") or "none"
        spec = ModelSpec(
            encoder=_encoder(backbone, modalities, names, arguments, lora, peft_config),
            inputs={
                name: _input(name, count, normalization, bands.get(name), names, backbone)
                for name, count in modalities.items()
            },
            heads={name: HeadSpec.from_mapping(head) for name, head in heads.items()},
            decoder_channels=decoder_channels,
            merge=merge,
            indices=indices,
            necks=necks,
            dropout=head_dropout,
            modality_dropout=modality_dropout,
            derived=derived,
        )
        return build(spec, TerraTorchMultiHeadModel)


def _unknown(name: str, known: Iterable[str]) -> CityHeadsError:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return CityHeadsError(f"model_args: unknown argument '{name}'{hint}")


def _bands(backbone: str, given: Any) -> tuple[dict[str, list[str]], list[str] | None]:
    """Tell the bands to take of a TerraMind's modalities from the names of another encoder's bands."""
    if not given:
        return {}, None
    if is_terramind(backbone):
        if not isinstance(given, Mapping):
            raise CityHeadsError("model_args: backbone_bands of TerraMind are per modality: {S2L2A: [B04, ...]}")
        return {name: list(chosen) for name, chosen in given.items()}, None
    listed = next(iter(given.values())) if isinstance(given, Mapping) else given
    return {}, [str(getattr(band, "value", band)) for band in listed]


def _encoder(
    name: str,
    modalities: Mapping[str, int],
    names: Sequence[str] | None,
    arguments: dict[str, Any],
    lora: Mapping[str, Any] | None,
    peft_config: Mapping[str, Any] | None,
) -> EncoderSpec:
    """Describe the encoder, with all of its published or local weights where they are asked for."""
    pretrained, checkpoint = arguments.pop("pretrained", False), arguments.pop("ckpt_path", None)
    trained_on, vocabulary = arguments.pop("pretrained_bands", None), arguments.pop("coords_vocabulary", None)
    loads_itself = not is_terramind(name) and not is_prithvi(name)
    if names is not None and len(names) != sum(modalities.values()):
        raise CityHeadsError(f"model_args: {len(names)} backbone_bands for {sum(modalities.values())} in_channels")
    if loads_itself and names is not None:
        arguments["bands"] = names
    weights = None
    if checkpoint or (pretrained and not loads_itself):
        if COORDS in modalities and checkpoint and not vocabulary:
            raise CityHeadsError("model_args: coords with backbone_ckpt_path need backbone_coords_vocabulary, a file")
        weights = WeightsSpec(
            path=Path(checkpoint) if checkpoint else None,
            bands=names,
            pretrained_bands=trained_on,
            coords_vocabulary=vocabulary,
        )
    low_rank = None
    if lora:
        low_rank = LowRankSpec(
            rank=lora["rank"],
            alpha=lora.get("alpha", lora["rank"]),
            targets=lora.get("targets", ("attn.qkv", "attn.proj")),
        )
    return EncoderSpec(
        name=name,
        arguments=arguments,
        weights=weights,
        from_library=bool(pretrained and loads_itself and not checkpoint),
        low_rank=low_rank,
        peft_config=peft_config,
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
        elif item in PIXEL_BANDS or item == COORDS:
            result[item] = PIXEL_BANDS.get(item, 2)
        else:
            raise CityHeadsError(f"model_args: modality '{item}' is new; say its number of bands as '{item}: 1'")
    return result


def _input(
    name: str,
    count: int,
    normalization: str,
    selected: Sequence[str] | None,
    names: Sequence[str] | None,
    backbone: str,
) -> InputSpec:
    """Describe one input of ``count`` bands, of which a TerraMind takes those that are selected."""
    used = count if selected is None else len(selected)
    if name == COORDS or normalization == "none":
        return InputSpec(channels=count, mean=[0.0] * used, std=[1.0] * used, selected=selected)
    if normalization != "pretraining":
        raise CityHeadsError(f"model_args: normalization '{normalization}' is neither none nor pretraining")
    mean, std, nodata = _statistics(name, used, selected or names, backbone)
    return InputSpec(channels=count, mean=mean, std=std, nodata=nodata, selected=selected)


def _statistics(
    name: str, used: int, bands: Sequence[str] | None, backbone: str
) -> tuple[list[float], list[float], float | None]:
    """Give mean, standard deviation and nodata of the pretraining, in stored units."""
    if is_prithvi(backbone):
        mean, std = prithvi_statistics(backbone, bands)
        if len(mean) != used:
            raise CityHeadsError(
                f"model_args: normalization: {backbone} knows {len(mean)} bands; name yours backbone_bands"
            )
        return mean, std, None
    if name == "S2L1C":
        # not a modality of the workflow
        from terratorch.models.backbones.terramind.model import terramind_register as register

        key = "untok_sen2l1c@224"
        return register.v1_pretraining_mean[key], register.v1_pretraining_std[key], None
    known = MODALITIES | DERIVED
    if name not in known:
        raise CityHeadsError(f"model_args: there are no pretraining statistics of modality '{name}'")
    modality = known[name]
    positions = [modality.bands.index(band) for band in bands or modality.bands]
    return [modality.mean[p] for p in positions], [modality.std[p] for p in positions], modality.nodata
