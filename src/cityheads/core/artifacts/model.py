"""``model.json``: everything that rebuilds a trained model around its weights, without the config or the dataset."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["MODEL", "ModelClass", "ModelHead", "ModelInput", "SavedModel"]


class ModelInput(TypedDict):
    """One input: the bands that the model takes of it, with their statistics in stored units."""

    bands: list[str]
    mean: list[float]
    std: list[float]


class ModelClass(TypedDict):
    """One class of a head."""

    id: int
    name: str


class ModelHead(TypedDict):
    """One head.

    Attributes:
        label: Label layer that it has learnt.
        classes: In the order of their ids.
        loss: Name of the loss.
        weight: Weight of the loss in the sum.
        metric: ``miou``, or ``iou`` of the positive class.
        positive_class: Name of a class; None for ``miou``.
        decoder: Name of the decoder; None for the UNet decoder.
        decoder_args: Its arguments.
        neck: ``own`` or ``shared``.
        class_weights: Weight of each class in the loss; None for equal weights.
        lr: Peak learning rate of its own; None for the training's.
    """

    label: str
    classes: list[ModelClass]
    loss: str
    weight: float
    metric: str
    positive_class: str | None
    decoder: str | None
    decoder_args: dict[str, Any]
    neck: str
    class_weights: list[float] | None
    lr: float | None


class SavedModel(TypedDict):
    """A trained model.

    Attributes:
        run: Name of the run.
        fold: Fold whose test split it has not seen.
        seed: Its seed.
        backbone: Name of the encoder in TerraTorch's registry.
        model: The config's section ``model``.
        modalities: The inputs, in the order in which the encoder gets them.
        chip_px: Side of the sub-chips in pixels.
        heads: The heads, in the order of the run.
        simulated: Whether any of the data that it has seen is.
    """

    run: str
    fold: int
    seed: int
    backbone: str
    model: dict[str, Any]
    modalities: dict[str, ModelInput]
    chip_px: int
    heads: dict[str, ModelHead]
    simulated: bool


MODEL = Artifact("description of a model", "train", 1, SavedModel)
