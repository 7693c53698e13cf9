"""The one place where a multi-head model is put together, for the workflow and for TerraTorch's registry alike.

A model is a `ModelSpec`. The workflow reads it from ``model.json`` (`build_model`, `load_model`), TerraTorch's factory
from its own arguments (``cityheads.model.factory``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from cityheads.config import ModelConfig
from cityheads.config.model import EncoderTraining
from cityheads.core.artifacts.model import MODEL, SavedModel
from cityheads.core.errors import CityHeadsError
from cityheads.core.layout import RunFolder
from cityheads.core.modalities import COORDS, DERIVED, MODALITIES
from cityheads.model.backbones.base import AbsentEncoder, Backbone, default_indices, is_terramind, single_date
from cityheads.model.backbones.build import build_backbone
from cityheads.model.backbones.terramind import (
    PRETRAINED,
    ConcatMerge,
    coordinate_tokens,
    select_bands,
    set_coordinate_tokens,
)
from cityheads.model.backbones.tuning import add_low_rank
from cityheads.model.backbones.weights import load_backbone, published_weights, read_weights
from cityheads.model.heads import HeadSpec, build_head, build_neck
from cityheads.model.multihead import MultiHeadModel
from cityheads.model.normalization import Normalization
from cityheads.model.seeds import seeded, training_seed

__all__ = [
    "EncoderSpec",
    "InputSpec",
    "LowRankSpec",
    "ModelSpec",
    "WeightsSpec",
    "build",
    "build_model",
    "load_model",
    "spec_of",
]

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=MultiHeadModel)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What the encoder gets of one input; ``coords`` go to it as they are.

    Attributes:
        channels: Bands that the encoder is built for.
        mean: Mean per band that is used, in stored units.
        std: Standard deviation per band that is used, in stored units.
        nodata: Value that marks a missing pixel; NaN always does.
        positions: Positions of the used bands among those that are given; None for all.
        selected: Names of the bands that a TerraMind keeps of ``channels``; None for all.
    """

    channels: int
    mean: Sequence[float]
    std: Sequence[float]
    nodata: float | None = None
    positions: Sequence[int] | None = None
    selected: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class WeightsSpec:
    """First weights of an encoder.

    Attributes:
        path: Checkpoint; None for the published one.
        bands: Names of a Prithvi's bands; None for as many as the checkpoint has, in its order.
        pretrained_bands: Names of the checkpoint's bands; None for those of the published Prithvi.
        coords_vocabulary: File of the token ids of coordinates; None for the published one.
    """

    path: Path | None = None
    bands: Sequence[str] | None = None
    pretrained_bands: Sequence[str] | None = None
    coords_vocabulary: str | Path | None = None


@dataclass(frozen=True, kw_only=True)
class LowRankSpec:
    """Low-rank updates of a frozen encoder: rank, scale, and ends of the names of the layers that get one."""

    rank: int
    alpha: float
    targets: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """What the encoder is.

    Attributes:
        name: Name in TerraTorch's registry.
        arguments: Further arguments of ``build_backbone``.
        weights: First weights; None for random ones.
        from_library: Let the library that has the encoder load its published weights.
        low_rank: Low-rank updates; None for none.
        peft_config: TerraTorch's PEFT configuration; None for none.
        training: ``trained``, ``frozen`` at its first weights, or ``absent``: the decoders get maps of zeros.
    """

    name: str
    arguments: Mapping[str, Any]
    weights: WeightsSpec | None = None
    from_library: bool = False
    low_rank: LowRankSpec | None = None
    peft_config: Mapping[str, Any] | None = None
    training: EncoderTraining = "trained"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that a model is built from.

    Attributes:
        encoder: The encoder.
        inputs: Name -> input, in the order in which the encoder gets them.
        heads: Name -> head.
        decoder_channels: Channels of UNet decoders that do not say their own.
        merge: How the tokens of a TerraMind's modalities become one set: ``mean``, ``max``, ``concat``, or by each
            head itself, ``dict`` and ``none``.
        indices: Layers of the encoder that the heads see; None for the last one of each quarter.
        necks: TerraTorch's descriptions of the necks; None for the learnt pyramid.
        dropout: Dropout before each head's last convolution.
        modality_dropout: Chance that a modality is left out of a training batch.
        derived: Inputs that are not given but computed from S2L2A in stored units.
        chip_px: Side of a chip in pixels; decoders of the registry are tried on it.
        seed: The encoder's random weights depend on it, each head's on it and the head's name; None draws from torch's
            stream as it is.
    """

    encoder: EncoderSpec
    inputs: Mapping[str, InputSpec]
    heads: Mapping[str, HeadSpec]
    decoder_channels: Sequence[int]
    merge: str = "mean"
    indices: Sequence[int] | None = None
    necks: Sequence[Mapping[str, Any]] | None = None
    dropout: float = 0.0
    modality_dropout: float = 0.0
    derived: Sequence[str] = ()
    chip_px: int = 224
    seed: int | None = None

    @property
    def images(self) -> dict[str, InputSpec]:
        """The inputs that are images."""
        return {name: entry for name, entry in self.inputs.items() if name != COORDS}


def build(spec: ModelSpec, kind: type[Model]) -> Model:
    """Build a model.

    The order of the steps is the order in which random numbers are drawn where the specification has no seed.

    Args:
        spec: What it is.
        kind: Its class.

    Raises:
        CityHeadsError: The backbone or a decoder is unknown or does not take its arguments, or weights are not to be
            had or not complete.
    """
    absent = spec.encoder.training == "absent"
    with seeded(spec.seed, "encoder"):
        backbone = _build_encoder(_without_weights(spec) if absent else spec)
    encoder: Any = backbone.module
    merge = spec.merge if is_terramind(spec.encoder.name) else "mean"
    channels = [int(size) for size in encoder.out_channels]
    indices = list(spec.indices) if spec.indices is not None else default_indices(len(channels))
    concat = None
    if merge == "concat" and not backbone.temporal:
        with seeded(spec.seed, "merge"):
            concat = ConcatMerge([*spec.images, *backbone.generated], channels[0])
        channels = [size * len(concat.modalities) for size in channels]
    if absent:
        # there are no tokens to merge: the maps of zeros have the channels of merged ones
        backbone.module, merge, concat = AbsentEncoder(channels, backbone.patch_size), "mean", None
    channels = [channels[index] for index in indices]
    heads: dict[str, nn.Module] = {}
    for name, head in spec.heads.items():
        with seeded(spec.seed, name):
            heads[name] = build_head(
                head,
                channels,
                decoder_channels=spec.decoder_channels,
                dropout=spec.dropout,
                image_channels=sum(len(entry.mean) for entry in spec.images.values()),
                necks=spec.necks,
                merge=merge,
                side=2 * math.ceil(spec.chip_px / (2 * backbone.patch_size)),
            )
    neck = None
    if any(head.shares_neck for head in spec.heads.values()):
        with seeded(spec.seed, "neck"):
            neck = build_neck(channels, spec.necks)[0]
    built = kind(
        backbone,
        {
            name: Normalization(entry.mean, entry.std, entry.nodata, entry.positions)
            for name, entry in spec.images.items()
        },
        heads,
        indices=indices,
        map_channels=channels[-1],
        neck=neck,
        merge=concat,
        modality_dropout=spec.modality_dropout,
        derived=spec.derived,
        passed=[name for name in spec.inputs if name not in spec.images],
    )
    if spec.encoder.training == "frozen":
        built.freeze_encoder()
    return built


def _without_weights(spec: ModelSpec) -> ModelSpec:
    """Give a specification whose encoder has random weights and nothing added: only its sizes are of interest."""
    plain = EncoderSpec(name=spec.encoder.name, arguments=spec.encoder.arguments, training=spec.encoder.training)
    return replace(spec, encoder=plain)


def _build_encoder(spec: ModelSpec) -> Backbone:
    """Build the encoder with its first weights, its bands and its low-rank updates."""
    encoder, inputs = spec.encoder, spec.inputs
    backbone = build_backbone(
        encoder.name,
        {name: entry.channels for name, entry in inputs.items()},
        pretrained=encoder.from_library,
        merge_method=spec.merge,
        **encoder.arguments,
    )
    if encoder.weights is not None:
        path = encoder.weights.path or published_weights(encoder.name)[0]
        new = [f"encoder_embeddings.{name}." for name in inputs if name not in PRETRAINED]
        count = load_backbone(
            encoder.name,
            backbone.module,
            path,
            bands=encoder.weights.bands,
            pretrained_bands=encoder.weights.pretrained_bands,
            new=new,
        )
        log.info("%s: loaded %d weights from %s", encoder.name, count, path.name)
        if COORDS in inputs:
            set_coordinate_tokens(backbone.module, coordinate_tokens(encoder.weights.coords_vocabulary))
    for name, entry in inputs.items():
        if entry.selected is not None:
            select_bands(backbone.module, name, entry.selected)
    if encoder.low_rank is not None:
        low_rank = encoder.low_rank
        add_low_rank(backbone.module, low_rank.rank, low_rank.alpha, low_rank.targets)
    if encoder.peft_config is not None:
        _adapt(backbone, dict(encoder.peft_config))
    return backbone


def _adapt(backbone: Backbone, peft_config: dict[str, Any]) -> None:
    """Hand the encoder, but no generator, to PEFT."""
    from terratorch.models.peft_utils import get_peft_backbone

    if backbone.generated:
        tim: Any = single_date(backbone.module)
        tim.vit = get_peft_backbone(peft_config, tim.vit)
    else:
        backbone.module = get_peft_backbone(peft_config, backbone.module)


def spec_of(saved: SavedModel, *, weights: bool = True) -> ModelSpec:
    """Read the content of ``model.json``.

    Args:
        saved: The file's content.
        weights: Ask for the encoder's published or local weights where the config does; False where trained weights are
            loaded afterwards.
    """
    model, modalities = _section(saved), saved["modalities"]
    # a TerraMind is built with all bands, of which some are then taken; other encoders are built with theirs
    whole = is_terramind(saved["backbone"])
    inputs: dict[str, InputSpec] = {}
    for name, entry in modalities.items():
        bands, known = list(entry["bands"]), MODALITIES.get(name)
        some = known is not None and bands != list(known.bands)
        inputs[name] = InputSpec(
            channels=len(known.bands) if known is not None and whole else len(bands),
            mean=entry["mean"],
            std=entry["std"],
            nodata=None if known is None else known.nodata,
            positions=[known.bands.index(band) for band in bands] if known is not None and some else None,
            selected=bands if some and whole else None,
        )
    first = None
    if weights and (model.weights or model.pretrained):
        first = WeightsSpec(
            path=Path(model.weights) if model.weights else None,
            bands=None if whole else next(iter(modalities.values()))["bands"],
            coords_vocabulary=model.coords_vocabulary if COORDS in modalities else None,
        )
    return ModelSpec(
        encoder=EncoderSpec(
            name=saved["backbone"],
            arguments={"tim": model.tim and model.tim.model_dump()},
            weights=first,
            training=model.encoder,
        ),
        inputs=inputs,
        heads={name: HeadSpec.from_mapping(head) for name, head in saved["heads"].items()},
        decoder_channels=model.decoder_channels,
        merge=model.merge,
        dropout=model.dropout,
        modality_dropout=model.modality_dropout,
        derived=[name for name in modalities if name in DERIVED],
        chip_px=saved["chip_px"],
        seed=training_seed(saved["fold"], saved["seed"]),
    )


def _section(saved: SavedModel) -> ModelConfig:
    """Read the config's section of a model, which may be of an older version of it."""
    from pydantic import ValidationError

    try:
        return ModelConfig.model_validate(saved["model"])
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, ("model", *first["loc"])))
        what = first["msg"].removeprefix("Value error, ")
        raise CityHeadsError(f"model.json of run {saved['run']}: key '{key}': {what}; train again") from None


def build_model(saved: SavedModel, *, weights: bool = True) -> MultiHeadModel:
    """Build a model from the content of ``model.json``.

    The same run with fewer heads starts from the same encoder, and the order of the heads does not matter.

    Args:
        saved: As for `spec_of`.
        weights: As for `spec_of`.

    Raises:
        CityHeadsError: As for `build`.
    """
    return build(spec_of(saved, weights=weights), MultiHeadModel)


def load_model(run_dir: Path) -> tuple[MultiHeadModel, SavedModel]:
    """Rebuild a trained model from its folder, in evaluation mode.

    Args:
        run_dir: Folder with ``model.json`` and ``model.safetensors``: of a run, or a bundle.

    Returns:
        The model and the content of ``model.json``.

    Raises:
        CityHeadsError: A file is missing or damaged, or the weights are not exactly those of the specification.
    """
    folder = RunFolder(run_dir)
    saved = MODEL.read(folder.model)
    weights = read_weights(folder.weights)
    model = build_model(saved, weights=False)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise CityHeadsError(f"{folder.weights}: does not fit model.json ({error})") from None
    return model.eval(), saved
