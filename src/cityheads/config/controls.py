"""Section ``controls``: what every trained model is held against, without which its score says little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, MinLen
from pydantic import model_validator

from cityheads.config.base import Integer, Section, Text, field, freeze, only_once, refuse

__all__ = ["CEILING", "KEYS", "TRAINED", "UNTRAINED", "Control", "ControlsConfig", "ProxyConfig"]

Control = Literal[
    "majority", "proxy", "pixels", "pixels_context", "ceiling", "no_encoder", "frozen_encoder", "random_encoder"
]
#: Controls that are trainings of their own: the tested run with another encoder, and what it sets for that.
TRAINED: Mapping[str, Mapping[str, Any]] = {
    "no_encoder": {"model.encoder": "absent"},
    "frozen_encoder": {"model.encoder": "frozen"},
    "random_encoder": {"model.pretrained": False, "model.weights": None},
}
#: What nothing can be expected to beat: made and evaluated as the controls are, but no part of the floor.
CEILING = "ceiling"
#: Controls that train no network; each is one job a fold, and evaluated as a run is.
UNTRAINED: tuple[str, ...] = tuple(name for name in get_args(Control) if name not in (*TRAINED, CEILING))

#: What the result of an untrained control depends on in this section.
KEYS: Mapping[str, tuple[str, ...]] = {
    "majority": (),
    "proxy": ("proxies",),
    "pixels": ("sample_px", "iterations", "seed"),
    "pixels_context": ("sample_px", "iterations", "seed", "windows_px"),
    CEILING: (),
}


class ProxyConfig(Section):
    """A ready-made map in a head's place: some classes of another label."""

    label: Text = field(..., "The other label layer; some head of some run must learn it.")
    classes: Annotated[tuple[Text, ...], only_once] = field(
        ..., "Its classes that stand for the head's positive_class; all else stands for the head's other class.",
        min_length=1,
    )  # fmt: skip


class ControlsConfig(Section):
    """The controls: what a model must beat before its score means something, made with every run of the workflow."""

    made: Annotated[tuple[Control, ...], only_once] = field(
        get_args(Control),
        "Which are made, of those that can be: proxy needs a head among proxies, ceiling a simulated archive, "
        "no_encoder an encoder, frozen_encoder one that is trained, random_encoder one that starts from weights.",
    )
    seeds: Annotated[tuple[Annotated[Integer, Ge(0)], ...], MinLen(1), only_once] | None = field(
        None, "Seeds of the controls that are trained; null takes the first of seeds."
    )
    proxies: Annotated[Mapping[Text, ProxyConfig], freeze] = field(
        {},
        "By head of two classes: classes of another label that predict its positive_class, such as {buildings: {label: "
        "LULC, classes: [developed]}}.",
    )
    sample_px: Integer = field(
        100_000,
        "Labelled training pixels that the boosted trees of each head are fitted on, drawn at random.",
        ge=100,
    )
    iterations: Integer = field(60, "Boosting iterations; each is one tree for each class.", ge=1)
    windows_px: Annotated[tuple[Annotated[Integer, Ge(3)], ...], MinLen(1), only_once] = field(
        (3, 7),
        "Sides of the windows around a pixel over which pixels_context takes means and standard deviations; odd, in "
        "pixels, at most a sub-chip.",
    )
    seed: Integer = field(0, "Seed of the sample of training pixels.", ge=0)

    @model_validator(mode="after")
    def _windows_have_a_centre(self) -> ControlsConfig:
        for side in self.windows_px:
            if side % 2 == 0:
                refuse("windows_px", f"{side} has no middle pixel; take {side - 1} or {side + 1}")
        return self
