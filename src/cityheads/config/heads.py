"""Sections ``heads`` and ``runs``: what can be learnt from which label, and which heads are trained together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Gt
from pydantic import AfterValidator, model_validator

from cityheads.config.base import EXPONENT, Number, Section, Text, field, freeze, named, only_once, refuse

__all__ = ["HeadConfig", "Heads", "RunConfig", "Runs", "as_numbers", "writable"]

_NAME = named("^[a-z][a-z0-9_]*$", "lower-case letters, digits and _, a letter first")


def writable(value: Any, key: str = "") -> Any:
    """Refuse what YAML can hold and JSON cannot: no text as a key, numbers that are none, dates."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                refuse(key, f"key {name} is not text; put it in quotes")
            writable(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple):
        for item in value:
            writable(item, key)
    elif isinstance(value, float) and not math.isfinite(value):
        refuse(key, f"{value} is not a finite number")
    elif not (value is None or isinstance(value, str | bool | int | float)):
        refuse(key, f"{value} is neither text nor number; put it in quotes")
    return value


def as_numbers(value: Any) -> Any:
    """Give a value with text such as ``1e-3``, which YAML does not take for a number, as numbers, at any depth."""
    if isinstance(value, Mapping):
        return {key: as_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(as_numbers(item) for item in value)
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def _head_name(name: str) -> str:
    if name in ("train", "type"):
        refuse("", f"'{name}' is a name of PyTorch's own; choose another")
    return name


class HeadConfig(Section):
    """A head: a decoder that learns one label layer."""

    label: Text = field(..., "The label layer that this head learns.")
    weight: Number = field(
        1.0,
        "Weight of this head's loss in the sum (alpha, beta, ...).",
        gt=0,
    )
    loss: Literal["dice", "ce", "dice_ce", "focal", "lovasz"] = field("dice", "Loss on the pixels that are not 255.")
    class_weights: tuple[Annotated[Number, Gt(0)], ...] | None = field(
        None,
        "Weight of each class in the loss, in the order of the ids; null for equal weights. Not for lovasz.",
    )
    decoder: Text | None = field(
        None,
        "Decoder of this head: FullResolutionDecoder, or a name in TerraTorch's registry; null takes UNetDecoder.",
    )
    decoder_args: Annotated[Mapping[Text, Any], AfterValidator(writable), freeze] = field(
        {}, "Arguments of the decoder, with its own names."
    )
    neck: Literal["own", "shared"] = field(
        "own",
        "Whether the pyramid between encoder and decoder is this head's own or the one that all such heads share.",
    )
    lr: Annotated[Number, Gt(0)] | None = field(None, "Peak learning rate of this head; null takes train.lr.")
    metric: Literal["miou", "iou"] = field(
        "miou",
        "What the non-inferiority test compares: the mean IoU over the classes, or the IoU of positive_class.",
    )
    positive_class: Text | None = field(
        None, "Name of the class that metric iou is about; must be given with metric iou, miou does not look at it."
    )

    @model_validator(mode="after")
    def _weights_are_used(self) -> HeadConfig:
        if self.class_weights is not None and self.loss == "lovasz":
            refuse("class_weights", "loss lovasz takes none: it averages the classes' own IoU surrogates")
        return self


class RunConfig(Section):
    """One training: heads on one shared encoder."""

    heads: Annotated[tuple[Text, ...], only_once] = field(
        ..., "Heads of this run; one head makes a single-task baseline.", min_length=1
    )
    set: Annotated[Mapping[Text, Any], AfterValidator(writable), AfterValidator(as_numbers), freeze] = field(
        {},
        "What this run does otherwise than the config says, by dotted keys of model, train and its heads, such as "
        "{model.merge: concat, heads.lulc.loss: ce}.",
    )


#: The sections, by name in the order written.
Heads = Annotated[Mapping[Annotated[Text, _NAME, AfterValidator(_head_name)], HeadConfig], freeze]
Runs = Annotated[Mapping[Annotated[Text, _NAME], RunConfig], freeze]
