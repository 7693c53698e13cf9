"""Section ``model``: the shared encoder and the shape of the decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Ge, MinLen
from pydantic import model_validator

from cityheads.config.base import Flag, Integer, Number, Section, Text, field, freeze, only_once, refuse
from cityheads.core.modalities import COORDS, MODALITIES

__all__ = ["EncoderTraining", "GeneratedModality", "InputModality", "LoraConfig", "ModelConfig", "TimConfig"]

InputModality = Literal["S2L2A", "S1RTC", "S1GRD", "DEM", "RGB", "NDVI", "coords"]
#: What becomes of the encoder in a training.
EncoderTraining = Literal["trained", "frozen", "absent"]
GeneratedModality = Literal["LULC", "NDVI", "S1GRD", "S1RTC", "S2L2A", "DEM"]


class TimConfig(Section):
    """Thinking-in-Modalities: what a terramind_v1_*_tim's frozen generator generates of a chip beside the inputs."""

    modalities: Annotated[tuple[GeneratedModality, ...], only_once] = field(
        ("LULC",), "The generated modalities, in this order; none that is an input.", min_length=1
    )
    chained: Flag = field(
        True, "Whether a generated modality is an input of the generator when the next one is generated."
    )
    decoding_steps: Integer = field(
        1,
        "Steps in which the tokens of one modality are decoded, in random order; each costs one more pass of the "
        "generator.",
        ge=1,
    )
    temperature: Number = field(0.0, "Spread of the choice of a token; 0 takes the most probable one.", ge=0)
    top_p: Number = field(
        0.8,
        "Above temperature 0, choose among the tokens that hold this share of the probability; 0 among all.",
        ge=0,
        le=1,
    )
    top_k: Integer = field(0, "Above temperature 0, choose among so many tokens; 0 among all.", ge=0)


class LoraConfig(Section):
    """Low-rank updates of the encoder (LoRA)."""

    rank: Integer = field(16, "Rank of the updates.", ge=1)
    alpha: Number = field(16.0, "Scale of the updates.", gt=0)
    targets: tuple[Text, ...] = field(
        ("attn.qkv", "attn.proj"), "Ends of the names of the layers that are updated.", min_length=1
    )


class ModelConfig(Section):
    """The shared encoder and the shape of the decoders."""

    backbone: Text = field("terramind_v1_tiny", "Name in TerraTorch's backbone registry.")
    pretrained: Flag = field(False, "Start from the published weights (Hugging Face); missing weights are an error.")
    weights: Text | None = field(None, "Local checkpoint of the backbone, used in place of the published one.")
    modalities: Annotated[tuple[InputModality, ...], only_once] = field(
        ("S2L2A", "S1RTC", "DEM"),
        "Inputs of the encoder. RGB (true colour) and NDVI are computed from S2L2A, and NDVI is a new modality to "
        "TerraMind; coords are the centre of the chip, which TerraMind reads to a quarter of a degree.",
        min_length=1,
    )
    bands: Annotated[
        Mapping[Literal["S2L2A", "S1RTC", "S1GRD"], Annotated[tuple[Text, ...], MinLen(1), only_once]], freeze
    ] = field(
        {},
        "Bands per modality, for modalities that are not taken whole, such as {S2L2A: [B02, B03, B04, B08], S1RTC: "
        "[VV]}.",
    )
    normalization: Literal["pretraining", "train"] = field(
        "pretraining",
        "Mean and standard deviation of the inputs: those of the pretraining, or those of the training split.",
    )
    modality_dropout: Number = field(
        0.0,
        "Chance that a modality is left out of a training batch, so that the model copes without it; at least one "
        "stays.",
        ge=0,
        lt=1,
    )
    coords_vocabulary: Text | None = field(
        None,
        "Local file of TerraMind's vocabulary of coordinates, where coords are an input and weights come from a file; "
        "null takes the published one when weights are loaded, and token ids of our own when they are random.",
    )
    merge: Literal["mean", "max", "concat", "dict", "none"] = field(
        "mean",
        "How the tokens of the modalities are merged: mean, max and concat by the encoder, for all heads alike; with "
        "dict each head weighs the modalities itself, place by place, and with none each head attends to all tokens of "
        "all modalities, coords among them.",
    )
    tim: TimConfig | None = field(
        None,
        "Thinking-in-Modalities: what the frozen generator of a terramind_v1_*_tim generates of a chip, for the "
        "encoder to look at beside the inputs. Null takes the defaults, and is the only choice for other backbones.",
    )
    decoder_channels: Annotated[tuple[Annotated[Integer, Ge(1)], ...], MinLen(4)] = field(
        (512, 256, 128, 64), "Channels of the UNet decoder, from the deepest stage to the finest.", max_length=4
    )
    dropout: Number = field(0.1, "Dropout before the last convolution of each head.", ge=0, lt=1)
    encoder: EncoderTraining = field(
        "trained",
        "Whether the encoder is trained; with frozen it stays at its first weights, and with absent there is none: the "
        "same decoders get maps of zeros in its place, and what they reach is theirs alone.",
    )
    lora: LoraConfig | None = field(
        None,
        "Train the encoder by low-rank updates only (LoRA); they are added to its weights when the model is written. "
        "Null trains the encoder itself. Not looked at where the encoder is frozen or absent.",
    )

    @model_validator(mode="after")
    def _inputs(self) -> ModelConfig:
        if self.tim is not None:
            if not self.backbone.endswith("_tim"):
                refuse("tim", f"{self.backbone} has no Thinking-in-Modalities; take terramind_v1_*_tim, or null")
            for name in self.tim.modalities:
                if name in self.modalities:
                    refuse("tim.modalities", f"{name} is an input already")
        if self.modalities == (COORDS,):
            refuse("modalities", "coords alone show nothing; name an image as well")
        for name, bands in self.bands.items():
            if name not in self.modalities:
                refuse(f"bands.{name}", f"{name} is not in model.modalities")
            for band in bands:
                if band not in MODALITIES[name].bands:
                    refuse(f"bands.{name}", f"no band '{band}'; there are {', '.join(MODALITIES[name].bands)}")
        if COORDS in self.modalities and self.weights and not self.coords_vocabulary:
            refuse(
                "coords_vocabulary",
                "weights from a file that read coords need the file of their vocabulary of coordinates",
            )
        return self
